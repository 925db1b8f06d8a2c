"""Texts that would be scored wrongly are noticed, and right ones are not."""

from __future__ import annotations

import unicodedata

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.inference.text_checks import (
    needs_other_tokenizer,
    signs_of_copies,
    signs_of_nothing,
    signs_of_other_composition,
    signs_of_other_words,
    signs_of_pieces,
    signs_of_scores,
    signs_of_tokenisation,
)

THAI = "ฉันชอบแมวตัวนี้มากและเขาก็ชอบเหมือนกัน"
UNSPACED = ["我非常喜欢这只小猫，他也是。", "私はこの小さな猫が好きです。", THAI, "ខ្ញុំចូលចិត្តឆ្មានេះណាស់"]
SPACED = [
    "我 非常 喜欢 这 只 小猫 ， 他 也 是 。",
    "나는 이 작은 고양이를 좋아한다.",
    "Donaudampfschifffahrtsgesellschaft",
    "Ein Mann sagt 你好 zu einer Frau.",
    "Мне нравится этот котёнок.",
    "ik houd",
    "",
]


@pytest.mark.parametrize("line", UNSPACED)
def test_scripts_without_spaces_are_noticed(line: str) -> None:
    assert needs_other_tokenizer([line])
    assert needs_other_tokenizer([line, "", "OK 3"])


@pytest.mark.parametrize("line", SPACED)
def test_text_with_spaces_is_not_taken_for_one_without(line: str) -> None:
    assert not needs_other_tokenizer([line])
    assert not needs_other_tokenizer([])


@pytest.mark.parametrize(
    ("tokenize", "metrics", "num_signs"),
    [
        ("13a", ["bleu", "chrf"], 1),
        ("intl", ["bleu"], 1),
        ("none", ["bleu"], 1),
        ("zh", ["bleu", "chrf", "ter"], 0),
        ("char", ["bleu", "ter"], 1),
        ("13a", ["chrf"], 0),
        ("13a", ["bleu", "chrf++", "ter"], 2),
        ("zh", ["bleu", "chrf++"], 1),
    ],
)
def test_metrics_that_split_at_spaces_are_named(tokenize: str, metrics: list[str], num_signs: int) -> None:
    assert len([*signs_of_other_words([UNSPACED[0]], tokenize, metrics)]) == num_signs
    assert [*signs_of_other_words(SPACED[4:5], tokenize, metrics)] == []


@pytest.mark.parametrize(
    ("lines", "mark"),
    [
        (["▁Ein ▁Hund .", "▁Ja"], "2 of 2 lines of x have '▁'"),
        (["Ein Hu@@ nd .", "Ja"], "1 of 2 lines of x have '@@'"),
        (["Hu@@", "a"], "1 of 2 lines of x have '@@'"),
    ],
)
def test_subword_pieces_are_noticed(lines: list[str], mark: str) -> None:
    (sign,) = signs_of_pieces(lines, "x")
    assert sign.startswith(mark)


@pytest.mark.parametrize("line", ["Schreib an ich@@du.de", "▁ ▂ ▃", "@@ -1,3 +1,4 @@ x"[:4], "@ home", "_x_"])
def test_other_uses_of_these_characters_are_no_pieces(line: str) -> None:
    assert [*signs_of_pieces([line], "x")] == []


def test_tokenised_text_is_noticed_by_its_full_stops() -> None:
    tokenised, raw = ["Ein Hund .", "Ja ! ", "Nein ."], ["Ein Hund.", "C'est vrai !", "Das . ist"]
    (sign,) = signs_of_tokenisation(tokenised, "x", "13a")
    assert sign.startswith("2 of 3 lines of x end in ' .'")
    assert [*signs_of_tokenisation(tokenised, "x", "none")] == []
    assert [*signs_of_tokenisation(raw, "x", "13a")] == []
    assert [*signs_of_tokenisation([], "x", "13a")] == []


def test_another_unicode_composition_is_noticed_on_either_side() -> None:
    composed = ["Der Hund läuft.", "Er ist grün."]
    decomposed = [unicodedata.normalize("NFD", line) for line in composed]
    (sign,) = signs_of_other_composition(decomposed, composed, "the translation")
    assert sign.startswith("2 of 2 lines of the translation are not in Unicode's composed form")
    (sign,) = signs_of_other_composition(composed, [composed[0], decomposed[1]], "the translation")
    assert sign.startswith("1 of 2 lines of the references are not")
    for lines in (composed, decomposed):
        assert [*signs_of_other_composition(lines, lines, "the translation")] == []


def test_a_text_of_empty_lines_is_noticed() -> None:
    assert [*signs_of_nothing(["", " "], "it")] == ["every line of it is empty"]
    assert [*signs_of_nothing(["", "a"], "it")] == []


def test_the_toy_corpus_gives_no_signs() -> None:
    for lines in zip(*builtin_pairs("test", 499), strict=True):
        assert [*signs_of_pieces(lines, "x"), *signs_of_tokenisation(lines, "x", "13a")] == []
        assert [*signs_of_other_words(lines, "13a", ["bleu", "ter"])] == []


def test_a_copy_is_noticed_only_if_it_is_one_from_first_to_last() -> None:
    (sign,) = signs_of_copies("z", ["a", "b"], {"x": ["a", "c"], "y": ("a", "b")})
    assert sign == "every line of z is equal to that of y: is it the right file?"
    assert [*signs_of_copies("z", ["", ""], {"x": ["", ""]})] == []


def test_scores_before_the_text_are_noticed_if_all_lines_have_them() -> None:
    (sign,) = signs_of_scores(["-0.5312\tEin Hund.", "", "-inf\t"], "z")
    assert sign.startswith("every line of z begins with a number and a tab")
    for lines in (["-0.5312\tEin Hund.", "Ja"], ["0.5 Ja"], ["", ""], []):
        assert [*signs_of_scores(lines, "z")] == []

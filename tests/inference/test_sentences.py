"""Sentences in a text: seen by punctuation, split by sentencex, cut to fit."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from transformer.errors import DataError
from transformer.inference.sentences import (
    has_several_sentences,
    sentence_starts,
    separator,
    split_sentences,
    split_to_fit,
)


@pytest.mark.parametrize(
    "text",
    [
        "A cat is sleeping. A dog is running.",
        "a cat is sleeping. a dog is running.",  # text without capitals
        "Stop! Who is there?",
        "“Stop.” “Who is there?”",
        "It is wet (very wet.) Nobody plays.",
        "Il dort. ¿Quién es?",
        "He waited… Then he left.",
        "That was in 1990. Then he left.",
        "我喜欢这只猫。两只狗在跑！",
        "「寝る。」 犬が走る。",
        "यह है। वह है।",
        "هل هذا؟ نعم",
        "One. 两只狗。",
    ],
)
def test_several_sentences_are_seen(text: str) -> None:
    assert has_several_sentences(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "...",
        "A cat is sleeping.",
        "A cat is sleeping. ",
        "Dr. Smith saw Mr. Bean and 3.14 dogs, i.e. few.",
        "Am 3. Mai schläft z. B. eine Katze.",
        "J. R. Smith wrote No. 5.",
        "Cats, dogs etc. are playing at example.org!",
        "Wait... what?",
        "我喜欢这只猫。",
        "「寝る。」",
    ],
)
def test_a_single_sentence_is_not_taken_for_several(text: str) -> None:
    assert not has_several_sentences(text)


def test_sentences_start_after_the_white_space() -> None:
    assert list(sentence_starts("One two.  Three! “Four.” Five")) == [10, 17, 25]
    assert list(sentence_starts("猫。狗。")) == [2]


# Splitting


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was asked of sentencex, in whose place something splits at vertical bars."""
    calls: list[tuple[str, str]] = []

    def segment(language: str, text: str) -> list[str]:
        calls.append((language, text))
        text.encode()  # as sentencex does
        return text.split("|")

    monkeypatch.setitem(sys.modules, "sentencex", SimpleNamespace(segment=segment))
    return calls


def test_a_text_is_split_by_the_rules_of_its_language(asked: list[tuple[str, str]]) -> None:
    assert split_sentences("One. |Two. |", "pt-BR") == ["One.", "Two."]
    assert split_sentences("One", "zh_Hans") == ["One"]
    assert [language for language, _ in asked] == ["pt", "zh"]


def test_a_language_by_its_longer_code_has_the_same_rules(asked: list[tuple[str, str]]) -> None:
    for code in ("deu", "de", "por_BR", "cmn_Hans", "tlh"):
        split_sentences("One", code)
    assert [language for language, _ in asked] == ["de", "de", "pt", "zh", "tlh"]


@pytest.mark.parametrize("text", ["", " ", "|", "\udcff|a"])
def test_there_is_at_least_one_sentence(asked: list[tuple[str, str]], text: str) -> None:
    assert split_sentences(text, "de") == [text]
    assert len(asked) == 1


def test_sentencex_knows_abbreviations() -> None:
    pytest.importorskip("sentencex")
    text = "A cat is sleeping. Dr. Smith saw 3.14 dogs. \tTwo men!"
    assert split_sentences(text, "en") == ["A cat is sleeping.", "Dr. Smith saw 3.14 dogs.", "Two men!"]
    assert split_sentences("Am 3. Mai schläft z. B. eine Katze. Ein Hund bellt.", "de_AT")[1:] == ["Ein Hund bellt."]
    assert split_sentences("我喜欢这只猫。两只狗在跑！", "zh") == ["我喜欢这只猫。", "两只狗在跑！"]
    assert split_sentences("One cat. Two dogs.", "src") == ["One cat.", "Two dogs."]


def test_without_sentencex_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(DataError, match=r"^splitting sentences needs sentencex: pip install sentencex$"):
        split_sentences("One. Two.", "en")


@pytest.mark.parametrize(
    ("language", "space"), [("de", " "), ("", " "), ("th", " "), ("ko", " "), ("zh", ""), ("ZH-tw", ""), ("jpn", "")]
)
def test_sentences_are_separated_as_their_language_does(language: str, space: str) -> None:
    assert separator(language) == space


# Fitting. A character is a piece here, white space too.


@pytest.mark.parametrize(
    ("limit", "parts"),
    [
        (31, ["One two. Three four five. Six"]),
        (29, ["One two. Three four five. Six"]),
        (28, ["One two. Three four five.", "Six"]),
        (24, ["One two.", "Three four five. Six"]),
        (17, ["One two.", "Three four five.", "Six"]),
        (11, ["One two.", "Three four", "five. Six"]),
        (5, ["One", "two.", "Three", "four", "five.", "Six"]),
        (3, ["One", "two", ".", "Thr", "ee", "fou", "r", "fiv", "e.", "Six"]),
    ],
)
def test_a_part_ends_with_a_sentence_else_with_a_word_else_anywhere(limit: int, parts: list[str]) -> None:
    assert split_to_fit("One two. Three four five. Six", len, limit) == parts


def test_chinese_is_cut_between_sentences_too() -> None:
    assert split_to_fit("我喜欢猫。两只狗在跑！", len, 7) == ["我喜欢猫。", "两只狗在跑！"]


def test_a_mark_stays_with_its_letter() -> None:
    assert split_to_fit("cafe\u0301s", len, 4) == ["caf", "e\u0301s"]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 11, 13])
def test_nothing_but_white_space_is_lost_and_everything_fits(limit: int) -> None:
    text = "  Ab cde. \t Fghijklmno pq! \u2028 r  stuvw... Xyz 一二三。四五 " * 3
    # Pieces that merge across a cut: "ab" is one, "a" and "b" are two.
    parts = split_to_fit(text, lambda part: len(part) - part.count("gh") - part.count("st"), limit)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) - part.count("gh") - part.count("st") <= limit for part in parts)


def test_a_long_text_is_not_counted_again_for_each_part() -> None:
    counted = []

    def num_pieces(part: str) -> int:
        counted.append(len(part))
        return len(part)

    parts = split_to_fit("word " * 2003, num_pieces, 11)
    assert parts == ["word word"] * 1001 + ["word"]
    assert max(counted) < 100


def test_a_character_beyond_the_limit_is_named() -> None:
    with pytest.raises(DataError, match=r"the character '👍' alone has more pieces than the limit of 3"):
        split_to_fit("ab👍", lambda part: len(part.encode()), 3)
    with pytest.raises(DataError, match=r"the character 'a' alone has more pieces than the limit of 0"):
        split_to_fit("ab", len, 0)


@pytest.mark.parametrize("blank", ["", "  ", " \u0085\t "])
def test_blank_text_is_one_empty_part(blank: str) -> None:
    assert split_to_fit(blank, len, 1) == [""]

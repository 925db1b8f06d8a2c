"""Source and translation as tokens that are linked."""

from __future__ import annotations

import pytest

from transformer.documents.inline import Flat, Tag, flatten
from transformer.documents.pairs import tags_of
from transformer.documents.tokens import (
    NONE,
    SourceToken,
    SourceWords,
    Token,
    copied_tokens,
    insert_kept,
    is_unspaced,
    source_tokens,
    target_tokens,
    words_of,
)


def read(text: str) -> tuple[Flat, list[SourceToken]]:
    flat = flatten([tags_of(text)])
    kept = [i for i, mark in enumerate(flat.marks) if mark.tag.kind == "kept"]
    cuts = sorted({place for mark in flat.marks for place in (mark.start, mark.end)})
    return flat, source_tokens(flat, 0, len(flat.text), cuts, kept)


def shown(tokens: list[Token]) -> str:
    """Tokens with the number of their source token, and a bar where no space is between them."""
    parts = [f"{'' if i == 0 else ' ' if one.space else '|'}{one.text}:{one.link}" for i, one in enumerate(tokens)]
    return "".join(parts).replace(":-1", "")


def test_words_are_cut_at_tags_and_at_punctuation_at_their_edges() -> None:
    flat, tokens = read('(He said <b>"no</b>"). x<sub>2</sub>-y {name}, don\'t … ')
    parts = [flat.text[one.start : one.end] for one in tokens]
    assert parts == ["(", "He", "said", '"', "no", '").', "x", "2", "-", "y", "{name}", ",", "don't", "…"]
    assert [one.space for one in tokens] == [i in (1, 2, 3, 6, 10, 12, 13) and i != 1 for i in range(len(parts))]
    assert [one.mark != NONE for one in tokens] == [part == "{name}" for part in parts]


def test_words_of_scripts_without_spaces_are_characters() -> None:
    flat, tokens = read("这只小猫正在abc花园里面睡觉。")
    assert [flat.text[one.start : one.end] for one in tokens][:8] == ["这", "只", "小", "猫", "正", "在", "abc", "花"]
    assert is_unspaced("这只小猫正在花园里面睡觉")
    assert not is_unspaced("小猫")
    assert not is_unspaced("Donaudampfschiff")


@pytest.mark.parametrize(
    ("text", "with_kept", "without"),
    [
        ("Hello {name}, you", "Hello {name}, you", "Hello, you"),
        ("{a} b {c}", "{a} b {c}", "b"),
        ("x{a}y", "x{a}y", "xy"),
        ("to {a} !", "to {a} !", "to !"),
    ],
)
def test_the_text_to_translate(text: str, with_kept: str, without: str) -> None:
    flat, tokens = read(text)
    assert words_of(tokens, flat.text, with_kept=True)[0] == with_kept
    assert words_of(tokens, flat.text, with_kept=False)[0] == without


def test_words_are_those_that_white_space_separates() -> None:
    flat = flatten([["Run ", Tag("x", "kept", text="git pull"), "s now"]])
    tokens = source_tokens(flat, 0, len(flat.text), [4, 12], [0])
    text, words = words_of(tokens, flat.text, with_kept=True)
    assert (text.split(), words) == (["Run", "git", "pulls", "now"], [[0], [1], [1, 2], [3]])


@pytest.mark.parametrize(
    ("source", "translation", "links", "expected"),
    [
        ("a cat", "eine Katze", [(0, 0), (1, 1)], "eine:0 Katze:1"),
        ("a cat.", "Katze.", [(1, 0)], "Katze:1|.:2"),
        ("a cat", "Katze!", [(1, 0)], "Katze:1|!"),
        ("a cat.", "eine Katze", [(0, 0), (7, 1), (-1, 0), (1, 5)], "eine:0 Katze"),
        ("<b>hot</b>house", "Treibhaus", [(0, 0)], "Treibhaus:1"),
        ("<b>house</b>boat", "Hausboot", [(0, 0)], "Hausboot:0"),
        ("<b>un</b>happy", "Unglücklich", [(0, 0)], "Un:0|glücklich:1"),
        ("x<b>2</b>", "X2", [(0, 0)], "X:0|2:1"),
        ("<b>Haus</b>", "Hausboot", [(0, 0)], "Haus:0|boot:0"),
        ("one two", "eins zwei drei vier", [], "eins:0 zwei:0 drei:1 vier:1"),
    ],
)
def test_a_translation_is_cut_as_its_source_is(
    source: str, translation: str, links: list[tuple[int, int]], expected: str
) -> None:
    flat, tokens = read(source)
    words = words_of(tokens, flat.text, with_kept=True)[1]
    assert shown(target_tokens(translation.split(), links, SourceWords(tokens, words, flat.text))) == expected


def test_kept_tags_are_tokens_of_the_translation() -> None:
    flat, tokens = read("Run {x}, now")
    words = words_of(tokens, flat.text, with_kept=True)[1]
    found = target_tokens(
        ["Jetzt", "({x})", "los"], [(2, 0), (1, 1)], SourceWords(tokens, words, flat.text), [(7, 10, 1)]
    )
    assert shown(found) == "Jetzt:3 (:2|{x}:1|):2 los"
    assert [one.mark for one in found] == [NONE, NONE, 0, NONE, NONE]


def test_a_kept_tag_may_have_several_words() -> None:
    flat = flatten([["Run ", Tag("x", "kept", text="git pull"), " now"]])
    tokens = source_tokens(flat, 0, len(flat.text), [4, 12], [0])
    words = words_of(tokens, flat.text, with_kept=True)[1]
    found = target_tokens(
        ["Jetzt", "git", "pull", "los"], [(3, 0)], SourceWords(tokens, words, flat.text), [(6, 14, 1)]
    )
    assert shown(found) == "Jetzt:2 git pull:1 los"


@pytest.mark.parametrize(
    ("source", "translation", "links", "expected"),
    [
        ("Hello {name}, you", "Hallo, du", [(0, 0), (1, 1)], "Hallo {name}, du"),
        ("{n} files", "Alle Dateien", [(0, 1)], "Alle {n} Dateien"),
        ("{n} files", "Dateien", [(0, 0)], "{n} Dateien"),
        ("a{n}b c", "c ab", [(1, 0), (0, 1)], "c a{n}b"),
        ("see {url}", "siehe", [(0, 0)], "siehe {url}"),
        ("see {url} now.", "siehe.", [(0, 0)], "siehe {url}."),
        ("{name} (tree)", "(Baum)", [(0, 0)], "{name} (Baum)"),
        ("give {x} to {y} now", "gib jetzt zu", [(0, 0), (2, 1), (1, 2)], "gib {y} jetzt {x} zu"),
    ],
)
def test_kept_tags_are_put_back_beside_their_neighbours(
    source: str, translation: str, links: list[tuple[int, int]], expected: str
) -> None:
    flat, tokens = read(source)
    words = words_of(tokens, flat.text, with_kept=False)[1]
    found = target_tokens(translation.split(), links, SourceWords(tokens, words, flat.text))
    put_back = insert_kept(found, tokens, flat.text)
    assert "".join(" " * one.space + one.text for one in put_back) == expected


def test_a_copy_is_linked_to_itself() -> None:
    flat, tokens = read("A {x}, b.")
    copied = copied_tokens(tokens, flat.text)
    assert "".join(" " * one.space + one.text for one in copied) == flat.text
    assert [one.link for one in copied] == list(range(len(tokens)))

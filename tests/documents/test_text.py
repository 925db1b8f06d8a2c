"""Plain text: every line and paragraph comes back."""

from __future__ import annotations

import random

import pytest
from pretended_translators import HOSTILE, TRANSLATORS, identity, upper

from transformer.documents.formats import DocumentNotes, Translate, Translated, translate_document


def translated(text: str, translate: Translate) -> str:
    return translate_document(text.encode(), "text", translate, languages=("en", "de")).decode()


def paragraphs(text: str) -> int:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return sum(bool(line.strip()) and not (i and lines[i - 1].strip()) for i, line in enumerate(lines))


WRAPPED = (
    "This is a paragraph that somebody has broken at a width\n"
    "of some sixty characters. Its second sentence begins on\n"
    "the second line and ends here.\n"
)
TEXTS = [
    "",
    "\n",
    "One line without an end",
    "A cat.\r\n\r\n  An indented dog. Two of them!  \r\n",
    "\ufeffWith a mark.\n",
    f"# Heading\n\n{WRAPPED}\n- first item\n- second item\n  1. third, <b>bold</b>\n\n> quoted\n\n\n{WRAPPED}",
    "short\nlines\nof a poem\n\nthat <i>goes\non</i> and on\n",
    "old\rMac\r\rtext",
    "Hello {name},\n\nwrite to me@example.org!\n\t\n",
    "wide\u2028line\x85same line\x0b\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_an_identity_gives_the_same_bytes(text: str) -> None:
    assert translated(text, identity) == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", TRANSLATORS)
def test_lines_and_paragraphs_are_as_many_as_before(text: str, name: str) -> None:
    found = translated(text, TRANSLATORS[name])
    assert [found.count(end) for end in ("\n", "\r")] == [text.count(end) for end in ("\n", "\r")]
    assert paragraphs(found) == paragraphs(text)


@pytest.mark.parametrize("seed", range(10))
def test_random_lines_come_back(seed: int) -> None:
    draw = random.Random(seed)
    words = ["a", "word.", "Another", "- ", "  ", "<b>", "</b>", "{x}", "Sentence. And", "long" * 9]
    text = "\n".join("".join(draw.choices([*words, " "], k=draw.randrange(12))) for _ in range(30))
    assert translated(text, identity) == text
    for translate in TRANSLATORS.values():
        found = translated(text, translate)
        assert (found.count("\n"), paragraphs(found)) == (text.count("\n"), paragraphs(text))
        for tag in ("<b>", "</b>", "{x}"):
            assert found.count(tag) == text.count(tag)


def test_no_hostile_word_comes_through() -> None:
    found = translated("One word.\n", TRANSLATORS["babble 1"])
    assert not any(one in found for one in HOSTILE if one.strip() and not one.isalnum() and one not in "<&]]>-->00:00")


def test_lines_of_a_broken_paragraph_are_translated_together() -> None:
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return upper(sentences)

    assert translated(WRAPPED, translate) == WRAPPED.upper()
    assert seen == [
        "Its second sentence begins on the second line and ends here.",
        "This is a paragraph that somebody has broken at a width of some sixty characters.",
    ]


def test_other_lines_are_translated_one_by_one() -> None:
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return upper(sentences)

    text = "1. apples\n2) pears\n* a plum\nthe end\n"
    assert translated(text, translate) == "1. APPLES\n2) PEARS\n* A PLUM\nTHE END\n"
    assert seen == ["a plum", "apples", "pears", "the end"]


def test_a_short_translation_leaves_the_last_lines_of_its_block_blank() -> None:
    text = f"{WRAPPED}- item\n\nnext\n"
    found = translated(text, lambda sentences: [Translated("kurz") for _ in sentences])
    assert found == "kurz\nkurz\n- kurz\n\n\nkurz\n"


def test_more_lines_than_a_paragraph_has_are_not_joined() -> None:
    text = "x" * 41 + "\n"
    assert translated(text * 250, upper) == text.upper() * 250


@pytest.mark.parametrize(
    ("text", "expected", "seen"),
    [
        ("Name\tAge of it\t\t42\n", "NAME\tAGE OF IT\t\t42\n", ["Age of it", "Name"]),
        ("Total sum:      12 euros  now\n", "TOTAL SUM:      12 EUROS NOW\n", ["12 euros now", "Total sum:"]),
        ("a \t b\n", "A \t B\n", ["a", "b"]),
        ("<b>a\tb</b> c\n", "<b>A\tB</b> C\n", ["a", "b c"]),
        ("\tindented, with  two  spaces\n", "\tINDENTED, WITH TWO SPACES\n", ["indented, with two spaces"]),
    ],
)
def test_columns_stay_columns_and_are_translated_one_by_one(text: str, expected: str, seen: list[str]) -> None:
    read: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        read.extend(sentences)
        return upper(sentences)

    assert translated(text, translate) == expected
    assert read == seen


def test_a_quoted_paragraph_is_translated_together() -> None:
    quoted = "".join(f"> {line}\n" for line in WRAPPED.splitlines())
    text = f"{quoted}>\n{quoted}> > deeper\n"
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return upper(sentences)

    assert translated(text, translate) == text.upper()
    assert seen == [
        "Its second sentence begins on the second line and ends here.",
        "This is a paragraph that somebody has broken at a width of some sixty characters.",
        "deeper",
    ]


def test_a_text_without_a_sentence_is_noted() -> None:
    notes = DocumentNotes()
    assert translate_document(b"42\n\n---\n", "text", upper, notes=notes) == b"42\n\n---\n"
    assert notes.messages() == ["nothing is translated: no sentence was found"]

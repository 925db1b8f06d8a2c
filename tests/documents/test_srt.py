"""Subtitles: numbers, times and tags stay, and a sentence may span several."""

from __future__ import annotations

import re

import pytest
from pretended_translators import TRANSLATORS, identity, upper

from transformer.documents.formats import Translate, Translated, translate_document
from transformer.errors import DataError


def translated(text: str, translate: Translate) -> str:
    return translate_document(text.encode(), "srt", translate, languages=("en", "de")).decode()


FILM = """1
00:00:01,000 --> 00:00:02,500
I have always wanted
to go to the sea,

2
00:00:02,600 --> 00:00:04,000  X1:100 X2:200 Y1:50 Y2:60
but the car is <i>old</i>.

3
00:00:04,100 --> 00:00:05,000
- Who are you?
- Nobody.

4
00:00:09,000 --> 00:00:10,000
{\\an8}<i>Once upon
a time</i>

5
00:00:11,000 --> 00:00:12,000

6
00:01:11.000 --> 00:01:12.000
♪ la la ♪
42
"""
FILMS = [
    FILM,
    FILM.replace("\n", "\r\n"),
    "\ufeff" + FILM.rstrip(),
    "00:00:01,000 --> 00:00:02,000\nno number\n00:00:02,000 --> 00:00:03,000\nno blank line\n",
    "\n\n1\n00:00:01,000 --> 00:00:02,000\n\nblank\n\n\nlines\n\n\n\n",
    "0:00:01,0 --> 00:00:02,00\nno end",
]


@pytest.mark.parametrize("film", FILMS)
def test_an_identity_gives_the_same_bytes(film: str) -> None:
    assert translated(film, identity) == film


@pytest.mark.parametrize("film", FILMS)
@pytest.mark.parametrize("name", TRANSLATORS)
def test_times_and_numbers_come_back_in_order(film: str, name: str) -> None:
    def heads(text: str) -> list[str]:
        return re.findall(r"(?m)^(?:\d+\r?\n)?\d+:\d\d:\d\d[,.]\d+ -->.*$", text)

    found = translated(film, TRANSLATORS[name])
    assert heads(found) == heads(film)
    assert found.count("\n") == film.count("\n")
    for tag in ("<i>", "</i>", "{\\an8}"):
        assert found.count(tag) == film.count(tag)
    assert translated(found, identity) == found  # it can be read


def test_words_stay_in_their_subtitle() -> None:
    found = translated(FILM, upper)
    assert found == re.sub(r"(?m)^(?!\d|\{).*[a-z].*$", lambda line: line[0].upper(), FILM).replace(
        "<I>OLD</I>", "<i>OLD</i>"
    ).replace("<i>Once upon", "<i>ONCE UPON").replace("A TIME</I>", "A TIME</i>")


def seen_by(film: str) -> list[str]:
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return identity(sentences)

    translated(film, translate)
    return seen


def subtitles(*texts: str, step: float = 2.0) -> str:
    cues = []
    for i, text in enumerate(texts):
        start, end = i * step, i * step + 1.5
        cues.append(f"{i + 1}\n00:00:{start:06.3f} --> 00:00:{end:06.3f}\n{text}\n")
    return "\n".join(cues)


def test_a_sentence_over_two_subtitles_is_translated_whole() -> None:
    assert "I have always wanted to go to the sea, but the car is old." in seen_by(FILM)
    assert {"Who are you?", "Nobody."} <= set(seen_by(FILM))


def test_it_is_cut_back_by_alignment() -> None:
    film = subtitles("I will not", "come home")
    found = translated(film, lambda _: [Translated("Ich komme nicht heim", [(0, 0), (3, 1), (2, 2), (4, 3)])])
    assert found == subtitles("Ich komme nicht", "heim")


@pytest.mark.parametrize(
    ("texts", "step"),
    [
        (("He said.", "And left."), 2),
        (("Then he", "And she"), 20),  # a pause
        (("Then he", "- And she"), 2),  # another speaker
        (("Then he", "(music)"), 2),
        (("Well...", "Then she left"), 2),
        (("no full stop",) * 9, 2),  # anywhere: there are none to go by
    ],
)
def test_other_subtitles_are_not_joined(texts: tuple[str, ...], step: float) -> None:
    assert len(set(seen_by(subtitles(*texts, step=step)))) == len(set(texts))


def test_three_dots_go_on_before_a_small_letter() -> None:
    assert seen_by(subtitles("Well...", "then she left")) == ["Well... then she left"]


@pytest.mark.parametrize("text", ["2 -> 3", "10:30 -> 11:00", "Look --> here", "From 1:2:3 to 4:5:6", "->"])
def test_arrows_between_other_numbers_are_text(text: str) -> None:
    assert "is not as" not in translated(subtitles(text), identity)


@pytest.mark.parametrize("arrow", ["-->", "--->", "----->", "->", "–>", "- - >", "→"])
def test_what_would_be_read_as_times_is_not_written(arrow: str) -> None:
    found = translated(subtitles("A text."), lambda _: [Translated(f"00:00:05,000 {arrow} 00:00:06,000")])
    assert found == subtitles("00:00:05,000 - 00:00:06,000")


@pytest.mark.parametrize(
    ("film", "message"),
    [
        ("A text without times.\n", "has no line as 00:00:01,000 --> 00:00:02,500: these are no subtitles"),
        ("1\n00:00:01 --> 00:00:02\nA\n", "line 2: '00:00:01 --> 00:00:02' is not as 00:00:01,000"),
        ("1\n00:00:01,000 -> 00:00:02,000\nA\n\n" + subtitles("B"), "line 2: '00:00:01,000 -> 00:00:02,000' is not as"),
        (subtitles("B") + "\n00:00:01,000 –> 00:00:02,000\nA\n", "line 5: '00:00:01,000 –> 00:00:02,000' is not as"),
        (subtitles("B") + "\n00:01.000 → 00:02.000\nA\n", "line 5: '00:01.000 → 00:02.000' is not as"),
        (subtitles("B") + "\n-0:00:01,5 --> 0:00:02,5\nA\n", "line 5: '-0:00:01,5 --> 0:00:02,5' is not as"),
        (subtitles("B") + "\n00 : 00 : 01 , 0 -- > 00:00:02,0\nA\n", "line 5: '00 : 00 : 01 , 0 -- > 00:00:02,0' is"),
        ("1\n00:00:01,000 --> \nA\n", "line 2: '00:00:01,000 -->' is not as"),
        (f"1\n00:00:01,000 --> 00:00:02,000\n{'word ' * 3000}", "line 2: a subtitle of more than 10000 characters"),
        ("1\n00:00:01,000 --> 00:00:02,000\n\0", "has null characters: it is not text"),
    ],
)
def test_broken_subtitles_are_an_error(film: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        translated(film, identity)

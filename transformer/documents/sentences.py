"""The sentences of a passage: where they stand, and their translation as tokens."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transformer.documents.inline import Flat
from transformer.documents.placeholders import invented, occurrences
from transformer.documents.tokens import (
    NONE,
    Links,
    SourceToken,
    SourceWords,
    Token,
    copied_tokens,
    insert_kept,
    target_tokens,
    words_of,
)
from transformer.inference.sentences import split_sentences

# Neither XML nor subtitles can have them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MOST_REMOVALS = 5
_BEGINS_PLACEHOLDER = re.compile("[<{%&]")


class Translated(NamedTuple):
    """A translation of a sentence, with its word alignment: pairs (source word, target word), from 0.

    Words are what white space separates. None where the alignment is not known.
    """

    text: str
    links: Links | None = None


# From sentences to a translation of each, in order; one without an alignment may be text alone.
Translate = Callable[[list[str]], Iterable[Translated | str]]
# From sentences and their translations to the alignment of each, in order; None where it is not known.
Align = Callable[[list[str], list[str]], Iterable[Links | None]]


def sentence_ranges(flat: Flat, language: str) -> list[tuple[int, int]]:
    """Characters [start, end) of each sentence; together they have all that is not white space.

    None if there is no letter. No sentence ends inside of a kept tag. DataError as of `split_sentences`.
    """
    if not any(map(str.isalpha, flat.text)):
        return []
    found: list[tuple[int, int]] = []
    position = 0
    for sentence in split_sentences(flat.text, language):
        start = flat.text.find(sentence, position)
        if start < 0 or flat.text[position:start].strip():  # the splitter has changed the text
            break
        position = start + len(sentence)
        found.append((start, position))
    if not found or flat.text[position:].strip():
        found = [(len(flat.text) - len(flat.text.lstrip()), len(flat.text.rstrip()))]
    return _outside_kept(list(_divided(found, flat)), flat)


def _divided(found: Sequence[tuple[int, int]], flat: Flat) -> Iterator[tuple[int, int]]:
    """The same, cut where a tag divides sentences."""
    places = [mark.start for mark in flat.marks if mark.tag.divides]
    for start, end in found:
        inside = places[bisect.bisect_right(places, start) : bisect.bisect_left(places, end)]
        for a, b in itertools.pairwise((start, *inside, end)):
            part = flat.text[a:b]
            if part.strip():
                yield b - len(part.lstrip()), a + len(part.rstrip())


def _outside_kept(found: Sequence[tuple[int, int]], flat: Flat) -> list[tuple[int, int]]:
    kept = iter([(mark.start, mark.end) for mark in flat.marks if mark.tag.kind == "kept" and mark.start < mark.end])
    end_of_text = (len(flat.text), len(flat.text))
    outside: list[tuple[int, int]] = []
    first, last = next(kept, end_of_text)
    for start, end in found:
        while last <= start:
            first, last = next(kept, end_of_text)
        if outside and first < start < last:
            outside[-1] = (outside[-1][0], end)
        else:
            outside.append((start, end))
    return outside


@dataclass
class Sentence:
    """A sentence of a passage, and its translation once it has one.

    Attributes:
        is_changed: whether the translation differs from the source.
        is_empty: whether the translation was, so that the source stands for it.
        pair: the text that was translated last, and its translation.
        links: of their words; None where they are not known.
    """

    flat: Flat
    source: list[SourceToken]
    is_changed: bool = False
    is_empty: bool = False
    pair: tuple[str, str] = ("", "")
    links: Links | None = None
    _has_kept: bool = True
    _words: list[str] = field(default_factory=list)  # of the translation
    _places: list[tuple[int, int, int]] | None = None  # characters of it, and the kept source token that they are
    _texts: dict[bool, tuple[str, list[list[int]]]] = field(default_factory=dict)

    @property
    def has_words(self) -> bool:
        """Whether there is a letter outside of what is kept."""
        plain = (self.flat.text[one.start : one.end] for one in self.source if one.mark == NONE)
        return any(map(str.isalpha, itertools.chain.from_iterable(plain)))

    def text(self, *, with_kept: bool = True) -> str:
        """The text to translate, with what is kept or without."""
        return self._text_and_words(with_kept)[0]

    def take(self, found: Translated, *, has_kept: bool = True) -> bool:
        """Take a translation of the text with what is kept, or without.

        Returns whether what should be kept is in it as it should be.
        """
        text = self.text(with_kept=has_kept)
        self.pair, self.links, self._has_kept = (text, found.text), found.links, has_kept
        self._words = _clean(found.text, text)
        words = " ".join(filter(None, self._words))
        self.is_empty, self.is_changed = not words, words not in ("", text)
        self._places = self._kept_places() if has_kept and self.is_changed else []
        return self._places is not None

    def tokens(self) -> list[Token]:
        """The translation; of a sentence without words, or without a translation, itself."""
        if not self.is_changed:
            return copied_tokens(self.source, self.flat.text)
        source = SourceWords(self.source, self._text_and_words(self._has_kept)[1], self.flat.text)
        tokens = target_tokens(self._words, self.links or (), source, self._places or ())
        return tokens if self._has_kept else insert_kept(tokens, self.source, self.flat.text)

    def _kept_places(self) -> list[tuple[int, int, int]] | None:
        """Where what is kept stands in the translation; None unless it is there as often as in the source."""
        kept = [i for i, one in enumerate(self.source) if one.mark != NONE]
        texts = [self.flat.text[self.source[i].start : self.source[i].end] for i in kept]
        places = occurrences(" ".join(self._words), texts)
        if places is None:
            return None
        return sorted((start, end, index) for (start, end), index in zip(places, kept, strict=True))

    def _text_and_words(self, with_kept: bool) -> tuple[str, list[list[int]]]:
        if with_kept not in self._texts:
            self._texts[with_kept] = words_of(self.source, self.flat.text, with_kept=with_kept)
        return self._texts[with_kept]


def _clean(text: str, source: str) -> list[str]:
    """The words of a translation without control characters and without placeholders that the source does not have.

    A word of which nothing is left is empty, so that the others keep their number.
    """
    joined = _CONTROL.sub("", " ".join(text.split()))
    for _ in range(_MOST_REMOVALS):
        if not (ranges := invented(joined, source)):
            return joined.split(" ")
        parts, position = [], 0
        for start, end in ranges:
            parts += [joined[position:start], " " * joined.count(" ", start, end)]
            position = end
        joined = "".join([*parts, joined[position:]])
    return _BEGINS_PLACEHOLDER.sub("", joined).split(" ")  # one that was around another, many times

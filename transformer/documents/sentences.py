"""The sentences of a passage: where they stand, and their translation as tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
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
    """A translation of a sentence, with pairs (source word, target word): what white space separates, from 0."""

    text: str
    links: Links = ()


# From sentences to a translation of each, in order.
Translate = Callable[[list[str]], Sequence[Translated]]


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
    return _outside_kept(found, flat)


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
        tokens: of the translation. None before, and after one that has lost or changed a placeholder.
        is_changed: whether it differs from the source.
        is_empty: whether the translation was, so that the source stands for it.
    """

    flat: Flat
    source: list[SourceToken]
    tokens: list[Token] | None = None
    is_changed: bool = False
    is_empty: bool = False
    _texts: dict[bool, tuple[str, list[list[int]]]] = field(default_factory=dict)

    @property
    def has_words(self) -> bool:
        """Whether there is a letter outside of what is kept."""
        plain = (self.flat.text[one.start : one.end] for one in self.source if one.mark == NONE)
        return any(map(str.isalpha, itertools.chain.from_iterable(plain)))

    def text(self, *, with_kept: bool = True) -> str:
        """The text to translate, with what is kept or without."""
        return self._text_and_words(with_kept)[0]

    def take(self, found: Translated) -> None:
        """Take a translation of the text with what is kept, unless that is not in it as it should be."""
        text, source_words = self._text_and_words(True)
        words = _clean(found.text, text)
        if self._stays(words, text):
            return
        kept = [i for i, one in enumerate(self.source) if one.mark != NONE]
        places = occurrences(" ".join(words), [self._text_of(i) for i in kept])
        if places is not None:
            source = SourceWords(self.source, source_words, self.flat.text)
            marked = sorted((start, end, index) for (start, end), index in zip(places, kept, strict=True))
            self.tokens = target_tokens(words, found.links, source, marked)

    def take_without_kept(self, found: Translated) -> None:
        """Take a translation of the text without what is kept, and put that back."""
        text, source_words = self._text_and_words(False)
        words = _clean(found.text, text)
        if not self._stays(words, text):
            tokens = target_tokens(words, found.links, SourceWords(self.source, source_words, self.flat.text))
            self.tokens = insert_kept(tokens, self.source, self.flat.text)

    def done(self) -> list[Token]:
        """The translation; of a sentence without words itself."""
        return copied_tokens(self.source, self.flat.text) if self.tokens is None else self.tokens

    def _stays(self, words: Sequence[str], text: str) -> bool:
        """Whether the translation is the source, or nothing, for which the source stands."""
        translation = " ".join(filter(None, words))
        self.is_empty, self.is_changed = not translation, translation not in ("", text)
        if not self.is_changed:
            self.tokens = copied_tokens(self.source, self.flat.text)
        return not self.is_changed

    def _text_and_words(self, with_kept: bool) -> tuple[str, list[list[int]]]:
        if with_kept not in self._texts:
            self._texts[with_kept] = words_of(self.source, self.flat.text, with_kept=with_kept)
        return self._texts[with_kept]

    def _text_of(self, index: int) -> str:
        return self.flat.text[self.source[index].start : self.source[index].end]


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

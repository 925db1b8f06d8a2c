"""Source and translation of a sentence as tokens: words, cut where tags and punctuation divide them.

A token of the translation is linked to the token of the source that it translates, by the alignment of their words.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformer.documents.inline import Flat

Links = Sequence[tuple[int, int]]  # (source, target) words from 0

NONE = -1  # no link, no mark
# Scripts that put no space between words: Thai to Burmese, Khmer, kana, ideographs.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LONG_WORD = 12  # characters; a shorter word of such a script is a word
_WORD_CHARACTER = re.compile(r"\w")
_FAR = 50  # tokens in which to look for one that is linked


@dataclass(frozen=True)
class SourceToken:
    """Characters [start, end) of a flat text.

    Attributes:
        space: whether white space is before it.
        mark: of the kept tag that it is, or NONE.
    """

    start: int
    end: int
    space: bool
    mark: int = NONE


@dataclass
class Token:
    """A part of a translation.

    Attributes:
        space: whether white space is before it.
        link: the source token that it translates, or NONE.
        mark: of the kept tag that it is, or NONE.
        may_break: whether a line may end before it.
    """

    text: str
    space: bool
    link: int = NONE
    mark: int = NONE
    may_break: bool = False

    @property
    def is_word(self) -> bool:
        """Whether it has a letter or a digit, or is a kept tag."""
        return self.mark != NONE or _WORD_CHARACTER.search(self.text) is not None


def source_tokens(flat: Flat, start: int, end: int, cuts: Sequence[int], kept: Sequence[int]) -> list[SourceToken]:
    """The tokens of characters [start, end).

    Args:
        cuts: where tags begin or end, in order.
        kept: marks of the kept tags in the range, in order.
    """
    found: list[SourceToken] = []
    position, has_space = start, False
    for mark in (*kept, NONE):
        until = end if mark == NONE else flat.marks[mark].start
        for match in re.finditer(r"\S+", flat.text[position:until]):
            first, last = position + match.start(), position + match.end()
            has_space |= first > position
            inside = cuts[bisect.bisect_right(cuts, first) : bisect.bisect_left(cuts, last)]
            for a, b in itertools.pairwise((first, *inside, last)):
                for x, y in _without_edges(flat.text[a:b]):
                    found.append(SourceToken(a + x, a + y, has_space))
                    has_space = False
        has_space |= until > position and flat.text[until - 1] == " "
        if mark != NONE:
            position = flat.marks[mark].end
            found.append(SourceToken(until, position, has_space, mark))
            has_space = False
    return found


def _without_edges(word: str) -> list[tuple[int, int]]:
    """Cut punctuation off both ends of a word, and a long one of a script without spaces into characters."""
    first = _WORD_CHARACTER.search(word)
    if first is None:
        return [(0, len(word))]
    start, end = first.start(), len(word) - next(_WORD_CHARACTER.finditer(word[::-1])).start()
    core = list(_characters(word, start, end)) if is_unspaced(word) else [(start, end)]
    return [(a, b) for a, b in ((0, start), *core, (end, len(word))) if a < b]


def is_unspaced(word: str) -> bool:
    """Whether it is many words of a script that puts no space between them."""
    return len(word) >= _LONG_WORD and _UNSPACED.search(word) is not None


def _characters(word: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Each character of such a script alone, and others between them together."""
    while start < end:
        until = start + 1
        if not _UNSPACED.match(word[start]):
            while until < end and not _UNSPACED.match(word[until]):
                until += 1
        yield start, until
        start = until


def words_of(tokens: Sequence[SourceToken], text: str, *, with_kept: bool) -> tuple[str, list[list[int]]]:
    """A text to translate, and the tokens of each of its words, with the kept tags or without.

    Without them, punctuation follows the word before.
    """
    words: list[list[int]] = []
    parts: list[str] = []
    has_space = False
    for index, token in enumerate(tokens):
        has_space |= token.space
        if token.mark != NONE and not with_kept:
            continue
        part = text[token.start : token.end]
        if not with_kept and not token.space and not _WORD_CHARACTER.search(part):
            has_space = False
        if has_space or not words:
            words.append([])
            parts.append(" " * (len(words) > 1))
        words[-1].append(index)
        words += [[index] for _ in part.split(" ")[1:]]  # of a kept tag
        parts.append(part)
        has_space = False
    return "".join(parts), words


class SourceWords(NamedTuple):
    """A sentence as a model reads it: its tokens, those of each word, and the flat text."""

    tokens: Sequence[SourceToken]
    words: Sequence[Sequence[int]]
    text: str


def target_tokens(
    words: Sequence[str], links: Links, source: SourceWords, kept: Sequence[tuple[int, int, int]] = ()
) -> list[Token]:
    """The tokens of a translation, linked to those of its source.

    Args:
        words: of the translation.
        links: of words; those beyond either side do not count. Without any, and where words are not separated by
            spaces, a token is linked to the one at the same place of the source.
        kept: characters [start, end) of the words, joined by spaces, that are a kept tag, and the token of the source
            that it is; in order.
    """
    # The first link of a word counts.
    own = {target: source.words[word] for word, target in reversed(links) if 0 <= word < len(source.words)}
    read = source.text[source.tokens[0].start : source.tokens[-1].end]
    by_place = not own or any(map(is_unspaced, (*words, *read.split())))
    joined = " ".join(words)
    found: list[Token] = []
    offset = done = 0
    waiting = list(kept)[::-1]
    for number, word in enumerate(words):
        start, end, has_space = max(offset, done), offset + len(word), bool(found)
        indices = [] if by_place else [i for i in own.get(number, ()) if source.tokens[i].mark == NONE]
        parts = [source.text[source.tokens[i].start : source.tokens[i].end] for i in indices]
        while start < end:
            until = min(end, waiting[-1][0]) if waiting else end
            for part, index in _matched(joined[start:until], parts):
                may_break = has_space or (is_unspaced(word) and _WORD_CHARACTER.search(part) is not None)
                found.append(Token(part, has_space, NONE if index == NONE else indices[index], may_break=may_break))
                has_space = False
            start = until
            if start < end:
                _, start, index = waiting.pop()
                found.append(Token(joined[until:start], has_space, index, source.tokens[index].mark, has_space))
                has_space = False
        done, offset = max(done, start), end + 1  # a kept tag may have several words
    if by_place:
        _link_by_place(found, source.tokens)
    return found


def copied_tokens(source: Sequence[SourceToken], text: str) -> list[Token]:
    """The tokens of a sentence that is not translated."""
    return [
        Token(text[one.start : one.end], one.space and i > 0, i, one.mark, one.space and i > 0)
        for i, one in enumerate(source)
    ]


def _matched(word: str, parts: Sequence[str]) -> list[tuple[str, int]]:
    """Cut a word of the translation as its source word is cut: its parts, and which of the source each translates.

    Parts that are equal, but for case, at the beginning and at the end; then punctuation; what is left is the longest
    part that is left.
    """
    if not word:
        return []
    start, end, first, last = 0, len(word), 0, len(parts)
    front: list[tuple[str, int]] = []
    back: list[tuple[str, int]] = []
    while first < last and _is_same(word[start:end][: len(parts[first])], parts[first]):
        front.append((word[start : start + len(parts[first])], first))
        start, first = start + len(parts[first]), first + 1
    while first < last and _is_same(word[start:end][-len(parts[last - 1]) :], parts[last - 1]):
        back.append((word[end - len(parts[last - 1]) : end], last - 1))
        end, last = end - len(parts[last - 1]), last - 1
    for a, b in _without_edges(word[start:end]) if start < end else ():
        part = word[start + a : start + b]
        front.append((part, _part_of(part, parts, first, last)))
    return [*front, *back[::-1]]


def _is_same(part: str, other: str) -> bool:
    """Whether two parts differ in case only."""
    return len(part) == len(other) and part.casefold() == other.casefold()


def _part_of(part: str, parts: Sequence[str], first: int, last: int) -> int:
    """Which part a word of the translation translates: one of [first, last), or one beside them."""
    is_word = _WORD_CHARACTER.search(part) is not None
    alike = [i for i in range(first, last) if (_WORD_CHARACTER.search(parts[i]) is not None) == is_word]
    if alike:
        return max(alike, key=lambda i: (len(parts[i]), -i))
    if not is_word:
        return NONE
    return first - 1 if first else last if last < len(parts) else NONE


def _link_by_place(found: Sequence[Token], source: Sequence[SourceToken]) -> None:
    """Link tokens to those at the same place, in characters."""
    plain = [(i, one.end - one.start) for i, one in enumerate(source) if one.mark == NONE]
    ends = list(itertools.accumulate(size for _, size in plain))
    mine = [token for token in found if token.mark == NONE]
    total, before = sum(len(token.text) for token in mine), 0
    for token in mine if plain else ():
        middle = (before + len(token.text) / 2) / total * ends[-1]
        token.link = plain[bisect.bisect_right(ends, middle)][0]
        before += len(token.text)


class Anchors:
    """Where tokens of the source are in the translation."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        for index, token in enumerate(tokens):
            if token.link != NONE:
                self._first.setdefault(token.link, index)
                self._last[token.link] = index

    def between(self, left: int, right: int, within: tuple[int, int], *, prefers_left: bool) -> int | None:
        """The place after source token `left`, or before `right`, or else next to the nearest ones.

        None if none of them is in the tokens [lo, hi) of `within`.
        """
        lo, hi = within
        for distance in range(_FAR if lo < hi else 0):
            after, before = self._last.get(left - distance), self._first.get(right + distance)
            places = [None if after is None else after + 1, before]
            for place in places if prefers_left or distance else places[::-1]:
                if place is not None and lo <= place <= hi:
                    return place
        return None


def insert_kept(tokens: Sequence[Token], source: Sequence[SourceToken], text: str) -> list[Token]:
    """Put the kept tags of a source into a translation that was made without them."""
    anchors, inserted = Anchors(tokens), []
    for index, one in enumerate(source):
        if one.mark == NONE:
            continue
        following = source[index + 1] if index + 1 < len(source) else None
        is_before_word = following is not None and _WORD_CHARACTER.search(text[following.start : following.end])
        prefers_left = (not one.space and index > 0) or not is_before_word
        place = anchors.between(index - 1, index + 1, (0, len(tokens)), prefers_left=bool(prefers_left))
        if place is None:
            place = len(tokens) * index // len(source)
        inserted.append((place, index))
    found: list[Token] = []
    position = 0
    for place, index in sorted(inserted):
        found += tokens[position:place]
        position = place
        has_space = bool(found) and (source[index].space or index == 0)
        part = text[source[index].start : source[index].end]
        found.append(Token(part, has_space, index, source[index].mark, has_space))
        if place < len(tokens) and not _is_glued(source, index):
            # Before a word, and before punctuation that was there in the source.
            tokens[place].space |= tokens[place].is_word or tokens[place].link == index + 1
            tokens[place].may_break |= tokens[place].space
    return [*found, *tokens[position:]]


def _is_glued(source: Sequence[SourceToken], index: int) -> bool:
    """Whether no white space is after a token of the source."""
    return index + 1 < len(source) and not source[index + 1].space

"""Tags put into a translation where the words are that translate the words inside them.

A tag comes back exactly once, inside the same tags and on the same line as in the source; among tags that are beside
each other the order may change, as that of words does. A span is the run of words that agrees best with the alignment;
runs beside each other share no word. A single tag stands next to the word next to which it stood.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformer.documents.inline import Content, Flat, Mark, add_text
from transformer.documents.tokens import NONE, Anchors, SourceToken, Token

_KEPT = 1000  # weight of a kept tag, which must stay inside the tags around it
_OTHER_SPAN = -2  # of a word that belongs into a span beside this one; of one that belongs into none it is -1

Range = tuple[int, int]


class _Level(NamedTuple):
    """The inside of a tag, or a line."""

    marks: Sequence[int]  # in the order of the source
    source: Range
    target: Range


def project(
    flat: Flat, marks: Sequence[int], source: Sequence[SourceToken], tokens: list[Token], lines: Mapping[int, Range]
) -> dict[int, Content]:
    """Put the tags of sentences into their translation.

    Args:
        flat: the source, with all its marks.
        marks: those of these sentences, in order.
        source: its tokens, cut wherever a mark begins or ends.
        tokens: the translation, linked to them.
        lines: the tokens of the translation for each line of the source that has tokens; all marks are on these.

    Returns:
        For each of the lines, text with tags.
    """
    return _Projection(flat, marks, source, tokens).lines(lines)


class _Projection:
    def __init__(self, flat: Flat, marks: Sequence[int], source: Sequence[SourceToken], tokens: list[Token]) -> None:
        self._marks, self._source, self._tokens = flat.marks, source, tokens
        starts = [one.start for one in source]
        self._source_lines = _ranges_of([flat.line_of(start) for start in starts])
        self._range = {
            m: (bisect.bisect_left(starts, flat.marks[m].start), bisect.bisect_left(starts, flat.marks[m].end))
            for m in marks
        }
        self._children: dict[int, list[int]] = defaultdict(list)
        self._top: dict[int, list[int]] = defaultdict(list)
        for m in marks:
            mark = flat.marks[m]
            group = self._top[mark.line] if mark.parent == NONE else self._children[mark.parent]
            group.append(m)
        self._linked: dict[int, list[int]] = defaultdict(list)
        for index, token in enumerate(tokens):
            if token.link != NONE:
                self._linked[token.link].append(index)
        self._place: dict[int, Range] = {}  # tokens of each mark
        self._anchors = Anchors(tokens)

    def lines(self, lines: Mapping[int, Range]) -> dict[int, Content]:
        levels = {i: _Level(self._top[i], self._source_lines[i], target) for i, target in lines.items()}
        for level in levels.values():
            self._place_spans(level)
        self._place_kept()
        for level in levels.values():
            self._place_singles(level)
        return {i: _Writer(self, level).content() for i, level in levels.items()}

    # Spans

    def _place_spans(self, level: _Level) -> None:
        spans = [m for m in level.marks if self._is_span(m) and self._range[m][0] < self._range[m][1]]
        if len(spans) == 1 and self._range[spans[0]] == level.source:
            self._place[spans[0]] = level.target
        else:
            free = [level.target]
            for m in spans:
                _take(free, self._best_run(m, spans, free, level), m, self._place)
            for m in spans:
                if m not in self._place:
                    _take(free, self._nearest_word(m, free, level), m, self._place)
        for m in spans:
            if m in self._place:
                self._place_spans(_Level(self._children[m], self._range[m], self._place[m]))

    def _best_run(self, m: int, spans: Sequence[int], free: Sequence[Range], level: _Level) -> Range | None:
        """The free run of tokens with the largest weight; None if none has any."""
        start, end = self._range[m]
        inside = [j for s in range(start, end) for j in self._linked.get(s, ())]
        if not inside:
            return None
        window = (min(inside), max(inside) + 1)
        others = [self._range[one] for one in spans]
        best, most = None, 0
        for lo, hi in free:
            total, begin = 0, NONE
            for j in range(max(lo, window[0]), min(hi, window[1])):
                weight = self._weight(j, (start, end), others)
                begin = j if begin == NONE and weight > 0 else begin
                total = total + weight if begin != NONE else 0
                if total < 0:
                    total, begin = 0, NONE
                elif weight > 0 and (total > most or (best and total == most and begin == best[0])):
                    best, most = (begin, j + 1), total
        return best and self._extended(best, free, (start, end), level.source)

    def _weight(self, j: int, inside: Range, spans: Sequence[Range]) -> int:
        """How much token j speaks for a span with these source tokens, beside other spans."""
        token = self._tokens[j]
        if token.link == NONE:
            return 0
        is_inside = inside[0] <= token.link < inside[1]
        if token.mark != NONE:
            return _KEPT if is_inside else -_KEPT
        if is_inside:
            return 1
        index = bisect.bisect_right(spans, token.link, key=lambda span: span[0]) - 1
        return _OTHER_SPAN if index >= 0 and token.link < spans[index][1] else -1

    def _extended(self, run: Range, free: Sequence[Range], inside: Range, around: Range) -> Range:
        """With the unlinked tokens up to the edge of a level, if the source reaches the same edge."""
        a, b = run
        lo, hi = next((lo, hi) for lo, hi in free if lo <= a and b <= hi)
        if inside[0] == around[0] and all(self._tokens[j].link == NONE for j in range(lo, a)):
            a = lo
        if inside[1] == around[1] and all(self._tokens[j].link == NONE for j in range(b, hi)):
            b = hi
        return a, b

    def _nearest_word(self, m: int, free: Sequence[Range], level: _Level) -> Range | None:
        """The free word next to where a span would stand of which no word is found, so that it has one."""
        start, end = self._range[m]
        if all(one.mark != NONE for one in self._source[start:end]):
            return None
        place = self._place_between(start - 1, end, level, prefers_left=True)
        words = [j for lo, hi in free for j in range(lo, hi) if self._is_plain_word(j)]
        # Rather one that translates no other word.
        nearest = min(words, key=lambda j: (self._tokens[j].link != NONE, abs(2 * j + 1 - 2 * place), j), default=None)
        return None if nearest is None else (nearest, nearest + 1)

    def _is_plain_word(self, j: int) -> bool:
        return self._tokens[j].mark == NONE and self._tokens[j].is_word

    # Kept tags

    def _place_kept(self) -> None:
        """Keep the tokens that are inside the same tags as in the source; empty the others."""
        spans: dict[int, list[Range]] = defaultdict(list)
        for m, place in self._place.items():
            spans[self._marks[m].parent].append(place)
        for group in spans.values():
            group.sort()
        for j, token in enumerate(self._tokens):
            if token.mark == NONE:
                continue
            parent = self._marks[token.mark].parent
            lo, hi = (0, len(self._tokens)) if parent == NONE else self._place.get(parent, (0, 0))
            index = bisect.bisect_right(spans[parent], j, key=lambda span: span[0]) - 1
            if lo <= j < hi and not (index >= 0 and j < spans[parent][index][1]):
                self._place[token.mark] = (j, j + 1)
            else:
                token.text, token.mark, token.space = "", NONE, False

    # Single tags, and spans without a word

    def _place_singles(self, level: _Level) -> None:
        spans = sorted(self._place[m] for m in level.marks if self._is_span(m) and m in self._place)
        last = level.target[0]
        for m in level.marks:
            if m not in self._place:
                mark, (start, end) = self._marks[m], self._range[m]
                prefers_left = not mark.space_left
                place = max(last, self._place_between(start - 1, end, level, prefers_left=prefers_left))
                index = bisect.bisect_left(spans, place, key=lambda span: span[0]) - 1
                if index >= 0 and place < spans[index][1]:  # not into another tag
                    a, b = spans[index]
                    place = a if a >= last and 2 * place <= a + b else b
                last = place
                self._place[m] = (place, place)
            if self._is_span(m):
                self._place_singles(_Level(self._children[m], self._range[m], self._place[m]))

    def _place_between(self, left: int, right: int, level: _Level, *, prefers_left: bool) -> int:
        """Where something stands that was between two source tokens: at the edges of a level if it was there."""
        (first, last), (lo, hi) = level.source, level.target
        if left < first:
            return lo
        if right >= last:
            return hi
        place = self._anchors.between(left, right, level.target, prefers_left=prefers_left)
        return lo + (hi - lo) * (right - first) // (last - first) if place is None else place

    def _is_span(self, m: int) -> bool:
        return self._marks[m].tag.kind == "span"

    # What the writer asks

    def level_of(self, m: int) -> _Level:
        return _Level(self._children[m], self._range[m], self._place[m])

    def mark(self, m: int) -> Mark:
        return self._marks[m]

    def place_of(self, m: int) -> Range:
        return self._place[m]

    def token(self, j: int) -> Token:
        return self._tokens[j]


class _Writer:
    """Writes a line: tokens and tags in order, with the white space between them."""

    def __init__(self, projection: _Projection, level: _Level) -> None:
        self._projection, self._line = projection, level
        self._is_spaced = True  # nothing, white space or a line break is before what comes next
        self._owes_space = False  # after a single tag, before a word

    def content(self) -> Content:
        lo, hi = self._line.target
        kept = [m for j in range(lo, hi) if (m := self._projection.token(j).mark) != NONE]
        # Outside of spans, a kept tag may have come from another line.
        strangers = [m for m in kept if self._projection.mark(m).parent == NONE and m not in self._line.marks]
        mine = [m for m in self._line.marks if self._is_here(*self._projection.place_of(m))]
        return self._level(_Level([*mine, *strangers], self._line.source, self._line.target))

    def _is_here(self, start: int, end: int) -> bool:
        lo, hi = self._line.target
        return start == end or lo <= start < hi

    def _level(self, level: _Level) -> Content:
        out: Content = []
        position, end = level.target
        numbers = {m: i for i, m in enumerate(level.marks)}
        place_of = self._projection.place_of
        for m in sorted(level.marks, key=lambda m: (place_of(m)[0], place_of(m)[0] < place_of(m)[1], numbers[m])):
            a, b = place_of(m)
            self._tokens(out, position, a)
            position = b
            if a < b:
                self._space_before(out, a)
                self._tag(out, m)
            else:
                self._single(out, m)
        self._tokens(out, position, end)
        return out

    def _tag(self, out: Content, m: int) -> None:
        tag = self._projection.mark(m).tag
        out.append(tag.around(self._level(self._projection.level_of(m))) if tag.kind == "span" else tag)
        self._is_spaced &= tag.kind != "kept"

    def _single(self, out: Content, m: int) -> None:
        mark = self._projection.mark(m)
        if mark.space_left and not mark.tag.separates:
            self._space(out)
        self._tag(out, m)
        self._is_spaced |= mark.tag.separates
        self._owes_space |= mark.space_right and not mark.tag.separates

    def _tokens(self, out: Content, start: int, end: int) -> None:
        for j in range(start, end):
            if text := self._projection.token(j).text:
                self._space_before(out, j)
                add_text(out, text)
                self._is_spaced = False

    def _space_before(self, out: Content, j: int) -> None:
        token = self._projection.token(j)
        if self._owes_space and token.is_word:
            self._is_spaced = False  # the space before the tag is another one
        if token.space or (self._owes_space and token.is_word):
            self._space(out)
        self._owes_space = False

    def _space(self, out: Content) -> None:
        if not self._is_spaced:
            add_text(out, " ")
        self._is_spaced = True


def _take(free: list[Range], run: Range | None, m: int, place: dict[int, Range]) -> None:
    """Give a run of free tokens to a mark."""
    if run is None:
        return
    place[m] = run
    index = next(i for i, (lo, hi) in enumerate(free) if lo <= run[0] and run[1] <= hi)
    lo, hi = free[index]
    free[index : index + 1] = [(a, b) for a, b in ((lo, run[0]), (run[1], hi)) if a < b]


def _ranges_of(numbers: Sequence[int]) -> dict[int, Range]:
    """For each of ascending numbers, where it stands."""
    return {n: (bisect.bisect_left(numbers, n), bisect.bisect_right(numbers, n)) for n in numbers}

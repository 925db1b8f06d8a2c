"""Passages: text that is translated together, such as a paragraph, or the subtitles that a sentence spans."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from transformer.documents.inline import Content, Flat, add_text, flatten
from transformer.documents.line_breaks import break_lines
from transformer.documents.projection import project
from transformer.documents.sentences import Align, Sentence, Translate, Translated, sentence_ranges
from transformer.documents.tokens import NONE, SourceToken, Token, source_tokens
from transformer.inference.sentences import separator

Passage = Sequence[Content]  # its lines


@dataclass
class DocumentNotes:
    """Counts of what a user should know of.

    Attributes:
        num_sentences: that were translated; equal ones are once.
        num_repeated: of them, translated again without placeholders, of which the translation had lost or changed one.
        num_empty: of them, those without a translation.
    """

    num_sentences: int = 0
    num_repeated: int = 0
    num_empty: int = 0

    def messages(self) -> list[str]:
        """A line for each kind that occurred."""
        lines = []
        if not self.num_sentences:
            lines.append("nothing is translated: no sentence was found")
        if self.num_repeated:
            lines.append(
                f"{_sentences(self.num_repeated)} translated again without placeholders, which were lost or changed, "
                "and have them where the alignment puts them"
            )
        if self.num_empty:
            lines.append(f"{_sentences(self.num_empty)} left as in the source: the translation is empty")
        return lines


def translate_passages(
    passages: Sequence[Passage],
    translate: Translate,
    align: Align | None = None,
    *,
    languages: tuple[str, str] = ("", ""),
    notes: DocumentNotes | None = None,
) -> list[list[Content] | None]:
    """Translate passages, sentence by sentence, and put their tags and lines back.

    Each line of a passage comes back, with the same tags inside the same tags, whatever the translations are.

    Args:
        translate: called twice at most.
        align: called once at most, for the sentences with tags or over several lines that `translate` has not aligned.
            Without an alignment, tags are placed and lines end by length.
        languages: codes of source and target, by which sentences are split and joined.

    Returns:
        For each passage its lines, or None if it stays as it is.

    Raises:
        DataError: `sentencex` is not installed.
        TypeError: they returned something else, such as a dict.
        ValueError: `translate` or `align` returned another number than it got sentences.
    """
    notes = DocumentNotes() if notes is None else notes
    sources = [_Source.read(passage, languages) for passage in passages]
    sentences = [one for source in sources for group in source.groups for one in group.sentences if one.has_words]
    found = _translated({one.text() for one in sentences}, translate)
    lost = [one for one in sentences if not one.take(found[one.text()])]
    again = _translated({one.text(with_kept=False) for one in lost}, translate)
    for one in lost:
        one.take(again[one.text(with_kept=False)], has_kept=False)
    if align is not None:
        _align([*lost, *(one for source in sources for one in source.divided())], align)
    notes.num_sentences += len(found)
    notes.num_repeated += len({one.text() for one in lost})
    notes.num_empty += len({one.text() for one in sentences if one.is_empty})
    return [source.translated() for source in sources]


def _translated(texts: set[str], translate: Translate) -> dict[str, Translated]:
    """The translation of each text; they are passed in an order that depends on nothing else."""
    ordered = sorted(texts)
    found = [_as_translated(one) for one in _listed(translate([*ordered]), "translate")] if ordered else []
    if len(found) != len(ordered):
        raise ValueError(f"translate returned {len(found)} translations of {len(ordered)} sentences")
    return dict(zip(ordered, found, strict=True))


def _as_translated(found: Any) -> Translated:
    """A translation with its links as a list; text alone has none. TypeError for anything else."""
    found = Translated(found) if isinstance(found, str) else found
    if not isinstance(found, Translated) or not isinstance(found.text, str):
        raise TypeError(f"translate returned {repr(found)[:80]} for a sentence, which is neither text nor a Translated")
    return found._replace(links=None if found.links is None else [*found.links])


def _listed(found: Any, name: str) -> list[Any]:
    """What a function returned, in order. TypeError for what has no order, and for one text."""
    if not isinstance(found, Iterable) or isinstance(found, str | bytes | Mapping | Set):
        raise TypeError(f"{name} returned a {type(found).__name__}, not a list")
    return [*found]


def _align(sentences: Sequence[Sentence], align: Align) -> None:
    """Give sentences the links that they do not have."""
    without = [one for one in sentences if one.is_changed and one.links is None]
    pairs = sorted({one.pair for one in without})
    links = _listed(align([source for source, _ in pairs], [target for _, target in pairs]), "align") if pairs else []
    if len(links) != len(pairs):
        raise ValueError(f"align returned {len(links)} alignments of {len(pairs)} sentences")
    of_pair = {pair: None if found is None else [*found] for pair, found in zip(pairs, links, strict=True)}
    for one in without:
        one.links = of_pair[one.pair]


@dataclass
class _Group:
    """Sentences that a tag holds together, so that their tags are placed together."""

    sentences: list[Sentence]
    marks: list[int] = field(default_factory=list)

    @property
    def start(self) -> int:
        return self.sentences[0].source[0].start

    @property
    def end(self) -> int:
        return self.sentences[-1].source[-1].end

    def is_divided(self, flat: Flat) -> bool:
        """Whether a tag, but for kept ones, begins or ends inside of it, or a line does."""
        tags = [mark for m in self.marks if (mark := flat.marks[m]).tag.kind != "kept"]
        places = [place for mark in tags for place in (mark.start, mark.end)]
        return any(self.start < place < self.end for place in (*places, flat.lines[flat.line_of(self.start)][1]))


@dataclass
class _Source:
    """A passage as it is read.

    Attributes:
        orphans: marks on lines without words, but for those inside of other tags.
        spaces: between sentences, in the source and in the target language.
    """

    flat: Flat
    groups: list[_Group]
    orphans: list[int]
    spaces: tuple[str, str]

    @classmethod
    def read(cls, passage: Passage, languages: tuple[str, str]) -> _Source:
        spaces = separator(languages[0]), separator(languages[1])
        flat = flatten(passage, spaces[0])
        kept = [i for i, mark in enumerate(flat.marks) if mark.tag.kind == "kept" and mark.start < mark.end]
        starts = [flat.marks[i].start for i in kept]
        cuts = sorted({place for mark in flat.marks for place in (mark.start, mark.end)} | {x for _, x in flat.lines})
        groups: list[_Group] = []
        spans = _Spans(flat)
        for start, end in sentence_ranges(flat, languages[0]):
            inside = kept[bisect.bisect_left(starts, start) : bisect.bisect_left(starts, end)]
            sentence = Sentence(flat, source_tokens(flat, start, end, cuts, inside))
            if groups and spans.hold(groups[-1].end, start):
                groups[-1].sentences.append(sentence)
            else:
                groups.append(_Group([sentence]))
        return cls(flat, groups, _assign_marks(flat, groups), spaces)

    def divided(self) -> Iterator[Sentence]:
        """The sentences for which it matters which words translate which."""
        for group in self.groups:
            if group.is_divided(self.flat):
                yield from group.sentences

    def translated(self) -> list[Content] | None:
        """The lines of the translation; None if no sentence has changed."""
        if not any(one.is_changed for group in self.groups for one in group.sentences):
            return None
        lines: list[Content] = [[] for _ in self.flat.lines]
        for m in self.orphans:
            lines[self.flat.marks[m].line].append(self.flat.marks[m].tag)
        end = 0
        for group in self.groups:
            has_space = self._has_space(end, group.start)
            for i, content in self._project(group).items():
                _extend(lines[i], content, has_space=has_space)
            end = group.end
        return lines

    def _project(self, group: _Group) -> dict[int, Content]:
        """The translation of a group with its tags, by line."""
        source: list[SourceToken] = []
        tokens: list[Token] = []
        for sentence in group.sentences:
            found = sentence.tokens()
            for token in found:
                token.link += len(source) * (token.link != NONE)
            if tokens and found:
                found[0].space = self._has_space(source[-1].end, sentence.source[0].start)
                found[0].may_break = True
            source += sentence.source
            tokens += found
        line_of = [self.flat.line_of(one.start) for one in source]
        numbers = sorted(set(line_of))
        index = {number: i for i, number in enumerate(numbers)}
        size = group.end - group.start
        shares = [(min(self.flat.lines[n][1], group.end) - group.start) / size for n in numbers]
        ranges = break_lines(tokens, [index[number] for number in line_of], shares)
        return project(self.flat, group.marks, source, tokens, dict(zip(numbers, ranges, strict=True)))

    def _has_space(self, end: int, start: int) -> bool:
        """Whether a space is between two sentences of the translation."""
        before, after = self.spaces
        return end < start if before == after else after == " "


class _Spans:
    """The spans of a text, to ask which boundaries they cross."""

    def __init__(self, flat: Flat) -> None:
        spans = [(mark.start, mark.end) for mark in flat.marks if mark.tag.kind == "span" and mark.start < mark.end]
        self._starts = [start for start, _ in spans]
        self._ends = list(itertools.accumulate((end for _, end in spans), max))

    def hold(self, end: int, start: int) -> bool:
        """Whether one begins before `end` and goes on after `start`."""
        index = bisect.bisect_left(self._starts, end)
        return index > 0 and self._ends[index - 1] > start


def _assign_marks(flat: Flat, groups: Sequence[_Group]) -> list[int]:
    """Give each mark to a group that has words on its line, the one in which or after which it stands.

    Returns the marks on lines without words.
    """
    on_line: dict[int, list[_Group]] = defaultdict(list)
    for each in groups:
        for line in dict.fromkeys(flat.line_of(x.start) for one in each.sentences for x in one.source):
            on_line[line].append(each)
    ends = {line: [each.end for each in found] for line, found in on_line.items()}
    group_of: dict[int, _Group | None] = {NONE: None}
    orphans = []
    for m, mark in enumerate(flat.marks):
        if mark.parent != NONE:
            group: _Group | None = group_of[mark.parent]
        elif found := on_line.get(mark.line):
            # A single tag at the end of a sentence belongs to it; a span at the same place to the next one.
            place = mark.start + (mark.start < mark.end)
            group = found[min(bisect.bisect_left(ends[mark.line], place), len(found) - 1)]
        else:
            group = None
            orphans.append(m)
        group_of[m] = group
        if group is not None:
            group.marks.append(m)
    return orphans


def _extend(line: Content, content: Content, *, has_space: bool) -> None:
    """Put the words and tags of a further sentence on a line."""
    if has_space and line and not (_separates(line, -1) or _separates(content, 0)):
        add_text(line, " ")
    for one in content:
        if isinstance(one, str):
            add_text(line, one)
        else:
            line.append(one)


def _separates(content: Content, edge: Literal[0, -1]) -> bool:
    """Whether a tag that separates words is at an edge."""
    one = content[edge] if content else ""
    if isinstance(one, str):
        return False
    return _separates(one.children, edge) if one.kind == "span" else one.separates


def _sentences(number: int) -> str:
    return "1 sentence is" if number == 1 else f"{number} sentences are"

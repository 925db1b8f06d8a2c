"""Text with tags in it: as a tree, and as flat text with marks at its characters.

The tree is what a format reads and writes. The flat text is what a model reads: no tags, single spaces. A mark says
where in the flat text a tag begins and ends.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Union

from transformer.documents.placeholders import find_placeholders

Content = list[Union["Tag", str]]  # text and tags, in order

_WHITE_SPACE = re.compile(r"(\s+)")
_SOFT_HYPHEN = "\u00ad"  # with which no model knows a word


@dataclass
class Tag:
    """A tag of a document.

    Attributes:
        source: what its format writes it with; None for a placeholder, which is its text.
        kind: a "span" is around its children, a "single" one stands between characters, and a "kept" one stands for
            `text`, which a model reads but which is written as it was.
        children: of a span.
        text: of a kept tag.
        separates: words, as a line break does.
        divides: sentences too, as a tab does.
    """

    source: Any
    kind: Literal["span", "single", "kept"] = "single"
    children: Content = field(default_factory=list)
    text: str = ""
    separates: bool = False
    divides: bool = False

    def around(self, children: Content) -> Tag:
        """The same tag around other children."""
        return dataclasses.replace(self, children=children)


def add_text(content: Content, text: str) -> None:
    """Put text at the end."""
    if content and isinstance(content[-1], str):
        content[-1] += text
    else:
        content.append(text)


@dataclass
class Mark:
    """Where a tag stands in flat text: characters [start, end), equal for a single tag.

    Attributes:
        parent: index of the mark around it, or -1.
        line: of the passage, on which it stands.
        space_left, space_right: whether white space, or the edge of the text, is beside it in the document.
    """

    tag: Tag
    start: int
    end: int
    parent: int
    line: int
    space_left: bool
    space_right: bool = True


@dataclass
class Flat:
    """Text without tags: white space is single spaces, and none at the beginning.

    Attributes:
        marks: in the order of the document; a mark comes after the one around it.
        lines: characters [start, end) of each line.
    """

    text: str
    marks: list[Mark]
    lines: list[tuple[int, int]]

    def line_of(self, position: int) -> int:
        """The line of a character."""
        return bisect.bisect_right(self.lines, position, key=lambda line: line[1])


def flatten(lines: Sequence[Content], joint: str = " ") -> Flat:
    """The flat text of the lines of a passage, with placeholders as kept tags.

    Args:
        joint: stands between two lines, a space or nothing.
    """
    flattener = _Flattener()
    for content in lines:
        flattener.line(content, joint)
    flat = Flat("".join(flattener.parts), flattener.marks, flattener.lines)
    _mark_placeholders(flat)
    return flat


class _Flattener:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.marks: list[Mark] = []
        self.lines: list[tuple[int, int]] = []
        self._length = 0
        self._has_space = True  # to the left of what comes next, in the document
        self._owes_space = False  # in the flat text, before the next word
        self._waiting: list[Mark] = []  # for what is to the right of them

    def line(self, content: Content, joint: str) -> None:
        self._owes_space |= bool(joint) and self._length > 0
        self._pay()
        start = self._length
        self._space()
        self._add(content, -1)
        self._space()
        self.lines.append((start, self._length))

    def _add(self, content: Content, parent: int) -> None:
        for one in content:
            if isinstance(one, str):
                self._text(one)
            else:
                self._tag(one, parent)

    def _text(self, text: str) -> None:
        for part in _WHITE_SPACE.split(text.replace(_SOFT_HYPHEN, "")):
            if part.isspace():
                self._space()
                self._owes_space = self._length > 0
            elif part:
                self._pay()
                self._append(part)
                for mark in self._waiting:
                    mark.space_right = False
                self._waiting.clear()
                self._has_space = False

    def _tag(self, tag: Tag, parent: int) -> None:
        self._pay()
        mark = Mark(tag, self._length, self._length, parent, len(self.lines), self._has_space)
        self.marks.append(mark)
        if tag.kind == "kept":
            self._text(tag.text)
        elif tag.kind == "span":
            self._add(tag.children, len(self.marks) - 1)
        mark.end = max(mark.start, self._length - (self.parts[-1:] == [" "]))
        self._waiting.append(mark)
        if tag.separates:
            self._owes_space = self._length > 0

    def _space(self) -> None:
        self._has_space = True
        self._waiting.clear()  # Mark.space_right is True until a character says otherwise

    def _pay(self) -> None:
        if self._owes_space and self.parts[-1:] != [" "]:
            self._append(" ")
        self._owes_space = False

    def _append(self, part: str) -> None:
        self.parts.append(part)
        self._length += len(part)


def _mark_placeholders(flat: Flat) -> None:
    """Add a kept tag for each placeholder that no tag divides."""
    found: list[Mark] = []
    around: list[int] = []  # marks that are open at a placeholder; they are nested
    index = 0
    for start, end in find_placeholders(flat.text):
        while index < len(flat.marks) and flat.marks[index].start <= start:
            if flat.marks[index].end > start:
                _leave(around, flat, flat.marks[index].start)
                around.append(index)
            index += 1
        _leave(around, flat, start)
        line, innermost = flat.line_of(start), flat.marks[around[-1]] if around else None
        is_inside = innermost is None or (innermost.tag.kind == "span" and end <= innermost.end)
        inside = flat.marks[index : bisect.bisect_left(flat.marks, end, index, key=lambda mark: mark.start)]
        if not is_inside or end > flat.lines[line][1] or any(mark.start < mark.end for mark in inside):
            continue
        for mark in inside:
            mark.start = mark.end = end
        tag = Tag(None, "kept", text=flat.text[start:end])
        left, right = flat.text[start - 1 : start], flat.text[end : end + 1]
        parent = around[-1] if around else -1
        found.append(Mark(tag, start, end, parent, line, left in ("", " "), right in ("", " ")))
    _merge(flat, found)


def _leave(around: list[int], flat: Flat, position: int) -> None:
    while around and flat.marks[around[-1]].end <= position:
        around.pop()


def _merge(flat: Flat, found: list[Mark]) -> None:
    """Put further marks among the others, in the order of the document."""
    before = len(flat.marks)
    marks = [*flat.marks, *found]
    order = sorted(range(len(marks)), key=lambda i: (marks[i].start, i))
    place = {old: new for new, old in enumerate(order)}
    for mark in marks:
        mark.parent = place.get(mark.parent, -1)
    flat.marks[:before] = [marks[i] for i in order]

"""A paragraph of a Word document as text with tags, and written again.

A paragraph is a sequence of runs, each of one format, in links and the like or not. The format that most of its text
has is that of its plain text; runs of other formats are spans.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformer.documents.inline import Content, Tag
from transformer.documents.word_fields import Field, fields_and_elements, is_closed
from transformer.documents.word_parts import local_name, serialized


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_CONTAINERS = _names("bdo customXml dir fldSimple hyperlink ins moveTo sdt smartTag")
_HEADS = _names("pPr rPr smartTagPr customXmlPr fldData")  # they describe the element that they are in
_TABS = _names("ptab tab")
_SEPARATORS = _TABS | _names("br cr")  # between words, in a run
_HYPHEN = "noBreakHyphen"
_NO_FORMAT = _names("lang noProof")
_DEEPEST = 50
_LONGEST_RESULT = 100  # of a field that is read as a part of the sentence, in characters

Element = Any  # lxml has no types


@dataclass
class _Place:
    """Where runs are: in a paragraph, in a link and the like in it, or between the marks of a field.

    Attributes:
        runs: those of plain text.
        before, after: elements that stay around them.
        element: with them as its children, or as those of `inner`; None for a field.
    """

    before: list[Element]
    after: list[Element]
    element: Element = None
    inner: Element = None
    runs: list[Element] = field(default_factory=list)

    @classmethod
    def of(cls, element: Element, inner: Element) -> _Place:
        """The children of an element."""
        return cls([child for child in inner if local_name(child) in _HEADS], [], element, inner)


@dataclass
class _Runs:
    """Runs of another format, one after another."""

    runs: list[Element]


@dataclass
class _Whole:
    """Elements beside runs, which stay together as they are."""

    elements: list[Element]


@dataclass
class _InRun:
    """An element inside of a run, beside its text."""

    element: Element


class Paragraph:
    """A paragraph, or what else has runs.

    Attributes:
        content: its text with tags.
    """

    def __init__(self, element: Element) -> None:
        self._place = _Place.of(element, element)
        self.content = _read(self._place, _children(element), 0)

    @property
    def has_text(self) -> bool:
        """Whether there is more than white space."""
        return _has_text(self.content)

    def write(self, content: Content) -> None:
        """Put other text into it, with all of its tags."""
        _Writer().paragraph(self._place, content)


def _has_text(content: Content) -> bool:
    return any(_has_text(one.children) if isinstance(one, Tag) else bool(one.strip()) for one in content)


def _children(element: Element) -> list[Element]:
    return [child for child in element if local_name(child) not in _HEADS]


def _read(place: _Place, children: Sequence[Element], depth: int) -> Content:
    """The content of a place; adds its runs of plain text."""
    parts: list[tuple[Any, bytes | None]] = [(part, _format(part)) for part in fields_and_elements(children)]
    sizes: Counter[bytes] = Counter()
    for part, format_ in parts:
        if format_ is not None:
            sizes[format_] += sum(len(child.text or "") for child in part if local_name(child) == "t")
    plain = max(sizes, key=lambda format_: sizes[format_], default=b"")
    content: Content = []
    last_format: bytes | None = None  # of the span of runs that may go on
    spelling: Content = []  # marks of a spelling checker, which divide runs of one format
    for part, format_ in parts:
        if not isinstance(part, Field) and local_name(part) == "proofErr":
            spelling.append(Tag(_Whole([part])))
        elif format_ is not None and format_ == last_format:
            span = content[-1]
            assert isinstance(span, Tag)
            span.source.runs.append(part)
            span.children += [*spelling, *_items(part)]
            spelling = []
        else:
            content += spelling
            spelling, last_format = [], None
            if format_ is None:
                content.append(_read_other(part, depth))
            elif format_ == plain:
                place.runs.append(part)
                content += _items(part)
            else:
                content.append(Tag(_Runs([part]), "span", list(_items(part))))
                last_format = format_
    return [*content, *spelling]


def _read_other(part: Field | Element, depth: int) -> Tag:
    """What is no run with text: a link or the like, or what stays as it is."""
    if isinstance(part, Field):
        if part.is_link and depth < _DEEPEST:
            place = _Place(part.before, part.after)
            return Tag(place, "span", _read(place, part.result, depth + 1))
        return _kept(_Whole(part.elements), part.text)
    inner = _inner(part)
    if inner is None or depth >= _DEEPEST:
        names = {local_name(child) for child in part}  # a tab or a line break often has a run of its own
        return Tag(_Whole([part]), separates=not names.isdisjoint(_SEPARATORS), divides=not names.isdisjoint(_TABS))
    if local_name(part) == "fldSimple" and not Field.links(part.get(f"{part.tag[: part.tag.index('}') + 1]}instr", "")):
        return _kept(_Whole([part]), Field([part], [part], "").text)
    place = _Place.of(part, inner)
    return Tag(place, "span", _read(place, _children(inner), depth + 1))


def _kept(source: _Whole, text: str) -> Tag:
    """What a field shows is read, if it is short, and comes back as a field."""
    text = " ".join(text.split())
    return Tag(source, "kept", text=text) if 0 < len(text) <= _LONGEST_RESULT else Tag(source)


def _inner(element: Element) -> Element | None:
    """The element in which an element has runs, if it can, and no field begins or ends there alone."""
    if (name := local_name(element)) not in _CONTAINERS or not is_closed(element):
        return None
    if name != "sdt":
        return element
    return next((child for child in element if local_name(child) == "sdtContent"), None)


def _format(part: Field | Element) -> bytes | None:
    """What decides how a run with text looks, without language and spelling; None for anything else."""
    if isinstance(part, Field) or local_name(part) != "r":
        return None
    if not any(local_name(child) == _HYPHEN or (local_name(child) == "t" and child.text) for child in part):
        return None
    properties = next((child for child in part if local_name(child) == "rPr"), ())
    return b"".join(serialized(one) for one in properties if local_name(one) not in _NO_FORMAT)


def _items(run: Element) -> Iterator[Tag | str]:
    """Text and elements of a run, in order. A hyphen at which no line breaks becomes a plain one."""
    for child in run:
        name = local_name(child)
        if name == "t":
            text = child.text or ""
            yield text if child.get(_SPACE) == "preserve" else text.strip(" \t\r\n")
        elif name == _HYPHEN:  # a letter of its word, which would be another word without it
            yield "-"
        elif name != "rPr":
            yield Tag(_InRun(child), separates=name in _SEPARATORS, divides=name in _TABS)


class _Writer:
    """Puts content into the runs of a paragraph, of which there are as many as before.

    Plain text between two tags takes the next run of plain text. When these are used up, it goes to the run before.
    """

    def __init__(self) -> None:
        self._last: Element | None = None  # the run that was written last
        self._first: Element | None = None  # of all runs
        self._early: list[Tag | str] = []  # what comes before any run

    def paragraph(self, place: _Place, content: Content) -> None:
        """Write the content of a paragraph."""
        self._place(place, content)
        for item in self._early:  # all runs are empty
            _add(self._first, item)

    def _place(self, place: _Place, content: Content) -> list[Element]:
        """Write the content of a place; returns what it is in the place around it."""
        children = [*place.before, *self._fill(content, place.runs), *place.after]
        if place.element is None:
            return children
        for child in list(place.inner):
            place.inner.remove(child)
        place.inner.extend(children)
        return [place.element]

    def _fill(self, content: Content, runs: Sequence[Element]) -> list[Element]:
        """The children for some content, with all of the runs among them."""
        found: list[Element] = []
        left, current = deque(runs), None
        self._first = runs[0] if self._first is None and runs else self._first
        for run in runs:
            for child in list(run):
                if local_name(child) != "rPr":
                    run.remove(child)
        for one in content:
            source = None if isinstance(one, str) else one.source
            if isinstance(one, str) or source is None or isinstance(source, _InRun):
                if current is None and left:
                    current = left.popleft()
                    found.append(current)
                    self._begin(current)
                self._put(one)
                continue
            current = None
            if isinstance(source, _Runs):
                found += self._fill(one.children, source.runs)
            elif isinstance(source, _Place):
                found += self._place(source, one.children)
            else:
                found += source.elements
        return [*found, *left]

    def _begin(self, run: Element) -> None:
        self._last = run
        early, self._early = self._early, []
        for item in early:
            _add(run, item)

    def _put(self, item: Tag | str) -> None:
        if self._last is None:
            self._early.append(item)
        else:
            _add(self._last, item)


def _add(run: Element, item: Tag | str) -> None:
    """Add text or an element to the end of a run."""
    if isinstance(item, Tag) and item.source is not None:
        run.append(item.source.element)
        return
    text = item if isinstance(item, str) else item.text
    last = run[-1] if len(run) else None
    if last is None or local_name(last) != "t":
        last = run.makeelement(run.tag[: run.tag.index("}") + 1] + "t")
        run.append(last)
    last.text = (last.text or "") + text
    if last.text != last.text.strip():
        last.set(_SPACE, "preserve")

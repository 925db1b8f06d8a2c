"""Word documents (.docx): the text of paragraphs is translated, in tables, headers, footers, notes and boxes too.

A paragraph is a sequence of runs, each of one format. The format that most of its text has is that of its plain text;
other runs, links and the like are tags, which go where their words go. All elements but those of text (`w:t`) are
kept, and so are other parts of the file, such as images, byte for byte.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformer.documents.archive import Archive
from transformer.documents.inline import Content, Tag
from transformer.documents.passages import Passage
from transformer.documents.word_parts import local_name, parsed, serialized, text_parts

_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_CONTAINERS = frozenset("bdo customXml dir fldSimple hyperlink ins moveTo sdt smartTag".split())
_HEADS = frozenset("pPr rPr smartTagPr customXmlPr fldData".split())  # what describes the element that they are in
_SEPARATORS = frozenset("br cr ptab tab".split())  # between words, in a run
_NO_FORMAT = frozenset("lang noProof".split())
_DEEPEST = 50

Element = Any  # lxml has no types


@dataclass
class _Place:
    """An element with runs: a paragraph, or a link and the like in it.

    Attributes:
        inner: the element whose children they are, which may be inside of `element`.
        runs: those of plain text.
    """

    element: Element
    inner: Element
    runs: list[Element]


@dataclass
class _Runs:
    """Runs of another format, one after another."""

    runs: list[Element]


@dataclass
class _InRun:
    """An element inside of a run, beside its text."""

    element: Element


class DocxDocument:
    """A Word document, in passages.

    Attributes:
        passages: to translate.

    Raises:
        DataError: it is damaged, hostile or no Word document, or lxml is not installed.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._archive = data, Archive(data)
        self._roots = {name: parsed(name, self._archive.parts[name]) for name in text_parts(self._archive.parts)}
        self._places: list[tuple[str, _Place]] = []
        self.passages: list[Passage] = []
        for name, root in self._roots.items():
            for paragraph in root.iter():
                if local_name(paragraph) == "p":
                    place = _Place(paragraph, paragraph, [])
                    content = _read(place, 0)
                    if _has_text(content):
                        self._places.append((name, place))
                        self.passages.append([content])

    def written(self, translations: Sequence[Sequence[Content] | None]) -> bytes:
        """The document with the line of each passage, or with None as it was."""
        changed = set()
        for (name, place), found in zip(self._places, translations, strict=True):
            if found is not None:
                _Writer().paragraph(place, found[0])
                changed.add(name)
        if not changed:
            return self._data
        return self._archive.written({name: serialized(self._roots[name]) for name in changed})


def _has_text(content: Content) -> bool:
    return any(bool(one.strip()) if isinstance(one, str) else _has_text(one.children) for one in content)


def _read(place: _Place, depth: int) -> Content:
    """The content of a paragraph or of an element in it; adds its runs of plain text."""
    children = [child for child in place.inner if local_name(child) not in _HEADS]
    keys = {id(child): _format(child) for child in children if _has_own_text(child)}
    sizes: Counter[bytes] = Counter()
    for child in children:
        if id(child) in keys:
            sizes[keys[id(child)]] += sum(len(text.text or "") for text in child if local_name(text) == "t")
    plain = max(sizes, key=lambda key: sizes[key], default=b"")
    content: Content = []
    open_key: bytes | None = None  # of the runs of another format that may go on
    waiting: Content = []  # elements after these, which are among them if they do
    for child in children:
        key = keys.get(id(child))
        if key is not None and key == open_key:
            runs = content[-1]
            assert isinstance(runs, Tag)
            runs.source.runs.append(child)
            runs.children += [*waiting, *_items(child)]
            waiting = []
            continue
        inner = _inner(child) if key is None and depth < _DEEPEST else None
        if key is None and inner is None:
            waiting.append(Tag(child))
            continue
        content += waiting
        waiting, open_key = [], None
        if inner is not None:
            within = _Place(child, inner, [])
            content.append(Tag(within, "span", _read(within, depth + 1)))
        elif key == plain:
            place.runs.append(child)
            content += _items(child)
        else:
            content.append(Tag(_Runs([child]), "span", _items(child)))
            open_key = key
    return [*content, *waiting]


def _inner(element: Element) -> Element | None:
    """The element in which an element has runs, if it is of a kind that can."""
    if (name := local_name(element)) not in _CONTAINERS:
        return None
    if name != "sdt":
        return element
    return next((child for child in element if local_name(child) == "sdtContent"), None)


def _has_own_text(element: Element) -> bool:
    return local_name(element) == "r" and any(local_name(child) == "t" and child.text for child in element)


def _format(run: Element) -> bytes:
    """What decides how a run looks. Languages and spelling do not."""
    properties = next((child for child in run if local_name(child) == "rPr"), ())
    return b"".join(serialized(one) for one in properties if local_name(one) not in _NO_FORMAT)


def _items(run: Element) -> Iterator[Tag | str]:
    """Text and elements of a run, in order."""
    for child in run:
        name = local_name(child)
        if name == "t":
            text = child.text or ""
            yield text if child.get(_SPACE) == "preserve" else text.strip(" \t\r\n")
        elif name != "rPr":
            yield Tag(_InRun(child), separates=name in _SEPARATORS)


class _Writer:
    """Puts content into the runs of a paragraph, of which there are as many as before.

    Plain text between two tags takes the next run of plain text. When these are used up, it goes to the run before.
    """

    def __init__(self) -> None:
        self._last: Element | None = None  # the run that was written last
        self._early: list[Tag | str] = []  # what comes before any run

    def paragraph(self, place: _Place, content: Content) -> None:
        """Write the content of a paragraph."""
        self._place(place, content)
        if self._early:  # all runs are empty
            run = next(one for one in place.element.iter() if local_name(one) == "r" and _is_free(one))
            for item in self._early:
                _add(run, item)

    def _place(self, place: _Place, content: Content) -> None:
        heads = [child for child in place.inner if local_name(child) in _HEADS]
        children = self._fill(content, place.runs)
        for child in list(place.inner):
            place.inner.remove(child)
        place.inner.extend([*heads, *children])

    def _fill(self, content: Content, runs: Sequence[Element]) -> list[Element]:
        """The children for some content, with all of the runs among them."""
        found: list[Element] = []
        left, current = deque(runs), None
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
                self._place(source, one.children)
                found.append(source.element)
            else:
                found.append(source)
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


def _is_free(run: Element) -> bool:
    """Whether a run has nothing but its format."""
    return all(local_name(child) == "rPr" for child in run)


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

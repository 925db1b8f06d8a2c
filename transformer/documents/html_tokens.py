"""A web page as tokens, which joined are the page: tags, text, and what is neither.

The states of the HTML standard's tokenizer, as far as they decide where a token ends
(https://html.spec.whatwg.org/multipage/parsing.html#tokenization). Linear time for any input. No parser of the standard
library or of lxml gives a page back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

# Content that is text up to the end tag. Of a title, references are resolved, as in text.
_RAW = {"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"}
_SPACE = " \t\n\r\f"
_TAG_NAME = re.compile(rf"</?([A-Za-z][^{_SPACE}/>]*)")
_ATTRIBUTE = re.compile(rf"[{_SPACE}/]*(=?[^{_SPACE}/>=]*)[{_SPACE}]*")
_UNQUOTED = re.compile(rf"[^{_SPACE}>]*")
_SPACES = re.compile(rf"[{_SPACE}]*")
_COMMENT = re.compile(r"<!--(?:-?>|.*?--!?>|.*)", re.DOTALL)
Range = tuple[int, int]
_NO_ATTRIBUTES: Mapping[str, Range] = {}


@dataclass(frozen=True, slots=True)
class HtmlToken:
    """Characters [start, end) of a page.

    Attributes:
        kind: a "start" or "end" tag, "text", a "title", other "raw" content, or "other", such as a comment.
        name: of a tag, in lower case.
        attributes: of a start tag, by name in lower case: characters of the first value, its quotes included.
        closes_itself: whether a start tag ends with />.
    """

    kind: Literal["start", "end", "text", "title", "raw", "other"]
    start: int
    end: int
    name: str = ""
    attributes: Mapping[str, Range] = field(default_factory=lambda: _NO_ATTRIBUTES)
    closes_itself: bool = False

    def value(self, page: str, name: str) -> str:
        """Of an attribute, as it is written; empty if there is none."""
        start, end = self.attributes.get(name, (0, 0))
        text = page[start:end]
        return text[1:].removesuffix(text[0]) if text.startswith(('"', "'")) else text


def is_xml(page: str) -> bool:
    """Whether a page is XHTML that says so, in which any tag may close itself."""
    return page.lstrip(_SPACE).startswith("<?xml")


def html_tokens(page: str) -> Iterator[HtmlToken]:
    """The tokens of a page, in order; none is empty, and together they are the page."""
    as_xml = is_xml(page)
    position = text = 0
    while (position := page.find("<", position)) >= 0:
        token = _markup(page, position, as_xml=as_xml)
        if token is None:  # a < that is text
            position += 1
            continue
        if text < position:
            yield HtmlToken("text", text, position)
        yield token
        position = text = token.end
        if token.kind == "start" and token.name in _RAW and not (as_xml and token.closes_itself):
            position = text = _raw_end(page, token)
            if token.end < position:
                yield HtmlToken("title" if token.name == "title" else "raw", token.end, position)
    if text < len(page):
        yield HtmlToken("text", text, len(page))


def _markup(page: str, position: int, *, as_xml: bool) -> HtmlToken | None:
    """The token that begins with this <, if it is not text."""
    if match := _TAG_NAME.match(page, position):
        return _tag(page, position, match)
    following = page[position + 1 : position + 2]
    if page.startswith("<!--", position):
        match = _COMMENT.match(page, position)
        return HtmlToken("other", position, match.end() if match else len(page))
    if as_xml and page.startswith("<![CDATA[", position):
        end = page.find("]]>", position)
        return HtmlToken("other", position, len(page) if end < 0 else end + 3)
    if following not in ("!", "?", "/") or len(page) == position + 2:
        return None
    end = page.find(">", position)
    return HtmlToken("other", position, len(page) if end < 0 else end + 1)


def _tag(page: str, start: int, name: re.Match[str]) -> HtmlToken:
    """A tag, to the end of the page if it is not closed."""
    attributes: dict[str, Range] = {}
    position, kind = name.end(), "end" if page.startswith("</", start) else "start"
    while position < len(page) and page[position] != ">":
        match = _ATTRIBUTE.match(page, position)
        assert match  # it matches nothing too
        key, position = match[1].lower(), match.end()
        value = (position, position)
        if key and page.startswith("=", position):
            value = _value(page, position + 1)
            position = value[1]
        if key:
            attributes.setdefault(key, value)
    end = min(position + 1, len(page))
    is_closed = page.endswith("/", start, position) and page.startswith(">", position)
    if kind == "end":
        return HtmlToken("end", start, end, name[1].lower())
    return HtmlToken("start", start, end, name[1].lower(), attributes, is_closed)


def _value(page: str, position: int) -> Range:
    """Characters of the value of an attribute, its quotes included."""
    spaces = _SPACES.match(page, position)
    position = spaces.end() if spaces else position
    quote = page[position : position + 1]
    if quote and quote in "\"'":
        end = page.find(quote, position + 1)
        return position, len(page) if end < 0 else end + 1
    match = _UNQUOTED.match(page, position)
    return position, match.end() if match else position


def _raw_end(page: str, token: HtmlToken) -> int:
    """Where the content of an element ends that is text up to its end tag."""
    match = re.compile(rf"</{token.name}(?=[{_SPACE}/>])", re.IGNORECASE).search(page, token.end)
    return match.start() if match else len(page)

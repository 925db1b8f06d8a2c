"""Web pages (.html): text between tags is translated; all else stays byte for byte.

Tags within a sentence, such as `<b>` and `<a>`, go where their words go; others, such as `<p>`, end a sentence. Not
translated are attributes, scripts, styles, `<pre>`, `<code>` and what has `translate="no"` or the class `notranslate`.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence

from transformer.documents.encoded import Decoded, decoded
from transformer.documents.html_tokens import html_tokens, is_xml
from transformer.documents.inline import Content, Tag
from transformer.documents.pairs import PairBuilder, written
from transformer.documents.passages import Passage


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


_INLINE = _names(
    "a abbr acronym b bdi bdo big cite data del dfn em font i ins label mark nobr q rb rp rt rtc ruby s small span "
    "strike strong sub sup time u"
)
_CODE = _names("code kbd samp tt var")  # read as a part of the sentence, but not translated
_VOID = _names("area base br col embed hr img input link meta param source track wbr")
_VOID_INLINE = _names("br embed img input wbr")
_OPAQUE_INLINE = _names(
    "audio canvas iframe map math noembed object picture script select style svg textarea video xmp"
)
_OPAQUE = _names("pre plaintext")
_END_OPTIONAL = _names("dd dt li option p td th tr")
_LONGEST_CODE = 100  # characters that are read as a part of the sentence
_UNKNOWN_REFERENCE = re.compile(r"(&[A-Za-z][A-Za-z0-9]{1,31};)")
_EDGES = re.compile(r"([ \t\n\r\f]*)(?:.*[^ \t\n\r\f])?([ \t\n\r\f]*)", re.DOTALL)
_DECLARED = re.compile(
    rb"""  <meta\b [^>]{0,500}? \bcharset \s* = \s* ["']? \s* ([\w.:-]+)
         | \A \s* <\?xml\b [^>]{0,200}? \bencoding \s* = \s* ["'] ([\w.-]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_DECLARED_WITHIN = 1024  # bytes, by the HTML standard


class HtmlDocument:
    """A page, in passages.

    Attributes:
        passages: to translate.
    """

    def __init__(self, data: bytes) -> None:
        self._decoded: Decoded = decoded(data, _declared_encoding(data))
        reader = _Reader(self._decoded.text)
        self._ranges = reader.ranges
        self.passages: list[Passage] = [[content] for content in reader.contents]

    def written(self, translations: Sequence[Sequence[Content] | None]) -> bytes:
        """The document with the line of each passage, or with None as it was."""
        page, parts, position = self._decoded.text, [], 0
        for (start, end), found in zip(self._ranges, translations, strict=True):
            parts.append(page[position:start])
            position = end
            if found is None:
                parts.append(page[start:end])
            else:
                edges = _EDGES.fullmatch(page[start:end])
                before, after = edges.groups() if edges else ("", "")
                parts += [before, written(found[0], _escaped), after]
        return self._decoded.encoded("".join([*parts, page[position:]]), "xmlcharrefreplace")


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _declared_encoding(data: bytes) -> str | None:
    """The encoding that a page declares, as browsers take it; None if it does not."""
    match = _DECLARED.search(data[:_DECLARED_WITHIN])
    if match is None:
        return None
    name = (match[1] or match[2]).decode("ascii", "replace").lower()
    if name.startswith("utf-16"):  # in which this declaration could not have been read
        return None
    return "cp1252" if name in ("iso-8859-1", "latin1", "latin-1", "iso8859-1", "ascii", "us-ascii") else name


class _Reader:
    """Finds the passages of a page: their characters and their content."""

    def __init__(self, page: str) -> None:
        self._page, self._tokens, self._is_xml = page, list(html_tokens(page)), is_xml(page)
        self._builder, self._start = PairBuilder(), 0
        self.ranges: list[tuple[int, int]] = []
        self.contents: list[Content] = []
        index = 0
        while index < len(self._tokens):
            index = self._read(index)
        self._end_passage(len(page), len(page))

    def _read(self, index: int) -> int:
        """Read a token, or an element that is one to the reader; returns the index of the next."""
        token = self._tokens[index]
        source = self._page[token.start : token.end]
        if token.kind == "text":
            self._text(source)
        elif token.kind == "title":
            self._end_passage(token.start, token.start)
            self._text(source)
            self._end_passage(token.end, token.end)
        elif token.kind == "start":
            return self._read_start(index)
        elif token.kind == "end" and token.name in _INLINE:
            self._builder.end(token.name, source)
        elif token.kind == "other" and source.startswith("<!--"):
            self._builder.tag(Tag(source))
        else:
            self._end_passage(token.start, token.end)
        return index + 1

    def _read_start(self, index: int) -> int:
        token = self._tokens[index]
        source = self._page[token.start : token.end]
        is_kept = token.attributes.get("translate", "").lower() == "no" or (
            "notranslate" in token.attributes.get("class", "").lower().split()
        )
        if token.name in _VOID_INLINE:
            return self._read_break(index) if token.name == "br" else self._single(source, index + 1)
        if token.name in _CODE or (is_kept and token.name in _INLINE):
            return self._read_code(index)
        if token.name in _OPAQUE_INLINE:
            end = self._end_of_element(index)
            return self._single(self._source(index, end), end)
        if token.name in _INLINE and self._is_xml and token.closes_itself:
            return self._single(source, index + 1)
        if token.name in _INLINE:
            self._builder.start(token.name, source)
            return index + 1
        end = index + 1
        if token.name not in _VOID and (token.name in _OPAQUE or is_kept):
            end = self._end_of_element(index)
        self._end_passage(token.start, self._tokens[end - 1].end)
        return end

    def _read_break(self, index: int) -> int:
        """A line break is in a passage; several in a row end it."""
        end = last = index + 1
        while end < len(self._tokens) and (self._is_break(end) or not self._is_seen(end)):
            end += 1
            last = end if self._is_break(end - 1) else last
        if last == index + 1:
            token = self._tokens[index]
            self._builder.tag(Tag(self._page[token.start : token.end], separates=True))
        else:
            self._end_passage(self._tokens[index].start, self._tokens[last - 1].end)
        return last

    def _is_break(self, index: int) -> bool:
        return self._tokens[index].kind == "start" and self._tokens[index].name == "br"

    def _is_seen(self, index: int) -> bool:
        token = self._tokens[index]
        return token.kind != "text" or bool(self._page[token.start : token.end].strip())

    def _read_code(self, index: int) -> int:
        """An element within a sentence that stays as it is; the model reads it if it is short."""
        end = index + 1
        while end < len(self._tokens) and not self._ends_code(end, index):
            end += 1
        if (
            end < len(self._tokens)
            and self._tokens[end].kind == "end"
            and self._tokens[end].name == self._tokens[index].name
        ):
            end += 1
        inside = (token for token in self._tokens[index:end] if token.kind == "text")
        text = html.unescape("".join(self._page[token.start : token.end] for token in inside))
        text = " ".join(text.split())
        kind = "kept" if 0 < len(text) <= _LONGEST_CODE else "single"
        self._builder.tag(Tag(self._source(index, end), kind, text=text))  # type: ignore[arg-type]
        return end

    def _ends_code(self, index: int, first: int) -> bool:
        """Whether code ends before a token: its end tag, or a tag that ends a sentence."""
        token = self._tokens[index]
        if token.kind == "start":
            return token.name not in _INLINE | _CODE | _VOID_INLINE | _OPAQUE_INLINE
        is_own = token.name == self._tokens[first].name
        return token.kind == "end" and (is_own or token.name not in _INLINE | _CODE | _OPAQUE_INLINE)

    def _end_of_element(self, index: int) -> int:
        """The index after an element: after its end tag, or before what closes it without one."""
        first, open_names, counts = self._tokens[index], [self._tokens[index].name], Counter([self._tokens[index].name])
        if first.closes_itself and (self._is_xml or first.name in ("math", "svg")):
            return index + 1
        for end in range(index + 1, len(self._tokens)):
            token = self._tokens[end]
            if token.kind == "start" and token.name not in _VOID and not token.closes_itself:
                if token.name == first.name and first.name in _END_OPTIONAL and len(open_names) == 1:
                    return end
                open_names.append(token.name)
                counts[token.name] += 1
            elif token.kind == "end":
                if not counts[token.name]:
                    return end  # of an element around this one
                while (name := open_names.pop()) != token.name:
                    counts[name] -= 1
                counts[token.name] -= 1
                if not open_names:
                    return end + 1
        return len(self._tokens)

    def _single(self, source: str, following: int) -> int:
        self._builder.tag(Tag(source))
        return following

    def _text(self, source: str) -> None:
        for part in _UNKNOWN_REFERENCE.split(source):
            if _UNKNOWN_REFERENCE.fullmatch(part) and html.unescape(part) == part:
                self._builder.tag(Tag(part, "kept", text=part))
            elif part:
                self._builder.text(html.unescape(part))

    def _source(self, first: int, end: int) -> str:
        return self._page[self._tokens[first].start : self._tokens[end - 1].end]

    def _end_passage(self, end: int, start: int) -> None:
        """End the passage before a tag that ends sentences; the next one begins after it."""
        content = self._builder.content()
        if any(not isinstance(one, str) or one.strip() for one in content):
            self.ranges.append((self._start, end))
            self.contents.append(content)
        self._builder, self._start = PairBuilder(), start

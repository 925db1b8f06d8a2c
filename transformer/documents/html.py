"""Web pages (.html): text, in tags and between them, is translated; all else stays byte for byte.

Tags within a sentence, such as `<b>` and `<a>`, go where their words go; others, such as `<p>`, end a sentence. Not
translated are scripts, styles, `<pre>`, `<code>` and what has `translate="no"` or the class `notranslate`.
"""

from __future__ import annotations

import bisect
import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from transformer.data.languages import short_code
from transformer.documents.encoded import Decoded, declared_encoding, decoded
from transformer.documents.html_attributes import LANGUAGES, attributes_to_read, is_in_language, quoted
from transformer.documents.html_tokens import HtmlToken, Range, html_tokens, is_xml
from transformer.documents.inline import Content, Tag
from transformer.documents.pairs import PairBuilder, written
from transformer.documents.passages import Passage
from transformer.errors import DataError


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


_INLINE = _names(
    "a abbr acronym b bdi bdo big cite data del dfn em font i ins label mark nobr q rb rp rt rtc ruby s small span "
    "strike strong sub sup time u"
)
_CODE = _names("code kbd samp tt var")  # read as a part of the sentence, but not translated
_VOID = _names("area base br col embed hr img input link meta param source track wbr")
_VOID_INLINE = _names("br embed img input wbr")
_OPAQUE_INLINE = _names("audio canvas iframe map math noembed object picture script style svg textarea video xmp")
_WITHIN_SENTENCES = _INLINE | _CODE | _VOID_INLINE | _OPAQUE_INLINE
_OPAQUE = _names("pre plaintext")
_END_OPTIONAL = _names("dd dt li option p td th tr")
_MOST_TAGS = 1_000_000  # each of some hundred bytes once it is read
_LONGEST_CODE = 100  # characters that are read as a part of the sentence
_LONG_REFERENCE = re.compile(r"&#([0-9]{8,});?")  # of thousands of digits, int() refuses
_UNKNOWN_REFERENCE = re.compile(r"&[A-Za-z][A-Za-z0-9]{1,31};")
_EDGES = re.compile(r"([ \t\n\r\f]*)(?:.*[^ \t\n\r\f])?([ \t\n\r\f]*)", re.DOTALL)


class HtmlDocument:
    """A page, in passages.

    Attributes:
        passages: to translate.
    """

    def __init__(self, data: bytes, languages: tuple[str, str] = ("", "")) -> None:
        self._decoded: Decoded = decoded(data, declared_encoding(data))
        if (number := self._decoded.text.count("<")) > _MOST_TAGS:
            raise DataError(f"has {number} tags, more than {_MOST_TAGS}: split it")
        self._languages, self._reader = languages, _Reader(self._decoded.text)
        self.passages: list[Passage] = [[content] for _, content in (*self._reader.texts, *self._reader.values)]

    def written(self, translations: Sequence[Sequence[Content] | None]) -> bytes:
        """The document with the line of each passage, or with None as it was."""
        page, texts = self._decoded.text, self._reader.texts
        part = _with_values(page, self._values(translations[len(texts) :], is_changed=any(translations)))
        parts, position = [], 0
        for ((start, end), _), found in zip(texts, translations[: len(texts)], strict=True):
            if found is not None:
                edges = _EDGES.fullmatch(page[start:end])
                before, after = edges.groups() if edges else ("", "")
                parts += [part((position, start)), before, written(found[0], _escaped, part), after]
                position = end
        return self._decoded.encoded("".join([*parts, part((position, len(page)))]), "xmlcharrefreplace")

    def _values(
        self, translations: Sequence[Sequence[Content] | None], *, is_changed: bool
    ) -> Iterator[tuple[Range, str]]:
        """New values of attributes, with the places of the old ones."""
        page, (source, target) = self._decoded.text, self._languages
        for ((start, end), _), found in zip(self._reader.values, translations, strict=True):
            if found is not None:
                text = written(found[0], _escaped, lambda place: page[place[0] : place[1]])
                yield (start, end), quoted(text, page[start:end])
        for start, end in self._reader.languages if is_changed and target else ():
            if is_in_language(page[start:end].strip("\"' "), source):
                yield (start, end), quoted(short_code(target), page[start:end])


def _with_values(page: str, values: Iterable[tuple[Range, str]]) -> Callable[[Range], str]:
    """A function that gives characters of a page, with other values for some attributes."""
    changed = sorted(values)
    starts = [start for (start, _), _ in changed]

    def part(place: Range) -> str:
        position, end = place
        parts = []
        for (a, b), value in changed[bisect.bisect_left(starts, position) : bisect.bisect_left(starts, end)]:
            parts += [page[position:a], value]
            position = b
        return "".join([*parts, page[position:end]])

    return part


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _unescaped(text: str) -> str:
    """Text with characters for references; those beyond Unicode are U+FFFD, of however many digits."""
    return html.unescape(_LONG_REFERENCE.sub(lambda match: f"&#{match[1].lstrip('0')[:8] or '0'};", text))


class _Reader:
    """Finds the passages of a page.

    Attributes:
        texts: between tags: characters and content.
        values: of attributes, likewise.
        languages: values of attributes that name one.
    """

    def __init__(self, page: str) -> None:
        self._page, self._tokens, self._is_xml = page, list(html_tokens(page)), is_xml(page)
        self._builder, self._start = PairBuilder(), 0
        self.texts: list[tuple[Range, Content]] = []
        self.values: list[tuple[Range, Content]] = []
        self.languages: list[Range] = []
        index = 0
        while index < len(self._tokens):
            index = self._read(index)
        self._end_passage(len(page), len(page))

    def _read(self, index: int) -> int:
        """Read a token, or an element that is one to the reader; returns the index of the next."""
        token = self._tokens[index]
        place = (token.start, token.end)
        if token.kind == "text":
            self._text(self._builder, *place)
        elif token.kind == "title":
            self._end_passage(token.start, token.start)
            self._text(self._builder, *place)
            self._end_passage(token.end, token.end)
        elif token.kind == "start":
            return self._read_start(index)
        elif token.kind == "end" and token.name in _INLINE:
            self._builder.end(token.name, place)
        elif token.kind == "other" and self._page.startswith("<!--", token.start):
            self._builder.tag(Tag(place))
        else:
            self._end_passage(token.start, token.end)
        return index + 1

    def _read_start(self, index: int) -> int:
        token = self._tokens[index]
        is_kept = token.value(self._page, "translate").lower() == "no" or (
            "notranslate" in token.value(self._page, "class").lower().split()
        )
        if not is_kept:
            self._attributes(token)
        is_kept |= token.name == "option" and "value" not in token.attributes  # a form sends its text
        if token.name == "br":
            return self._read_break(index)
        if token.name in _VOID_INLINE or (token.name in _INLINE | _CODE and self._is_xml and token.closes_itself):
            return self._single(index, index + 1)
        if token.name in _OPAQUE_INLINE:
            return self._single(index, self._end_of_element(index))
        if token.name in _CODE or (is_kept and token.name in _INLINE):
            return self._read_code(index)
        if token.name in _INLINE:
            self._builder.start(token.name, (token.start, token.end))
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
            self._builder.tag(Tag(self._place(index, last), separates=True))
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
        end = self._end_of_code(index)
        inside = (token for token in self._tokens[index:end] if token.kind == "text")
        text = _unescaped("".join(self._page[token.start : token.end] for token in inside))
        text = " ".join(text.split())
        kind: Literal["kept", "single"] = "kept" if 0 < len(text) <= _LONGEST_CODE else "single"
        self._builder.tag(Tag(self._place(index, end), kind, text=text))
        return end

    def _end_of_code(self, index: int) -> int:
        """The index after an element within a sentence: after its end tag, or before a tag that ends a sentence."""
        name, depth = self._tokens[index].name, 1
        for end in range(index + 1, len(self._tokens)):
            token = self._tokens[end]
            if token.kind not in ("start", "end"):
                continue
            if token.name == name:
                is_empty = self._is_xml and token.closes_itself
                depth += -1 if token.kind == "end" else 0 if is_empty else 1
                if not depth:
                    return end + 1
            elif token.name not in _WITHIN_SENTENCES:
                return end
        return len(self._tokens)

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

    def _single(self, first: int, end: int) -> int:
        self._builder.tag(Tag(self._place(first, end)))
        return end

    def _attributes(self, token: HtmlToken) -> None:
        self.languages += [token.attributes[name] for name in LANGUAGES if name in token.attributes]
        for start, end in attributes_to_read(self._page, token):
            builder, is_quoted = PairBuilder(), self._page[start] in "\"'"
            self._text(builder, start + is_quoted, end - is_quoted)
            if content := builder.content():
                self.values.append(((start, end), content))

    def _text(self, builder: PairBuilder, start: int, end: int) -> None:
        for match in _UNKNOWN_REFERENCE.finditer(self._page, start, end):
            if _unescaped(match[0]) == match[0]:
                builder.text(_unescaped(self._page[start : match.start()]))
                builder.tag(Tag(match.span(), "kept", text=match[0]))
                start = match.end()
        builder.text(_unescaped(self._page[start:end]))

    def _place(self, first: int, end: int) -> Range:
        return self._tokens[first].start, self._tokens[end - 1].end

    def _end_passage(self, end: int, start: int) -> None:
        """End the passage before a tag that ends sentences; the next one begins after it."""
        content = self._builder.content()
        if any(not isinstance(one, str) or one.strip() for one in content):
            self.texts.append(((self._start, end), content))
        self._builder, self._start = PairBuilder(), start

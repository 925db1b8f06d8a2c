"""Opening and closing tags, paired into spans."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from transformer.documents.inline import Content, Tag, add_text

_MOST_NESTED = 100
_NO_CONTENT = {"br", "hr", "img", "wbr"}  # of the tags that people write into text
# And the gaps between columns.
_TAG_IN_TEXT = re.compile(
    r"""<(?P<end>/?)(?P<name>[A-Za-z][\w:-]*)(?P<rest>[^<>\n]{0,500})> | \{\\[^{}\n]{0,200}\}
      | [ ]*\t[ \t]* | [ ]{3,}""",
    re.VERBOSE,
)


class PairBuilder:
    """Builds content from text and tags in order.

    A tag without its partner is single, and so is one inside of too many others.
    """

    def __init__(self) -> None:
        self._content: Content = []
        self._open: list[tuple[str, Any, Content]] = []  # name, source, and the content around it
        self._too_deep: Counter[str] = Counter()

    def text(self, text: str) -> None:
        """Add text."""
        if text:
            add_text(self._content, text)

    def tag(self, tag: Tag) -> None:
        """Add a tag that has no partner."""
        self._content.append(tag)

    def start(self, name: str, source: Any) -> None:
        """Add an opening tag."""
        if len(self._open) >= _MOST_NESTED:
            self._too_deep[name] += 1
            self.tag(Tag(source))
        else:
            self._open.append((name, source, self._content))
            self._content = []

    def end(self, name: str, source: Any) -> None:
        """Add a closing tag."""
        if self._too_deep[name]:
            self._too_deep[name] -= 1
            self.tag(Tag(source))
        elif all(name != other for other, _, _ in self._open):
            self.tag(Tag(source))
        else:
            while self._open[-1][0] != name:
                self._leave_open()
            _, opening, around = self._open.pop()
            around.append(Tag((opening, source), "span", self._content))
            self._content = around

    def content(self) -> Content:
        """All that was added."""
        while self._open:
            self._leave_open()
        return self._content

    def _leave_open(self) -> None:
        _, source, around = self._open.pop()
        around += [Tag(source), *self._content]
        self._content = around


def tags_of(text: str) -> Content:
    """The content of a line of text with tags such as `<i>`, `<br/>` and `{\\an8}`, and gaps between columns."""
    builder, position = PairBuilder(), 0
    for match in _TAG_IN_TEXT.finditer(text):
        builder.text(text[position : match.start()])
        position, name = match.end(), (match["name"] or "").lower()
        if not name or name in _NO_CONTENT or match["rest"].endswith("/"):
            is_gap = match[0].isspace()
            builder.tag(Tag(match[0], separates=is_gap or name == "br", divides=is_gap))
        elif match["end"]:
            builder.end(name, match[0])
        else:
            builder.start(name, match[0])
    builder.text(text[position:])
    return builder.content()


def written(content: Content, escape: Callable[[str], str] = str, source: Callable[[Any], str] = str) -> str:
    """Text and tags as a document has them; the source of a span is a pair.

    Args:
        escape: for text, and for kept tags that are text.
        source: gives what is written for the source of a tag.
    """
    parts = []
    for one in content:
        if isinstance(one, str):
            parts.append(escape(one))
        elif one.kind == "span":
            opening, closing = one.source
            parts += [source(opening), written(one.children, escape, source), source(closing)]
        else:
            parts.append(escape(one.text) if one.source is None else source(one.source))
    return "".join(parts)


def written_in_text(content: Content) -> str:
    """The same in plain text, which has no way to say that a `<` begins no tag.

    Where text would be read as a tag, or as a part of one, the characters that begin tags are left out of it.
    """
    text = written(content)
    if [match[0] for match in _TAG_IN_TEXT.finditer(text)] == list(_sources(content)):
        return text
    return written(content, lambda part: part.replace("<", "").replace("{\\", ""))


def _sources(content: Content) -> Iterator[str]:
    """Tags in their order, without placeholders."""
    for one in content:
        if isinstance(one, str) or one.source is None:
            continue
        if one.kind == "span":
            yield one.source[0]
            yield from _sources(one.children)
            yield one.source[1]
        else:
            yield one.source

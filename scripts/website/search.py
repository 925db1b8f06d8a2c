"""The search of the pages: what they say by sections, which a script of the site looks through in the browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from website.pages import Rendered

_SCRIPT = Path(__file__).parent / "templates" / "search.js"
_WITHIN_WORDS = {"a", "code", "del", "em", "span", "strong", "sub", "sup", "b", "i"}


class Section(NamedTuple):
    """A page from one heading to the next; what is before the first has none."""

    anchor: str
    heading: str
    text: str


class _Reader(HTMLParser):
    """The sections of the content of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.sections: list[tuple[str, list[str], list[str]]] = [("", [], [])]
        self._heading: str | None = None  # the element that is open
        self._in_equation = False
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if re.fullmatch("h[1-3]", tag):
            self.sections.append((dict(attrs).get("id") or "", [], []))
            self._heading = tag
        elif tag not in _WITHIN_WORDS:
            self.sections[-1][2].append(" ")
        self._in_equation |= tag == "math"

    def handle_endtag(self, tag: str) -> None:
        if tag == self._heading:
            self._heading = None
        self._in_equation &= tag != "math"

    def handle_data(self, data: str) -> None:
        if not self._in_equation:
            _, heading, text = self.sections[-1]
            (text if self._heading is None else heading).append(data)


def sections(content: str) -> list[Section]:
    """The sections of HTML that have a heading or a text, without their markup and equations."""
    read = (
        Section(anchor, " ".join("".join(heading).split()), " ".join("".join(text).split()))
        for anchor, heading, text in _Reader(content).sections
    )
    return [section for section in read if section.heading or section.text]


def write_search(directory: Path, pages: Mapping[str, Rendered]) -> None:
    """Write search.js and search_index.js, a list of address, title of the page, heading, text.

    Args:
        directory: of the site.
        pages: by their addresses in it.
    """
    found = [
        (f"{target}#{section.anchor}" if section.anchor else target, page.title, section.heading, section.text)
        for target, page in pages.items()
        for section in sections(page.content)
    ]
    # A script and not JSON: a browser reads no other files of a page that was opened from a disk.
    index = f"window.siteIndex = {json.dumps(found, ensure_ascii=False, separators=(',', ':'))};\n"
    (directory / "search_index.js").write_text(index, encoding="utf-8")
    shutil.copyfile(_SCRIPT, directory / _SCRIPT.name)

"""Links and anchors of a directory of HTML files that lead nowhere, and what they would load from elsewhere."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

# The colours of code: most of the elements of a site, and the parser takes as long for each of them as for any other.
_COLOURS = re.compile(r'</span>|<span class="[^"]*">')


class _Reference(NamedTuple):
    address: str
    is_loaded: bool  # by the browser, without a click


class _File(HTMLParser):
    """The anchors and references of an HTML file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.references: list[_Reference] = []
        self.feed(_COLOURS.sub("", text))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name == "srcset":
                self.references += [_Reference(part.split()[0], True) for part in value.split(",") if part.split()]
            elif name in ("href", "src", "data"):
                self.references.append(_Reference(value, name != "href" or tag == "link"))
            elif name == "content" and "url=" in value:  # a page that leads on to another one
                self.references.append(_Reference(value.partition("url=")[2], True))


class Files(NamedTuple):
    """The HTML files of a directory."""

    directory: Path
    pages: dict[Path, _File]


def parse(directory: Path) -> Files:
    """Read all HTML files of a directory."""
    pages = {path: _File(path.read_text(encoding="utf-8")) for path in sorted(directory.rglob("*.html"))}
    return Files(directory, pages)


def dead_links(files: Files) -> list[str]:
    """Every link to a file or anchor that is not there, as "FILE: LINK"."""
    return [
        f"{path.relative_to(files.directory)}: {address}"
        for path, page in files.pages.items()
        for address, _ in page.references
        if _is_internal(address) and not _leads_somewhere(path, address, files)
    ]


def loaded_from_elsewhere(files: Files) -> list[str]:
    """Every script, style or picture that a browser would fetch from another place, as "FILE: ADDRESS"."""
    return [
        f"{path.relative_to(files.directory)}: {address}"
        for path, page in files.pages.items()
        for address, is_loaded in page.references
        if is_loaded and not _is_internal(address) and urlsplit(address).scheme != "data"
    ]


def _is_internal(address: str) -> bool:
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc


def _leads_somewhere(path: Path, address: str, files: Files) -> bool:
    parts = urlsplit(address)
    target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(files.directory) or not target.is_file():
        return False
    page = files.pages.get(target)
    return not parts.fragment or page is None or unquote(parts.fragment) in page.anchors

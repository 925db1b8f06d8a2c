"""The pages of the documentation, their blocks, links, and the commands of this project in them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {path: path.read_text(encoding="utf-8") for path in PAGES}


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block, indented or not."""
    return [
        (lang, body) for _, lang, body in re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    ]


def without_blocks(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """Code between back quotes, which may continue on the next line."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_blocks(text))]


def python_blocks(name: str) -> list[str]:
    return [body for lang, body in blocks(TEXT[ROOT / name]) if lang == "python"]


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of every command of this project, without its interpreter."""
    yield from commands_of_blocks(text)
    yield from _commands(spans(text))


def commands_of_blocks(text: str) -> Iterator[list[str]]:
    """Those of the blocks alone, which can be copied as they stand."""
    shell = [body.replace("\\\n", " ") for lang, body in blocks(text) if lang in ("", "bash", "console")]
    return _commands("\n".join(shell).splitlines())


def _commands(lines: list[str]) -> Iterator[list[str]]:
    for line in lines:
        for part in re.split(r"&&|\|(?!\w)", re.sub(r"(^|\s{2,})#.*", "", line).removeprefix("$ ")):
            with contextlib.suppress(ValueError):  # output with a single quotation mark
                words = shlex.split(part)
                if found := _program([*itertools.takewhile(lambda word: word not in ("<", ">"), words)]):
                    yield found


def _program(words: list[str]) -> list[str] | None:
    if words[:1] == ["transformer"] and len(words) > 1:
        return words
    for number, word in enumerate(words):
        if word == "transformer.commands":
            return ["transformer", *words[number + 1 :]]
        if re.fullmatch(r"(examples|scripts|tests)/(\w+/)*(?!test_)\w+\.py", word):
            return words[number:]
    return None


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


@functools.cache
def anchors(path: Path) -> set[str]:
    return {slug(found) for found in re.findall(r"^#+ (.+)$", without_blocks(path.read_text("utf-8")), re.MULTILINE)}


def broken_links(page: Path, text: str) -> list[str]:
    text = without_blocks(text)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"""(?:src|srcset|href)="([^"]+)\"""", text)
    broken = []
    for link in links:
        file, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken

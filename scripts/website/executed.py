"""The Python blocks of a page run as one program; what each prints and draws is kept.

The value of a block's last line is shown as in a notebook: a figure as a picture in both themes, anything else but None
as text. The comment behind it is the picture's caption.
"""

from __future__ import annotations

import ast
import contextlib
import io
import runpy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from transformer.inspection.canvas import save, theme

_OPEN, _CLOSE = "```python", "```"
SUFFIXES = {"light": ".svg", "dark": "-dark.svg"}


class Output(NamedTuple):
    """What a block printed, and its picture: the stem of its files and its caption."""

    text: str = ""
    picture: str | None = None
    caption: str = ""


class Executed(NamedTuple):
    """The outputs of all blocks in their order, and the names that they defined."""

    outputs: list[Output]
    names: dict[str, Any]


def execute(page: Path, pictures: Path) -> Executed:
    """Run the blocks of a page from top to bottom; an exception of theirs has the page's line numbers.

    Args:
        page: a Markdown file.
        pictures: an existing directory, which gets NUMBER.svg and NUMBER-dark.svg for the figure of a block.
    """
    recorder = _Recorder(pictures)
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(recorder.printed):
        # A file, so that its traceback and `inspect` have lines to show.
        file = Path(directory, page.name).with_suffix(".py")
        file.write_text(program(page.read_text(encoding="utf-8")), encoding="utf-8")
        hooks = {"__show__": recorder.show, "__end__": recorder.end}
        names = runpy.run_path(str(file), hooks, run_name=page.stem.lower())
    return Executed(recorder.outputs, names)


def program(text: str) -> str:
    """The blocks of a page as a program with the same line numbers, which calls __show__ and __end__."""
    lines: list[str] = []
    block: list[str] | None = None
    for line in text.split("\n"):
        if block is None:
            lines.append("")
            block = [] if line == _OPEN else None
        elif line == _CLOSE:
            lines += [*_shown(block), "__end__()"]
            block = None
        else:
            block.append(line)
    return "\n".join(lines)


def _shown(block: list[str]) -> list[str]:
    """The lines of a block, whose last expression is given to __show__ with the comment behind it."""
    statements = ast.parse("\n".join(block)).body
    if not statements or not isinstance(last := statements[-1], ast.Expr):
        return block
    lines, first, final = [*block], last.lineno - 1, (last.end_lineno or 0) - 1
    encoded = lines[final].encode()  # columns count bytes
    expression, rest = encoded[: last.end_col_offset].decode(), encoded[last.end_col_offset :].decode()
    lines[final] = f"{expression}, {rest.strip().removeprefix('#').strip()!r})"
    lines[first] = f"__show__(lambda: {lines[first]}"
    return lines


class _Recorder:
    def __init__(self, pictures: Path) -> None:
        self.pictures, self.printed = pictures, io.StringIO()
        self.outputs: list[Output] = []
        self._picture: tuple[str, str] | None = None

    def show(self, make: Callable[[], Any], caption: str) -> None:
        with theme("light"):
            value = make()
            if not hasattr(value, "savefig"):
                if value is not None:
                    print(repr(value))
                return
            stem = str(len(self.outputs) + 1)
            save(value, self.pictures / f"{stem}{SUFFIXES['light']}")
        with theme("dark"):  # drawn again: colours are chosen while drawing
            save(make(), self.pictures / f"{stem}{SUFFIXES['dark']}")
        self._picture = stem, caption

    def end(self) -> None:
        self.outputs.append(Output(self.printed.getvalue(), *(self._picture or ())))
        self.printed.seek(0)
        self.printed.truncate()
        self._picture = None

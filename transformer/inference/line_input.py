"""Where the lines to translate come from: arguments, a file, a pipe, a terminal."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TextIO

from transformer.data.corpus import decode_lines, in_chunks, read_lines
from transformer.errors import DataError
from transformer.inference.arguments import text_list
from transformer.inference.arriving import arriving_chunks

# Names of standard input that cannot be opened when it is a socket, or not twice.
_STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


@dataclass(frozen=True)
class LineInput:
    """Lines and how they come.

    Attributes:
        name: for messages.
        read: returns the lines; again only if `pace` is "file".
        pace: of a "file" all lines are there, and likewise of "memory"; they may still be "arriving"; a person is
            "typing".
        path: of the file, if it has a name.
    """

    name: str
    read: Callable[[], Iterator[str]]
    pace: Literal["file", "memory", "arriving", "typing"]
    path: Path | None = None

    def chunks(self, lines: Iterator[str], size: int, max_characters: int) -> Iterator[list[str]]:
        """Chunk the lines (or what is left of them) so that all that are there are together.

        Args:
            size: the most lines of a chunk.
            max_characters: a chunk ends with the line that reaches so many.
        """
        if self.pace == "arriving":
            return arriving_chunks(lines, size, max_characters)
        return in_chunks(lines, 1 if self.pace == "typing" else size, max_characters, len)


def texts_input(texts: Sequence[str]) -> LineInput:
    """The lines are given. TypeError if they are one string, or one of them is not text."""
    lines = text_list(texts)
    return LineInput("--text", lambda: iter(lines), "memory")


def file_input(file: str) -> LineInput:
    """The lines of a file, plain or compressed, of a named pipe, or of standard input, whose name is `-`.

    DataError if there is no such file or it is a directory.
    """
    if file in _STANDARD_INPUT:
        return _standard_input()
    path = Path(file)
    if _is_absent(file):
        looks_like_text = any(map(str.isspace, file)) or not (os.sep in file or path.suffix.strip("."))
        raise DataError(f"{file}: no such file{'; did you mean --text?' * looks_like_text}")
    if path.is_dir():
        raise DataError(f"{file}: is a directory; give a file with a sentence per line")
    return LineInput(file, lambda: read_lines(path), "file" if path.is_file() else "arriving", path)


def _is_absent(file: str) -> bool:
    """Whether nothing has this name; a text may be too long for one."""
    try:
        Path(file).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _standard_input() -> LineInput:
    name = "standard input"
    if sys.stdin is None:
        raise DataError(f"{name} is closed; give a file")
    if (stream := getattr(sys.stdin, "buffer", None)) is None:  # a program has put text in its place
        return LineInput(name, lambda: decode_lines(_as_bytes(sys.stdin), name), "memory")
    path = Path("/dev/stdin") if os.name == "posix" else None
    try:
        descriptor = sys.stdin.fileno()
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # not a stream of the operating system
        is_file, path = True, None
    if sys.stdin.isatty() or is_file:
        return LineInput(name, lambda: decode_lines(stream, name), "typing" if sys.stdin.isatty() else "memory", path)
    # A stream of its own: at exit Python closes `sys.stdin`, which it could not while a thread waits in it.
    opened = open(descriptor, "rb", closefd=False)  # noqa: SIM115 (a descriptor, open until exit)
    return LineInput(name, lambda: decode_lines(opened, name), "arriving", path)


def _as_bytes(text: TextIO) -> BinaryIO:
    return io.BytesIO(text.read().encode(errors="surrogatepass"))  # `decode_lines` refuses them with the line's number

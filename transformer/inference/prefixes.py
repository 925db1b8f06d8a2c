"""Prefixes of translations for the lines of an input: one for all, or a file with one for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformer.data.corpus import checked_files, read_lines
from transformer.errors import DataError


@dataclass(frozen=True)
class Prefixes:
    """Where the prefixes come from; neither a text nor a file: there are none.

    Args:
        text: the prefix of every line.
        path: a file, plain or compressed, whose lines are the prefixes of the input's.
    """

    text: str | None = None
    path: Path | None = None

    def settings(self) -> dict[str, object]:
        """What translations depend on; DataError if the file cannot be read."""
        if self.path is not None:
            return {"prefix_file": checked_files(self.path)[0]}
        return {} if self.text is None else {"prefix": self.text}

    def reader(self, num_done: int = 0) -> PrefixReader:
        """Reads the prefixes after those of the first lines. DataError if there is no such file."""
        if self.path is None:
            return PrefixReader(None if self.text is None else itertools.repeat(self.text))
        if not self.path.is_file():
            raise DataError(f"--prefix-file {self.path}: is not a file with a prefix per line")
        return PrefixReader(itertools.islice(read_lines(self.path), num_done, None), str(self.path))


class PrefixReader:
    """Gives away prefixes in order.

    Args:
        prefixes: None without any.
        name: of their file.
    """

    def __init__(self, prefixes: Iterator[str] | None, name: str = "") -> None:
        self._prefixes, self._name = prefixes, name

    def take(self, number: int) -> list[str] | None:
        """The prefixes of the next lines; DataError if the file has fewer."""
        if self._prefixes is None:
            return None
        taken = list(itertools.islice(self._prefixes, number))
        if len(taken) < number:
            raise DataError(f"{self._name}: has fewer lines than the input; give a prefix per line, possibly empty")
        return taken

    def finish(self) -> None:
        """DataError if the file has lines left."""
        if self._name and self._prefixes is not None and next(self._prefixes, None) is not None:
            raise DataError(f"{self._name}: has more lines than the input; give a prefix per line")

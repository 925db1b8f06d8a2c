"""Output of hours of work: complete or not there, and gone on with after whatever stopped the work."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer.errors import DataError
from transformer.files import check_replaceable, try_lock, write_whole


class ResumableOutput:
    """What is done of an output OUT, in OUT.part, and in OUT.part.json of which lines, and how, it was made.

    Work comes in chunks. A chunk counts once OUT.part.json says so: what a killed process wrote after that is cut off.

    Attributes:
        part: OUT.part.
        num_done: input lines whose output is there.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.part = path.with_name(f"{path.name}.part")
        self.num_done = 0
        self._path = path
        self._record = path.with_name(f"{path.name}.part.json")
        self._settings = dict(settings)
        self._num_bytes = 0
        self._digest = hashlib.sha256()
        self._expected_digest = self._digest.hexdigest()

    def remaining(self, lines: Iterator[str]) -> Iterator[str]:
        """The lines that are still to do. DataError unless those before them are the ones that were done."""
        self._digest = hashlib.sha256()
        num_there = 0
        for line in itertools.islice(lines, self.num_done):
            self._digest.update(_line_bytes(line))
            num_there += 1
        if num_there < self.num_done:
            raise DataError(
                f"{self.part}: has the translations of {self.num_done} lines, more than the {num_there} of the input; "
                "restore the input, or delete it to start again"
            )
        if self._digest.hexdigest() != self._expected_digest:
            raise DataError(
                f"{self.part}: was made from other lines than the first {self.num_done} of the input; restore these, "
                "or delete it to start again"
            )
        return lines

    def add(self, lines: Sequence[str], text: str) -> None:
        """Append what the next lines became. OSError, naming OUT.part, if it cannot be written."""
        data = text.encode()
        for line in lines:
            self._digest.update(_line_bytes(line))
        self.num_done += len(lines)
        self._num_bytes += len(data)
        try:
            with self.part.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # the record must never be of more than is there
            self._write_record()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.part)) from None

    def complete(self) -> None:
        """Give the output its name."""
        self.part.replace(self._path)
        self._record.unlink(missing_ok=True)

    def resume(self) -> None:
        """Take up what an earlier process has left. DataError if that is of other settings or cannot be told."""
        if not self.part.stat().st_size:
            self._write_record()
            return
        done = self._read_record()
        for name, now in self._settings.items():
            if (before := done["settings"].get(name)) != now:
                raise DataError(
                    f"{self.part}: was made with {name}={before}, and now it is {now}; set it back, or delete the file "
                    "to start again"
                )
        if self.part.stat().st_size < done["num_bytes"]:
            raise DataError(f"{self.part}: is shorter than {self._record.name} says; delete it to start again")
        os.truncate(self.part, done["num_bytes"])
        self.num_done, self._num_bytes, self._expected_digest = done["num_lines"], done["num_bytes"], done["sha256"]

    def _read_record(self) -> dict[str, Any]:
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            if {name: type(x) for name, x in record.items()} != {
                name: type(x) for name, x in self._as_record().items()
            }:
                raise ValueError("it is not of this version")
            if not all(0 <= record[name] < 1 << 63 for name in ("num_lines", "num_bytes")):
                raise ValueError("it counts what cannot be")
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{self.part}: {self._record.name}, which tells what it holds, cannot be read ({reason}); delete "
                f"{self.part.name} to start again"
            ) from None
        return dict(record)

    def _write_record(self) -> None:
        write_whole(self._record, json.dumps(self._as_record(), indent=1))

    def _as_record(self) -> dict[str, object]:
        return {
            "settings": self._settings,
            "num_lines": self.num_done,
            "num_bytes": self._num_bytes,
            "sha256": self._digest.hexdigest(),
        }


@contextlib.contextmanager
def resumable_output(path: Path, settings: Mapping[str, object]) -> Iterator[ResumableOutput]:
    """An output with what an earlier process has left of it, for this process alone while it is entered.

    Args:
        path: OUT, which `complete` will replace.
        settings: what shapes the output besides the lines; values that JSON keeps.

    Raises:
        InUseError: another process is at it.
        ConfigError: it is something else than a file.
        DataError: it was begun with other settings.
        OSError: it cannot be written.
    """
    check_replaceable(path)
    output = ResumableOutput(path, settings)
    lock_file = path.with_name(f".{output.part.name}.lock")
    _lock = try_lock(lock_file, f"--output {path}")
    try:
        output.part.touch()
        output.resume()
        yield output
    finally:
        lock_file.unlink(missing_ok=True)


def _line_bytes(line: str) -> bytes:
    return line.encode(errors="surrogatepass") + b"\n"

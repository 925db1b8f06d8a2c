"""Interruptible output for long jobs: complete or absent, and resumable."""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer.errors import DataError
from transformer.files import check_replaceable, try_lock, write_atomic


class ResumableOutput:
    """The unfinished output OUT.part, with its input and settings recorded in OUT.part.json.

    Chunks are committed by the record: what a killed process wrote after its last record is truncated.

    Attributes:
        part: OUT.part.
        num_done: input lines whose output is committed.
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
        """Skip the lines that are done. DataError if they differ from those of the record."""
        self._digest = hashlib.sha256()
        num_read = 0
        for line in itertools.islice(lines, self.num_done):
            self._digest.update(f"{line}\n".encode(errors="surrogatepass"))
            num_read += 1
        if num_read < self.num_done:
            raise DataError(
                f"{self.part}: has the translations of {self.num_done} lines, more than the {num_read} of the input; "
                "restore the input, or delete it to start again"
            )
        if self._digest.hexdigest() != self._expected_digest:
            raise DataError(
                f"{self.part}: was made from other lines than the first {self.num_done} of the input; restore these, "
                "or delete it to start again"
            )
        return lines

    def add(self, lines: Sequence[str], text: str) -> None:
        """Append and commit the output of the next lines. OSError, naming OUT.part, if that fails."""
        data = text.encode()
        for line in lines:
            self._digest.update(f"{line}\n".encode(errors="surrogatepass"))
        self.num_done += len(lines)
        self._num_bytes += len(data)
        try:
            with self.part.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # before the record, which must not count bytes that could still be lost
            self._write_record()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.part)) from None

    def complete(self) -> None:
        """Rename OUT.part to OUT and delete the record."""
        self.part.replace(self._path)
        self._record.unlink(missing_ok=True)

    def resume(self) -> None:
        """Continue an earlier process's output. DataError if its settings differ or its record is damaged."""
        if not self.part.stat().st_size:
            self._write_record()
            return
        done = self._read_record()
        for name in [*self._settings, *done["settings"]]:
            before, now = (settings.get(name, "unset") for settings in (done["settings"], self._settings))
            if before != now:
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
            record = dict(json.loads(self._record.read_text(encoding="utf-8")))
            types = {name: type(value) for name, value in self._as_record().items()}
            if {name: type(value) for name, value in record.items()} != types:
                raise ValueError("other fields than expected")
            if not all(0 <= record[name] < 1 << 63 for name in ("num_lines", "num_bytes")):
                raise ValueError("a count is out of range")
        except (OSError, ValueError, TypeError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{self.part}: its record {self._record.name} cannot be read ({reason}); delete {self.part.name} to "
                "start again"
            ) from None
        return record

    def _write_record(self) -> None:
        write_atomic(self._record, json.dumps(self._as_record(), indent=1))

    def _as_record(self) -> dict[str, object]:
        return {
            "settings": self._settings,
            "num_lines": self.num_done,
            "num_bytes": self._num_bytes,
            "sha256": self._digest.hexdigest(),
        }


@contextlib.contextmanager
def resumable_output(path: Path, settings: Mapping[str, object]) -> Iterator[ResumableOutput]:
    """Open an output, new or interrupted, and lock it against other processes.

    Args:
        path: OUT, which `complete` replaces.
        settings: what the output depends on besides the input lines; JSON values.

    Raises:
        InUseError: another process has it open.
        ConfigError: it exists and is not a regular file.
        DataError: it was started with other settings, or its record is damaged.
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

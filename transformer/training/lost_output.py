"""Going on without a terminal: training does not depend on who reads what it prints."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from transformer.cli import discard

# The reader has exited, or the terminal is gone: nothing written later can arrive.
_LOST = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ESHUTDOWN, errno.ECONNRESET}


class _Lasting:
    """A text stream whose failing writes are dropped: of a full disk as long as it is full, of a lost reader all."""

    def __init__(self, stream: TextIO, on_loss: Callable[[OSError], None]) -> None:
        self.stream = stream
        self.error: OSError | None = None  # of the last write
        self._on_loss, self._is_reported = on_loss, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        with self._surviving():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop what is buffered."""
        with self._surviving():
            self.stream.flush()

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
            self.error = None
        except OSError as error:
            self.error = error
            if error.errno in _LOST:
                discard(self.stream)
            if not self._is_reported:
                self._is_reported = True
                self._on_loss(error)


@contextlib.contextmanager
def lasting_output(run: Path) -> Iterator[None]:
    """Go on when standard output or error is lost (closed pipe or terminal, full disk).

    What was computed since the last checkpoint is worth more than its log, and `metrics.jsonl` has the numbers.
    """
    previous = sys.stdout, sys.stderr

    def report(error: OSError) -> None:
        reason = error.strerror or error
        err.write(f"standard output is lost ({reason}); training goes on, {run / 'metrics.jsonl'} has its numbers\n")

    out, err = _Lasting(sys.stdout, report), _Lasting(sys.stderr, lambda _: None)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = previous
        for stream in (out, err):
            stream.flush()
            if stream.error is not None:  # Python would fail at its exit with what is buffered
                discard(stream.stream)

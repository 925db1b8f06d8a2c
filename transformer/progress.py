"""Progress on stderr: one line redrawn in place on a terminal, elsewhere a few lines of long stages.

A line has at most 80 columns. Errors of writing are ignored: work goes on unwatched.
"""

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TextIO

COLUMNS = 80
DRAW_S = 0.5  # between two drawings
_LONG_S = 5.0  # shorter stages leave no line behind
_RARE_S = 600.0  # the longest pause between two lines of a stage
_MIN_BAR, _MAX_BAR = 6, 22  # columns, frame included
_SEPARATOR = "  "

Advance = Callable[[int], None]


class Stage(Protocol):
    """Opens a stage of work; what it yields takes counts of finished units."""

    def __call__(self, what: str, unit: str = "", total: int | None = None) -> AbstractContextManager[Advance]:
        """Begin to show `what`, counted in units such as "pairs"."""


class Part(NamedTuple):
    """A part of a line; if the line is too long, parts of the highest rank are left out first."""

    text: str
    rank: int


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr.isatty()


def line_width() -> int:
    """Columns for a line on stderr: at most 80, and one less than the terminal has, which would else wrap."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(1, min(columns or COLUMNS, COLUMNS) - 1)


def fit(parts: Sequence[Part], width: int, fraction: float | None = None) -> str:
    """Join the parts that fit; with a fraction, a bar after the first one takes columns that are left."""
    kept = list(parts)
    while len(kept) > 1 and _length(kept) > width:
        kept.remove(max(kept, key=lambda part: part.rank))
    texts = [part.text for part in kept]
    room = width - _length(kept) - len(_SEPARATOR)
    if fraction is not None and room >= _MIN_BAR:
        cells = min(room, _MAX_BAR) - 2
        full = math.floor(cells * min(1.0, max(0.0, fraction)))
        texts.insert(1, f"[{'#' * full}{'.' * (cells - full)}]")
    return _SEPARATOR.join(texts)[:width]


def _length(parts: Sequence[Part]) -> int:
    return sum(len(part.text) for part in parts) + len(_SEPARATOR) * (len(parts) - 1)


def duration(seconds: float) -> str:
    """At most six characters, such as 45s, 12m34s, 1h02m or 3d04h."""
    seconds = max(0, math.floor(seconds))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 100:
        return f"{days}d"
    if days:
        return f"{days}d{hours % 24:02}h"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    return f"{minutes}m{seconds % 60:02}s" if minutes else f"{seconds}s"


def short(number: float, digits: int = 3) -> str:
    """About `digits` significant digits of a number from 0 on, such as 9.04, 57.1 or 31.6k."""
    for suffix in ("", "k", "M", "G", "T"):
        if number < 999.5:
            whole = len(str(int(float(f"{number:.{digits - 1}e}"))))  # rounding may make it longer
            return f"{number:.{max(0, digits - whole)}f}{suffix}"
        number /= 1000
    return f"{number * 1e15:.0e}"


def rate(per_second: float) -> str:
    """A speed: 5,123 in full, 123k from 100,000 on."""
    if per_second < 10:
        return short(per_second)
    return f"{per_second:,.0f}" if per_second < 99_999.5 else short(per_second)


class TerminalLine:
    """The line of a terminal that is redrawn in place; others are printed above it by `say`."""

    def __init__(self) -> None:
        self._shown = ""
        with _lock:
            _lines.append(self)

    def draw(self, text: str) -> None:
        """Replace the line."""
        with _lock:
            # Blanks instead of an escape sequence, which not every terminal knows.
            _write(f"\r{text.ljust(min(len(self._shown), line_width()))}")
            self._shown = text

    def hide(self) -> str:
        """Clear the line; returns its text."""
        text = self._shown
        if text:
            self.draw("")
            _write("\r")
        return text

    def close(self, *, keep: bool = False) -> None:
        """End the line: clear it, or keep it above those that follow."""
        if keep and self._shown:
            _write("\n")
        else:
            self.hide()
        with _lock:
            _lines.remove(self)


_lock = threading.RLock()
_lines: list[TerminalLine] = []


def _write(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line, by default on stderr, above the lines that are redrawn."""
    with _lock:
        hidden = [(line, line.hide()) for line in _lines]
        if stream is None:
            _write(f"{text}\n")
        else:
            print(text, file=stream, flush=True)
        for line, shown in hidden:
            if shown:
                line.draw(shown)


@contextlib.contextmanager
def no_stage(what: str, unit: str = "", total: int | None = None) -> Iterator[Advance]:  # noqa: ARG001
    """A stage that shows nothing."""
    yield lambda _count: None


@contextlib.contextmanager
def stage(what: str, unit: str = "", total: int | None = None) -> Iterator[Advance]:
    """Show a stage of work.

    A terminal shows it redrawn twice a second; elsewhere a line is printed after 5 seconds, and again whenever it has
    taken twice as long, but every 10 minutes. A stage of less than 5 seconds leaves nothing behind.
    """
    shown = _Shown(what, unit, total)
    ended = threading.Event()
    # A thread, since some stages are a single call that returns minutes later.
    watcher = threading.Thread(target=shown.watch, args=(ended,), daemon=True)
    watcher.start()
    try:
        yield shown.advance
        shown.is_complete = True
    finally:
        ended.set()
        watcher.join()


class _Shown:
    def __init__(self, what: str, unit: str, total: int | None) -> None:
        self.what, self.unit, self.total = what, unit, total
        self.done, self.began, self.is_complete = 0, time.monotonic(), False

    def advance(self, count: int) -> None:
        self.done += count
        if self.total is not None:
            self.done = min(self.done, self.total)

    def watch(self, ended: threading.Event) -> None:
        """Show the stage until it has ended."""
        line = TerminalLine() if is_terminal() else None
        pause = DRAW_S if line else _LONG_S
        while not ended.wait(pause):
            if line:
                line.draw(fit(self.parts(), line_width(), self.fraction()))
            else:
                say(fit(self.parts(), COLUMNS))
                pause = min(self.seconds(), _RARE_S)
        if line:
            line.close()
        if self.is_complete and self.seconds() >= _LONG_S:
            counted = f"{self.total or self.done:,} {self.unit} in " if self.unit else ""
            say(f"{self.what}: {counted}{duration(self.seconds())}")

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def fraction(self) -> float | None:
        return self.done / self.total if self.total else None

    def parts(self) -> list[Part]:
        seconds, done, total = self.seconds(), self.done, self.total
        if not self.unit:
            return [Part(self.what, 0), Part(duration(seconds), 1)]
        counted = f"{done:,} of {total:,} {self.unit}" if total else f"{done:,} {self.unit}"
        left = [Part(f"{duration((total - done) * seconds / done)} left", 1)] if total and done else []
        speed = f"{rate(done / seconds)} {self.unit}/s"
        return [Part(f"{self.what}: {counted}", 0), Part(speed, 3), Part(duration(seconds), 2), *left]

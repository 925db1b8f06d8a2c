"""Training as its user sees it: a line redrawn on a terminal, elsewhere a line per log step."""

import sys
import time
from collections.abc import Mapping

from transformer.progress import (
    COLUMNS,
    DRAW_S,
    Part,
    TerminalLine,
    duration,
    fit,
    is_terminal,
    line_width,
    rate,
    say,
    short,
)


def metric_parts(values: Mapping[str, float]) -> list[Part]:
    """Loss, perplexity, learning rate and speed, as far as they are known."""
    parts = []
    if "loss" in values:
        parts.append(Part(f"loss {short(values['loss'], 4)}", 2))
    if "ppl" in values:
        parts.append(Part(f"ppl {short(values['ppl'])}", 4))
    if "lr" in values:
        parts.append(Part(f"lr {values['lr']:.2e}", 5))
    if "tokens_per_s" in values:
        parts.append(Part(f"{rate(values['tokens_per_s'])} tokens/s", 3))
    return parts


class Display:
    """Shows the progress of training on stderr.

    Args:
        first_step: updates that earlier starts have done.
        last_step: updates after which training ends.
        max_seconds: time after which it ends, if earlier.
    """

    def __init__(self, first_step: int, last_step: int, max_seconds: float | None = None) -> None:
        self._first, self._step, self._last = first_step, first_step, last_step
        self._max_seconds, self._began = max_seconds, time.monotonic()
        self._values: Mapping[str, float] = {}
        self._line = TerminalLine() if is_terminal() else None
        self._next_draw = 0.0

    def advance(self) -> None:
        """One update more."""
        self._step += 1
        if self._line is not None and time.monotonic() >= self._next_draw:
            self._draw(self._parts())

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the metrics of an update, which `advance` may not have counted yet."""
        self._values = values
        if self._line is None:
            parts = [Part(f"step {step}", 0), *metric_parts(values), *self._left(step)]
            say(fit(parts, COLUMNS))

    def note(self, text: str) -> None:
        """Say on a terminal what is done until the next update."""
        if self._line is not None:
            self._draw([self._position(), Part(text, 1)])

    def print(self, line: str) -> None:
        """Print a line on stdout, above the one that is redrawn."""
        say(line, sys.stdout)

    def close(self) -> None:
        """Leave the last line behind, if there was an update."""
        if self._line is not None:
            if self._step > self._first:
                self._draw(self._parts())
            self._line.close(keep=True)

    def _draw(self, parts: list[Part]) -> None:
        assert self._line is not None
        self._line.draw(fit(parts, line_width(), self._step / self._last))
        self._next_draw = time.monotonic() + DRAW_S

    def _parts(self) -> list[Part]:
        return [self._position(), *metric_parts(self._values), *self._left(self._step)]

    def _position(self) -> Part:
        return Part(f"{self._step}/{self._last}", 0)

    def _left(self, step: int) -> list[Part]:
        """The time until the last update, or until the time is up."""
        seconds, steps = time.monotonic() - self._began, step - self._first
        # The first update of a start is slower than the others.
        if steps < 2:
            return []
        left = seconds / steps * (self._last - step)
        if self._max_seconds is not None:
            left = min(left, max(0.0, self._max_seconds - seconds))
        return [Part(f"{duration(left)} left", 1)]

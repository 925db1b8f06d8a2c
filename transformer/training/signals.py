"""Graceful stop on Ctrl-C and SIGTERM: training finishes the update and saves."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class StopRequest:
    """Records the first SIGINT or SIGTERM, and returns its name when called.

    A second signal acts as usual, unless `ignore_repeats`: Ctrl-C reaches the workers of torchrun twice, directly and
    through it.
    """

    def __init__(self, *, ignore_repeats: bool = False) -> None:
        self.ignore_repeats = ignore_repeats
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> str | None:
        return None if self.signal is None else self.signal.name

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._record) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
        if not self.ignore_repeats:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

"""Ctrl-C and SIGTERM as requests: the loop finishes its update and saves."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it; a second one acts as usual.

    Call it to ask: it returns the name of the signal, or None.

    Args:
        ignore_repeats: a second one is ignored. For children of torchrun: Ctrl-C reaches them directly and through it.
    """

    def __init__(self, *, ignore_repeats: bool = False) -> None:
        self.ignore_repeats = ignore_repeats
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> str | None:
        return None if self.signal is None else self.signal.name

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
        if not self.ignore_repeats:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

"""Graceful stop on Ctrl-C, SIGTERM and the signals of schedulers and closed terminals: training saves and ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_ENDINGS = (signal.SIGINT, signal.SIGTERM)
# A closed terminal sends the first; schedulers send the others before the time of a job is up. Windows has none.
_WARNINGS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class StopRequest:
    """Records the first SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2, and returns its name when called.

    A second SIGINT or SIGTERM acts as usual, unless `ignore_repeats`: Ctrl-C reaches the workers of torchrun twice,
    directly and through it. The others are warnings, which often come repeatedly, or with SIGTERM after them; those
    that were ignored, as by nohup, stay so. Outside the main thread, which alone has handlers, nothing is recorded.
    """

    def __init__(self, *, ignore_repeats: bool = False) -> None:
        self.ignore_repeats = ignore_repeats
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> str | None:
        return None if self.signal is None else self.signal.name

    def __enter__(self) -> StopRequest:
        if not _is_main_thread():
            return self
        heeded = [number for number in _WARNINGS if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._record) for number in (*_ENDINGS, *heeded)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(tuple(self._previous))

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
        if number in _ENDINGS and not self.ignore_repeats:
            self._restore(_ENDINGS)

    def _restore(self, numbers: tuple[signal.Signals, ...]) -> None:
        for number in numbers:
            if number in self._previous:
                signal.signal(number, self._previous.pop(number))


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def ctrl_c_ends_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process inside of library calls that would not notice or not survive it."""
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_usual or not _is_main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

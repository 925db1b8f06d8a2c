"""What all ranks do after the same update because one of them has a reason: end training, save."""

from __future__ import annotations

import time

from transformer.config import TrainConfig
from transformer.training.distributed import Abandoned, DistributedContext
from transformer.training.training_state import Progress, reason_to_stop
from transformer.training.validation import StopCheck

# Seconds between two exchanges on clocks and signals. Each makes the fastest host wait for the slowest one.
_INTERVAL_S = 0.5
_MOST_UPDATES = 100


class Agreement:
    """Clocks and signals differ between ranks, so they are exchanged: about twice a second, after the same updates.

    What is the same on all ranks, such as the number of updates and what validation has found, ends training on time.
    A single process looks after each update.
    """

    def __init__(self, settings: TrainConfig, context: DistributedContext) -> None:
        self._settings, self._context = settings, context
        self._next_step = 0
        self._last: tuple[int, float] | None = None  # step and time of the last exchange

    def reason_to_end(self, progress: Progress, should_stop: StopCheck) -> str | None:
        """Why training ends by itself after this update; `Abandoned` if a rank is asked to stop."""
        if not self._is_due(progress):
            return None
        own = reason_to_stop(self._settings, progress)
        is_asked = own is None and should_stop.ask() is not None
        update_s = self._seconds_per_update(progress.step)
        has_reason, any_is_asked, slowest_s = self._context.max(own is not None, is_asked, update_s)
        number = max(1, min(_MOST_UPDATES, int(_INTERVAL_S / slowest_s))) if slowest_s else 1
        self._next_step, self._last = progress.step + number, (progress.step, time.monotonic())
        if any_is_asked and not has_reason:
            raise Abandoned
        return self.first(own) if has_reason else None

    def first(self, reason: str | None) -> str:
        """The reason of the lowest rank that has one; at least one has."""
        return next(filter(None, self._context.all_gather(reason)))

    def is_save_due(self, progress: Progress, seconds: float) -> bool:
        """Whether to save after this update, the last time being `seconds` ago on this rank's clock."""
        settings = self._settings
        by_step = settings.save_steps is not None and progress.step % settings.save_steps == 0
        if by_step or settings.save_minutes is None or not self._is_due(progress):
            return by_step
        (longest,) = self._context.max(seconds)
        return longest >= settings.save_minutes * 60

    def _is_due(self, progress: Progress) -> bool:
        """Whether the ranks exchange after this update: they all know by themselves."""
        return (
            self._context.size == 1
            or progress.step >= min(self._next_step, self._settings.max_steps)
            or progress.validated_step == progress.step
        )

    def _seconds_per_update(self, step: int) -> float:
        """Since the last exchange; 0 if it is not known."""
        if self._last is None or step <= self._last[0]:
            return 0.0
        return (time.monotonic() - self._last[1]) / (step - self._last[0])

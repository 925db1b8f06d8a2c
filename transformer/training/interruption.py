"""Updates happen as a whole or not at all, so that `fit` may follow an exception, such as that of Ctrl-C."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from transformer.errors import TrainingError
from transformer.training.optimizer import MasterWeights
from transformer.training.rng import get_rng_state, set_rng_state
from transformer.training.training_state import Progress


class WholeUpdates:
    """Takes back an update that an exception leaves: position, gradients and random numbers are as before.

    Weights and moments that the optimizer has begun to change are not: nothing goes on from there.
    """

    def __init__(self, progress: Progress, weights: MasterWeights) -> None:
        self._progress, self._weights = progress, weights
        # By an update that has begun; left as it is where taking back is interrupted too.
        self._changed: Literal["nothing", "gradients", "weights"] = "nothing"

    def check(self) -> None:
        """TrainingError if an update was left half done."""
        if self._changed != "nothing":
            raise TrainingError(
                f"step {self._progress.step} was interrupted while it changed the weights; make a new Trainer: it "
                "resumes from the last checkpoint"
            )

    @contextlib.contextmanager
    def update(self) -> Iterator[None]:
        """Enclose an update, which draws this process's random numbers. TrainingError as of `check`."""
        self.check()
        progress, numbers = vars(self._progress).copy(), get_rng_state()
        self._changed = "gradients"
        try:
            yield
        except BaseException:
            if self._changed == "gradients":
                vars(self._progress).update(progress)
                self._weights.zero_grad()
                set_rng_state(numbers)
                self._changed = "nothing"
            raise
        self._changed = "nothing"

    def change_weights(self) -> None:
        """The update cannot be taken back from here on."""
        self._changed = "weights"

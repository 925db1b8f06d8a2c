"""Which sentence pairs an update learns from: a position in the data is an epoch and an update in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transformer.config import Config
from transformer.data.batching import plan_updates, share_update
from transformer.data.dataset import Ints, PairDataset
from transformer.training.distributed import World
from transformer.training.progress import Progress


@dataclass(frozen=True)
class Update:
    """An update by its number, its place in the data and its pairs, in batches."""

    step: int
    epoch: int
    number: int
    pairs: list[Ints]

    def __str__(self) -> str:
        indices = [int(i) for batch in self.pairs for i in batch]
        more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
        return f"step {self.step} (update {self.number} of epoch {self.epoch}: pairs {str(indices[:8])[1:-1]}{more})"


class UpdatePlan:
    """The updates of a run, one after the other, epoch after epoch.

    Args:
        data: the training pairs.
        config: says how many tokens an update and a batch have, and names the order.
        world: the processes that share each update.
    """

    def __init__(self, data: PairDataset, config: Config, world: World) -> None:
        self._data = data
        self._config = config
        self._world = world
        self._updates: list[list[Ints]] = []
        self._epoch = -1

    def next(self, progress: Progress) -> Update:
        """The next update, of all processes; moves the position in the data past it."""
        if self._epoch != progress.epoch:
            self._plan(progress.epoch)
        if progress.update >= len(self._updates):
            progress.epoch, progress.update = progress.epoch + 1, 0
            self._plan(progress.epoch)
        progress.update += 1
        return Update(progress.step + 1, progress.epoch, progress.update, self._updates[progress.update - 1])

    def share(self, update: Update) -> list[Ints]:
        """What this process does of an update, in batches."""
        if self._world.size == 1:
            return update.pairs
        return share_update(
            update.pairs,
            self._data.src.lengths,
            self._data.tgt.lengths,
            max_tokens=self._config.train.max_tokens,
            rank=self._world.rank,
            size=self._world.size,
        )

    def _plan(self, epoch: int) -> None:
        self._epoch = epoch
        self._updates = plan_updates(
            self._data.src.lengths,
            self._data.tgt.lengths,
            max_tokens=self._config.train.max_tokens,
            tokens_per_update=self._config.train.tokens_per_update,
            seed=self._config.seed,
            epoch=epoch,
        )


def halve(batches: list[Ints]) -> list[Ints]:
    """The same pairs in batches half the size."""
    return [half for batch in batches for half in np.array_split(batch, 2) if len(half)]

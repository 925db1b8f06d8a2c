"""An exponential moving average of the weights during training (Polyak and Juditsky 1992).

Not of the paper, which averages the last checkpoints (section 6.1): `transformer average`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from transformer.model.transformer import Transformer


class MovingAverage:
    """The moving average of float32 master weights.

    Every rank computes the same one, without communication.

    Attributes:
        model: a float32 model with the averaged weights.
        decay: the part of the average that an update keeps, from 0 to 1; less in the first updates.
    """

    def __init__(self, master: Transformer, decay: float) -> None:
        """Begin with the weights as they are."""
        self.decay = decay
        self.model = copy.deepcopy(master).requires_grad_(False)

    def start_at(self, master: Transformer) -> None:
        """Begin with other weights."""
        self.model.load_state_dict(master.state_dict())

    def decay_at(self, step: int) -> float:
        """The decay of an update, which counts from 1.

        It is (1 + step) / (10 + step) until that exceeds `decay`.
        """
        # So the random first weights are soon forgotten.
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, master: Transformer, is_finite: Tensor, step: int) -> None:
        """Move towards the weights after an update; where it was skipped, `is_finite` (), stay."""
        # On the device: the host does not know yet whether the update was skipped.
        weight = torch.where(is_finite, 1.0 - self.decay_at(step), 0.0)
        for average, current in zip(self.model.parameters(), master.parameters(), strict=True):
            average.lerp_(current, weight)

    def computing(self, like: Transformer) -> Transformer:
        """A copy of the averaged model in the dtype of another, to validate with."""
        # In float32 as well: what a scorer does to it, such as prepacking, must not stay in the average.
        return copy.deepcopy(self.model).to(next(like.parameters()).dtype)

    def exchange(self, model: Transformer, weights: Mapping[str, Tensor]) -> None:
        """Take the averaged weights of a checkpoint from the model.

        They were loaded into it, and it gets `weights`, its own.
        """
        self.start_at(model)
        model.load_state_dict(weights)


def moving_average(master: Transformer, decay: float | None) -> MovingAverage | None:
    """The average of `train.ema_decay`, which begins with the weights; None without one."""
    return None if decay is None else MovingAverage(master, decay)

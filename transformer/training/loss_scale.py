"""Dynamic loss scale for float16 (Micikevicius et al. 2018), kept on the device.

Gradients smaller than float16 can hold become 0, so the loss is multiplied before the backward pass and gradients are
divided in float32. The scale is the largest with which they are finite, found by trial: an update that overflows is
skipped and halves it, and many in a row that do not double it.
"""

import math

import torch
from torch import Tensor

INITIAL_SCALE = 2.0**16
LARGEST_SCALE = 2.0**24
GROWTH_INTERVAL = 2000  # updates without overflow


class LossScale:
    """The scale, a power of 2 from 1 on, so that dividing by it is exact.

    Attributes:
        scale, num_good, num_overflows: float32 tensors (): the scale, updates without overflow since it last changed,
            and updates with one.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.tensor(INITIAL_SCALE, dtype=torch.float32, device=device)
        self.num_good, self.num_overflows = (torch.zeros((), dtype=torch.float32, device=device) for _ in range(2))

    def restore(self, scale: float, num_good: int, num_overflows: int) -> None:
        """Continue from saved values; scale 0 stands for a new run."""
        self.scale.fill_(scale or INITIAL_SCALE)
        self.num_good.fill_(float(num_good))
        self.num_overflows.fill_(float(num_overflows))

    def update(self, is_finite: Tensor) -> Tensor:
        """Adapt the scale to whether an update's gradients are finite; returns whether they overflowed, bool ().

        Gradients that are not finite with the scale 1 are not those of an overflow.
        """
        is_overflow = ~is_finite & (self.scale > 1)
        num_good = torch.where(is_finite, self.num_good + 1, 0.0)
        is_long = num_good >= GROWTH_INTERVAL
        self.num_good = torch.where(is_long, 0.0, num_good)
        grown = torch.where(is_long, (self.scale * 2).clamp(max=LARGEST_SCALE), self.scale)
        self.scale = torch.where(is_overflow, self.scale / 2, grown)
        self.num_overflows = self.num_overflows + is_overflow
        return is_overflow


def is_valid_scale(scale: float) -> bool:
    """Whether a saved value can be a scale: a power of 2 within the limits, or 0 for none."""
    return scale == 0 or (1 <= scale <= LARGEST_SCALE and math.frexp(scale)[0] == 0.5)

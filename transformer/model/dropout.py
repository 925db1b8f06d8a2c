"""Dropout (section 5.4), with masks that are cheap to draw on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zero each element of x with probability p and scale the others so that the mean stays; p in [0, 1).

    On a CPU, torch draws one slow number per element. Here one 64-bit word serves four elements, which makes p a
    multiple of 1/65536; the scale is that of the rounded p.
    """
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    num_dropped = min(round(p * 65536), 65535)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.int16)[: x.numel()].view(x.shape) >= num_dropped - 32768
    return x * keep.to(x.dtype).mul_(65536 / (65536 - num_dropped))

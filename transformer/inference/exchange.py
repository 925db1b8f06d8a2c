"""What a search exchanges with the device: one read per step at most, and writes that do not wait.

A read makes the host wait for all that the device has been asked to compute. While it waits, it asks for nothing new,
so on a GPU, which computes a step of decoding faster than the host can ask for it, every read costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Steps of greedy search and sampling between two looks at their tokens, by type of device; elsewhere 1. Finished
# hypotheses go on until the next look, which costs nothing where a step takes as long for a few rows as for many.
STEPS_PER_LOOK = {"cuda": 8}


def steps_per_look(device: torch.device) -> int:
    """How many steps to take before the host looks at the tokens."""
    return STEPS_PER_LOOK.get(device.type, 1)


def to_device(numbers: Sequence[Any] | Tensor, device: torch.device | str) -> Tensor:
    """A tensor, or whole numbers as one of int64, on a device, without waiting for it."""
    x = numbers if isinstance(numbers, Tensor) else torch.tensor(numbers, dtype=torch.int64)
    # From pageable memory, a copy to CUDA waits for all that was asked for before.
    is_pinned = x.is_cpu and torch.device(device).type == "cuda"
    return x.pin_memory().to(device, non_blocking=True) if is_pinned else x.to(device)


def to_host(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one device on the host, by a single copy: float32, or int64 with numbers below 2^31."""
    if tensors[0].is_cpu:
        return tensors
    words = [x.view(torch.int32) if x.is_floating_point() else x.to(torch.int32) for x in tensors]
    flat = torch.cat([x.flatten() for x in words])
    host = torch.empty(flat.shape, dtype=torch.int32, pin_memory=flat.is_cuda)
    parts = host.copy_(flat).split([x.numel() for x in tensors])
    return tuple(
        (part.view(torch.float32) if x.is_floating_point() else part.to(torch.int64)).view(x.shape)
        for part, x in zip(parts, tensors, strict=True)
    )

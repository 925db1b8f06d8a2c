"""Time by phase, and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def synchronize(device: torch.device) -> None:
    """Wait for the device's queued work, without which wall time would measure nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Accumulates seconds by phase: `with stopwatch("forward"): ...`.

    Args:
        device: synchronized at both ends of a phase.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        synchronize(self.device)
        began = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def shares(self, total_s: float, rest: str) -> dict[str, float]:
        """The fraction of `total_s` by phase; the remainder is named `rest`."""
        shares = {name: seconds / total_s for name, seconds in self.seconds.items()}
        return {**shares, rest: 1 - sum(shares.values())}


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: resident size of the process on a CPU, torch's tensors on CUDA."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

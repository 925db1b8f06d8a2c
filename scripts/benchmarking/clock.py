"""Time by phase, and the most memory that was in use."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told: only then does a clock say how long that took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Adds up the seconds spent in each named phase: `with stopwatch("forward"): ...`.

    Args:
        device: waited for at both ends of a phase.
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
        """The fraction of `total_s` that each phase took; what none of them took is called `rest`."""
        shares = {name: seconds / total_s for name, seconds in self.seconds.items()}
        return {**shares, rest: 1 - sum(shares.values())}


def peak_memory(device: torch.device) -> int:
    """The most bytes in use so far: of the process (resident) on a CPU, of torch's tensors on CUDA."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

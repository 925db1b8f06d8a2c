"""Phases add up and memory grows when it is used."""

from __future__ import annotations

import pytest
import torch
from benchmarking import clock
from benchmarking.clock import Stopwatch, peak_memory

CPU = torch.device("cpu")


def test_shares_of_phases_and_the_rest_add_up_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 3.0, 10.0, 12.0, 20.0, 25.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(times))
    stopwatch = Stopwatch(CPU)
    for name in ("forward", "backward", "forward"):
        with stopwatch(name):
            pass
    assert stopwatch.seconds == {"forward": 8.0, "backward": 2.0}
    assert stopwatch.shares(40.0, rest="host") == {"forward": 0.2, "backward": 0.05, "host": 0.75}


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_on_every_system(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    monkeypatch.setattr(clock.sys, "platform", platform)
    usage = type("Usage", (), {"ru_maxrss": 7919})
    monkeypatch.setattr(clock.resource, "getrusage", lambda who: usage)  # noqa: ARG005
    assert peak_memory(CPU) == 7919 * unit


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_peak_memory_on_cuda_is_that_of_tensors() -> None:
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats()
    before = peak_memory(device)
    x = torch.empty(1 << 20, device=device)
    assert peak_memory(device) >= before + x.numel() * 4

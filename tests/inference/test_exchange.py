"""What a search exchanges with its device; tests/cuda has how often it waits."""

from __future__ import annotations

import torch

from transformer.inference.exchange import steps_per_look, to_device, to_host


def test_on_a_cpu_nothing_is_copied() -> None:
    x, ids = torch.rand(2, 3), torch.arange(6)
    assert [found.data_ptr() for found in to_host(x, ids)] == [x.data_ptr(), ids.data_ptr()]
    assert to_device(ids, "cpu").data_ptr() == ids.data_ptr()


def test_numbers_become_int64() -> None:
    for numbers in ([3, 5], [[3], [5]], [True, False]):
        found = to_device(numbers, torch.device("cpu"))
        assert found.dtype == torch.int64
        assert found.tolist() == torch.as_tensor(numbers).to(torch.int64).tolist()


def test_a_cpu_is_looked_at_after_every_step() -> None:
    assert steps_per_look(torch.device("cpu")) == 1 < steps_per_look(torch.device("cuda"))

"""The loss beside torch's: the same numbers, alternate timing, a row for every combination of sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from benchmarking import loss as module
from benchmarking.loss import benchmark_loss, make_inputs, median_seconds, ours, torchs
from torch.testing import assert_close

CPU = torch.device("cpu")
has_torchs = pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch has it from 2.13 on")


@has_torchs
def test_both_compute_the_same_loss_and_gradients() -> None:
    inputs = make_inputs(31, 7, 13, torch.float64, CPU)
    assert_close(ours(*inputs), torchs(*inputs))


def test_calls_alternate_and_the_first_of_each_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = 0.0, ""
    durations = {"a": iter((100.0, 3.0, 1.0, 2.0)), "b": iter((200.0, 5.0, 7.0, 90.0))}

    def call(name: str) -> None:
        nonlocal now, order
        now += next(durations[name])
        order += name

    monkeypatch.setattr(module.time, "process_time", lambda: now)
    assert median_seconds([lambda: call("a"), lambda: call("b")], CPU, repeat=3) == [2.0, 7.0]
    assert order == "abababab"


@pytest.mark.parametrize("has_torch", [pytest.param(True, marks=has_torchs), False])
def test_there_is_a_row_for_every_combination(has_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_torch:
        monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    dtypes = [torch.bfloat16, torch.float32]
    rows = benchmark_loss([31, 41], [5, 7], [3, 11, 13], dtypes, CPU, repeat=1)["losses"]
    assert len(rows) == len({tuple(row.values())[:4] for row in rows}) == 24
    assert list(rows[0].values())[:4] == ["bfloat16", 31, 5, 3]
    for row in rows:
        assert row["ms"] > 0
        assert (row["torch_ms"] is not None) == (row["ratio"] is not None) == has_torch

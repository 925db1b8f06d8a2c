"""What is summed between two lines of metrics."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from transformer.training.running import RunningSums
from transformer.training.training_state import Progress


def test_sums_are_float64_but_on_apple_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(running_loss=1.5, running_nll=2.5, running_tokens=3)
    expected = torch.tensor([1.5, 2.5, 3], dtype=torch.float64)
    assert torch.equal(RunningSums(progress, torch.device("cpu")).sums, expected)
    found: dict[str, Any] = {}
    monkeypatch.setattr(torch, "tensor", lambda *_, **options: found.update(options))
    RunningSums(Progress(), torch.device("mps"))
    assert found == {"dtype": torch.float32, "device": torch.device("mps")}

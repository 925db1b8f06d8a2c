"""The loss's CUDA kernel against the eager loss, in Triton's interpreter; skipped where Triton is not installed."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

from transformer.training import loss as eager

pytest.importorskip("triton")
# It is asked for before Triton is imported, which another test may have done: so in a process of its own.
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason="TRITON_INTERPRET is not 1")

N = 7


@pytest.mark.slow
@pytest.mark.skipif(IS_INTERPRETED, reason="TRITON_INTERPRET is 1")
def test_the_tests_of_the_kernel_pass_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`loss_triton`, with short blocks of columns."""
    module = importlib.import_module("transformer.training.loss_triton")
    monkeypatch.setattr(module, "_LARGEST_BLOCK", 32)
    return module


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocab_size", [5, 31, 64, 301])
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_kernel_computes_what_the_eager_loss_does(
    kernel: ModuleType, dtype: torch.dtype, vocab_size: int, is_padded: bool, smoothing: float
) -> None:
    torch.manual_seed(3)
    stride = -(-vocab_size // 8) * 8 if is_padded else vocab_size
    logits = torch.full((N, stride), math.nan, dtype=dtype)[:, :vocab_size].copy_(3 * torch.randn(N, vocab_size))
    target = torch.randint(vocab_size, (N,))
    original = logits.clone()
    expected_lse, expected = eager._softmax_gradient(original.clone(), target, smoothing, True)
    assert_close(kernel.softmax_gradient_(logits, target, smoothing, False), expected_lse)
    assert torch.equal(logits, original)
    assert_close(kernel.softmax_gradient_(logits, target, smoothing, True), expected_lse)
    assert_close(logits, expected)


@interpreted
def test_logits_of_minus_infinity_have_no_probability(kernel: ModuleType) -> None:
    torch.manual_seed(3)
    logits, target = torch.randn(N, 101), torch.randint(101, (N,))
    logits[:, ::3] = logits[:, 31:67] = -math.inf  # a whole block of columns, too
    expected_lse, expected = eager._softmax_gradient(logits.clone(), target, 0.1, True)
    assert_close(kernel.softmax_gradient_(logits, target, 0.1, True), expected_lse)
    assert_close(logits, expected)


@interpreted
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("row", [[math.nan, 1, 2], [math.inf, 1, 2], [-math.inf] * 3])
def test_rows_that_are_not_finite_become_nan(kernel: ModuleType, row: list[float]) -> None:
    logits = torch.randn(2, 101)
    logits[0] = -math.inf if row[1] == -math.inf else 0
    logits[0, 40:43] = torch.tensor(row)
    lse = kernel.softmax_gradient_(logits, torch.tensor([3, 5]), 0.1, True)
    assert lse.isfinite().tolist() == [False, True]
    assert logits[0].isnan().all()
    assert logits[1].isfinite().all()


@interpreted
def test_columns_must_be_adjacent_and_no_rows_are_fine(kernel: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"expected adjacent columns, got strides \(1, 7\)"):
        kernel.softmax_gradient_(torch.randn(31, N).T, torch.zeros(N, dtype=torch.int64), 0.1, True)
    assert kernel.softmax_gradient_(torch.randn(0, 31), torch.zeros(0, dtype=torch.int64), 0.1, True).shape == (0,)

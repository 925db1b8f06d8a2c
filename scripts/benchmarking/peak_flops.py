"""Peak throughput of this machine: matrix products and memory copies in isolation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarking.clock import synchronize
from benchmarking.flops import Product, weight_products
from benchmarking.report import Report
from transformer.config import ModelConfig

# float32 as our programs compute it, float32 by torch's default library, and bfloat16.
PRECISIONS = {"fp32": torch.float32, "fp32-default": torch.float32, "bf16": torch.bfloat16}
_REPETITIONS = 3


class Rates(NamedTuple):
    """FLOP/s of a product Y = X Wᵀ and of its two gradients."""

    forward: float  # Y from X and W
    grad_input: float  # dX from dY and W
    grad_weight: float  # dW from dY and X


def product_rates(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device, seconds: float = 0.3
) -> Rates:
    """FLOP/s of X (rows, inputs) times W (outputs, inputs)ᵀ and of its gradients, timed `seconds` each."""
    x, w, grad = (_random(shape, dtype, device) for shape in ((rows, inputs), (outputs, inputs), (rows, outputs)))
    flops = 2 * rows * inputs * outputs
    calls: tuple[Callable[[], Any], ...] = (lambda: F.linear(x, w), lambda: grad @ w, lambda: grad.T @ x)
    with torch.no_grad():
        return Rates(*(flops * calls_per_second(call, device, seconds) for call in calls))


def forward_rate(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device, seconds: float = 0.3
) -> float:
    """FLOP/s of the forward product alone."""
    x, w = _random((rows, inputs), dtype, device), _random((outputs, inputs), dtype, device)
    with torch.no_grad():
        return 2 * rows * inputs * outputs * calls_per_second(lambda: F.linear(x, w), device, seconds)


def calls_per_second(call: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Best of a few repetitions after two warm-up calls: other programs can only slow it down."""
    call()
    call()
    best = 0.0
    for _ in range(_REPETITIONS):
        synchronize(device)
        count, began = 0, time.perf_counter()
        while True:
            call()
            count += 1
            if count >= 2 and time.perf_counter() - began >= seconds / _REPETITIONS:
                break
        synchronize(device)
        best = max(best, count / (time.perf_counter() - began))
    return best


def measure_products(
    products: Sequence[Product], rows: int, dtype: torch.dtype, device: torch.device, seconds: float = 0.3
) -> dict[tuple[int, int], Rates]:
    """FLOP/s of every weight shape with `rows` rows."""
    return {(p.inputs, p.outputs): product_rates(rows, p.inputs, p.outputs, dtype, device, seconds) for p in products}


def peak_training_speed(
    products: Sequence[Product], rates: dict[tuple[int, int], Rates], source_per_target: float
) -> float:
    """Target tokens per second if training consisted only of weight products at these rates.

    Args:
        source_per_target: source tokens per target token, without padding.
    """
    seconds = 0.0
    for p in products:
        flops = 2 * p.inputs * p.outputs * (p.per_source * source_per_target + p.per_target)
        seconds += sum(flops / rate for rate in rates[p.inputs, p.outputs])
    return 1 / seconds


def memory_bandwidth(device: torch.device, num_bytes: int = 256 << 20, seconds: float = 0.5) -> float:
    """Bytes per second, read plus written, of a copy between two blocks of `num_bytes`."""
    x = torch.randn(num_bytes // 4, device=device)
    y = torch.empty_like(x)
    return 2 * x.numel() * 4 * calls_per_second(lambda: y.copy_(x), device, seconds)


def benchmark_peak_flops(
    model: ModelConfig,
    vocab_size: int,
    rows: int,
    device: torch.device,
    precisions: Sequence[str] = tuple(PRECISIONS),
    seconds: float = 0.3,
) -> Report:
    """FLOP/s of each weight product of a model, and the peak training speed they allow.

    Args:
        model, vocab_size: the model.
        rows: tokens per batch.
        device: the device.
        precisions: keys of `PRECISIONS`.
        seconds: time per product.
    """
    products = weight_products(model, vocab_size)
    table, speeds = [], {}
    for name in precisions:
        with default_float32_matmul() if name == "fp32-default" else nullcontext():
            rates = measure_products(products, rows, PRECISIONS[name], device, seconds)
        speeds[name] = peak_training_speed(products, rates, source_per_target=1.0)
        table += [
            {"precision": name, "rows": rows, "inputs": inputs, "outputs": outputs}
            | {role: rate / 1e9 for role, rate in found._asdict().items()}
            for (inputs, outputs), found in rates.items()
        ]
    return {
        "peak_tokens_per_s": speeds,
        "copy_gb_per_s": memory_bandwidth(device, seconds=seconds) / 1e9,
        "gflops": table,
    }


def _random(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device).to(dtype)


@contextmanager
def default_float32_matmul() -> Iterator[None]:
    """Temporarily undo `use_onednn_for_float32`."""
    settings: Any = getattr(torch.backends.mkldnn, "matmul", SimpleNamespace(fp32_precision=None))
    before = settings.fp32_precision
    settings.fp32_precision = "none"
    try:
        yield
    finally:
        settings.fp32_precision = before

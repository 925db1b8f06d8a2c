"""The loss fused with the output projection, forward and backward, beside torch's F.linear_cross_entropy.

CPU time, of all threads, depends less on busy neighbours than wall time. Both are timed alternately.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarking.clock import synchronize
from benchmarking.report import Report, dtype_name
from transformer.training.loss import linear_cross_entropy

_LABEL_SMOOTHING = 0.1


def benchmark_loss(
    vocab_sizes: Sequence[int],
    widths: Sequence[int],
    tokens: Sequence[int],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    repeat: int = 3,
) -> Report:
    """Milliseconds by both, the median of `repeat`, for every combination of sizes; ratio is torch's by ours.

    torch's times are None where it has no such function (before 2.13).
    """
    has_torch = hasattr(F, "linear_cross_entropy")
    rows = []
    for dtype, vocab_size, width, num_tokens in itertools.product(dtypes, vocab_sizes, widths, tokens):
        inputs = make_inputs(vocab_size, width, num_tokens, dtype, device)
        calls = [partial(function, *inputs) for function in ((ours, torchs) if has_torch else (ours,))]
        ms = [1e3 * seconds for seconds in median_seconds(calls, device, repeat)]
        rows.append(
            {
                "precision": dtype_name(dtype),
                "vocab_size": vocab_size,
                "d_model": width,
                "tokens": num_tokens,
                "ms": ms[0],
                "torch_ms": ms[1] if has_torch else None,
                "ratio": ms[1] / ms[0] if has_torch else None,
            }
        )
    return {"label_smoothing": _LABEL_SMOOTHING, "losses": rows}


def make_inputs(
    vocab_size: int, width: int, num_tokens: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (N, D), output matrix (V, D), which give logits of unit variance, and targets (N,)."""
    generator = torch.Generator().manual_seed(1)
    hidden, weight = (torch.randn(rows, width, generator=generator) for rows in (num_tokens, vocab_size))
    target = torch.randint(vocab_size, (num_tokens,), generator=generator)
    hidden, weight = (x.to(device, dtype).requires_grad_() for x in (hidden, weight * width**-0.5))
    return hidden, weight, target.to(device)


def ours(hidden: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Our loss and its gradients."""
    loss, _ = linear_cross_entropy(hidden, weight, target, _LABEL_SMOOTHING)
    return loss.detach(), *torch.autograd.grad(loss, (hidden, weight))


def torchs(hidden: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """torch's loss and its gradients."""
    loss = F.linear_cross_entropy(hidden, weight, target, reduction="sum", label_smoothing=_LABEL_SMOOTHING)
    return loss.detach(), *torch.autograd.grad(loss, (hidden, weight))


def median_seconds(calls: Sequence[Callable[[], object]], device: torch.device, repeat: int) -> list[float]:
    """Of each call after a first one, made in turn: CPU time, or wall time if it computes on a GPU."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(1 + repeat):
        for call, found in zip(calls, seconds, strict=True):
            synchronize(device)
            began = clock()
            call()
            synchronize(device)
            found.append(clock() - began)
    return [statistics.median(found[1:]) for found in seconds]

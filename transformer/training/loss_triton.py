"""Softmax, its gradient and log-sum-exp of a block of logits in one CUDA kernel, by Triton.

Written out, that is five passes over the logits in float32. Here they are read twice, the second time mostly from the
GPU's cache, since a row of 37,000 in bfloat16 is 74 KB, and written once in their own dtype. `training/loss.py` imports
this file if there is a CUDA device and Triton, which torch's CUDA builds for Linux bring along.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# 16 warps with 16 numbers a thread: so few rows are then in work that a GPU of 50 MB of cache holds them all.
_NUM_WARPS = 16
_LARGEST_BLOCK = 8192


def softmax_gradient_(logits: Tensor, target: Tensor, label_smoothing: float, needs_grad: bool) -> Tensor:
    """Log-sum-exp of each row (n,) in float32; replaces the logits by d loss / d logits.

    Args:
        logits: (n, V) with adjacent columns, float32, bfloat16 or float16, computed with in float32. Faster if rows
            are a multiple of 8 numbers apart, and more than V only if nothing else lies between them.
        target: (n,) int64 in [0, V), which is not checked.
        label_smoothing: ε; d loss / d logits is softmax - ((1 - ε) one-hot + ε/V).
        needs_grad: without it, the logits stay as they are.
    """
    num_rows, vocab_size = logits.shape
    if logits.stride(1) != 1:
        raise ValueError(f"expected adjacent columns, got strides {logits.stride()}")
    lse = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    if num_rows:
        stride = logits.stride(0)
        _softmax_gradient[(num_rows,)](
            logits,
            target,
            lse,
            1 - label_smoothing,
            label_smoothing / vocab_size,
            STRIDE=stride,
            V=vocab_size,
            WIDTH=min(-(-vocab_size // 8) * 8, stride),
            BLOCK=min(triton.next_power_of_2(vocab_size), _LARGEST_BLOCK),
            NEEDS_GRAD=needs_grad,
            num_warps=_NUM_WARPS,
        )
    return lse


# The sizes are constants of the kernel, so that it knows rows to begin at multiples of 16 bytes.
@triton.jit  # type: ignore[untyped-decorator]
def _softmax_gradient(  # type: ignore[no-untyped-def]
    logits,
    target,
    lse,
    confidence,
    share,
    STRIDE: tl.constexpr,  # noqa: N803
    V: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    NEEDS_GRAD: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)  # row * STRIDE exceeds 32 bits at 25k x 100k
    logits += row * STRIDE
    columns = tl.arange(0, BLOCK)
    # A running maximum and sum of exponentials for each column of the block, joined at the end.
    highest = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, V, BLOCK):
        x = tl.load(logits + start + columns, start + columns < WIDTH, -float("inf")).to(tl.float32)
        x = tl.where(start + columns < V, x, -float("inf"))
        new = tl.maximum(highest, x)
        shift = tl.where(new == -float("inf"), 0.0, new)  # or the difference would be NaN
        total = total * tl.exp(highest - shift) + tl.exp(x - shift)
        highest = new
    top = tl.max(highest, 0)
    log_sum = top + tl.log(tl.sum(total * tl.exp(highest - top), 0))
    tl.store(lse + row, log_sum)
    if NEEDS_GRAD:
        gold = tl.load(target + row)
        for start in range(0, V, BLOCK):
            inside = start + columns < WIDTH
            x = tl.load(logits + start + columns, inside, 0.0).to(tl.float32)
            p = tl.exp(x - log_sum) - share - tl.where(start + columns == gold, confidence, 0.0)
            tl.store(logits + start + columns, p.to(logits.dtype.element_ty), inside)

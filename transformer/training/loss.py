"""Label-smoothed cross-entropy (section 5.4) and plain negative log-likelihood (NLL).

Dimension key: N target tokens, D model size, V vocabulary. Losses are in nats, summed over tokens: the caller divides
by the tokens of the whole update. They are computed in float32, or in float64 for float64 inputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits per chunk. The full (N, V) matrix of a paper-sized batch, 25k x 37k, would take 3.7 GB in float32 and its
# gradient as much again. Smaller chunks would fit a CPU's cache better, but each is added to the whole (V, D) gradient,
# which costs more.
_CHUNK_NUMEL = {"cpu": 1 << 22, "cuda": 1 << 27}


def label_smoothed_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.1) -> tuple[Tensor, Tensor]:
    """Cross-entropy against (1 - ε) one-hot + ε/V uniform (Szegedy et al.; section 5.4).

    Args:
        logits: (N, V).
        target: (N,) int64 in [0, V), without padding: select the non-pad positions first.
        label_smoothing: ε_ls, in [0, 1).

    Returns:
        The smoothed loss and the NLL, both summed over the N tokens, in nats.
    """
    _check_arguments(logits, target, label_smoothing)
    log_p = logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    # By default, -100 would be ignored here, but not in the uniform part; now it is out of bounds: IndexError.
    nll = F.nll_loss(log_p, target, reduction="sum", ignore_index=-1 << 63)
    uniform = -log_p.mean(dim=-1).sum()
    return (1 - label_smoothing) * nll + label_smoothing * uniform, nll


def linear_cross_entropy(
    hidden: Tensor, output_weight: Tensor, target: Tensor, label_smoothing: float = 0.1
) -> tuple[Tensor, Tensor]:
    """`label_smoothed_cross_entropy(hidden @ output_weight.T, target)` without storing all logits.

    The loss is differentiable once (`torch.func.grad` works, `vmap` does not), the NLL is not. Under autocast, hidden
    and weight are cast to its dtype. Gradients keep the dtypes of the inputs: with float16 and a GradScaler, whose
    scale starts at 65536, they overflow unless the loss is divided by its tokens before it is scaled.

    Args:
        hidden: (N, D), at non-pad target positions.
        output_weight: (V, D).
        target, label_smoothing: as for `label_smoothed_cross_entropy`, which returns the same.
    """
    _check_arguments(hidden, target, label_smoothing)
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:  # as autocast: never float64
        dtype = torch.get_autocast_dtype(device)
        hidden, output_weight = hidden.to(dtype), output_weight.to(dtype)
    # autograd.Function runs with grad mode off: skip the gradients under no_grad, and those of frozen weights.
    needs_grad = (torch.is_grad_enabled() and x.requires_grad for x in (hidden, output_weight))
    loss, nll, *_ = _LinearCrossEntropy.apply(hidden, output_weight, target, label_smoothing, *needs_grad)
    return loss, nll


def _check_arguments(rows: Tensor, target: Tensor, label_smoothing: float) -> None:
    if rows.dim() != 2 or target.shape != rows.shape[:1]:
        raise ValueError(
            f"expected two dimensions and one target per row, got shapes {tuple(rows.shape)} and {tuple(target.shape)}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing} must be in [0, 1)")


class _LinearCrossEntropy(torch.autograd.Function):
    """Fused linear + cross-entropy, chunked over tokens; gradients are computed in forward."""

    @staticmethod
    def forward(
        hidden: Tensor, output_weight: Tensor, target: Tensor, label_smoothing: float, *needs_grad: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        num_tokens, vocab_size = hidden.size(0), output_weight.size(0)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        lse, target_logits = (torch.empty(num_tokens, dtype=dtype, device=hidden.device) for _ in range(2))
        grad_hidden = torch.empty_like(hidden) if needs_grad[0] else None
        grad_weight = torch.zeros_like(output_weight, dtype=dtype) if needs_grad[1] else None
        chunk = max(1, _CHUNK_NUMEL.get(hidden.device.type, 1 << 24) // vocab_size)
        for start in range(0, num_tokens, chunk):
            rows = slice(start, start + chunk)
            index = target[rows, None]  # (n, 1)
            logits = hidden[rows] @ output_weight.T  # (n, V)
            p = logits.softmax(dim=-1, dtype=dtype)
            # p = exp(logit - lse) gives lse without a second pass of exponentials; most precisely at the largest p.
            lse[rows] = logits.amax(dim=-1) - p.amax(dim=-1).log()
            target_logits[rows] = logits.gather(1, index).squeeze(1).to(dtype)
            if not any(needs_grad):
                continue
            # d loss / d logits = softmax - ((1 - ε) one-hot + ε/V), in place of p.
            grad = p.sub_(label_smoothing / vocab_size)
            grad.scatter_add_(1, index, grad.new_full(index.shape, label_smoothing - 1))
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, output_weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight += grad.T @ hidden[rows]
        nll = (lse - target_logits).sum()
        # The sum of logits over vocabulary and tokens is a product of sums: it needs no logits.
        mean_logits = (hidden.sum(dim=0, dtype=dtype) * output_weight.mean(dim=0, dtype=dtype)).sum()
        loss = (1 - label_smoothing) * nll + label_smoothing * (lse.sum() - mean_logits)
        return loss, nll, grad_hidden, None if grad_weight is None else grad_weight.to(output_weight.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:  # noqa: ARG004
        _, nll, *gradients = output
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(nll, *(x for x in gradients if x is not None))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        gradients = (None if grad is None else grad * scale.to(grad.dtype) for grad in ctx.saved_tensors)
        return *gradients, None, None, None, None

"""Label-smoothed cross-entropy (section 5.4), with the negative log-likelihood beside it.

Dimension key: N target tokens, D model width, V vocabulary. Losses are in nats, summed over tokens: the caller divides
by the tokens of the whole update.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits are made, used and forgotten in blocks of about this many numbers; the full (N, V) matrix of a paper-sized batch,
# 25k x 37k, would take 3.7 GB in float32 and its gradient as much again. Smaller blocks would fit a CPU's cache, but
# each adds to the whole (V, D) gradient, which costs more.
_BLOCK_NUMEL = {"cpu": 1 << 22, "cuda": 1 << 27}


def label_smoothed_loss(logits: Tensor, target: Tensor, label_smoothing: float = 0.1) -> tuple[Tensor, Tensor]:
    """Cross-entropy against (1 - ε) one-hot + ε/V uniform, the definition of Szegedy et al. that section 5.4 cites.

    Args:
        logits: (N, V).
        target: (N,) int64, without padding: select the real positions first.
        label_smoothing: ε_ls, in [0, 1).

    Returns:
        The smoothed loss and the plain negative log-likelihood, both summed over the N tokens, in nats.
    """
    log_p = logits.log_softmax(dim=-1, dtype=torch.float32)
    nll = F.nll_loss(log_p, target, reduction="sum")
    uniform = -log_p.mean(dim=-1).sum()
    return (1 - label_smoothing) * nll + label_smoothing * uniform, nll


def projected_loss(
    hidden: Tensor, output_matrix: Tensor, target: Tensor, label_smoothing: float = 0.1
) -> tuple[Tensor, Tensor]:
    """`label_smoothed_loss(hidden @ output_matrix.T, target)` without ever holding all the logits.

    Args:
        hidden: (N, D), of real (non-pad) target positions.
        output_matrix: (V, D).
        target: (N,) int64.
        label_smoothing: ε_ls, in [0, 1).

    Returns:
        The smoothed loss, which has gradients, and the negative log-likelihood, which has none; float32 sums in nats.
    """
    if not torch.is_grad_enabled():
        # Inside the Function below grad mode is always off; without this it would make gradients for nobody.
        hidden, output_matrix = hidden.detach(), output_matrix.detach()
    loss, nll = _ProjectedLoss.apply(hidden, output_matrix, target, label_smoothing)
    return loss, nll


class _ProjectedLoss(torch.autograd.Function):
    """Computes the gradients in the forward pass, block by block, where the softmax is at hand anyway."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, output_matrix: Tensor, target: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        num_tokens, vocab_size = hidden.size(0), output_matrix.size(0)
        wants_gradient = any(ctx.needs_input_grad)
        lse, gold_logits = (torch.empty(num_tokens, device=hidden.device) for _ in range(2))
        grad_hidden = torch.empty_like(hidden) if wants_gradient else None
        grad_matrix = torch.zeros_like(output_matrix, dtype=torch.float32) if wants_gradient else None
        block = max(1, _BLOCK_NUMEL.get(hidden.device.type, 1 << 24) // vocab_size)
        for start in range(0, num_tokens, block):
            rows = slice(start, start + block)
            gold = target[rows, None]
            logits = hidden[rows] @ output_matrix.T  # (n, V)
            p = logits.softmax(dim=-1, dtype=torch.float32)
            # p = exp(logit - lse) gives lse without a second pass of exponentials; best where p is largest.
            lse[rows] = logits.amax(dim=-1) - p.amax(dim=-1).log()
            gold_logits[rows] = logits.gather(1, gold).squeeze(1).float()
            if grad_hidden is None or grad_matrix is None:
                continue
            # d loss / d logits = softmax - ((1 - ε) one-hot + ε/V), in place of p.
            grad = p.sub_(label_smoothing / vocab_size)
            grad.scatter_add_(1, gold, grad.new_full(gold.shape, label_smoothing - 1))
            grad = grad.to(hidden.dtype)
            torch.mm(grad, output_matrix, out=grad_hidden[rows])
            grad_matrix += grad.T @ hidden[rows]
        nll = (lse - gold_logits).sum()
        # Logits are linear in both: their mean over the vocabulary, summed over tokens, needs no logits.
        mean_logits = (hidden.sum(dim=0, dtype=torch.float32) * output_matrix.mean(dim=0, dtype=torch.float32)).sum()
        loss = (1 - label_smoothing) * nll + label_smoothing * (lse.sum() - mean_logits)
        if grad_hidden is not None and grad_matrix is not None:
            ctx.save_for_backward(grad_hidden, grad_matrix.to(output_matrix.dtype))
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_matrix = ctx.saved_tensors
        scale = grad_outputs[0]
        return grad_hidden * scale.to(grad_hidden.dtype), grad_matrix * scale.to(grad_matrix.dtype), None, None

"""The training loop that the examples share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from transformer import UserError


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    updates: int,
    *,
    lr: float,
    warmup_updates: int = 0,
    weight_decay: float = 0.0,
    max_norm: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.98),
) -> list[float]:
    """Train by AdamW: linear warm-up, cosine decay to 0, clipped gradients.

    Args:
        model: trained in training mode; left in evaluation mode.
        loss: gives the loss of an update, a scalar, from its number, which counts from 0.
        lr: the highest learning rate.
        weight_decay: of matrices; gains, biases and other vectors do not decay.
        max_norm: largest norm of the gradient of an update.

    Returns:
        The loss of each update; UserError for one that is not finite.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas)
    losses = []
    model.train()
    for update in tqdm(range(updates), leave=False, disable=None):
        for group in optimizer.param_groups:
            group["lr"] = lr * learning_rate_factor(update, updates, warmup_updates)
        current = loss(update)
        optimizer.zero_grad()
        current.backward()
        nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        losses.append(current.item())
        if not math.isfinite(losses[-1]):
            raise UserError(f"the loss of update {update + 1} is {losses[-1]}; a lower learning rate may help")
    model.eval()
    return losses


def learning_rate_factor(update: int, updates: int, warmup_updates: int) -> float:
    """The share of the highest learning rate: linear up to 1, then a half cosine to 0."""
    if update < warmup_updates:
        return (update + 1) / warmup_updates
    return (1 + math.cos(math.pi * (update - warmup_updates) / max(1, updates - warmup_updates))) / 2

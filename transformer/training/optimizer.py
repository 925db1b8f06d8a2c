"""Adam (section 5.3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from transformer.config import TrainConfig


def adam(parameters: Iterable[nn.Parameter], settings: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of float32 weights; its learning rate is set before each step."""
    # AdamW is Adam as long as weight_decay is 0; otherwise it is the kind of decay that Adam works with.
    return torch.optim.AdamW(
        parameters,
        lr=0.0,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )

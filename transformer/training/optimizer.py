"""Adam (section 5.3) and float32 master weights."""

import copy
from collections.abc import Iterable

import torch
from torch import nn

from transformer.config import TrainConfig
from transformer.model.transformer import Transformer


def adam(parameters: Iterable[nn.Parameter], settings: TrainConfig) -> torch.optim.Optimizer:
    """Fused Adam for float32 weights; the caller sets the learning rate before each step."""
    # AdamW with weight_decay=0 is Adam; otherwise decay is decoupled.
    betas, decay = (settings.adam_beta1, settings.adam_beta2), settings.weight_decay
    return torch.optim.AdamW(parameters, 0.0, betas, settings.adam_eps, decay, fused=True)


class MasterWeights:
    """Float32 weights for the optimizer and a model in the compute dtype.

    In float32, `master` and `model` are the same. In bfloat16, `model` is a copy: its gradients are accumulated in
    float32 on the master parameters, and after each update its weights are rounded from the master weights.
    """

    def __init__(self, master: Transformer, dtype: torch.dtype) -> None:
        self.master = master
        self.model = master if dtype == torch.float32 else copy.deepcopy(master).to(dtype)
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        if self.model is not master:
            self._pairs = list(zip(master.parameters(), self.model.parameters(), strict=True))

    def collect_gradients(self) -> None:
        """Add the compute model's gradients to the master's, after each backward pass."""
        for weight, copied in self._pairs:
            if copied.grad is not None:
                if weight.grad is None:
                    weight.grad = copied.grad.float()
                else:
                    weight.grad += copied.grad
                copied.grad = None

    def zero_grad(self) -> None:
        """Drop the gradients of both models."""
        for model in (self.master, self.model):
            model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the master weights into the compute model, after each update."""
        if self._pairs:
            torch._foreach_copy_([copied for _, copied in self._pairs], [weight for weight, _ in self._pairs])

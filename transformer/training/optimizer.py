"""Adam (section 5.3) and float32 master weights."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from transformer.config import TrainConfig
from transformer.model.transformer import Transformer
from transformer.training.loss_scale import LossScale
from transformer.training.recomputation import recompute_layers
from transformer.training.training_state import Progress

# Elements of the gradients that are collected at a time: 16 MiB in float32.
_COLLECTED_NUMEL = 1 << 22
Pair = tuple[nn.Parameter, nn.Parameter]  # of the master and the compute model


def adam(parameters: Iterable[nn.Parameter], settings: TrainConfig) -> torch.optim.Optimizer:
    """Fused Adam for float32 weights; the caller sets the learning rate before each step."""
    # AdamW with weight_decay=0 is Adam; otherwise decay is decoupled.
    betas, decay = (settings.adam_beta1, settings.adam_beta2), settings.weight_decay
    return torch.optim.AdamW(parameters, 0.0, betas, settings.adam_eps, decay, fused=True)


def check_optimizer(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """ValueError unless it is a fused Adam or AdamW of these parameters.

    Checkpoints hold two moments of each parameter, and a fused kernel skips its step without the host.
    """
    groups, expected = optimizer.param_groups, list(parameters)
    is_adam = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW) and len(groups) == 1
    if not is_adam or not groups[0]["fused"] or groups[0]["amsgrad"]:
        raise ValueError(
            f"optimizer {type(optimizer).__name__}: must be Adam or AdamW, with fused=True, without amsgrad and with "
            "one group of parameters, as `adam` makes it: checkpoints hold the state of no other"
        )
    found = groups[0]["params"]
    if len(found) != len(expected) or any(one is not other for one, other in zip(found, expected, strict=True)):
        raise ValueError("optimizer: must be of all parameters of the master weights, in their order")


class MasterWeights:
    """Float32 weights for the optimizer and a model in the compute dtype.

    In float32, `master` and `model` are the same. Otherwise, `model` is a copy: its gradients are accumulated in
    float32 on the master parameters, and after each update its weights are rounded from the master weights. In float16,
    there is a `loss_scale`, with which the copy's gradients are multiplied and the master's are not. With `recompute`,
    the layers of `model` keep no activations (recomputation.py).
    """

    def __init__(self, master: Transformer, dtype: torch.dtype, *, recompute: bool = False) -> None:
        self.master = master
        self.model = master if dtype == torch.float32 else copy.deepcopy(master).to(dtype)
        if recompute:
            recompute_layers(self.model)
        weight = master.embedding.output_weight
        self.loss_scale = LossScale(weight.device) if dtype == torch.float16 else None
        self.last_backward: Callable[[], AbstractContextManager[None]] = nullcontext  # encloses that of an update
        self._pairs: list[Pair] = []
        if self.model is not master:
            self._pairs = list(zip(master.parameters(), self.model.parameters(), strict=True))

    def backward(self, loss: Tensor, *, is_last: bool = False) -> None:
        """Add the gradients of a loss to the master's; `is_last` of an update."""
        with self.last_backward() if is_last else nullcontext():
            (loss if self.loss_scale is None else loss * self.loss_scale.scale).backward()
            self.collect_gradients()

    @torch.no_grad()
    def collect_gradients(self, pairs: Sequence[Pair] | None = None) -> None:
        """Add the compute model's gradients to the master's, after each backward pass; of all or these pairs."""
        if not self._pairs:
            return
        pairs = [pair for pair in (self._pairs if pairs is None else pairs) if pair[1].grad is not None]
        # Many at a time: one by one, a GPU gets 181 small kernels for a base model. Not all, so that few gradients
        # are in memory twice.
        for part in parts_of(pairs, _COLLECTED_NUMEL):
            _collect(part, self.loss_scale)

    def restore_scale(self, progress: Progress) -> LossScale | None:
        """Continue with the loss scale of a checkpoint, if there is one; returns it."""
        if self.loss_scale is not None:
            self.loss_scale.restore(progress.loss_scale, progress.num_good, progress.num_overflows)
        return self.loss_scale

    def save_scale(self, progress: Progress) -> None:
        """Put the loss scale, if there is one, into the progress. Synchronizes with the device."""
        if self.loss_scale is not None:
            scale = self.loss_scale
            values = torch.stack((scale.scale, scale.num_good, scale.num_overflows)).tolist()  # one wait, not three
            progress.loss_scale, progress.num_good, progress.num_overflows = values[0], int(values[1]), int(values[2])

    def zero_grad(self) -> None:
        """Drop the gradients of both models."""
        for model in (self.master, self.model):
            model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the master weights into the compute model, after each update."""
        if self._pairs:
            torch._foreach_copy_([copied for _, copied in self._pairs], [weight for weight, _ in self._pairs])


def parts_of(pairs: Iterable[Pair], numel: int) -> Iterator[list[Pair]]:
    """The pairs in order, in parts that end with the one that reaches `numel` elements."""
    part: list[Pair] = []
    size = 0
    for pair in pairs:
        part.append(pair)
        size += pair[0].numel()
        if size >= numel:
            yield part
            part, size = [], 0
    if part:
        yield part


def _collect(pairs: Sequence[Pair], loss_scale: LossScale | None) -> None:
    """Move gradients of the compute model to the master, in float32 and without the scale."""
    found = [copied.grad for _, copied in pairs if copied.grad is not None]  # all of them
    is_known = [weight.grad is not None for weight, _ in pairs]
    # A CPU adds bfloat16 to float32 in one pass over memory; a GPU does so one by one.
    gradients = found
    if not all(is_known) or loss_scale is not None or found[0].device.type != "cpu":
        gradients = [torch.empty_like(weight) for weight, _ in pairs]
        torch._foreach_copy_(gradients, found)
        if loss_scale is not None:
            torch._foreach_div_(gradients, loss_scale.scale)
    if any(is_known):
        sums = [weight.grad for weight, _ in pairs if weight.grad is not None]
        torch._foreach_add_(sums, list(itertools.compress(gradients, is_known)))
    for (weight, copied), gradient in zip(pairs, gradients, strict=True):
        weight.grad = gradient if weight.grad is None else weight.grad
        copied.grad = None

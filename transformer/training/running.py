"""What is logged about the updates since the last line of metrics."""

import math

import torch
from torch import Tensor

from transformer.training.distributed import DistributedContext
from transformer.training.training_state import Progress


class RunningSums:
    """Loss, NLL and target tokens of this rank.

    They are summed on the device, which need not be waited for.

    Attributes:
        sums: tensor (3,) of smoothed loss and NLL, in nats, and tokens.
    """

    def __init__(self, progress: Progress, device: torch.device) -> None:
        """Go on with the sums of a checkpoint."""
        sums = (progress.running_loss, progress.running_nll, progress.running_tokens)
        # Apple GPUs have no float64.
        self.sums = torch.tensor(sums, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)

    def add(self, is_finite: Tensor, loss: Tensor, nll: Tensor, num_tokens: int) -> None:
        """Add an update, unless its gradients were not finite: such an update is skipped."""
        # `new_tensor` would copy the number to a GPU, and so wait for all that is queued there.
        self.sums += torch.where(is_finite, torch.stack((loss, nll, loss.new_full((), num_tokens))), 0.0)

    def total(self, context: DistributedContext) -> list[float]:
        """The sums of all ranks. Synchronizes with the device."""
        total: list[float] = context.sum(self.sums).tolist()
        return total

    def reset(self) -> None:
        """Begin the next line."""
        self.sums.zero_()


def training_values(progress: Progress, total: list[float], learning_rate: float) -> dict[str, float]:
    """The values of a line of metrics: means over target tokens, learning rate, speed, position."""
    *sums, num_tokens = total
    loss, nll = (one / max(num_tokens, 1) for one in sums)
    return {
        "loss": loss,
        "nll": nll,
        "ppl": math.exp(min(nll, 700.0)),
        "lr": learning_rate,
        "tokens_per_s": num_tokens / max(progress.running_s, 1e-9),
        "epoch": progress.epoch,
        "elapsed_s": progress.elapsed_s,
    }

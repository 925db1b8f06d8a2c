"""Updates that cannot be done as planned: their gradient is not finite, or their batches do not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from transformer.training.plan import Update


class FiniteGuard:
    """Keeps gradients that are not finite from the weights, without waiting for the device.

    The optimizer, which must be a fused one, leaves its step out on the device; which updates these were is read later.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[Update, Tensor]] = []

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[nn.Parameter],
        update: Update,
        clip_norm: float | None = None,
    ) -> Tensor:
        """Clip the gradients and let the optimizer step, if they are finite; returns whether, a bool tensor ()."""
        norm = torch.nn.utils.get_total_norm([x.grad for x in parameters if x.grad is not None])
        is_finite = norm.isfinite()
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        # What torch's own gradient scaler tells fused optimizers.
        optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
        optimizer.step()
        self._unread.append((update, is_finite))
        return is_finite

    def skipped(self) -> list[Update]:
        """The updates since the last call that were left out. Waits for the device."""
        unread, self._unread = self._unread, []
        if not unread:
            return []
        finite: list[bool] = torch.stack([is_finite for _, is_finite in unread]).tolist()
        return [update for (update, _), is_finite in zip(unread, finite, strict=True) if not is_finite]


# What torch's libraries say on a CPU or a GPU; the last is oneDNN's, whatever it is that it could not allocate.
_OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "could not create a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a tensor did not fit, on a GPU or a CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)

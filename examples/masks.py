"""What an attention can be given that never writes out all pairs of positions."""

from __future__ import annotations

from torch import Tensor


def check_mask(mask: Tensor | None, length: int) -> None:
    """ValueError unless a mask is that of padding, (B, 1, 1, n)."""
    if mask is not None and (mask.dim() != 4 or mask.shape[1:] != (1, 1, length)):
        raise ValueError(f"mask {tuple(mask.shape)} is not (B, 1, 1, {length}), that of padding")


def check_lengths(q: Tensor, k: Tensor) -> None:
    """ValueError unless queries (B, H, n, d) and keys are of the same positions: no cache, no cross-attention."""
    if q.size(2) != k.size(2):
        raise ValueError(f"{q.size(2)} queries and {k.size(2)} keys are not of the same positions")

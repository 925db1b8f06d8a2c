"""Attention masks (sections 3.1 and 3.2.3). The only place that builds them.

A mask is bool, broadcastable to (B, H, Q, M), and True means "may attend".
"""

from __future__ import annotations

import torch
from torch import Tensor


def padding_mask(ids: Tensor, pad_id: int = 0) -> Tensor:
    """Hide padding keys. `ids` is (B, M) int64; returns (B, 1, 1, M) bool, True at real tokens."""
    return (ids != pad_id)[:, None, None, :]


def causal_mask(num_queries: int, num_past: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Let each query see itself and everything before it, including `num_past` keys that precede the first query.

    Returns (1, 1, num_queries, num_past + num_queries) bool.
    """
    shape = (num_queries, num_past + num_queries)
    return torch.ones(shape, dtype=torch.bool, device=device).tril(diagonal=num_past)[None, None]

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


def lineage_mask(lineage: Tensor, num_new: int) -> Tensor:
    """Let the new positions of each hypothesis see their own predecessors among those that a sentence's W share.

    Args:
        lineage: (B, W, M) bool, True where one of the sentence's M past positions belongs to the hypothesis.
        num_new: T, new positions per hypothesis.

    Returns:
        (B, 1, W * T, M + W * T) bool; queries and new keys are the hypotheses' new positions, end to end.
    """
    num_sentences, width, num_past = lineage.shape
    past = lineage[:, :, None].expand(-1, -1, num_new, -1).reshape(num_sentences, width * num_new, num_past)
    earlier = torch.ones((num_new, num_new), dtype=torch.bool, device=lineage.device).tril()
    own = torch.block_diag(*[earlier] * width)
    return torch.cat((past, own.expand(num_sentences, -1, -1)), dim=2)[:, None]

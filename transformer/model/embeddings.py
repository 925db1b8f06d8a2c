"""Token embeddings and the output projection, one matrix in the paper (section 3.4)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tying = Literal["all", "decoder", "none"]


class SharedEmbeddings(nn.Module):
    """Source embedding, target embedding and the linear map before the softmax, sharing their weights.

    A source id s becomes √d_model E_s[s], a target id t √d_model E_t[t], and a hidden vector x the logits x E_oᵀ; in
    the paper, E_s = E_t = E_o. Each distinct matrix is one parameter (V, D); tied uses have no parameter of their own,
    so that saved weights hold every number once.

    Args:
        vocab_size: V, of the joint vocabulary.
        d_model: D.
        tie: "all" is the paper's single matrix; "decoder" ties target and output only; "none" has three matrices.

    Raises:
        ValueError: `tie` is none of these.
    """

    def __init__(self, vocab_size: int, d_model: int, *, tie: Tying = "all") -> None:
        super().__init__()
        if tie not in ("all", "decoder", "none"):
            raise ValueError(f"tie={tie!r} is not one of 'all', 'decoder', 'none'")
        self.d_model = d_model
        self.source_weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.target_weight = None if tie == "all" else nn.Parameter(torch.empty(vocab_size, d_model))
        self.output_weight = nn.Parameter(torch.empty(vocab_size, d_model)) if tie == "none" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 1/d_model): embeddings times √d_model have unit variance, and so have the first logits."""
        for weight in self.parameters():
            nn.init.normal_(weight, std=self.d_model**-0.5)

    def source(self, ids: Tensor) -> Tensor:
        """Embed source ids (B, S) int64, times √d_model: (B, S, D)."""
        return F.embedding(ids, self.source_weight) * math.sqrt(self.d_model)

    def target(self, ids: Tensor) -> Tensor:
        """Embed target ids (B, T) int64, times √d_model: (B, T, D)."""
        return F.embedding(ids, self._target_weight) * math.sqrt(self.d_model)

    def logits(self, hidden: Tensor) -> Tensor:
        """Project (..., D) to unnormalised log-probabilities (..., V)."""
        return F.linear(hidden, self.output_matrix)

    @property
    def output_matrix(self) -> Tensor:
        """The matrix (V, D) of `logits`, for losses that fuse the projection."""
        return self._target_weight if self.output_weight is None else self.output_weight

    @property
    def _target_weight(self) -> Tensor:
        return self.source_weight if self.target_weight is None else self.target_weight

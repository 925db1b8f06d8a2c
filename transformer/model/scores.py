"""Attention scores that the paper weighs against its own (section 3.2.1), and those of its predecessors.

Dimension key: B batch, H heads (h), Q queries, M keys, K size of a query or key (d_k), L most keys.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AttentionScore = Literal["scaled_dot", "dot", "general", "additive", "cosine", "location"]


class Score(nn.Module):
    """score(q, k) = q · k / √d_k (section 3.2.1), for weights softmax(score / τ). Other scores derive from it.

    Where the score is a product, `query` and `key` map q and k so that equation 1, on any kernel, gives score / τ.
    Otherwise they do what can be done before the two meet, and `forward` gives score / τ.

    Args:
        temperature: τ: towards 0 the weights pick one key, towards infinity they are uniform.
    """

    is_product = True
    reads_keys = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def query(self, q: Tensor) -> Tensor:
        """Map queries (B, H, Q, K)."""
        return q * (1 / self.temperature)

    def key(self, k: Tensor) -> Tensor:
        """Map keys (B, H, M, K), before they are kept."""
        return k

    def forward(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """score / τ (B, H, Q, M) of mapped queries and keys, of scores that are no product."""
        raise NotImplementedError


class DotScore(Score):
    """score(q, k) = q · k (Luong et al. 2015)."""

    def query(self, q: Tensor) -> Tensor:
        return q * (math.sqrt(q.size(-1)) / self.temperature)


class GeneralScore(Score):
    """score(q, k) = qᵀ W k, with a W per head (Luong et al. 2015).

    It starts as the scaled dot product, W = I / √d_k.
    """

    def __init__(self, num_heads: int, d_k: int, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.weight = nn.Parameter(torch.empty(num_heads, d_k, d_k))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The identity divided by √d_k."""
        d_k = self.weight.size(-1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(d_k) / math.sqrt(d_k))

    def query(self, q: Tensor) -> Tensor:
        return q @ self.weight * (math.sqrt(q.size(-1)) / self.temperature)


class CosineScore(Score):
    """score(q, k) = β q · k / (‖q‖ ‖k‖), content-based addressing with a key strength β > 0 (Graves et al. 2014).

    β = exp(`log_strength`), one per head, is learned. It starts at √d_k: the cosine of two random vectors has variance
    1 / d_k, so the scores then have variance 1, as those of equation 1.
    """

    def __init__(self, num_heads: int, d_k: int, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.log_strength = nn.Parameter(torch.full((num_heads, 1, 1), math.log(d_k) / 2))

    def query(self, q: Tensor) -> Tensor:
        return F.normalize(q, dim=-1) * (self.log_strength.exp() * (math.sqrt(q.size(-1)) / self.temperature))

    def key(self, k: Tensor) -> Tensor:
        return F.normalize(k, dim=-1)


class AdditiveScore(Score):
    """score(q, k) = vᵀ tanh(W_q q + W_k k), with v, W_q and W_k per head (Bahdanau et al. 2015).

    Luong's "concat" is the same, with W_q and W_k side by side. It takes memory for (B, H, Q, M, K) numbers, which is
    why the paper prefers products.
    """

    is_product = False

    def __init__(self, num_heads: int, d_k: int, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.w_q = nn.Parameter(torch.empty(num_heads, d_k, d_k))
        self.w_k = nn.Parameter(torch.empty(num_heads, d_k, d_k))
        self.v = nn.Parameter(torch.empty(num_heads, d_k))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform, per head."""
        d_k = self.v.size(-1)
        for weight, num_outputs in ((self.w_q, d_k), (self.w_k, d_k), (self.v, 1)):
            bound = math.sqrt(6 / (d_k + num_outputs))
            nn.init.uniform_(weight, -bound, bound)

    def query(self, q: Tensor) -> Tensor:
        return q @ self.w_q.mT

    def key(self, k: Tensor) -> Tensor:
        return k @ self.w_k.mT

    def forward(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        hidden = (q[..., :, None, :] + k[..., None, :, :]).tanh()  # (B, H, Q, M, K)
        return torch.einsum("bhqmk,hk->bhqm", hidden, self.v) * (1 / self.temperature)


class LocationScore(Score):
    """score(q, k at position j) = (W_a q)_j, with a W_a (L, d_k) per head: the key does not matter (Luong et al. 2015).

    The position of a key is how many keys the query may see before it: so hypotheses that share a past, of which a
    mask shows each its own, count as if alone.

    Args:
        max_positions: L; a position past it is an error.
    """

    is_product = False
    reads_keys = False

    def __init__(self, num_heads: int, d_k: int, max_positions: int, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.weight = nn.Parameter(torch.empty(num_heads, max_positions, d_k))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 1/d_k): of a query of unit variance, the scores have variance 1."""
        nn.init.normal_(self.weight, std=self.weight.size(-1) ** -0.5)

    def query(self, q: Tensor) -> Tensor:
        return q

    def forward(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """score / τ (B, H, Q, M). ValueError if a query may see more than `max_positions` keys."""
        scores = q @ self.weight.mT * (1 / self.temperature)  # (B, H, Q, L)
        num_keys, limit = k.size(-2), self.weight.size(-2)
        num_visible = num_keys if mask is None or num_keys <= limit else int(mask.sum(dim=-1).max())
        if num_visible > limit:
            raise ValueError(f"position {num_visible} is past max_positions={limit}; raise it or use another score")
        if mask is None:
            return scores[..., :num_keys]
        position = (mask.cumsum(dim=-1) - 1).clamp(0, limit - 1)
        return scores.gather(-1, position.expand(*scores.shape[:-1], num_keys))


def make_score(
    name: AttentionScore, num_heads: int, d_k: int, *, temperature: float = 1.0, max_positions: int = 512
) -> Score | None:
    """The score of this name; None if it is what equation 1 computes by itself.

    Raises:
        ValueError: there is none of this name, or `temperature` is not a finite number above 0.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"attention_temperature={temperature} is not a finite number above 0")
    match name:
        case "scaled_dot":
            return None if temperature == 1.0 else Score(temperature)
        case "dot":
            return DotScore(temperature)
        case "general":
            return GeneralScore(num_heads, d_k, temperature)
        case "additive":
            return AdditiveScore(num_heads, d_k, temperature)
        case "cosine":
            return CosineScore(num_heads, d_k, temperature)
        case "location":
            return LocationScore(num_heads, d_k, max_positions, temperature)
    accepted = ", ".join(map(repr, get_args(AttentionScore)))
    raise ValueError(f"attention_score={name!r} is not one of {accepted}")

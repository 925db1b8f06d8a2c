"""Other compatibility functions than the scaled dot product (section 3.2.1), each with a temperature τ."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model.attention import DotProductAttention, KeyValue, MultiHeadAttention


class TemperatureAttention(DotProductAttention):
    """Scores q·k / (τ √d_k): towards τ = 0 the weights pick one key, towards infinity they are uniform."""

    def __init__(self, dropout: float = 0.0, temperature: float = 1.0) -> None:
        super().__init__(dropout)
        if not 0 < temperature < math.inf:
            raise ValueError(f"attention_temperature={temperature} is not a finite number above 0")
        self.temperature = temperature

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"

    def queries(self, q: Tensor, start: int) -> Tensor:  # noqa: ARG002
        return q * (1 / self.temperature)


class DotAttention(TemperatureAttention):
    """Scores q·k / τ (Luong et al. 2015)."""

    def queries(self, q: Tensor, start: int) -> Tensor:
        return super().queries(q * math.sqrt(q.size(-1)), start)


class GeneralAttention(DotAttention):
    """Scores qᵀWk / τ with a W per head, at first I / √d_k (Luong et al. 2015)."""

    def __init__(self, num_heads: int, d_k: int, dropout: float = 0.0, temperature: float = 1.0) -> None:
        super().__init__(dropout, temperature)
        self.weight = nn.Parameter(torch.empty(num_heads, d_k, d_k))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            self.weight.diagonal(dim1=1, dim2=2).fill_(1).div_(math.sqrt(self.weight.size(1)))

    def queries(self, q: Tensor, start: int) -> Tensor:
        return super().queries(q @ self.weight, start)


class CosineAttention(DotAttention):
    """Scores β cos(q, k) / τ with a learned β = exp(`log_strength`) per head (Graves et al. 2014)."""

    def __init__(self, num_heads: int, d_k: int, dropout: float = 0.0, temperature: float = 1.0) -> None:
        super().__init__(dropout, temperature)
        self.d_k, self.log_strength = d_k, nn.Parameter(torch.empty(num_heads, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """β = √d_k: the cosine of random vectors has variance 1/d_k, so the scores have variance 1."""
        nn.init.constant_(self.log_strength, math.log(self.d_k) / 2)

    def queries(self, q: Tensor, start: int) -> Tensor:
        return super().queries(F.normalize(q, dim=-1) * self.log_strength.exp(), start)

    def keys(self, k: Tensor, start: int) -> Tensor:  # noqa: ARG002
        return F.normalize(k, dim=-1)


class WrittenOutAttention(DotProductAttention):
    """Base of attentions whose scores are no dot product: no fused kernel computes them."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.dropout(self.weights(q, k, mask)) @ v


class AdditiveAttention(WrittenOutAttention, TemperatureAttention):
    """Scores vᵀ tanh(W_q q + W_k k) / τ, per head, in O(Q·M·d_k) memory (Bahdanau et al. 2015)."""

    def __init__(self, num_heads: int, d_k: int, dropout: float = 0.0, temperature: float = 1.0) -> None:
        super().__init__(dropout, temperature)
        self.w_q, self.w_k = (nn.Parameter(torch.empty(num_heads, d_k, d_k)) for _ in range(2))
        self.v = nn.Parameter(torch.empty(num_heads, d_k))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        d_k = self.v.size(1)  # Glorot uniform, per head
        for weight, fan_out in ((self.w_q, d_k), (self.w_k, d_k), (self.v, 1)):
            nn.init.uniform_(weight, -math.sqrt(6 / (d_k + fan_out)), math.sqrt(6 / (d_k + fan_out)))

    def queries(self, q: Tensor, start: int) -> Tensor:  # noqa: ARG002
        return q @ self.w_q.mT

    def keys(self, k: Tensor, start: int) -> Tensor:  # noqa: ARG002
        return k @ self.w_k.mT

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        hidden = (q[..., :, None, :] + k[..., None, :, :]).tanh()  # (B, H, Q, M, d_k)
        return torch.einsum("bhqmk,hk->bhqm", hidden, self.v) * (1 / self.temperature)


class LocationAttention(WrittenOutAttention, TemperatureAttention):
    """Scores (W_a q)_j / τ for the key at position j < max_positions, whatever the key (Luong et al. 2015)."""

    def __init__(
        self, num_heads: int, d_k: int, max_positions: int, dropout: float = 0.0, temperature: float = 1.0
    ) -> None:
        super().__init__(dropout, temperature)
        self.weight = nn.Parameter(torch.empty(num_heads, max_positions, d_k))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 1/d_k): of a query of unit variance, the scores have variance 1."""
        nn.init.normal_(self.weight, std=self.weight.size(2) ** -0.5)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        num_keys, limit = k.size(-2), self.weight.size(1)
        if num_keys > limit:
            raise ValueError(f"position {num_keys} is past max_positions={limit}; raise it or use another score")
        return (q @ self.weight.mT)[..., :num_keys]  # (B, H, Q, M)


class LocationMultiHeadAttention(MultiHeadAttention):
    """Multi-head attention by location, without the W^K that would have no use."""

    def __init__(self, d_model: int, num_heads: int, **options: Any) -> None:
        super().__init__(d_model, num_heads, **options)
        del self.w_k

    def project(self, x: Tensor, past: KeyValue | None = None) -> KeyValue:
        """Values of x (B, M, D), appended to those of `past`, with keys that only count them."""
        v = self._split_heads(self.w_v(x), self.d_v)
        v = v if past is None else torch.cat((past.values, v), dim=2)
        return KeyValue(v[..., :1], v)

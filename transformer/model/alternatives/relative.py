"""Positions in self-attention instead of the embeddings: rotary, Shaw's, T5's and ALiBi, around another attention."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model.alternatives.scores import WrittenOutAttention
from transformer.model.attention import DotProductAttention
from transformer.model.embeddings import SinusoidalPositions


class WrappedAttention(DotProductAttention):
    """Base of attentions that change another one, `inner`."""

    def __init__(self, inner: DotProductAttention) -> None:
        super().__init__(inner.dropout.p)
        self.inner = inner

    def queries(self, q: Tensor, start: int) -> Tensor:
        return self.inner.queries(q, start)

    def keys(self, k: Tensor, start: int) -> Tensor:
        return self.inner.keys(k, start)


class RotaryAttention(WrappedAttention):
    """Scores R(m)q · R(n)k, R rotating pairs of channels by section 3.5's angles (Su et al. 2021); d_k is even."""

    def __init__(self, inner: DotProductAttention, d_k: int) -> None:
        super().__init__(inner)
        if d_k % 2:
            raise ValueError(f"positional='rotary' rotates pairs of channels and d_k={d_k} is odd")
        self.sinusoids = SinusoidalPositions(d_k)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.inner(q, k, v, mask)

    def queries(self, q: Tensor, start: int) -> Tensor:
        return self._rotate(super().queries(q, start), start)

    def keys(self, k: Tensor, start: int) -> Tensor:
        return self._rotate(super().keys(k, start), start)

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        rows = self.sinusoids.rows(start, start + x.size(2), x)  # (L, d_k)
        sin, cos = rows[:, 0::2], rows[:, 1::2]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class RelativeAttention(WrittenOutAttention, WrappedAttention):
    """Base of attentions by key position minus query position; `centred`: queries amid the keys, not at their end."""

    def __init__(self, inner: DotProductAttention, *, centred: bool = False) -> None:
        super().__init__(inner)
        self.centred = centred

    def relative_positions(self, q: Tensor, k: Tensor) -> Tensor:
        """Key position minus query position: (Q, M) int64."""
        first = (k.size(-2) - q.size(-2)) // (2 if self.centred else 1)
        position = torch.arange(k.size(-2), device=q.device)
        return position - position[first : first + q.size(-2), None]


class ShawAttention(RelativeAttention):
    """Scores q_i·(k_j + a^K_ij) / √d_k, values v_j + a^V_ij, a by j - i up to `max_distance` (Shaw et al. 2018)."""

    def __init__(
        self, inner: DotProductAttention, d_k: int, d_v: int, max_distance: int, *, centred: bool = False
    ) -> None:
        super().__init__(inner, centred=centred)
        if max_distance < 1:
            raise ValueError(f"max_relative_position={max_distance} is less than 1")
        self.max_distance = max_distance
        self.key_table = nn.Parameter(torch.empty(2 * max_distance + 1, d_k))
        self.value_table = nn.Parameter(torch.empty(2 * max_distance + 1, d_v))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in (self.key_table, self.value_table):
            nn.init.xavier_uniform_(table)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        # With every row of the table, then those that occur: no tensor (B, H, Q, M, d_k).
        per_row = q @ self.key_table.T * (1 / math.sqrt(q.size(-1)))  # (B, H, Q, 2R + 1)
        return self.inner.scores(q, k) + per_row.gather(-1, self._rows(q, k).expand(*q.shape[:-1], -1))

    def _rows(self, q: Tensor, k: Tensor) -> Tensor:
        return self.relative_positions(q, k).clamp(-self.max_distance, self.max_distance) + self.max_distance

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = self.dropout(self.weights(q, k, mask))  # (B, H, Q, M)
        per_row = weights.new_zeros(*weights.shape[:-1], len(self.value_table))  # (B, H, Q, 2R + 1)
        per_row = per_row.scatter_add(-1, self._rows(q, k).expand_as(weights), weights)
        return weights @ v + per_row @ self.value_table


class AlibiAttention(RelativeAttention):
    """Scores q·k / √d_k - m_h |i - j|, with slopes m_h = 2^(-8h/H) of heads 1 to H (ALiBi, Press et al. 2022)."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        heads = torch.arange(1, q.size(1) + 1, device=q.device)[:, None, None]
        slopes = 2 ** (-8 * heads / q.size(1))  # (H, 1, 1)
        return self.inner.scores(q, k) - (slopes * self.relative_positions(q, k).abs()).to(q.dtype)


class T5Bias(nn.Module):
    """b[bucket(j - i), head], one table for all layers of a stack (Raffel et al. 2020, section 2.1)."""

    def __init__(self, num_heads: int, *, bidirectional: bool, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.bidirectional, self.max_distance = bidirectional, max_distance
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.table)

    def forward(self, relative_positions: Tensor) -> Tensor:
        """Biases (H, Q, M) of relative positions (Q, M) int64."""
        return F.embedding(self.buckets(relative_positions), self.table).permute(2, 0, 1)

    def buckets(self, relative_positions: Tensor) -> Tensor:
        """Rows of the table: half for one distance each, half for ranges that grow as powers up to `max_distance`."""
        distance = relative_positions.abs() if self.bidirectional else (-relative_positions).clamp(min=0)
        num_buckets = len(self.table) // 2 if self.bidirectional else len(self.table)
        num_exact = num_buckets // 2
        share = (distance.clamp(min=1).double() / num_exact).log() / math.log(self.max_distance / num_exact)
        # 1e-9: a power that is met exactly opens its bucket, whatever the rounding of its logarithm.
        powers = num_exact + (share * (num_buckets - num_exact) + 1e-9).long()
        bucket = torch.where(distance < num_exact, distance, powers.clamp(max=num_buckets - 1))
        return bucket + num_buckets * (relative_positions > 0) if self.bidirectional else bucket


class T5Attention(RelativeAttention):
    """Adds the bias of its stack to the scores. T5 itself leaves out 1/√d_k: `DotAttention` inside of this."""

    def __init__(self, inner: DotProductAttention, bias: T5Bias, *, centred: bool = False) -> None:
        super().__init__(inner, centred=centred)
        self._bias = (bias,)  # in a tuple, or torch would register the stack's module again in each layer

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return self.inner.scores(q, k) + self._bias[0](self.relative_positions(q, k)).to(q.dtype)

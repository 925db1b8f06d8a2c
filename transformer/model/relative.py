"""Positions that enter self-attention instead of the embeddings: those of Shaw, of T5, and rotary ones.

Dimension key: B batch, H heads, N layers, Q queries, M keys, K size of a query or key (d_k), L new positions.

An offset is a key's position minus the query's, int64 (B or 1, Q, M). What stands for a key that the mask hides does
not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model.positions import SinusoidalPositions
from transformer.model.scores import AttentionScore

if TYPE_CHECKING:
    from transformer.model.attention import MultiHeadAttention

Positional = Literal["sinusoidal", "learned", "shaw", "t5", "rotary", "none"]


class Place(NamedTuple):
    """Where the queries and keys of one call of a stack stand."""

    start: int  # how many positions are past
    num_new: int  # new positions of each hypothesis, each a query and a key
    width: int  # hypotheses per sentence, whose new positions stand end to end
    offsets: Callable[[], Tensor]  # computes the offsets of all keys from the queries


class Relation:
    """What positions do to the self-attention of one layer, in one call of its stack.

    Either they map queries and keys (`rotate`), and equation 1 goes on as before, or they change its scores and what is
    mixed (`changes_scores`).
    """

    changes_scores = False

    def rotate(self, x: Tensor) -> Tensor:
        """Map queries or keys (B, H, L, K) of the call's new positions; keys are kept as this leaves them."""
        return x

    def scores(self, q: Tensor) -> Tensor:
        """What to add to the scores (B, H, Q, M) of queries (B, H, Q, K), in their dtype."""
        raise NotImplementedError

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        """The context (B, H, Q, d_v) from weights (B, H, Q, M) and values (B, H, M, d_v)."""
        return weights @ values


class RelativePositions(nn.Module):
    """Gives the layers of a stack their relations. One per stack, with whatever there is to learn."""

    def forward(self, place: Place) -> list[Relation]:
        """One relation per layer, for a call that stands here."""
        raise NotImplementedError


class Rotation(Relation):
    """Turns the pair of channels 2i, 2i+1 at position pos by the angle pos / 10000^(2i/d_k).

    Args:
        sinusoids: (L, K), of each new position, the sine and cosine of each pair's angle.
    """

    def __init__(self, sinusoids: Tensor) -> None:
        self.sin, self.cos = sinusoids[:, 0::2], sinusoids[:, 1::2]

    def rotate(self, x: Tensor) -> Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = even * self.cos - odd * self.sin, even * self.sin + odd * self.cos
        return torch.stack(turned, dim=-1).flatten(-2)


class RotaryPositions(RelativePositions):
    """q_m and k_n become R(m) q and R(n) k, so that their product depends on n - m only (Su et al. 2021).

    R(pos) turns neighbouring channels by the angles of section 3.5, in a width of d_k: its table is the paper's.

    Raises:
        ValueError: `d_k` is odd.
    """

    def __init__(self, num_layers: int, d_k: int) -> None:
        super().__init__()
        if d_k % 2:
            raise ValueError(f"positional='rotary' turns pairs of channels and d_k={d_k} is odd")
        self.num_layers = num_layers
        self.sinusoids = SinusoidalPositions(d_k)

    def forward(self, place: Place) -> list[Relation]:
        rows = self.sinusoids.rows(place.start, place.start + place.num_new)
        return [Rotation(rows.repeat(place.width, 1))] * self.num_layers


class _ShawRelation(Relation):
    changes_scores = True

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor) -> None:
        self.keys, self.values, self.rows = keys, values, rows[:, None]

    def scores(self, q: Tensor) -> Tensor:
        # Of every row of the table, then of those that occur: no tensor (B, H, Q, M, K).
        scores = q @ self.keys.T * (1 / math.sqrt(q.size(-1)))  # (B, H, Q, 2K + 1)
        return scores.gather(-1, self.rows.expand(*scores.shape[:-1], -1))

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        per_row = weights.new_zeros(*weights.shape[:-1], len(self.values))
        per_row = per_row.scatter_add(-1, self.rows.expand_as(weights), weights)
        return weights @ values + per_row @ self.values


class ShawPositions(RelativePositions):
    """e_ij = q_i · (k_j + a^K_ij) / √d_k and z_i = sum_j α_ij (v_j + a^V_ij) (Shaw et al. 2018).

    a_ij is the row of a table for j - i, clipped to [-R, R]; each layer has two tables, which its heads share.

    Args:
        num_layers: N.
        d_k, d_v: sizes of a key and of a value per head.
        max_distance: R, at least 1.

    Raises:
        ValueError: `max_distance` is less than 1.
    """

    def __init__(self, num_layers: int, d_k: int, d_v: int, max_distance: int) -> None:
        super().__init__()
        if max_distance < 1:
            raise ValueError(f"max_relative_position={max_distance} is less than 1")
        self.max_distance = max_distance
        self.keys, self.values = (
            nn.ParameterList(torch.empty(2 * max_distance + 1, size) for _ in range(num_layers)) for size in (d_k, d_v)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform."""
        for table in self.parameters():
            nn.init.xavier_uniform_(table)

    def forward(self, place: Place) -> list[Relation]:
        rows = place.offsets().clamp(-self.max_distance, self.max_distance) + self.max_distance
        return [_ShawRelation(keys, values, rows) for keys, values in zip(self.keys, self.values, strict=True)]


class _Bias(Relation):
    changes_scores = True

    def __init__(self, bias: Tensor) -> None:
        self.bias = bias

    def scores(self, q: Tensor) -> Tensor:
        return self.bias.to(q.dtype)


class T5Positions(RelativePositions):
    """Adds b[head, bucket(j - i)] to the scores, in all layers the same (Raffel et al. 2020, section 2.1).

    T5 itself leaves out the 1/√d_k: that is `attention_score="dot"` beside this. The bias is not divided by the
    temperature.

    Args:
        num_layers: N.
        num_heads: H.
        bidirectional: whether keys may come after the query; half of the buckets are then theirs.
        num_buckets, max_distance: T5's; from `max_distance` on, all distances share a bucket.
    """

    buckets: Tensor

    def __init__(
        self, num_layers: int, num_heads: int, *, bidirectional: bool, num_buckets: int = 32, max_distance: int = 128
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.max_distance = max_distance
        offsets = range(-max_distance, max_distance + 1)
        buckets = [_bucket(offset, bidirectional, num_buckets, max_distance) for offset in offsets]
        # Not persistent: it is a formula, not something learned.
        self.register_buffer("buckets", torch.tensor(buckets), persistent=False)
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform."""
        nn.init.xavier_uniform_(self.table)

    def forward(self, place: Place) -> list[Relation]:
        rows = place.offsets().clamp(-self.max_distance, self.max_distance) + self.max_distance
        bias = F.embedding(self.buckets[rows], self.table)  # (B or 1, Q, M, H)
        return [_Bias(bias.permute(0, 3, 1, 2))] * self.num_layers


def _bucket(offset: int, bidirectional: bool, num_buckets: int, max_distance: int) -> int:
    """Half of the buckets hold one distance each, the rest distances that grow as powers up to `max_distance`."""
    first = 0
    if bidirectional:
        num_buckets //= 2
        first = num_buckets if offset > 0 else 0
        distance = abs(offset)
    else:
        distance = max(-offset, 0)
    num_exact = num_buckets // 2
    if distance < num_exact:
        return first + distance
    share = math.log(distance / num_exact) / math.log(max_distance / num_exact)
    # A power that is met exactly opens its bucket, whatever the rounding of its logarithm.
    return first + min(num_exact + int(share * (num_buckets - num_exact) + 1e-9), num_buckets - 1)


def all_offsets(num_positions: int, device: torch.device | str | None = None) -> Tensor:
    """The offsets (1, L, L) of L positions that see each other."""
    position = torch.arange(num_positions, device=device)
    return (position - position[:, None])[None]


def causal_offsets(mask: Tensor | None, num_keys: int, device: torch.device | str | None = None) -> Tensor:
    """The offsets of keys that precede their query, of all that precede it: how many it sees after each, negated.

    So a past that several hypotheses share, and that has lost what is nobody's, needs no position numbers.

    Args:
        mask: (B or 1, 1, Q, M) bool, True where a query may attend; None for one query that may attend to all.
        num_keys: M.
    """
    if mask is None:
        return torch.arange(1 - num_keys, 1, device=device)[None, None]
    seen = mask[:, 0].cumsum(dim=-1)  # (B, Q, M)
    return seen - seen[..., -1:]


# Relative positions are defined on products of queries and keys, Shaw's on products that are linear in the key.
_SCORES: dict[str, tuple[AttentionScore, ...]] = {
    "rotary": ("scaled_dot", "dot", "general", "cosine"),
    "shaw": ("scaled_dot", "dot", "general"),
}


def make_relative_positions(
    positional: Positional,
    attentions: Sequence[MultiHeadAttention],
    *,
    attention_score: AttentionScore,
    max_relative_position: int,
    bidirectional: bool,
) -> RelativePositions | None:
    """The relative positions of a stack whose layers have these self-attentions; None if `positional` is not relative.

    Raises:
        ValueError: they are not defined for this `attention_score`, or rotary ones for this `d_k`.
    """
    accepted = _SCORES.get(positional)
    if accepted is not None and attention_score not in accepted:
        raise ValueError(
            f"positional={positional!r} is not defined for attention_score={attention_score!r}, only for "
            f"{', '.join(map(repr, accepted))}"
        )
    num_layers = len(attentions)
    match positional:
        case "shaw":
            return ShawPositions(num_layers, attentions[0].d_k, attentions[0].d_v, max_relative_position)
        case "t5":
            return T5Positions(num_layers, attentions[0].num_heads, bidirectional=bidirectional)
        case "rotary":
            return RotaryPositions(num_layers, attentions[0].d_k)
    return None

"""Scaled dot-product and multi-head attention (section 3.2).

Dimension key: B batch, H heads (h), Q queries, M keys (memory), K size of a query or key (d_k; a value has d_v),
D model width (d_model).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model.dropout import dropout as apply_dropout
from transformer.model.relative import Relation, all_offsets
from transformer.model.scores import AttentionScore, make_score

# On a CPU, equation 1 written out beats the fused kernel up to about these many keys (its backward is slow on short
# sequences, above all in bfloat16); from there on the fused kernel wins.
_FUSED_FROM_NUM_KEYS = {torch.float32: 48, torch.bfloat16: 320}
_VECTOR_NUMEL = 16


class KeysValues(NamedTuple):
    """What a query attends to: keys (B, H, M, d_k) and values (B, H, M, d_v)."""

    keys: Tensor
    values: Tensor


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d_k), the weights of equation 1.

    Args:
        q: (..., Q, K) queries.
        k: (..., M, K) keys.
        mask: bool, broadcastable to (..., Q, M); True means "may attend".

    Returns:
        (..., Q, M) weights that sum to 1 over M; all 0 for a query that may attend to nothing.
    """
    return masked_softmax(_products(q, k), mask)


def _products(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) * (1 / math.sqrt(q.size(-1)))  # (..., Q, M)


def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax over the last dimension of scores (..., Q, M), with weight 0 where `mask` is False."""
    if mask is None:
        return _softmax(scores)
    # The lowest number instead of -inf: the same zeros after the softmax, but no NaN where a whole row is hidden.
    weights = _softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min))
    return weights * mask.any(dim=-1, keepdim=True)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension, computed in float32 at least."""
    # A CPU's vectors hold 16 float32 numbers. On rows that do not fill one, of sentences of under 16 tokens (or 32, in
    # bfloat16), torch falls back to a scalar loop several times as slow.
    num_keys = scores.size(-1)
    if scores.device.type == "cpu" and num_keys < _VECTOR_NUMEL:
        scores = F.pad(scores, (0, _VECTOR_NUMEL - num_keys), value=-math.inf)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=dtype)[..., :num_keys].to(scores.dtype)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V: equation 1 as printed.

    Args:
        q: (..., Q, d_k) queries.
        k: (..., M, d_k) keys.
        v: (..., M, d_v) values.
        mask: bool, broadcastable to (..., Q, M); True means "may attend".
        dropout: probability of dropping a weight, in [0, 1): the context is then Dropout(softmax(Q Kᵀ / √d_k)) V.

    Returns:
        The context (..., Q, d_v) and the weights (..., Q, M), the latter before dropout.
    """
    weights = attention_weights(q, k, mask)
    return apply_dropout(weights, dropout) @ v, weights


def _fused_kernel_wins(q: Tensor, k: Tensor) -> bool:
    if q.device.type != "cpu":
        return True
    return k.size(-2) >= _FUSED_FROM_NUM_KEYS.get(q.dtype, 0)


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) Wᴼ (section 3.2.2).

    `w_q`, `w_k`, `w_v` hold the projections W_i^Q, W_i^K, W_i^V of all heads side by side. More general than most
    implementations, as Table 3 needs: `num_heads`, `d_k` and `d_v` are independent of `d_model`.

    Args:
        d_model: width of input and output.
        num_heads: h.
        d_k: size of a query and a key per head; by default d_model / num_heads.
        d_v: size of a value per head; by default d_k.
        bias: whether the four projections have biases; the paper's have none.
        dropout: probability of dropping an attention weight in training; the paper's translation models drop none.
        score: what the softmax is of: the paper's "scaled_dot", or another of transformer/model/scores.py.
        temperature: by which scores are divided.
        max_positions: how many keys a query may see, with `score="location"` only.

    Raises:
        ValueError: `d_k` is not given and `num_heads` does not divide `d_model`, there is no such `score`, or
            `temperature` is not a finite number above 0.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        score: AttentionScore = "scaled_dot",
        temperature: float = 1.0,
        max_positions: int = 512,
    ) -> None:
        super().__init__()
        if d_k is None:
            if d_model % num_heads:
                raise ValueError(
                    f"d_model={d_model} is not a multiple of num_heads={num_heads}; change one or give d_k"
                )
            d_k = d_model // num_heads
        d_v = d_k if d_v is None else d_v
        self.num_heads, self.d_k, self.d_v = num_heads, d_k, d_v
        self.dropout = dropout
        self.score = make_score(score, num_heads, d_k, temperature=temperature, max_positions=max_positions)
        reads_keys = self.score is None or self.score.reads_keys
        self.w_q = nn.Linear(d_model, num_heads * d_k, bias=bias)
        self.w_k = nn.Linear(d_model, num_heads * d_k, bias=bias) if reads_keys else None
        self.w_v = nn.Linear(d_model, num_heads * d_v, bias=bias)
        self.w_o = nn.Linear(num_heads * d_v, d_model, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform; q, k and v with the bounds of one fused matrix, as in the authors' self-attention."""
        for linear in (self.w_q, self.w_k, self.w_v, self.w_o):
            if linear is None:
                continue
            nn.init.xavier_uniform_(linear.weight, gain=1.0 if linear is self.w_o else math.sqrt(0.5))
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def keys_values(self, memory: Tensor, relation: Relation | None = None) -> KeysValues:
        """Project what will be attended to, (B, M, D), once; the caller decides how long to keep it."""
        values = self._split_heads(self.w_v(memory))
        if self.w_k is None:
            return KeysValues(values[..., :1], values)  # keys only to be counted
        keys = self._split_heads(self.w_k(memory))
        if self.score is not None:
            keys = self.score.key(keys)
        return KeysValues(keys if relation is None else relation.rotate(keys), values)

    def attend(
        self, query: Tensor, kv: KeysValues, mask: Tensor | None = None, relation: Relation | None = None
    ) -> Tensor:
        """Attend from `query` (B, Q, D) to projected keys and values; returns (B, Q, D).

        `mask` is bool, broadcastable to (B, H, Q, M), True where a query may attend. `relation`, the same as in
        `keys_values`, is how positions enter, if they do so here.
        """
        context = self._context(self._queries(query, relation), kv, mask, relation)  # (B, H, Q, d_v)
        return self.w_o(context.transpose(1, 2).flatten(2))  # (B, Q, D)

    def weights(
        self, query: Tensor, kv: KeysValues, mask: Tensor | None = None, relation: Relation | None = None
    ) -> Tensor:
        """The weights with which `attend` would mix the values, per head: (B, H, Q, M)."""
        return self._weights(self._queries(query, relation), kv.keys, mask, relation)

    def key_offsets(self, num_positions: int, device: torch.device | str | None = None) -> Tensor:
        """The offsets, in self-attention, of the keys from the queries: what `relation` is made of."""
        return all_offsets(num_positions, device)

    def forward(
        self,
        query: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        relation: Relation | None = None,
    ) -> Tensor:
        """Attend from `query` (B, Q, D) to `memory` (B, M, D), by default to itself; returns (B, Q, D)."""
        return self.attend(query, self.keys_values(query if memory is None else memory, relation), mask, relation)

    def _queries(self, query: Tensor, relation: Relation | None) -> Tensor:
        q = self._split_heads(self.w_q(query))  # (B, H, Q, K)
        if self.score is not None:
            q = self.score.query(q)
        return q if relation is None else relation.rotate(q)

    def _context(self, q: Tensor, kv: KeysValues, mask: Tensor | None, relation: Relation | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if (self.score is None or self.score.is_product) and (relation is None or not relation.changes_scores):
            if _fused_kernel_wins(q, kv.keys):
                return F.scaled_dot_product_attention(q, kv.keys, kv.values, attn_mask=mask, dropout_p=dropout)
            return attention(q, kv.keys, kv.values, mask, dropout=dropout)[0]
        weights = apply_dropout(self._weights(q, kv.keys, mask, relation), dropout)
        return weights @ kv.values if relation is None else relation.mix(weights, kv.values)

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None, relation: Relation | None) -> Tensor:
        scores = _products(q, k) if self.score is None or self.score.is_product else self.score(q, k, mask)
        if relation is not None and relation.changes_scores:
            scores = scores + relation.scores(q)
        return masked_softmax(scores, mask)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, L, K)

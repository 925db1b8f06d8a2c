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
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.size(-1)))  # (..., Q, M)
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
        dropout: probability of dropping a weight, in [0, 1).

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

    Raises:
        ValueError: `d_k` is not given and `num_heads` does not divide `d_model`.
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
    ) -> None:
        super().__init__()
        if d_k is None:
            if d_model % num_heads:
                raise ValueError(
                    f"d_model={d_model} is not a multiple of num_heads={num_heads}; change one or give d_k"
                )
            d_k = d_model // num_heads
        d_v = d_k if d_v is None else d_v
        self.num_heads = num_heads
        self.dropout = dropout
        self.w_q = nn.Linear(d_model, num_heads * d_k, bias=bias)
        self.w_k = nn.Linear(d_model, num_heads * d_k, bias=bias)
        self.w_v = nn.Linear(d_model, num_heads * d_v, bias=bias)
        self.w_o = nn.Linear(num_heads * d_v, d_model, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform; q, k and v with the bounds of one fused matrix, as in the authors' self-attention."""
        for linear in (self.w_q, self.w_k, self.w_v, self.w_o):
            nn.init.xavier_uniform_(linear.weight, gain=1.0 if linear is self.w_o else math.sqrt(0.5))
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def keys_values(self, memory: Tensor) -> KeysValues:
        """Project what will be attended to, (B, M, D), once; the caller decides how long to keep it."""
        return KeysValues(self._split_heads(self.w_k(memory)), self._split_heads(self.w_v(memory)))

    def attend(self, query: Tensor, kv: KeysValues, mask: Tensor | None = None) -> Tensor:
        """Attend from `query` (B, Q, D) to projected keys and values; returns (B, Q, D).

        `mask` is bool, broadcastable to (B, H, Q, M), True where a query may attend.
        """
        q = self._split_heads(self.w_q(query))  # (B, H, Q, K)
        dropout = self.dropout if self.training else 0.0
        if _fused_kernel_wins(q, kv.keys):
            context = F.scaled_dot_product_attention(q, kv.keys, kv.values, attn_mask=mask, dropout_p=dropout)
        else:
            context, _ = attention(q, kv.keys, kv.values, mask, dropout=dropout)
        return self.w_o(context.transpose(1, 2).flatten(2))  # (B, Q, D)

    def weights(self, query: Tensor, kv: KeysValues, mask: Tensor | None = None) -> Tensor:
        """The weights with which `attend` would mix the values, per head: (B, H, Q, M)."""
        return attention_weights(self._split_heads(self.w_q(query)), kv.keys, mask)

    def forward(self, query: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend from `query` (B, Q, D) to `memory` (B, M, D), by default to itself; returns (B, Q, D)."""
        return self.attend(query, self.keys_values(query if memory is None else memory), mask)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, L, K)

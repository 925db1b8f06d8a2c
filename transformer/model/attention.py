"""Attention (section 3.2): scaled dot-product (Figure 2, left), multi-head (Figure 2, right), and their masks.

Shapes: B sentences, H heads (h), Q queries, M keys, D d_model. Masks are bool, True where a query may attend.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model import kernels
from transformer.model.kernels import PackedMask


def padding_mask(ids: Tensor, pad_id: int = 0) -> Tensor:
    """Mask out padding keys: ids (B, M) to (B, 1, 1, M)."""
    return (ids != pad_id)[:, None, None, :]


def causal_mask(num_queries: int, num_past: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Mask out subsequent positions: (1, 1, Q, num_past + Q), where `num_past` keys precede the first query."""
    return torch.ones((num_queries, num_past + num_queries), dtype=torch.bool, device=device).tril(num_past)[None, None]


def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax of scores (..., Q, M) over the keys; 0 where masked, even if all keys are."""
    if mask is None:
        return kernels.softmax(scores)
    # The lowest number instead of -∞, and zeros afterwards: no NaN for a query whose keys are all masked.
    is_masked = ~mask
    return kernels.softmax(scores.masked_fill(is_masked, torch.finfo(scores.dtype).min)).masked_fill(is_masked, 0.0)


class DotProductAttention(nn.Module):
    """Attention(Q, K, V) = softmax(QKᵀ / √d_k) V (equation 1), scaled dot-product attention, for all heads at once.

    Alternatives override its methods (model/alternatives). The paper has no `dropout` of the weights.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = kernels.Dropout(dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries (B, H, Q, d_k), keys (B, H, M, d_k) and values (B, H, M, d_v) to (B, H, Q, d_v)."""
        if kernels.prefers_fused(q, k):
            return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.dropout.p * self.dropout.training)
        return self.dropout(self.weights(q, k, mask)) @ v

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """softmax(QKᵀ / √d_k), before dropout: (B, H, Q, M)."""
        return masked_softmax(self.scores(q, k), mask)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """QKᵀ / √d_k: (B, H, Q, M)."""
        return q @ k.mT * (1 / math.sqrt(q.size(-1)))

    def queries(self, q: Tensor, start: int) -> Tensor:  # noqa: ARG002
        """Transform queries, the first of which is at position `start`: here, not at all."""
        return q

    def keys(self, k: Tensor, start: int) -> Tensor:  # noqa: ARG002
        """Transform keys likewise, before they are cached."""
        return k


class KeyValue(NamedTuple):
    """Keys (B, H, M, d_k) and values (B, H, M, d_v) of one layer: an entry of the KV cache."""

    keys: Tensor
    values: Tensor


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) Wᴼ, head_i = Attention(QW_i^Q, KW_i^K, VW_i^V) (section 3.2.2).

    Args:
        d_model, num_heads: size of inputs and outputs, and h.
        d_k, d_v: size of a key and of a value per head; by default d_model / h (else ValueError), and d_k.
        bias: in the four projections; the paper writes none.
        attention: of each head; by default equation 1.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        bias: bool = False,
        attention: DotProductAttention | None = None,
    ) -> None:
        super().__init__()
        if d_k is None and d_model % num_heads:
            raise ValueError(f"d_model={d_model} is not a multiple of num_heads={num_heads}; change one or give d_k")
        self.num_heads = num_heads
        self.d_k = d_k = d_model // num_heads if d_k is None else d_k
        self.d_v = d_v = d_k if d_v is None else d_v
        self.attention = DotProductAttention() if attention is None else attention
        # The projections of all heads, side by side.
        self.w_q, self.w_k = (nn.Linear(d_model, num_heads * d_k, bias) for _ in range(2))
        self.w_v, self.w_o = nn.Linear(d_model, num_heads * d_v, bias), nn.Linear(num_heads * d_v, d_model, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform; q, k and v with the bound of one (3D, D) matrix, as in the authors' self-attention."""
        for linear in (child for child in self.children() if isinstance(child, nn.Linear)):
            nn.init.xavier_uniform_(linear.weight, gain=1.0 if linear is self.w_o else math.sqrt(0.5))
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, d_k={self.d_k}, d_v={self.d_v}"

    def project(self, x: Tensor, past: KeyValue | None = None) -> KeyValue:
        """Keys and values of x (B, M, D), appended to those of `past`: an entry of the KV cache."""
        # Values first: in the opposite order gradients add up, and runs are reproduced to the bit.
        v, k = self._split_heads(self.w_v(x), self.d_v), self._split_heads(self.w_k(x), self.d_k)
        if past is None:
            return KeyValue(self.attention.keys(k, 0), v)
        k = self.attention.keys(k, past.keys.size(2)).contiguous()  # contiguous: concatenated in long runs
        return KeyValue(torch.cat((past.keys, k), dim=2), torch.cat((past.values, v.contiguous()), dim=2))

    def forward(
        self, x: Tensor, memory: Tensor | KeyValue | None = None, *, mask: Tensor | PackedMask | None = None
    ) -> Tensor:
        """Attend from each position of x to `memory`, in self-attention to x; returns the shape of x.

        Args:
            x: (B, Q, D); (B·W, Q, D) if the W beam hypotheses of each sentence share its memory.
            memory: (B, M, D), or its keys and values from `project`.
            mask: bool (else TypeError), True where a query may attend; nn.MultiheadAttention has the opposite.
                (Q, M), or broadcastable to (B, H, W·Q, M), else ValueError. Or `Packing` or `Grouping`, of one row.
        """
        kv = memory if isinstance(memory, KeyValue) else self.project(x if memory is None else memory)
        (num_rows, length, _), (num_sentences, _, num_keys, _) = x.shape, kv.keys.shape
        beam_size = num_rows // num_sentences if num_sentences else 1  # W
        if beam_size * num_sentences != num_rows:
            raise ValueError(f"x has {num_rows} rows, not a multiple of the memory's {num_sentences}")
        q = self.w_q(x)  # (B·W, Q, H·d_k)
        q = self._split_heads(q.view(num_sentences, beam_size * length, q.size(2)), self.d_k)  # (B, H, W·Q, d_k)
        kernels.check_mask(mask, (*q.shape[:3], num_keys))
        q = self.attention.queries(q, num_keys - length)  # in self-attention, the last of the keys' positions
        if mask is None or isinstance(mask, Tensor):
            context = self.attention(q, kv.keys, kv.values, mask)  # (B, H, W·Q, d_v)
        else:
            context = mask.attend(self.attention, q, kv.keys, kv.values)
        return self.w_o(context.transpose(1, 2).flatten(2)).view(x.shape)  # Concat, Wᴼ: (B·W, Q, D)

    def _split_heads(self, x: Tensor, size: int) -> Tensor:
        return x.view(*x.shape[:2], x.size(2) // size, size).transpose(1, 2)  # (B, H, L, size)

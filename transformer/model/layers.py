"""The layers of encoder and decoder (section 3.1, Figure 1) with their feed-forward network (section 3.3)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model.attention import KeyValue, MultiHeadAttention
from transformer.model.kernels import Dropout


class FeedForward(nn.Module):
    """FFN(x) = max(0, xW_1 + b_1)W_2 + b_2 (equation 2); the paper has no dropout inside."""

    def __init__(
        self, d_model: int, d_ff: int, *, activation: Callable[[Tensor], Tensor] = F.relu, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.activation, self.dropout = activation, Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform weights, zero biases."""
        for linear in (self.w_1, self.w_2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.w_2(self.dropout(self.activation(self.w_1(x))))


class Layer(nn.Module):
    """Self-attention and feed-forward network, with a decoder's third sub-layer, cross-attention, in between.

    The output of each is LayerNorm(x + Dropout(Sublayer(x))), with P_drop = `dropout`: post-norm (sections 3.1, 5.4).
    """

    def __init__(
        self,
        self_attention: MultiHeadAttention,
        feed_forward: FeedForward,
        cross_attention: MultiHeadAttention | None = None,
        *,
        dropout: float = 0.1,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.self_attention, self.cross_attention, self.feed_forward = self_attention, cross_attention, feed_forward
        d_model = feed_forward.w_2.out_features
        self.norm_1, self.norm_2 = nn.LayerNorm(d_model, norm_eps), nn.LayerNorm(d_model, norm_eps)
        self.norm_cross = nn.Identity() if cross_attention is None else nn.LayerNorm(d_model, norm_eps)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: KeyValue | None = None,
        memory: Tensor | KeyValue | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue, Tensor | KeyValue | None]:
        """Compute T positions, in a decoder after the t of `past`.

        Args:
            x: (R, T, D); R is B, or B·W for W beam hypotheses of each of B sentences, side by side.
            mask: of self-attention, broadcastable to (R, H, T, t + T).
            past: self-attention keys and values (R, H, t, ·).
            memory: the encoder's output (B, S, D), or its keys and values as returned.
            memory_mask: of cross-attention, (B, 1, 1, S).

        Returns:
            (R, T, D), and for the next call `past` (R, H, t + T, ·) and `memory` (B, H, S, ·).
        """
        kv = self.self_attention.project(x, past)
        x = self.norm_1(x + self.dropout(self.self_attention(x, kv, mask=mask)))
        if self.cross_attention is not None:
            if not isinstance(memory, KeyValue):  # contiguous once, or each step would copy them for its products
                memory = KeyValue(*(y.contiguous() for y in self.cross_attention.project(memory)))  # type: ignore[arg-type]
            x = self.norm_cross(x + self.dropout(self.cross_attention(x, memory, mask=memory_mask)))
        return self.norm_2(x + self.dropout(self.feed_forward(x))), kv, memory

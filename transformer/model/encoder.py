"""The encoder stack (section 3.1, left half of figure 1)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from typing_extensions import Unpack

from transformer.model.attention import MultiHeadAttention
from transformer.model.feedforward import FeedForward
from transformer.model.options import LayerOptions, NormPlacement
from transformer.model.residual import Residual, final_norm


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network, each inside a residual connection.

    The keyword arguments are described, one by one, in `LayerOptions`.
    """

    def __init__(
        self,
        d_model: int = 512,
        num_heads: int = 8,
        d_ff: int = 2048,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        attention_bias: bool = False,
        norm: NormPlacement = "post",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(
            d_model, num_heads, d_k=d_k, d_v=d_v, bias=attention_bias, dropout=attention_dropout
        )
        self.feed_forward = FeedForward(d_model, d_ff, dropout=activation_dropout)
        self.residual_1 = Residual(d_model, dropout=dropout, norm=norm, norm_eps=norm_eps)
        self.residual_2 = Residual(d_model, dropout=dropout, norm=norm, norm_eps=norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, S, D) to (B, S, D); `mask` is bool, broadcastable to (B, H, S, S), True where attention is allowed."""
        x = self.residual_1(x, lambda y: self.self_attention(y, mask=mask))
        return self.residual_2(x, self.feed_forward)

    def attention_weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The self-attention weights (B, H, S, S) that `forward` uses on the same input."""
        y = self.residual_1.norm(x) if self.residual_1.is_pre_norm else x
        return self.self_attention.weights(y, self.self_attention.keys_values(y), mask)


class Encoder(nn.Module):
    """A stack of encoder layers; with pre-norm, one more LayerNorm on top.

    Args:
        num_layers: N.
        options: keyword arguments of `EncoderLayer`.
    """

    def __init__(self, num_layers: int = 6, **options: Unpack[LayerOptions]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(**options) for _ in range(num_layers))
        self.norm = final_norm(options)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embedded source (B, S, D) to memory (B, S, D); `mask` as in `EncoderLayer.forward`."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)

    def attention_weights(self, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Per layer, the self-attention weights (B, H, S, S) that `forward` uses on the same input."""
        weights = []
        for layer in cast("list[EncoderLayer]", self.layers):
            weights.append(layer.attention_weights(x, mask))
            x = layer(x, mask)
        return weights

"""The encoder stack (section 3.1, left half of figure 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from torch import Tensor, nn
from typing_extensions import Unpack

from transformer.model.attention import MultiHeadAttention
from transformer.model.feedforward import FeedForward
from transformer.model.options import LayerOptions, NormPlacement
from transformer.model.relative import Place, Positional, Relation, make_relative_positions
from transformer.model.residual import Residual, final_norm
from transformer.model.restricted import RestrictedAttention
from transformer.model.scores import AttentionScore


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network, each inside a residual connection.

    The keyword arguments are described, one by one, in `LayerOptions`; besides, `attention_window` is the r of
    `RestrictedAttention`.
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
        attention_score: AttentionScore = "scaled_dot",
        attention_temperature: float = 1.0,
        attention_window: int | None = None,
        max_positions: int = 512,
        norm: NormPlacement = "post",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        attention: Callable[..., MultiHeadAttention] = MultiHeadAttention
        if attention_window is not None:
            attention = partial(RestrictedAttention, window=attention_window)
        self.self_attention = attention(
            d_model,
            num_heads,
            d_k=d_k,
            d_v=d_v,
            bias=attention_bias,
            dropout=attention_dropout,
            score=attention_score,
            temperature=attention_temperature,
            max_positions=max_positions,
        )
        self.feed_forward = FeedForward(d_model, d_ff, dropout=activation_dropout)
        self.residual_1 = Residual(d_model, dropout=dropout, norm=norm, norm_eps=norm_eps)
        self.residual_2 = Residual(d_model, dropout=dropout, norm=norm, norm_eps=norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None = None, relation: Relation | None = None) -> Tensor:
        """(B, S, D) to (B, S, D).

        `mask` is bool, broadcastable to (B, H, S, S), True where attention is allowed; with `attention_window`, it is
        that of padding, (B, 1, 1, S). `relation` is how positions enter, if they do so in attention.
        """
        x = self.residual_1(x, lambda y: self.self_attention(y, mask=mask, relation=relation))
        return self.residual_2(x, self.feed_forward)

    def attention_weights(self, x: Tensor, mask: Tensor | None = None, relation: Relation | None = None) -> Tensor:
        """The self-attention weights (B, H, S, S) that `forward` uses on the same input."""
        y = self.residual_1.norm(x) if self.residual_1.is_pre_norm else x
        return self.self_attention.weights(y, self.self_attention.keys_values(y, relation), mask, relation)


class Encoder(nn.Module):
    """A stack of encoder layers; with pre-norm, one more LayerNorm on top.

    Args:
        num_layers: N.
        attention_window: of `EncoderLayer`.
        positional: "shaw", "t5" and "rotary" positions enter here, in self-attention; others do not.
        max_relative_position: of "shaw" only.
        options: the other keyword arguments of `EncoderLayer`.
    """

    def __init__(
        self,
        num_layers: int = 6,
        *,
        attention_window: int | None = None,
        positional: Positional = "sinusoidal",
        max_relative_position: int = 20,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__()
        layers = [EncoderLayer(attention_window=attention_window, **options) for _ in range(num_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = final_norm(options)
        self.relative = make_relative_positions(
            positional,
            [layer.self_attention for layer in layers],
            attention_score=options.get("attention_score", "scaled_dot"),
            max_relative_position=max_relative_position,
            bidirectional=True,
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embedded source (B, S, D) to memory (B, S, D); `mask` as in `EncoderLayer.forward`."""
        for layer, relation in zip(self.layers, self._relations(x), strict=True):
            x = layer(x, mask, relation)
        return self.norm(x)

    def attention_weights(self, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Per layer, the self-attention weights (B, H, S, S) that `forward` uses on the same input."""
        weights = []
        for layer, relation in zip(cast("list[EncoderLayer]", self.layers), self._relations(x), strict=True):
            weights.append(layer.attention_weights(x, mask, relation))
            x = layer(x, mask, relation)
        return weights

    def _relations(self, x: Tensor) -> Sequence[Relation | None]:
        """Per layer, how the positions of x (B, S, D) enter its attention."""
        if self.relative is None:
            return [None] * len(self.layers)
        length, attention = x.size(1), cast("EncoderLayer", self.layers[0]).self_attention
        return self.relative(Place(0, length, 1, lambda: attention.key_offsets(length, x.device)))

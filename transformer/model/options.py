"""The keyword arguments that encoder and decoder layers share, so that stacks can hand them on typed."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from transformer.model.scores import AttentionScore

NormPlacement = Literal["post", "pre"]


class LayerOptions(TypedDict, total=False):
    """Keyword arguments of `EncoderLayer` and `DecoderLayer`; what is left out takes the paper's base value."""

    d_model: int  # 512: width of every sub-layer's input and output
    num_heads: int  # 8: h
    d_ff: int  # 2048: inner width of the feed-forward network
    d_k: int | None  # size of a query or key per head; None: d_model / num_heads
    d_v: int | None  # size of a value per head; None: d_k
    dropout: float  # 0.1: P_drop, on each sub-layer's output
    attention_dropout: float  # 0: on attention weights
    activation_dropout: float  # 0: on the inner activations of the feed-forward network
    attention_bias: bool  # False: biases in the attention projections
    attention_score: AttentionScore  # "scaled_dot": what the softmax of an attention is of
    attention_temperature: float  # 1: by which scores are divided
    max_positions: int  # 512: how many keys a query may see, with the score "location" only
    norm: NormPlacement  # "post": where LayerNorm stands
    norm_eps: float  # 1e-6: added to the variance

"""The model that a configuration describes: the paper's, with the parts replaced that it names otherwise."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn

from transformer.config import ModelConfig
from transformer.errors import ConfigError
from transformer.model.alternatives import embeddings, relative, scores
from transformer.model.alternatives.layers import GroupedQueryAttention, PreNormLayer
from transformer.model.alternatives.local import LocalAttention
from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Decoder, Encoder, Transformer

# Those that are not the paper's, by `tie` and `output_bias`.
_EMBEDDINGS: dict[tuple[str, bool], Callable[..., Any]] = {
    ("decoder", False): embeddings.DecoderTiedEmbedding,
    ("none", False): embeddings.UntiedEmbedding,
    ("all", True): embeddings.BiasedEmbedding,
    ("decoder", True): embeddings.BiasedDecoderTiedEmbedding,
    ("none", True): embeddings.BiasedUntiedEmbedding,
}


def build_model(vocab_size: int, config: ModelConfig, *, source_vocab_size: int | None = None) -> Transformer:
    """The untrained model; whether its options go together, `ModelConfig` has checked.

    With `source_vocab_size`, the source has a vocabulary of its own, and `vocab_size` is that of the target.
    ConfigError if `config.tie` then shares the matrix of both.
    """
    if source_vocab_size is not None and config.tie == "all":
        raise ConfigError("model.tie=all is for a joint vocabulary: with two of them, set model.tie=decoder or none")
    embedding = _EMBEDDINGS.get((config.tie, config.output_bias))
    model_class = embeddings.BiasedTransformer if config.output_bias else Transformer
    model = model_class(vocab_size if embedding is None else 0, config.d_model, num_layers=0, dropout=config.dropout)
    if embedding is not None:
        of_source = {} if config.tie == "all" else {"source_vocab_size": source_vocab_size}
        model.embedding = embedding(vocab_size, config.d_model, **of_source)
    for name in ("source_positions", "target_positions"):
        if config.positional == "learned":
            model.register_module(name, embeddings.LearnedPositions(config.max_positions, config.d_model))
        elif config.positional != "sinusoidal":  # they enter in attention, or not at all
            model.register_module(name, embeddings.NoPositions())
    if config.positional == "learned" or config.attention_score == "location":
        model.max_length = config.max_positions
    model.encoder = _stack(Encoder, config.num_layers, config)
    model.decoder = _stack(Decoder, config.num_decoder_layers or config.num_layers, config)
    setattr(model, "config", config)  # noqa: B010 (for `save_model`; the core declares no such attribute)
    return model


def _stack(stack_class: type[Encoder | Decoder], num_layers: int, c: ModelConfig) -> Any:
    is_decoder = stack_class is Decoder
    bias = relative.T5Bias(c.num_heads, bidirectional=not is_decoder) if c.positional == "t5" else None
    layer = PreNormLayer if c.norm == "pre" else Layer
    activation: Any = {"relu": F.relu, "gelu": F.gelu, "swish": F.silu}[c.activation]
    feed_forward = partial(FeedForward, activation=activation, dropout=c.activation_dropout)
    layers = (
        layer(
            self_attention=_multi_head(c, _self_attention(c, bias, is_decoder)),
            cross_attention=_multi_head(c, _score(c)) if is_decoder else None,
            feed_forward=feed_forward(c.d_model, c.d_ff),
            dropout=c.dropout,
            norm_eps=c.norm_eps,
        )
        for _ in range(num_layers)
    )
    stack = stack_class(layers, nn.LayerNorm(c.d_model, c.norm_eps) if c.norm == "pre" else None)
    if bias is not None:
        stack.relative_bias = bias  # of all its layers
    return stack


def _multi_head(c: ModelConfig, attention: DotProductAttention) -> MultiHeadAttention:
    multi_head: Callable[..., MultiHeadAttention] = MultiHeadAttention
    if c.attention_score == "location":
        multi_head = scores.LocationMultiHeadAttention
    elif c.num_kv_heads is not None:
        multi_head = partial(GroupedQueryAttention, num_kv_heads=c.num_kv_heads)
    return multi_head(c.d_model, c.num_heads, d_k=c.d_k, d_v=c.d_v, bias=c.attention_bias, attention=attention)


def _self_attention(c: ModelConfig, bias: relative.T5Bias | None, is_decoder: bool) -> DotProductAttention:
    window = None if is_decoder else c.attention_window
    attention, d_k, centred = _score(c), c.d_k or c.d_model // c.num_heads, window is not None
    match c.positional:
        case "rotary":
            attention = relative.RotaryAttention(attention, d_k)
        case "shaw":
            d_v, max_distance = c.d_v or d_k, c.max_relative_position
            attention = relative.ShawAttention(attention, d_k, d_v, max_distance, centred=centred)
        case "t5" if bias is not None:
            attention = relative.T5Attention(attention, bias, centred=centred)
        case "alibi":
            attention = relative.AlibiAttention(attention, centred=centred)
    return attention if window is None else LocalAttention(attention, window)


def _score(c: ModelConfig) -> DotProductAttention:
    options, d_k = (c.attention_dropout, c.attention_temperature), c.d_k or c.d_model // c.num_heads
    match c.attention_score:
        case "dot":
            return scores.DotAttention(*options)
        case "general":
            return scores.GeneralAttention(c.num_heads, d_k, *options)
        case "additive":
            return scores.AdditiveAttention(c.num_heads, d_k, *options)
        case "cosine":
            return scores.CosineAttention(c.num_heads, d_k, *options)
        case "location":
            return scores.LocationAttention(c.num_heads, d_k, c.max_positions, *options)
    return DotProductAttention(options[0]) if options[1] == 1 else scores.TemperatureAttention(*options)

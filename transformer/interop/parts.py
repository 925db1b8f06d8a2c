"""What a model is made of, for formats that have a place for some of it only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from transformer.errors import ExportError
from transformer.model.alternatives.embeddings import BiasedTransformer
from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.embeddings import SharedEmbedding, SinusoidalPositions
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Decoder, Encoder, Transformer

_PAPER = (
    *(DotProductAttention, MultiHeadAttention, FeedForward, Layer, SharedEmbedding, SinusoidalPositions),
    *(Transformer, BiasedTransformer, Encoder, Decoder),
)
# The keys of the configuration that put other classes in their places.
_KEYS = {
    "AdditiveAttention": "model.attention_score=additive",
    "AlibiAttention": "model.positional=alibi",
    "BiasedUntiedEmbedding": "model.tie=none",
    "CosineAttention": "model.attention_score=cosine",
    "DecoderTiedEmbedding": "model.tie=decoder",
    "DotAttention": "model.attention_score=dot",
    "GeneralAttention": "model.attention_score=general",
    "GroupedQueryAttention": "model.num_kv_heads",
    "LearnedPositions": "model.positional=learned",
    "LocalAttention": "model.attention_window",
    "LocationAttention": "model.attention_score=location",
    "LocationMultiHeadAttention": "model.attention_score=location",
    "NoPositions": "model.positional=none",
    "PreNormLayer": "model.norm=pre",
    "RotaryAttention": "model.positional=rotary",
    "ShawAttention": "model.positional=shaw",
    "T5Attention": "model.positional=t5",
    "TemperatureAttention": "model.attention_temperature",
    "UntiedEmbedding": "model.tie=none",
}
_ACTIVATIONS: dict[Any, str] = {F.relu: "relu", F.gelu: "gelu", F.silu: "swish"}


class Parts(NamedTuple):
    """Sizes and options of a model, which all its layers share."""

    d_model: int
    d_ff: int
    num_heads: int
    num_layers: int
    num_decoder_layers: int
    activation: str  # relu, gelu or swish
    norm_eps: float
    is_pre_norm: bool


class Matrices(NamedTuple):
    """The matrices with a row per piece; several of them may be the same."""

    source: Tensor  # (V of the source, D)
    target: Tensor  # (V, D)
    output: Tensor  # (V, D), before the softmax
    bias: Tensor | None  # (V,), of the logits


def parts_of(model: Transformer, title: str, others: Collection[type] = ()) -> Parts:
    """Sizes and options of a model, for the format called `title`.

    ExportError if a part is neither the paper's nor of one of the classes `others`, or the layers differ in more than
    their weights.
    """
    layers = [*model.encoder.layers, *model.decoder.layers]
    attentions = [x for layer in layers for x in (layer.self_attention, layer.cross_attention) if x is not None]
    found: list[nn.Module] = [x.attention for x in attentions]
    found += [*attentions, *layers, model.embedding, model.source_positions, model.target_positions]
    found += [*(layer.feed_forward for layer in layers), model, model.encoder, model.decoder]
    for part in found:
        if type(part) not in {*_PAPER, *others}:
            name = type(part).__name__
            raise ExportError(f"{title} has no place for {_KEYS.get(name, f'a {name}')}")
    if hasattr(model.embedding, "output_bias") != isinstance(model, BiasedTransformer):
        raise ExportError(f"{title}: an output bias is for a BiasedTransformer, and one of the model's parts has none")
    d_model = model.embedding.weight.size(1)
    for x in attentions:
        if (x.num_heads * x.d_k, x.d_v) != (d_model, x.d_k):
            raise ExportError(
                f"{title} has no place for model.d_k={x.d_k} and model.d_v={x.d_v}: both must be model.d_model / "
                f"model.num_heads, here {d_model} / {x.num_heads}"
            )
    is_pre_norm = type(layers[0]) is not Layer
    for stack in (model.encoder, model.decoder):
        if isinstance(stack.norm, nn.LayerNorm) != is_pre_norm:
            raise ExportError(f"{title} has a last norm in pre-norm stacks, and in no others")
    return Parts(
        d_model=d_model,
        d_ff=_same("inner sizes", [x.feed_forward.w_1.out_features for x in layers], title),
        num_heads=_same("numbers of heads", [x.num_heads for x in attentions], title),
        num_layers=len(model.encoder.layers),
        num_decoder_layers=len(model.decoder.layers),
        activation=_same("activations", [_activation(x.feed_forward.activation, title) for x in layers], title),
        norm_eps=_same("norm_eps", [x.norm_1.eps for x in layers], title),
        is_pre_norm=is_pre_norm,
    )


def matrices_of(model: Transformer) -> Matrices:
    """The embeddings of a model, and what its logits are made with."""
    embedding: Any = model.embedding
    source = embedding.weight
    target = getattr(embedding, "target_weight", source)
    return Matrices(source, target, embedding.output_weight, getattr(embedding, "output_bias", None))


def _activation(function: Any, title: str) -> str:
    if function not in _ACTIVATIONS:
        raise ExportError(f"{title} has no place for the activation {getattr(function, '__name__', function)}")
    return _ACTIVATIONS[function]


def _same(what: str, values: list[Any], title: str) -> Any:
    """The value that all layers have."""
    if len({*values}) != 1:
        different = ", ".join(sorted(map(str, {*values})))
        raise ExportError(f"{title} has no place for layers of different {what}: {different}")
    return values[0]

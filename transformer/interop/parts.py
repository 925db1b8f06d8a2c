"""What a model is made of, for formats that have a place for some of it only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from transformer.data.tokenizer import PAD_ID
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

    ExportError if a part is neither the paper's nor of one of the classes `others`, or computes something else than its
    class; if the layers differ in more than their weights, or weights are not finite; for another padding than 0.
    """
    layers = [*model.encoder.layers, *model.decoder.layers]
    attentions = [x for layer in layers for x in (layer.self_attention, layer.cross_attention) if x is not None]
    _check_as_classes(model, title)
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
    _check_weights(model, layers, title)
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
        norm_eps=_same("norm_eps", [x.eps for x in _norms(model)], title),
        is_pre_norm=is_pre_norm,
    )


def own_behaviour(module: nn.Module) -> tuple[str, str] | None:
    """A part that does not compute what its class says, and what changes it; None if there is none.

    Its name is empty if it is the module itself.
    """
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    for name, part in module.named_modules():
        if any(getattr(part, kind) for kind in kinds):
            return name, "hooks"
        # Such as the `forward` that accelerate sets for mixed precision; that of `compile` computes the same.
        own = {key for key, value in vars(part).items() if callable(value) and hasattr(type(part), key)}
        if methods := sorted(own - {"_compiled_call_impl"}):
            return name, f"a {methods[0]} of its own"
    return None


def check_padding(model: Transformer, title: str) -> None:
    """ExportError unless batches are filled up with 0, as all formats expect."""
    if model.pad_id != PAD_ID:
        raise ExportError(f"{title} has no place for pad_id={model.pad_id}: batches are filled up with {PAD_ID}")


def _check_as_classes(model: Transformer, title: str) -> None:
    check_padding(model, title)
    if changed := own_behaviour(model):
        name, what = changed
        raise ExportError(f"{title} has no place for {what}, which {name or 'the model'} has")


def _check_weights(model: Transformer, layers: Sequence[Layer], title: str) -> None:
    """ExportError for products and norms of other classes, and for weights that are no numbers."""
    attentions = [x for layer in layers for x in (layer.self_attention, layer.cross_attention) if x is not None]
    products = [getattr(x, name) for x in attentions for name in ("w_q", "w_k", "w_v", "w_o")]
    products += [product for layer in layers for product in (layer.feed_forward.w_1, layer.feed_forward.w_2)]
    for product in products:
        if type(product) is not nn.Linear:
            raise ExportError(f"{title} has no place for a {type(product).__name__}: merge adapters first")
    for norm in _norms(model):
        if type(norm) is not nn.LayerNorm or norm.weight is None or norm.bias is None:
            raise ExportError(f"{title} has no place for other norms than LayerNorm with weight and bias: {norm}")
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise ExportError(f"{name} contains non-finite values")


def _norms(model: Transformer) -> list[Any]:
    names = ("norm", "norm_1", "norm_2", "norm_cross")
    found = (part for name, part in model.named_modules() if name.rpartition(".")[2] in names)
    return [part for part in found if not isinstance(part, nn.Identity)]


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

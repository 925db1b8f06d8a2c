"""Modules of torch.nn made into ours and ours into theirs, with copies of their weights.

Outputs and gradients are equal up to rounding, but for the random masks of dropout in training, and there and back all
weights are the same to the bit. Masks of attention are not part of a module: in torch.nn, True means "masked", here
"may attend" (docs/PORTING.md). Layers of ours are post-norm `Layer` or `PreNormLayer`; attention is that of
equation 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.interop.parts import own_behaviour
from transformer.model.alternatives.embeddings import BiasedTransformer
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Decoder, Encoder, Transformer


@overload
def from_torch(module: nn.MultiheadAttention) -> MultiHeadAttention: ...
@overload
def from_torch(module: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> Layer: ...
@overload
def from_torch(module: nn.TransformerEncoder) -> Encoder: ...
@overload
def from_torch(module: nn.TransformerDecoder) -> Decoder: ...
@overload
def from_torch(module: nn.Transformer) -> tuple[Encoder, Decoder]: ...
@overload
def from_torch(module: nn.Module) -> Any: ...
def from_torch(module: nn.Module) -> Any:
    """Our counterpart of a module of torch.nn, with copies of its weights.

    Device, dtypes, dropout, frozen weights and training mode are those of `module`, part by part. Ours is batch first,
    whatever `batch_first` says. `nn.Transformer` has neither embeddings nor a vocabulary, so it becomes two stacks.

    Raises:
        TypeError: another class, such as a subclass, which may compute something else.
        ValueError: `add_bias_kv`, `add_zero_attn`, keys and values of different sizes, sub-layers of one layer with
            different dropout, a dropout of 1, hooks, methods set on a module, or weights that several modules share
            or that ours has no place for.
    """
    return _converted(module, _FROM_TORCH)


@overload
def to_torch(module: MultiHeadAttention) -> nn.MultiheadAttention: ...
@overload
def to_torch(module: Layer) -> nn.TransformerEncoderLayer | nn.TransformerDecoderLayer: ...
@overload
def to_torch(module: Encoder) -> nn.TransformerEncoder: ...
@overload
def to_torch(module: Decoder) -> nn.TransformerDecoder: ...
@overload
def to_torch(module: Transformer) -> nn.Transformer: ...
@overload
def to_torch(module: nn.Module) -> nn.Module: ...
def to_torch(module: nn.Module) -> nn.Module:
    """The module of torch.nn, batch first, that computes what ours does, with copies of its weights.

    Of a `Transformer` the two stacks: its embeddings, positions and output layer have no counterpart in
    `nn.Transformer`, which maps vectors to vectors.

    Raises:
        TypeError: another class, such as grouped-query attention or an adapter around a projection of attention.
        ValueError: attention other than equation 1's, d_k or d_v other than d_model / h, biases in some of the four
            projections, a stack without layers, a decoder without cross-attention, hooks, methods set on a module, or
            weights that several modules share or that torch.nn has no place for.
    """
    return _converted(module, _TO_TORCH)


def _converted(module: nn.Module, conversions: dict[type, Callable[[Any], Any]]) -> Any:
    convert = conversions.get(type(module))
    if convert is None:
        names = ", ".join(cls.__name__ for cls in conversions)
        raise TypeError(f"{type(module).__name__} is none of {names}; a subclass may compute something else")
    if changed := own_behaviour(module):
        place, what = changed[0] or f"this {type(module).__name__}", changed[1]
        raise ValueError(f"{place} has {what}, which its counterpart would not have; remove them first")
    converted = convert(module)
    parts = converted if isinstance(converted, tuple) else (converted,)
    before = (module.encoder, module.decoder) if isinstance(module, Transformer | nn.Transformer) else (module,)
    difference = _numel(before) - _numel(parts)
    if difference > 0:
        raise ValueError(f"this {type(module).__name__} has weights for which its counterpart has no place")
    if difference < 0:
        raise ValueError(f"modules of this {type(module).__name__} share weights, and their copies would not")
    return converted


def _numel(modules: Sequence[Any]) -> int:
    """The number of weights, those that modules share counted once."""
    return sum(parameter.numel() for parameter in nn.ModuleList(modules).parameters())


def _attention_from_torch(theirs: nn.MultiheadAttention) -> MultiHeadAttention:
    if theirs.bias_k is not None or theirs.add_zero_attn:
        raise ValueError("nn.MultiheadAttention with add_bias_kv or add_zero_attn attends to a key that ours lacks")
    if theirs.kdim != theirs.vdim:
        raise ValueError(f"kdim={theirs.kdim} and vdim={theirs.vdim} differ; ours are projected from the same vectors")
    with torch.device("meta"):  # draws no random numbers; all weights are replaced
        ours = MultiHeadAttention(theirs.embed_dim, theirs.num_heads, attention=DotProductAttention(theirs.dropout))
    if theirs.in_proj_weight is None:  # keys and values of another size than the queries
        weights = [_copied(weight) for weight in (theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight)]
    else:
        weights = _split(theirs.in_proj_weight)
    biases: Sequence[nn.Parameter | None] = [None] * 3 if theirs.in_proj_bias is None else _split(theirs.in_proj_bias)
    ours.w_q, ours.w_k, ours.w_v = map(_linear, weights, biases)
    bias = theirs.out_proj.bias
    ours.w_o = _linear(_copied(theirs.out_proj.weight), None if bias is None else _copied(bias))
    return ours.train(theirs.training)


def _layer_from_torch(theirs: Any) -> Layer:
    is_decoder = isinstance(theirs, nn.TransformerDecoderLayer)
    dropouts = [theirs.dropout1, theirs.dropout2, *([theirs.dropout3] if is_decoder else [])]
    if len({(dropout.p, dropout.training) for dropout in dropouts}) > 1:
        found = ", ".join(f"{dropout.p}{' in eval mode' * (not dropout.training)}" for dropout in dropouts)
        raise ValueError(f"the sub-layers have dropout {found}; a layer of ours has one")
    attention = from_torch(theirs.self_attn)
    cross_attention = from_torch(theirs.multihead_attn) if is_decoder else None
    sizes = (theirs.linear1.in_features, theirs.linear1.out_features)
    with torch.device("meta"):
        feed_forward = FeedForward(*sizes, activation=copy.deepcopy(theirs.activation), dropout=theirs.dropout.p)
        kind = PreNormLayer if theirs.norm_first else Layer
        ours = kind(attention, feed_forward, cross_attention, dropout=dropouts[0].p)
    feed_forward.w_1, feed_forward.w_2 = copy.deepcopy(theirs.linear1), copy.deepcopy(theirs.linear2)
    ours.norm_1 = copy.deepcopy(theirs.norm1)
    ours.norm_2 = copy.deepcopy(theirs.norm3 if is_decoder else theirs.norm2)
    if is_decoder:
        ours.norm_cross = copy.deepcopy(theirs.norm2)
    # Not `train`, which would set the modes of all parts: attentions, linear maps and norms have their own.
    ours.training = feed_forward.training = theirs.training
    ours.norm_cross.train(theirs.norm2.training)
    ours.dropout.train(dropouts[0].training)
    feed_forward.dropout.train(theirs.dropout.training)
    return ours


def _stack_from_torch(theirs: Any) -> Encoder | Decoder:
    kind = Encoder if isinstance(theirs, nn.TransformerEncoder) else Decoder
    ours = kind(map(from_torch, theirs.layers), copy.deepcopy(theirs.norm))
    return _with_own_mode(ours, theirs)


def _stacks_from_torch(theirs: nn.Transformer) -> tuple[Encoder, Decoder]:
    return from_torch(theirs.encoder), from_torch(theirs.decoder)


def _attention_to_torch(ours: MultiHeadAttention) -> nn.MultiheadAttention:
    projections = (ours.w_q, ours.w_k, ours.w_v, ours.w_o)
    for name, linear in zip(("w_q", "w_k", "w_v", "w_o"), projections, strict=True):
        if type(linear) is not nn.Linear:
            found = type(linear).__name__
            raise TypeError(f"{name} is a {found}, not nn.Linear; merge adapters first, and convert before prepacking")
    if type(ours.attention) is not DotProductAttention:
        raise ValueError(f"torch.nn has no {type(ours.attention).__name__}, only equation 1: DotProductAttention")
    d_model, h = ours.w_o.out_features, ours.num_heads
    if (ours.d_k * h, ours.d_v * h) != (d_model, d_model):
        raise ValueError(f"d_k={ours.d_k}, d_v={ours.d_v}: in torch.nn both are d_model / h = {d_model} / {h}")
    has_bias = {linear.bias is not None for linear in projections}
    if len(has_bias) > 1:
        raise ValueError("some of w_q, w_k, w_v, w_o have a bias; in torch.nn all or none have")
    bias, size = has_bias.pop(), ours.w_k.in_features
    options: dict[str, Any] = {"kdim": size, "vdim": size, "batch_first": True, "device": "meta"}
    theirs = nn.MultiheadAttention(d_model, h, ours.attention.dropout.p, bias, **options)
    weights = [linear.weight for linear in projections]
    if theirs.in_proj_weight is None:
        theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight = map(_copied, weights[:3])
    else:
        theirs.in_proj_weight = _joined(weights[:3])
    theirs.out_proj.weight = _copied(weights[3])
    if bias:
        theirs.in_proj_bias = _joined([linear.bias for linear in projections[:3]])
        theirs.out_proj.bias = _copied(ours.w_o.bias)
    return theirs.train(ours.attention.dropout.training)  # by which it drops weights


def _layer_to_torch(ours: Layer) -> nn.Module:
    feed_forward, cross_attention = ours.feed_forward, ours.cross_attention
    if type(feed_forward) is not FeedForward:
        raise TypeError(f"feed_forward is a {type(feed_forward).__name__}; a layer of torch.nn has a FeedForward only")
    attention = to_torch(ours.self_attention)
    w_1, w_2 = feed_forward.w_1, feed_forward.w_2
    kind: Any = nn.TransformerEncoderLayer if cross_attention is None else nn.TransformerDecoderLayer
    activation = copy.deepcopy(feed_forward.activation)
    arguments = (attention.embed_dim, attention.num_heads, w_1.out_features, ours.dropout.p, activation)
    norm_first = isinstance(ours, PreNormLayer)
    theirs = kind(*arguments, batch_first=True, norm_first=norm_first, device="meta")
    theirs.training = ours.training
    for dropout in (part for part in theirs.children() if type(part) is nn.Dropout):
        dropout.train(ours.dropout.training)
    theirs.self_attn, theirs.dropout.p = attention, feed_forward.dropout.p
    theirs.dropout.train(feed_forward.dropout.training)
    theirs.linear1, theirs.linear2 = copy.deepcopy(w_1), copy.deepcopy(w_2)
    theirs.norm1, theirs.norm2 = copy.deepcopy(ours.norm_1), copy.deepcopy(ours.norm_2)
    if cross_attention is not None:
        theirs.multihead_attn = to_torch(cross_attention)
        theirs.norm2, theirs.norm3 = copy.deepcopy(ours.norm_cross), theirs.norm2
    elif not _suits_the_fast_path(theirs):
        theirs.activation_relu_or_gelu = 0  # which is how torch itself says that it has no fast path for a layer
    return theirs


def _suits_the_fast_path(theirs: nn.TransformerEncoderLayer) -> bool:
    """Whether the fast path of torch, in eval mode without gradients, computes the same as the parts of the layer.

    It knows two activations, calls none of the modules, and reads their weights and biases, all of which must be there.
    """
    activation: Any = theirs.activation
    is_gelu = activation is F.gelu or (type(activation) is nn.GELU and activation.approximate == "none")
    if not is_gelu and activation is not F.relu and type(activation) is not nn.ReLU:
        return False
    parts: list[nn.Module] = [theirs.linear1, theirs.linear2, theirs.norm1, theirs.norm2]
    are_plain = all(type(part) in (nn.Linear, nn.LayerNorm) for part in parts)
    return are_plain and all(getattr(part, name) is not None for part in parts for name in ("weight", "bias"))


def _stack_to_torch(ours: Encoder | Decoder) -> nn.TransformerEncoder | nn.TransformerDecoder:
    is_decoder, name = isinstance(ours, Decoder), type(ours).__name__
    if any((layer.cross_attention is not None) != is_decoder for layer in ours.layers):
        other = "with" if not is_decoder else "without"
        raise ValueError(f"{name} has layers {other} cross-attention, and torch.nn no such stack")
    layers = [to_torch(layer) for layer in ours.layers]
    if not layers:
        raise ValueError(f"{name} has no layers, and a stack of torch.nn at least one")
    norm = None if isinstance(ours.norm, nn.Identity) else copy.deepcopy(ours.norm)
    theirs: nn.TransformerEncoder | nn.TransformerDecoder
    if is_decoder:
        theirs = nn.TransformerDecoder(layers[0], 1, norm)  # type: ignore[arg-type]
    else:
        theirs = nn.TransformerEncoder(layers[0], 1, norm, enable_nested_tensor=False)  # type: ignore[arg-type]
    theirs.layers, theirs.num_layers = nn.ModuleList(layers), len(layers)  # it has copied the first
    return _with_own_mode(theirs, ours)


def _stacks_to_torch(ours: Transformer) -> nn.Transformer:
    encoder, decoder = to_torch(ours.encoder), to_torch(ours.decoder)
    attention = encoder.layers[0].self_attn
    # Given now, the stacks would be initialised anew.
    nothing: dict[str, Any] = {"custom_encoder": nn.Identity(), "custom_decoder": nn.Identity()}
    theirs = nn.Transformer(attention.embed_dim, attention.num_heads, batch_first=True, **nothing)
    theirs.encoder, theirs.decoder = encoder, decoder
    theirs.training = ours.training
    return theirs


_FROM_TORCH: dict[type, Callable[[Any], Any]] = {
    nn.MultiheadAttention: _attention_from_torch,
    nn.TransformerEncoderLayer: _layer_from_torch,
    nn.TransformerDecoderLayer: _layer_from_torch,
    nn.TransformerEncoder: _stack_from_torch,
    nn.TransformerDecoder: _stack_from_torch,
    nn.Transformer: _stacks_from_torch,
}
_TO_TORCH: dict[type, Callable[[Any], Any]] = {
    MultiHeadAttention: _attention_to_torch,
    Layer: _layer_to_torch,
    PreNormLayer: _layer_to_torch,
    Encoder: _stack_to_torch,
    Decoder: _stack_to_torch,
    Transformer: _stacks_to_torch,
    BiasedTransformer: _stacks_to_torch,
}


def _with_own_mode(stack: Any, like: nn.Module) -> Any:
    """A converted stack in the mode of another; its layers and its norm have theirs."""
    stack.training = stack.layers.training = like.training
    if isinstance(stack.norm, nn.Identity):
        stack.norm.train(like.training)
    return stack


def _copied(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), parameter.requires_grad)


def _split(stacked: Tensor) -> list[nn.Parameter]:
    """The parts of queries, keys and values."""
    return [nn.Parameter(part.clone(), stacked.requires_grad) for part in stacked.detach().chunk(3)]


def _joined(parameters: Sequence[Tensor]) -> nn.Parameter:
    if len({parameter.requires_grad for parameter in parameters}) > 1:
        raise ValueError("some of w_q, w_k, w_v are frozen; in torch.nn they are one weight, frozen or not")
    return nn.Parameter(torch.cat([parameter.detach() for parameter in parameters]), parameters[0].requires_grad)


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    linear = nn.Linear(weight.size(1), weight.size(0), bias is not None, device="meta")
    linear.weight = weight
    if bias is not None:
        linear.bias = bias
    return linear

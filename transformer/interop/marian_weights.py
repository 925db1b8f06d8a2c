"""Weights of Marian's Transformers as ours and back: names, and the order of channels.

Marian adds sines and cosines as two halves, the paper alternates them. Channels of the residual stream have no order of
their own, so that permuting them everywhere turns the one into the other and changes no output. Names are those of
Hugging Face's `MarianMTModel`. Rows of matrices with a row per piece stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

SHARED = "model.shared.weight"
SOURCE, TARGET = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
OUTPUT_BIAS = "final_logits_bias"
_PROJECTIONS = {"w_q": "q_proj", "w_k": "k_proj", "w_v": "v_proj", "w_o": "out_proj"}
_ATTENTIONS = {"self_attention": "self_attn", "cross_attention": "encoder_attn"}
_FEED_FORWARD = {"w_1": "fc1", "w_2": "fc2"}
_NORMS = {"norm_1": "self_attn_layer_norm", "norm_cross": "encoder_attn_layer_norm", "norm_2": "final_layer_norm"}
_OF_DECODERS = ("cross_attention", "norm_cross")
# Their columns, or their rows, are channels of the residual stream.
_READS = ("w_q.weight", "w_k.weight", "w_v.weight", "w_1.weight")
_WRITES = ("w_o.weight", "w_o.bias", "w_2.weight", "w_2.bias")


class Sizes(NamedTuple):
    """Numbers of layers."""

    encoder_layers: int
    decoder_layers: int


def to_ours(tensors: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """The `state_dict` of our model with `attention_bias` and an output bias, from Marian's tensors.

    Args:
        tensors: as `to_marian` returns them. KeyError for a missing one; others are left out.
    """
    names = layer_names(sizes) | _embedding_names(is_shared=SHARED in tensors)
    ours = {our_name: tensors[name] for our_name, name in names.items()}
    order = _alternating_channels(_width(ours))
    ours["embedding.output_bias"] = tensors[OUTPUT_BIAS].flatten()  # (V,)
    return {name: _permuted(name, weight, order) for name, weight in ours.items()}


def to_marian(state_dict: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """Marian's tensors from the `state_dict` of our model: the inverse of `to_ours`.

    Biases that our model does not have are zeros. With one embedding matrix, it is `model.shared.weight`; with two, the
    target's is also that of the output. KeyError for a model without these weights, such as one of `tie: none`.

    Args:
        state_dict: of a post-norm model with sinusoidal positions and scaled dot-product attention.
    """
    order = _alternating_channels(_width(state_dict)).argsort()
    is_shared = "embedding.target_weight" not in state_dict
    theirs = {}
    for our_name, name in (layer_names(sizes) | _embedding_names(is_shared=is_shared)).items():
        weight = state_dict.get(our_name)
        if weight is None and our_name.endswith(".bias"):
            like = state_dict[our_name.removesuffix("bias") + "weight"]
            weight = like.new_zeros(like.size(0))
        elif weight is None:
            raise KeyError(our_name)
        theirs[name] = _permuted(our_name, weight, order)
    output = state_dict["embedding.weight" if is_shared else "embedding.target_weight"]  # (V, D)
    bias = state_dict.get("embedding.output_bias")
    theirs[OUTPUT_BIAS] = (output.new_zeros(output.size(0)) if bias is None else bias)[None]  # (1, V)
    return theirs


def layer_names(sizes: Sizes) -> dict[str, str]:
    """Every weight of the layers: our name, and Marian's."""
    return dict(_layer_names(sizes))


def _layer_names(sizes: Sizes) -> Iterator[tuple[str, str]]:
    parts = [
        (attention, f"{attention}.{ours}", f"{name}.{theirs}")
        for attention, name in _ATTENTIONS.items()
        for ours, theirs in _PROJECTIONS.items()
    ]
    parts += [("feed_forward", f"feed_forward.{ours}", theirs) for ours, theirs in _FEED_FORWARD.items()]
    parts += [(norm, norm, theirs) for norm, theirs in _NORMS.items()]
    for stack, num_layers in (("encoder", sizes.encoder_layers), ("decoder", sizes.decoder_layers)):
        for layer in range(num_layers):
            for part, ours, theirs in parts:
                for kind in ("weight", "bias") if stack == "decoder" or part not in _OF_DECODERS else ():
                    yield f"{stack}.layers.{layer}.{ours}.{kind}", f"model.{stack}.layers.{layer}.{theirs}.{kind}"


def _embedding_names(*, is_shared: bool) -> dict[str, str]:
    if is_shared:
        return {"embedding.weight": SHARED}
    return {"embedding.weight": SOURCE, "embedding.target_weight": TARGET}


def _width(ours: Mapping[str, Tensor]) -> int:
    """D, the number of channels."""
    return ours["embedding.weight"].size(1)


def _alternating_channels(d_model: int) -> Tensor:
    """The channel of Marian that each of ours is: 2i the sine i, 2i + 1 the cosine i."""
    order = torch.empty(d_model, dtype=torch.int64)
    order[0::2], order[1::2] = torch.arange(d_model).tensor_split([(d_model + 1) // 2])
    return order


def _permuted(name: str, weight: Tensor, order: Tensor) -> Tensor:
    """A weight, by our name, with its channels in another order."""
    order = order.to(weight.device)
    if name.endswith(_READS) or name in ("embedding.weight", "embedding.target_weight"):
        return weight[:, order].contiguous()
    if name.endswith(_WRITES) or ".norm_" in name:
        return weight[order].contiguous()
    return weight.contiguous()

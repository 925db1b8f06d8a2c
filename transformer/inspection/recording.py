"""Attention weights of a model's own forward pass, recorded by hooks."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transformer.model.attention import MultiHeadAttention


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights of every layer and head, first layer first; rows sum to 1."""

    encoder: list[Tensor]  # N x (B, H, S, S)
    decoder: list[Tensor]  # N x (B, H, T, T)
    cross: list[Tensor]  # N x (B, H, T, S)


def attention_maps(model: nn.Module, src: Tensor, tgt: Tensor) -> AttentionMaps:
    """Run a Transformer once on src (B, S) and tgt (B, T) and return its attention weights, in eval mode those of use.

    ValueError if hooks do not see every attention: compiled or wrapped models, attentions that layers share.
    """
    with record_attention(model) as weights, torch.no_grad():
        model(src, tgt)
    attentions = {
        name: module.attention for name, module in model.named_modules() if isinstance(module, MultiHeadAttention)
    }
    is_seen = (
        all(name.startswith(("encoder.", "decoder.")) for name in attentions) and attentions.keys() == weights.keys()
    )
    if not is_seen or len({*attentions.values()}) < len(attentions):
        raise ValueError(
            "not every attention can be recorded: give the Transformer itself, neither compiled nor wrapped"
        )
    # In the order of the calls, which is that of the layers.
    return AttentionMaps(
        encoder=[x for name, x in weights.items() if name.startswith("encoder.")],
        decoder=[x for name, x in weights.items() if name.startswith("decoder.") and name.endswith("self_attention")],
        cross=[x for name, x in weights.items() if name.endswith("cross_attention")],
    )


@contextlib.contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record attention weights: (B, H, Q, M) of each `MultiHeadAttention` as last called, by its module name.

    Calls of other threads, which may use the model at the same time, are not recorded.
    """
    weights: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:  # removes the hooks, after an exception too
        for name, module in model.named_modules():
            if isinstance(module, MultiHeadAttention):
                hook = functools.partial(_record, weights, name, threading.get_ident())
                stack.callback(module.get_submodule("attention").register_forward_hook(hook).remove)
        yield weights


def _record(
    weights: dict[str, Tensor], name: str, thread: int, attention: Any, inputs: tuple[Any, ...], _output: Tensor
) -> None:
    # A compiler cannot trace the question.
    if not torch.compiler.is_compiling() and threading.get_ident() != thread:
        return
    q, k, _, mask = inputs
    weights[name] = attention.weights(q, k, mask)

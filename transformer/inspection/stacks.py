"""What passes through the layers of encoder and decoder, recorded by hooks in the model's own forward pass.

Dimension key: B sentences, L positions, D d_model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from transformer.data.batching import Batch
from transformer.inspection.examples import is_source, is_target
from transformer.model.layers import Layer
from transformer.model.transformer import Transformer

# The sub-layers in the order of a layer, each with the norm that belongs to it.
SUBLAYERS = {"self_attention": "norm_1", "cross_attention": "norm_cross", "feed_forward": "norm_2"}


@dataclass
class LayerCall:
    """One call of a layer.

    Attributes:
        layer: that was called.
        rest: its arguments but the first, the input: masks, past, memory.
        options: its arguments by name.
        writes: what each sub-layer returned, (B, L, D), by its name in `SUBLAYERS`.
        norm_inputs, norm_outputs: what each norm was given and returned, (B, L, D), by its name.
        output: (B, L, D).
    """

    layer: Layer
    input: Tensor
    rest: tuple[Any, ...]
    options: dict[str, Any]
    writes: dict[str, Tensor] = field(default_factory=dict)
    norm_inputs: dict[str, Tensor] = field(default_factory=dict)
    norm_outputs: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass
class StackCall:
    """One call of an encoder or decoder, of which positions without a piece are padding."""

    name: str  # encoder or decoder
    norm: nn.Module  # of the end of a pre-norm stack; else nn.Identity
    layers: list[LayerCall]
    is_piece: Tensor  # (B, L) bool

    @property
    def states(self) -> list[Tensor]:
        """The input of the stack and the output of each layer: N + 1 times (B, L, D)."""
        return [self.layers[0].input, *(call.output for call in self.layers)]


def record_stacks(model: Transformer, batch: Batch) -> tuple[StackCall, StackCall]:
    """Run a model once by teacher forcing; returns what passed through its encoder and decoder.

    Tensors belong to the graph if gradients are enabled. ValueError if hooks do not see every layer once, in order, as
    in compiled or wrapped models.
    """
    _, encoder, decoder = record_decoding(model, batch)
    return encoder, decoder


def record_decoding(model: Transformer, batch: Batch) -> tuple[Tensor, StackCall, StackCall]:
    """As `record_stacks`, with the decoder's hidden states (B, T, D) first."""
    hidden: list[Tensor] = []
    calls = _run_with_hooks(model, lambda: hidden.append(model.decode(batch.tgt_in, model.encode(batch.src))[0]))
    return (hidden[0], *_as_stacks(model, batch, calls))


def _as_stacks(model: Transformer, batch: Batch, calls: list[LayerCall]) -> tuple[StackCall, StackCall]:
    layers = [*model.encoder.layers, *model.decoder.layers]
    if [call.layer for call in calls] != layers or not all(call.writes for call in calls) or not model.encoder.layers:
        raise ValueError("not every layer can be recorded: give the Transformer itself, neither compiled nor wrapped")
    end = len(model.encoder.layers)
    return (
        StackCall("encoder", model.encoder.norm, calls[:end], is_source(batch)),
        StackCall("decoder", model.decoder.norm, calls[end:], is_target(batch)),
    )


def _run_with_hooks(model: Transformer, run: Callable[[], object]) -> list[LayerCall]:
    calls: list[LayerCall] = []
    with contextlib.ExitStack() as stack:  # removes the hooks, after an exception too
        for layer in dict.fromkeys([*model.encoder.layers, *model.decoder.layers]):
            for handle in _hooks(layer, calls):
                stack.callback(handle.remove)
        run()
    return calls


def _hooks(layer: Layer, calls: list[LayerCall]) -> Iterator[Any]:
    """Register the hooks of a layer, which append its call to `calls`."""

    def begin(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        x, *rest = inputs
        calls.append(LayerCall(layer, x, tuple(rest), options))

    def end(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        calls[-1].output = output[0]

    yield layer.register_forward_pre_hook(begin, with_kwargs=True)
    yield layer.register_forward_hook(end)
    for name, norm in SUBLAYERS.items():
        sublayer = getattr(layer, name)
        if sublayer is None:
            continue

        def write(_: nn.Module, __: tuple[Any, ...], output: Tensor, name: str = name) -> None:
            calls[-1].writes[name] = output

        def normalise(_: nn.Module, inputs: tuple[Any, ...], output: Tensor, norm: str = norm) -> None:
            calls[-1].norm_inputs[norm], calls[-1].norm_outputs[norm] = inputs[0], output

        yield sublayer.register_forward_hook(write)
        yield getattr(layer, norm).register_forward_hook(normalise)

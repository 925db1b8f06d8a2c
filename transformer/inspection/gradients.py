"""Gradient norms by layer: ‖∂L/∂W‖ of the parameters, ‖∂L/∂x_l‖ of the hidden states, of the loss of some batches.

L is the label-smoothed cross-entropy, summed over the target pieces of all batches and divided by their number, as in
an update without dropout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transformer.data.batching import Batch
from transformer.inspection.stacks import SUBLAYERS, record_decoding
from transformer.model.transformer import Transformer
from transformer.training.loss import output_loss

# By the second name of a parameter in a layer: self_attention.w_q.weight, norm_1.bias.
_PARTS = {**{name: name for name in SUBLAYERS}, **dict.fromkeys(SUBLAYERS.values(), "norms")}


@dataclass(frozen=True)
class LayerGradients:
    """Norms of one layer.

    Attributes:
        stack, layer: encoder or decoder, from 1; `layer` 0 is the input of the stack.
        parts: ‖∂L/∂W‖ by sub-layer, of all its parameters together, and of `norms`.
        state: ‖∂L/∂x_l‖ of the output of the layer, of all positions together.
    """

    stack: str
    layer: int
    state: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gradients:
    """Gradient norms of a model.

    Attributes:
        loss: L, in nats per token.
        layers: of both stacks, bottom first.
        parameters: ‖∂L/∂W‖ by the name of each parameter that is trained.
        total: of all parameters together, as gradient clipping sees it.
    """

    loss: float
    layers: list[LayerGradients]
    parameters: dict[str, float]
    total: float


def gradient_norms(model: Transformer, batches: Sequence[Batch], *, label_smoothing: float = 0.1) -> Gradients:
    """Compute gradient norms; `grad` of the parameters stays as it is.

    ValueError if no parameter is trained, as after `Translator.prepack`.
    """
    parameters = {name: x for name, x in model.named_parameters() if x.requires_grad}
    if not parameters:
        raise ValueError("no parameter of the model requires a gradient: load it with prepack=False, and unfreeze it")
    num_tokens = sum(batch.num_tokens for batch in batches)
    sums: dict[str, Tensor] = {}
    squares: dict[tuple[str, int], float] = {}
    loss = 0.0
    for batch in batches:
        with torch.enable_grad():
            hidden, *stacks = record_decoding(model, batch)
            rows = hidden.flatten(0, 1)[batch.target_positions]  # (N, D)
            part = output_loss(model, rows, batch.tgt_out.flatten()[batch.target_positions], label_smoothing)[0]
            part = part / num_tokens
        states = {(call.name, layer): x for call in stacks for layer, x in enumerate(call.states) if x.requires_grad}
        inputs = [*parameters.values(), *states.values()]
        found = torch.autograd.grad(part, inputs, allow_unused=True, materialize_grads=True)
        for name, gradient in zip(parameters, found, strict=False):
            sums[name] = sums[name] + gradient if name in sums else gradient
        for place, gradient in zip(states, found[len(parameters) :], strict=True):
            squares[place] = squares.get(place, 0.0) + float(gradient.double().square().sum())
        loss += float(part.detach())
    norms = {name: float(gradient.double().norm()) for name, gradient in sums.items()}
    layers = [
        LayerGradients(stack, layer, math.sqrt(square), _parts(norms, stack, layer))
        for (stack, layer), square in squares.items()
    ]
    return Gradients(loss, layers, norms, _together(norms.values()))


def _parts(norms: dict[str, float], stack: str, layer: int) -> dict[str, float]:
    """The norms of a layer's parameters by sub-layer; none of the input."""
    prefix = f"{stack}.layers.{layer - 1}."
    by_part: dict[str, float] = {}
    for name, norm in norms.items():
        if name.startswith(prefix):
            part = _PARTS.get(name.removeprefix(prefix).partition(".")[0], "norms")
            by_part[part] = _together((by_part.get(part, 0.0), norm))
    return by_part


def _together(norms: Iterable[float]) -> float:
    return math.hypot(*norms)

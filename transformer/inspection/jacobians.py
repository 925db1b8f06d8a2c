"""Singular values of the Jacobians of layers, by products only: the matrix is never formed.

A layer maps a sentence of L positions to another; its Jacobian J has (L·D)² entries. Power iteration on JᵀJ, which
multiplies by J (forward mode, JVP) and by Jᵀ (backward mode, VJP), finds the largest singular value; Hutchinson's
estimate E‖Jᵀε‖² = ‖J‖_F², for ε of random signs, the root mean square of all. Dimension key: B sentences, L positions,
D d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from transformer.data.batching import Batch
from transformer.inspection.stacks import LayerCall, StackCall, record_stacks
from transformer.model.transformer import Transformer

Map = Callable[[Tensor], Tensor]


class SingularValues(NamedTuple):
    """Of the Jacobian of each sentence: the largest singular value, and the root mean square of all, (B,) each."""

    largest: Tensor
    rms: Tensor


@dataclass(frozen=True)
class JacobianRow:
    """Singular values in the mean over sentences.

    Attributes:
        stack, layer: encoder or decoder, from 1.
        largest, rms: of ∂x_l/∂x_(l-1), the layer alone; the memory of a decoder is held.
        largest_from_input, rms_from_input: of ∂x_l/∂x_0, all layers up to this one.
    """

    stack: str
    layer: int
    largest: float
    rms: float
    largest_from_input: float
    rms_from_input: float


def singular_values(
    f: Map, x: Tensor, is_piece: Tensor, *, iterations: int = 30, probes: int = 8, seed: int = 0
) -> SingularValues:
    """Singular values of the Jacobian of f at x, per sentence, over its pieces.

    Args:
        f: maps (B, L, D) to (B, L, D), each sentence by itself.
        x: (B, L, D).
        is_piece: (B, L) bool; other positions are held, and not looked at.
        iterations: of power iteration; the estimate is never above the true value, but by rounding.
        probes: random vectors of Hutchinson's estimate.
        seed: of the random vectors.
    """
    keep = is_piece[..., None].to(x.dtype)  # (B, L, 1)
    generator = torch.Generator().manual_seed(seed)

    def masked(y: Tensor) -> Tensor:
        return f(y) * keep

    # The fused attention kernels of CPU and CUDA have no forward mode.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        pull: Callable[[Tensor], tuple[Tensor]] = vjp(masked, x)[1]
        largest = torch.zeros_like(x[:, 0, 0])  # (B,)
        v = _unit(torch.randn(x.shape, generator=generator).to(x) * keep)
        for _ in range(iterations):
            u = jvp(masked, (x,), (v,))[1]
            largest = _norm(u)
            v = _unit(pull(u)[0] * keep)
        squares = torch.zeros_like(largest)
        for _ in range(probes):
            signs = torch.randint(2, x.shape, generator=generator).to(x) * 2 - 1
            squares += _norm(pull(signs * keep)[0] * keep).square()
    return SingularValues(largest, (squares / (probes * is_piece.sum(1) * x.size(2))).sqrt())


def jacobian_rows(
    model: Transformer, batch: Batch, *, iterations: int = 30, probes: int = 8, seed: int = 0
) -> list[JacobianRow]:
    """Singular values of each layer, and of all layers up to it, in the mean over the sentences of a batch.

    ValueError as of `record_stacks`. Arguments as of `singular_values`.
    """
    options = {"iterations": iterations, "probes": probes, "seed": seed}
    rows = []
    with torch.no_grad():
        calls = record_stacks(model, batch)
    for call in calls:
        for number, layer in enumerate(call.layers, start=1):
            alone = singular_values(layer_map(layer), layer.input, call.is_piece, **options)
            whole = alone
            if number > 1:
                whole = singular_values(stack_map(call, number), call.states[0], call.is_piece, **options)
            means = (float(x.double().mean()) for x in (*alone, *whole))
            rows.append(JacobianRow(call.name, number, *means))
    return rows


def layer_map(call: LayerCall) -> Map:
    """The layer as a function of its input, with all other arguments of the recorded call."""
    layer: Any = call.layer
    return lambda x: layer(x, *call.rest, **call.options)[0]


def stack_map(call: StackCall, depth: int) -> Map:
    """The first `depth` layers as a function of their input."""
    maps: Sequence[Map] = [layer_map(layer) for layer in call.layers[:depth]]

    def run(x: Tensor) -> Tensor:
        for one in maps:
            x = one(x)
        return x

    return run


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)  # (B,)


def _unit(x: Tensor) -> Tensor:
    return x / _norm(x).clamp_min(torch.finfo(x.dtype).tiny)[:, None, None]

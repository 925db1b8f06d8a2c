"""Table 1 of the paper, measured: what kinds of layers cost, and how far apart they leave two positions (section 4).

All map a sequence (B, n, d) to another. Time is taken on a clock and set beside the table's complexity. Sequential
operations are counted in the graph that autograd records of a layer; path lengths by stacking layers until gradients
from every output reach every input.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarking.ceiling import calls_per_second
from benchmarking.growth import HEAD_SIZE, Curve, draw, growth_report
from benchmarking.report import Report
from transformer.inspection.canvas import COLOURS, new_figure, save
from transformer.model.attention import MultiHeadAttention
from transformer.model.restricted import RestrictedAttention

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """The letters of Table 1."""

    n: int  # length of a sequence
    d: int  # width of a position
    r: int  # positions that restricted self-attention sees; odd, so that one is in the middle
    k: int  # positions that a convolution sees


@dataclass(frozen=True)
class LayerType:
    """A row of Table 1.

    Args:
        build: makes the layer that stands at a depth, counted from 0, of a stack.
        complexity: operations per layer, up to a factor.
        path_length: between the two positions farthest from each other, up to a factor.
        steps: what one step connects, step by step, where a layer takes more than one; see `max_path_length`.
    """

    build: Callable[[Sizes, int], Layer]
    complexity: Callable[[Sizes], float]
    path_length: Callable[[Sizes], float]
    steps: Callable[[Sizes], Iterator[Tensor]] | None = None


def num_sequential_operations(layer: Layer, sizes: Sizes) -> int:
    """The longest chain of tensor operations of which each needs the result of the one before it."""
    z = layer(torch.randn(1, sizes.n, sizes.d, requires_grad=True))
    depths: dict[Any, int] = {}
    waiting: list[Any] = [z.grad_fn]
    while waiting:
        inputs = [node for node, _ in waiting[-1].next_functions if node is not None]
        if unknown := [node for node in inputs if node not in depths]:
            waiting += unknown
        else:
            depths[waiting.pop()] = 1 + max(map(depths.__getitem__, inputs)) if inputs else 0
    return depths[z.grad_fn]


def max_path_length(layer_type: LayerType, sizes: Sizes) -> int:
    """How many steps it takes until every output depends on every input; if no layer looks ahead, on all up to it.

    A step is a layer of a stack or, where a layer takes more than one, a cell.
    """
    goal = torch.ones(sizes.n, sizes.n, dtype=torch.bool)
    if not reach(layer_type.build(sizes, 0), sizes).triu(1).any():
        goal = goal.tril()
    stack = (reach(layer_type.build(sizes, depth), sizes) for depth in itertools.count())
    steps = stack if layer_type.steps is None else layer_type.steps(sizes)
    connected = torch.eye(sizes.n, dtype=torch.bool)
    num_steps = 0
    while not torch.equal(connected, goal):
        connected = next(steps).float() @ connected.float() > 0
        num_steps += 1
    return num_steps


def reach(layer: Layer, sizes: Sizes) -> Tensor:
    """Whether output i depends on input j, as bool (n, n): whether there is a gradient."""
    # The same sequence n times; of the i-th only the i-th output is looked at.
    x = torch.randn(sizes.n, sizes.d).expand(sizes.n, -1, -1).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).diagonal().sum(), x)
    return gradient.ne(0).any(dim=-1)


def _self_attention(sizes: Sizes, _: int) -> Layer:
    return _without_projections(MultiHeadAttention(sizes.d, _num_heads(sizes)))


def _restricted_self_attention(sizes: Sizes, _: int) -> Layer:
    return _without_projections(RestrictedAttention(sizes.d, _num_heads(sizes), window=sizes.r))


def _without_projections(layer: MultiHeadAttention) -> Layer:
    # As in Table 1: they are position-wise layers of their own.
    for name in ("w_q", "w_k", "w_v", "w_o"):
        setattr(layer, name, nn.Identity())
    return layer


def _num_heads(sizes: Sizes) -> int:
    return sizes.d // HEAD_SIZE if sizes.d % HEAD_SIZE == 0 else 1


def _recurrent(sizes: Sizes, _: int) -> Layer:
    gru = nn.GRU(sizes.d, sizes.d, batch_first=True)
    return lambda x: gru(x)[0]


def _cells(sizes: Sizes) -> Iterator[Tensor]:
    """At first each cell reads its input; then, again and again, also the state of the cell before it."""
    cell = nn.GRUCell(sizes.d, sizes.d)
    yield reach(lambda x: cell(x.flatten(0, 1)).view_as(x), sizes)
    no_input = torch.zeros(sizes.n**2, sizes.d)
    states = reach(lambda h: cell(no_input, F.pad(h[:, :-1], (0, 0, 1, 0)).flatten(0, 1)).view_as(h), sizes)
    yield from itertools.repeat(states | torch.eye(sizes.n, dtype=torch.bool))


def _convolution(sizes: Sizes, dilation: int, groups: int = 1) -> nn.Sequential:
    # Of a position and those before it: a dilated stack that sees both sides leaves gaps at the ends of a sequence.
    before = nn.ConstantPad1d(((sizes.k - 1) * dilation, 0), 0.0)
    return nn.Sequential(before, nn.Conv1d(sizes.d, sizes.d, sizes.k, dilation=dilation, groups=groups))


def _contiguous(sizes: Sizes, _: int) -> Layer:
    return _along_positions(_convolution(sizes, dilation=1))


def _dilated(sizes: Sizes, depth: int) -> Layer:
    return _along_positions(_convolution(sizes, dilation=sizes.k**depth))


def _separable(sizes: Sizes, depth: int) -> Layer:
    depthwise = _convolution(sizes, dilation=sizes.k**depth, groups=sizes.d)
    return _along_positions(nn.Sequential(depthwise, nn.Conv1d(sizes.d, sizes.d, kernel_size=1)))


def _along_positions(convolution: nn.Module) -> Layer:
    return lambda x: convolution(x.transpose(1, 2)).transpose(1, 2)


LAYER_TYPES = {
    "self-attention": LayerType(_self_attention, lambda s: s.n**2 * s.d, lambda _: 1),
    "recurrent": LayerType(_recurrent, lambda s: s.n * s.d**2, lambda s: s.n, _cells),
    "convolutional": LayerType(_dilated, lambda s: s.k * s.n * s.d**2, lambda s: math.log(s.n, s.k)),
    "contiguous": LayerType(_contiguous, lambda s: s.k * s.n * s.d**2, lambda s: s.n / s.k),
    "separable": LayerType(_separable, lambda s: s.k * s.n * s.d + s.n * s.d**2, lambda s: math.log(s.n, s.k)),
    "restricted": LayerType(_restricted_self_attention, lambda s: s.r * s.n * s.d, lambda s: s.n / s.r),
}
PASSES = ("forward", "with backward")
# One layer of a contiguous convolution is one of a dilated convolution.
_TIMED = [name for name in LAYER_TYPES if name != "contiguous"]


def grow(
    sizes: Sizes, letters: str, values: Sequence[int], *, batch: int, device: torch.device, seconds: float
) -> list[Curve]:
    """Time against one of the sizes, or several that grow together; only of layers whose complexity has it.

    Args:
        sizes: all the others.
        letters: the names of those that grow.
        values: what they become.
        batch: sequences in a call.
        device: where.
        seconds: for each point.

    Returns:
        A curve of the forward pass alone and one with the backward pass, layer after layer.
    """
    grown = [dataclasses.replace(sizes, **dict.fromkeys(letters, value)) for value in values]
    curves = []
    for name in _TIMED:
        predicted = [LAYER_TYPES[name].complexity(each) for each in grown]
        if len(set(predicted)) == 1:
            continue
        times = [_times(LAYER_TYPES[name], each, batch, device, seconds) for each in grown]
        for passes, found in zip(PASSES, zip(*times, strict=True), strict=True):
            curves.append(Curve(f"{name}, {passes}", values, found, predicted))
    return curves


def _times(
    layer_type: LayerType, sizes: Sizes, batch: int, device: torch.device, seconds: float
) -> tuple[float, float]:
    with device:
        layer = layer_type.build(sizes, 0)
        x = torch.randn(batch, sizes.n, sizes.d)
    with torch.no_grad():
        forward = calls_per_second(lambda: layer(x), device, seconds)
    x.requires_grad_()
    return 1 / forward, 1 / calls_per_second(lambda: layer(x).sum().backward(), device, seconds)


def count(r: int, k: int) -> list[Report]:
    """Sequential operations and path lengths of every type of layer, at a few lengths, as rows."""
    rows: list[Report] = []
    for name, layer_type in LAYER_TYPES.items():
        for n in (64, 128):
            # What depends on what is the same in every width.
            narrow = Sizes(n, 3, r, k)
            rows.append(
                {
                    "of": name,
                    "n": n,
                    "sequential": num_sequential_operations(layer_type.build(narrow, 0), narrow),
                    "path": max_path_length(layer_type, narrow),
                    "path_in_table_1": layer_type.path_length(narrow),
                }
            )
    return rows


def table1_report(counted: Sequence[Report], curves: Mapping[str, Sequence[Curve]]) -> Report:
    """Everything counted, then per size that grew the exponents and points of its curves."""
    return {"counted": counted, **{f"against_{letters}": growth_report(found) for letters, found in curves.items()}}


def plot(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw the times with the backward pass, a panel per size that grew; ConfigError as `growth.plot`."""
    figure = new_figure(5 * len(curves), 5)
    colours = {f"{name}, {PASSES[1]}": colour for name, colour in zip(_TIMED, COLOURS, strict=False)}
    for axes, (letters, found) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        drawn = [curve for curve in found if curve.name in colours]
        draw(axes, drawn, " = ".join(letters), [colours[curve.name] for curve in drawn])
    save(figure, path)

"""Table 1 of the paper, measured: cost, sequential operations and maximum path length by layer type (section 4).

All layers map a sequence (B, n, d) to another. Wall time is compared with the table's complexity. Sequential operations
are counted in the autograd graph of a layer; path lengths by stacking layers until gradients from every output reach
every input.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarking.peak_flops import calls_per_second
from benchmarking.report import Report
from benchmarking.scaling import HEAD_SIZE, LEGEND_TITLE, Curve, draw, scaling_report
from transformer.inspection.canvas import new_figure, palette, save, theme
from transformer.model.alternatives.local import LocalAttention
from transformer.model.attention import DotProductAttention, MultiHeadAttention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """The letters of Table 1."""

    n: int  # sequence length
    d: int  # representation dimension
    r: int  # neighbourhood of restricted self-attention; odd, so that it has a centre
    k: int  # kernel size of a convolution


@dataclass(frozen=True)
class LayerType:
    """A row of Table 1.

    Args:
        build: makes the layer at a depth, counted from 0, of a stack.
        complexity: operations per layer, up to a factor.
        path_length: maximum path length, up to a factor.
        steps: connections (n, n) made by each step, if a layer takes several; see `max_path_length`.
    """

    build: Callable[[Sizes, int], Layer]
    complexity: Callable[[Sizes], float]
    path_length: Callable[[Sizes], float]
    steps: Callable[[Sizes], Iterator[Tensor]] | None = None


def num_sequential_operations(layer: Layer, sizes: Sizes) -> int:
    """Length of the longest chain of dependent tensor operations."""
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
    """Steps until every output depends on every input, or on every earlier one if the layer is causal.

    A step is a layer of a stack or, in a recurrent layer, a cell.
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
    """Whether output i has a gradient with respect to input j: bool (n, n)."""
    # The same sequence n times: output i is taken from copy i.
    x = torch.randn(sizes.n, sizes.d).expand(sizes.n, -1, -1).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).diagonal().sum(), x)
    return gradient.ne(0).any(dim=-1)


def _self_attention(sizes: Sizes, _: int) -> Layer:
    return _without_projections(MultiHeadAttention(sizes.d, _num_heads(sizes)))


def _restricted_self_attention(sizes: Sizes, _: int) -> Layer:
    attention = LocalAttention(DotProductAttention(), sizes.r)
    return _without_projections(MultiHeadAttention(sizes.d, _num_heads(sizes), attention=attention))


def _without_projections(layer: MultiHeadAttention) -> Layer:
    # Table 1 does not count them: they are position-wise layers.
    for name in ("w_q", "w_k", "w_v", "w_o"):
        setattr(layer, name, nn.Identity())
    return layer


def _num_heads(sizes: Sizes) -> int:
    return sizes.d // HEAD_SIZE if sizes.d % HEAD_SIZE == 0 else 1


def _recurrent(sizes: Sizes, _: int) -> Layer:
    gru = nn.GRU(sizes.d, sizes.d, batch_first=True)
    return lambda x: gru(x)[0]


def _cells(sizes: Sizes) -> Iterator[Tensor]:
    """First each cell reads its input; every further step adds the state of the cell before it."""
    cell = nn.GRUCell(sizes.d, sizes.d)
    yield reach(lambda x: cell(x.flatten(0, 1)).view_as(x), sizes)
    no_input = torch.zeros(sizes.n**2, sizes.d)
    states = reach(lambda h: cell(no_input, F.pad(h[:, :-1], (0, 0, 1, 0)).flatten(0, 1)).view_as(h), sizes)
    yield from itertools.repeat(states | torch.eye(sizes.n, dtype=torch.bool))


def _convolution(sizes: Sizes, dilation: int, groups: int = 1) -> nn.Sequential:
    # Causal: a dilated stack that sees both sides leaves gaps at the ends of a sequence.
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
# Titles of the varied sizes' axes.
_AXES = {"n": "length n", "d": "representation size d", "rk": "neighbourhood r, kernel size k"}
PASSES = ("forward", "with backward")
# A single contiguous convolution is the same as a dilated one.
_TIMED = [name for name in LAYER_TYPES if name != "contiguous"]


def scale_layers(
    sizes: Sizes, letters: str, values: Sequence[int], *, batch: int, device: torch.device, seconds: float
) -> list[Curve]:
    """Time of the layers whose complexity depends on a size, against that size.

    Args:
        sizes: the other sizes.
        letters: names of the varied sizes, which are kept equal.
        values: values of the varied sizes.
        batch: sequences per call.
        device: the device.
        seconds: time per point.

    Returns:
        Per layer type, a curve of the forward pass and one of forward and backward pass.
    """
    varied = [dataclasses.replace(sizes, **dict.fromkeys(letters, value)) for value in values]
    curves = []
    for name in _TIMED:
        predicted = [LAYER_TYPES[name].complexity(each) for each in varied]
        if len(set(predicted)) == 1:
            continue
        times = [_times(LAYER_TYPES[name], each, batch, device, seconds) for each in varied]
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
    """Sequential operations and path lengths of every layer type at a few lengths, as rows."""
    rows: list[Report] = []
    for name, layer_type in LAYER_TYPES.items():
        for n in (64, 128):
            # Dependencies are the same for every d.
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
    """The counts, then the exponents and points of the curves by varied size."""
    return {"counted": counted, **{f"against_{letters}": scaling_report(found) for letters, found in curves.items()}}


def plot(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw the times with backward pass, a panel per varied size; ConfigError as `scaling.plot`."""
    with theme():
        save(draw_table1(curves), path)


def draw_table1(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """Times of the forward and backward pass of each layer type, a panel per varied size."""
    figure = new_figure(3.1 * len(curves), 4.6)
    colours = dict(zip(_TIMED, palette(), strict=False))
    panels = figure.subplots(1, len(curves), squeeze=False, sharey=True).flat
    for axes, (letters, found) in zip(panels, curves.items(), strict=True):
        names = {curve.name: curve.name.removesuffix(f", {PASSES[1]}") for curve in found}
        drawn = [dataclasses.replace(curve, name=names[curve.name]) for curve in found if names[curve.name] in colours]
        draw(axes, drawn, _AXES[letters], [colours[curve.name] for curve in drawn])
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.axes[0].set_ylabel("forward + backward (ms)")
    figure.suptitle(LEGEND_TITLE.replace("\n", "; ").removesuffix(":"), fontsize=9)
    return figure

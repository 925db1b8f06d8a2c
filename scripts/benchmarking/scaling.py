"""Measured scaling of cost with size, beside the prediction of the paper's Table 1.

Table 1: a self-attention layer costs O(n² d) for length n and dimension d. Its projections, which the table omits, cost
O(n d²), as all position-wise layers do. The prediction here is the complete count of operations, so its exponent lies
between these limits.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarking.decoding import benchmark_decoding
from benchmarking.flops import batch_work, forward_flops, key_sizes
from benchmarking.peak_flops import calls_per_second
from benchmarking.report import Report
from transformer.config import Config
from transformer.data.batching import Batch
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from transformer.inference.translator import Translator
from transformer.inspection.canvas import new_figure, palette, save, theme
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.scores import WrittenOutAttention
from transformer.model.attention import MultiHeadAttention
from transformer.training.device import resolve_device, resolve_dtype
from transformer.training.optimizer import MasterWeights
from transformer.training.train_step import accumulate_gradients

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Titles of the varied sizes' axes.
_AXES = {
    "length": "length (tokens per sentence)",
    "batch": "batch (sentences)",
    "d_model": "d_model",
    "beam": "beam size",
    "threads": "threads",
}
_POINT = {"size": 1, "ms": 1e-3, "predicted": 1}  # keys of a reported point, and factors to a curve's units
LEGEND_TITLE = "points: measured; lines: predicted slope\nexponent measured (predicted):"
HEAD_SIZE = 64  # as in the paper: a larger d_model has more heads, not larger ones


@dataclass(frozen=True)
class Curve:
    """Measured cost by size, and the predicted cost up to a factor, such as counted operations."""

    name: str
    sizes: Sequence[int]
    seconds: Sequence[float]
    predicted: Sequence[float]

    @property
    def measured_exponent(self) -> float:
        """Over all sizes."""
        return exponent(self.sizes, self.seconds)

    @property
    def predicted_exponent(self) -> float:
        """Over the same sizes."""
        return exponent(self.sizes, self.predicted)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """b of the power law cost = a · size^b, by least squares in log-log space.

    ValueError without two different sizes.
    """
    if len(set(sizes)) < 2:
        raise ValueError("an exponent needs two different sizes")
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


# What can be timed. Each returns seconds per call and the predicted cost, up to a factor.
Cost = tuple[float, float]


def equation_1(config: Config, batch: int, length: int, seconds: float) -> Cost:
    """softmax(Q Kᵀ / √d_k) V of one layer, forward and backward: O(n² d)."""
    device, dtype = _place(config)
    d_k, d_v = key_sizes(config.model)
    heads = (batch, config.model.num_heads, length)
    q, k, v = (torch.randn((*heads, d), device=device, dtype=dtype, requires_grad=True) for d in (d_k, d_k, d_v))
    flops = 3 * 2 * math.prod(heads) * length * (d_k + d_v)
    attention = WrittenOutAttention()
    return _per_call(lambda: attention(q, k, v).sum().backward(), device, seconds), flops


def attention_layer(config: Config, batch: int, length: int, seconds: float) -> Cost:
    """Self-attention with its projections, forward and backward: O(n² d + n d²)."""
    device, dtype = _place(config)
    model = config.model
    d_k, d_v = key_sizes(model)
    layer = MultiHeadAttention(model.d_model, model.num_heads, d_k=d_k, d_v=d_v).to(device, dtype)
    x = torch.randn((batch, length, model.d_model), device=device, dtype=dtype, requires_grad=True)
    flops = 3 * 2 * batch * length * model.num_heads * (d_k + d_v) * (2 * model.d_model + length)
    return _per_call(lambda: layer(x).sum().backward(), device, seconds), flops


def training_step(config: Config, batch: int, length: int, seconds: float) -> Cost:
    """Forward and backward pass of one batch, with `length` tokens on each side of every pair."""
    device, dtype = _place(config)
    vocab_size = config.data.vocab_size
    weights = MasterWeights(build_model(vocab_size, config.model).to(device), dtype)
    weights.model.train()
    ids = torch.randint(EOS_ID + 1, vocab_size, (batch, length))
    tgt_in = torch.cat((torch.full((batch, 1), BOS_ID), ids[:, :-1]), dim=1)
    data = Batch(ids, tgt_in, ids, torch.arange(ids.numel())).to(device)

    def step() -> None:
        accumulate_gradients(weights, [data], config.train.label_smoothing)
        weights.master.zero_grad(set_to_none=True)

    return _per_call(step, device, seconds), 3 * forward_flops(config.model, vocab_size, batch_work([data]))


def decoding(config: Config, tokenizer: Tokenizer, beam: int, sentences: int, length: int) -> Cost:
    """Translation of builtin sentences into outputs of fixed length, counting all hypotheses."""
    device, dtype = _place(config)
    translator = Translator(build_model(len(tokenizer), config.model).to(device, dtype), tokenizer)
    translator.prepack()
    texts = [source for source, _ in builtin_pairs("test", sentences)]
    found = benchmark_decoding(
        translator, config.model, texts, length=length, beam=beam, batch_sentences=sentences, peak_s=0
    )
    return sentences / found["sentences_per_s"], sentences * found["gflop_per_sentence"] * 1e9


def scale_length(config: Config, sizes: Sequence[int], batch: int, seconds: float) -> list[Curve]:
    """Cost against the length of `batch` sentences."""
    return [
        _curve(name, sizes, lambda n, cost=cost: cost(config, batch, n, seconds))  # type: ignore[misc]
        for name, cost in _LAYERS.items()
    ]


def scale_batch(config: Config, sizes: Sequence[int], length: int, seconds: float) -> list[Curve]:
    """Cost against the number of sentences, all of one length."""
    return [_curve("training step", sizes, lambda n: training_step(config, n, length, seconds))]


def scale_d_model(config: Config, sizes: Sequence[int], batch: int, length: int, seconds: float) -> list[Curve]:
    """Cost against d_model; d_ff and the number of heads grow with it, as in the paper."""
    return [
        _curve(name, sizes, lambda n, cost=cost: cost(_with_d_model(config, n), batch, length, seconds))  # type: ignore[misc]
        for name, cost in _LAYERS.items()
    ]


def scale_beam(config: Config, sizes: Sequence[int], sentences: int, length: int) -> list[Curve]:
    """Cost of translation against the beam size."""
    corpus = builtin_pairs("train", 2000)
    tokenizer = Tokenizer.train(itertools.chain.from_iterable(corpus), min(config.data.vocab_size, 1000))
    return [_curve("decoding", sizes, lambda n: decoding(config, tokenizer, n, sentences, length))]


def scale_threads(config: Config, sizes: Sequence[int], batch: int, length: int, seconds: float) -> list[Curve]:
    """Cost of a training step against the number of threads; ideally 1/n."""

    def cost(num_threads: int) -> Cost:
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            return training_step(config, batch, length, seconds)[0], 1 / num_threads
        finally:
            torch.set_num_threads(before)

    return [_curve("training step", sizes, cost)]


def scaling_report(curves: Sequence[Curve]) -> Report:
    """Exponents of all curves, over all sizes and over the two largest, and all points."""
    return {
        "exponents": [
            {
                "of": curve.name,
                "measured": curve.measured_exponent,
                "predicted": curve.predicted_exponent,
                # Fixed costs flatten a curve where its sizes are small.
                "measured_at_the_end": exponent(curve.sizes[-2:], curve.seconds[-2:]),
                "predicted_at_the_end": exponent(curve.sizes[-2:], curve.predicted[-2:]),
            }
            for curve in curves
        ],
        "points": [
            {"of": curve.name, "size": size, "ms": 1e3 * seconds, "predicted": predicted}
            for curve in curves
            for size, seconds, predicted in zip(curve.sizes, curve.seconds, curve.predicted, strict=True)
        ],
    }


def curves_from_report(report: Report) -> list[Curve]:
    """The curves of a `scaling_report`, up to rounding."""
    names = dict.fromkeys(point["of"] for point in report["points"])
    points = {name: [point for point in report["points"] if point["of"] == name] for name in names}
    return [
        Curve(name, *([point[key] * factor for point in found] for key, factor in _POINT.items()))
        for name, found in points.items()
    ]


def plot(curves: Sequence[Curve], against: str, path: Path) -> None:
    """Draw curves into a file; ConfigError without matplotlib, or if the format is not supported."""
    with theme():
        save(draw_scaling(curves, against), path)


def draw_scaling(curves: Sequence[Curve], against: str) -> Figure:
    """One panel with the curves, its legend on the right."""
    figure = new_figure(7.6, 3.8)
    axes = figure.subplots()
    draw(axes, curves, _AXES[against])
    axes.set(ylabel="time per call (ms)" if against == "beam" else "forward + backward (ms)")
    figure.legend(title=LEGEND_TITLE, alignment="left", loc="outside right center")
    return figure


def draw(axes: Axes, curves: Sequence[Curve], against: str, colours: Sequence[str] = ()) -> None:
    """Draw measurements as points and predictions as lines, on logarithmic axes.

    A prediction is scaled to meet its curve at the largest size, where fixed costs matter least: only its slope counts.
    """
    markers = dict(zip(palette(), itertools.cycle("os^Dv")))
    for curve, colour in zip(curves, itertools.cycle(colours or palette()), strict=False):
        ratio = curve.seconds[-1] / curve.predicted[-1]
        label = f"{curve.name}: {curve.measured_exponent:.2f} ({curve.predicted_exponent:.2f})"
        axes.plot(
            curve.sizes, [1e3 * s for s in curve.seconds], markers[colour], markersize=5, color=colour, label=label
        )
        axes.plot(curve.sizes, [1e3 * ratio * p for p in curve.predicted], "-", linewidth=1.2, color=colour)
    axes.set(xscale="log", yscale="log", xlabel=against)
    axes.set_xticks(curves[0].sizes, [f"{size:,}" for size in curves[0].sizes])
    axes.yaxis.set_major_formatter("{x:,.10g}")
    axes.minorticks_off()
    axes.grid()


def _curve(name: str, sizes: Sequence[int], cost: Callable[[int], Cost]) -> Curve:
    costs = [cost(size) for size in sizes]
    return Curve(name, sizes, [seconds for seconds, _ in costs], [predicted for _, predicted in costs])


def _with_d_model(config: Config, d_model: int) -> Config:
    """The same model with another d_model; ConfigError if heads of the paper's size do not divide it."""
    heads = max(1, d_model // HEAD_SIZE)
    model = dataclasses.replace(config.model, d_model=d_model, d_ff=4 * d_model, num_heads=heads, d_k=None, d_v=None)
    return dataclasses.replace(config, model=model)


def _per_call(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    return 1 / calls_per_second(call, device, seconds)


def _place(config: Config) -> tuple[torch.device, torch.dtype]:
    device = resolve_device(config.train.device)
    return device, resolve_dtype(config.train.precision, device)


_LAYERS = {"equation 1": equation_1, "attention layer": attention_layer, "training step": training_step}

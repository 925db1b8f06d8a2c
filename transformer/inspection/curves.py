"""Figures: sinusoids (section 3.5), learning rates (equation 3) and the learning curves of runs."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformer.config import Config
from transformer.inspection.canvas import colour_map, new_figure, palette
from transformer.model.embeddings import sinusoidal_positions
from transformer.training.metrics import bleu_tokenizers, is_validation
from transformer.training.schedule import learning_rate, noam_lr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Panels of `draw_training`: title of the y axis, and the key in the records of each kind.
_PANELS = (
    ("training loss (nats per piece)", {"train": "loss"}),
    ("perplexity (per piece, log scale)", {"train": "ppl", "validation": "ppl"}),
    ("validation BLEU (greedy search)", {"validation": "bleu"}),
    ("learning rate", {"train": "lr"}),
)
# Besides, if there is any.
_CHRF_PANEL = ("validation chrF (greedy search)", {"validation": "chrf"})
_NAMES = {"train": "training"}
_STYLES: dict[str, dict[str, Any]] = {
    "train": {"linewidth": 1},
    "validation": {"linewidth": 1.4, "linestyle": "--", "markersize": 4},
}
# For the first runs in the palette's colours, and for those after them that repeat a colour.
_LINES, _MARKERS = ("-", ":", "-."), ("o", "s", "^")
_MARKERS_OF_SETS = ("x", "+", "d", "v", "*")  # of the further validation sets of a run
_NUM_POSITIONS = 100  # of the curves of `draw_positions`: more would fill the panel


def draw_positions(length: int, d_model: int) -> Figure:
    """PE(pos, i): the sines and the cosines as colours, and a few channels as curves."""
    table = sinusoidal_positions(length, d_model).numpy()
    figure = new_figure(8, 6)
    sides = ["sine (channels 0, 2, 4, …)", "cosine (channels 1, 3, 5, …)"][:d_model]
    rows: list[Any] = [sides, ["waves"] * len(sides)]
    panels = figure.subplot_mosaic(rows, height_ratios=[3, 2])
    # Sines and cosines apart, and the mean where values share a pixel: no moiré.
    options: dict[str, Any] = {
        "aspect": "auto",
        "vmin": -1,
        "vmax": 1,
        "interpolation_stage": "data",
        "origin": "lower",
    }
    for first, title in enumerate(sides):
        values = table[:, first::2].T
        extent = (-0.5, length - 0.5, first - 1, first - 1 + 2 * len(values))
        shown = panels[title].imshow(values, colour_map(diverging=True), extent=extent, **options)
        panels[title].set(title=title, xlabel="position", ylabel="channel")
    figure.colorbar(shown, ax=[panels[title] for title in sides], label="PE(position, channel)", ticks=[-1, 0, 1])
    _draw_waves(panels["waves"], table[:_NUM_POSITIONS])
    title = "channels (solid: sine, dashed: cosine; wavelength in positions)"
    figure.legend(title=title, ncols=4, loc="outside lower center")
    return figure


def _draw_waves(axes: Axes, table: Any) -> None:
    """A sine and its cosine from each quarter of the channels."""
    d_model = table.shape[1]
    pairs = sorted({2 * (quarter * d_model // 8) for quarter in range(4)} & {*range(d_model)})
    for first, colour in zip(pairs, palette(), strict=False):
        channels = ", ".join(str(channel) for channel in (first, first + 1) if channel < d_model)
        label = f"{channels} ({2 * math.pi * 10_000 ** (first / d_model):,.1f})"
        axes.plot(table[:, first], color=colour, label=label)
        axes.plot(table[:, first + 1 : first + 2], "--", color=colour)
    axes.set(xlabel="position", ylabel="PE(position, channel)", ylim=(-1.1, 1.1), yticks=[-1, 0, 1])
    axes.margins(x=0.01)
    axes.grid(axis="y")


def draw_learning_rates(schedules: Sequence[tuple[int, int]]) -> Figure:
    """Equation 3 for some (d_model, warmup_steps), over five times the longest warm-up."""
    curves: dict[str, Callable[[int], float]] = {
        f"d_model = {d_model}, warmup_steps = {warmup_steps:,}": functools.partial(
            noam_lr, d_model=d_model, warmup_steps=warmup_steps
        )
        for d_model, warmup_steps in schedules
    }
    return _draw_rates(curves, 5 * max(warmup_steps for _, warmup_steps in schedules), "learning rate (equation 3)")


def draw_schedules(configs: Mapping[str, Config]) -> Figure:
    """The learning rates of configurations by name, from the first update to the last."""
    curves: dict[str, Callable[[int], float]] = {
        name: functools.partial(learning_rate, settings=config.train, d_model=config.model.d_model)
        for name, config in configs.items()
    }
    return _draw_rates(curves, max(config.train.max_steps for config in configs.values()), "learning rate")


def _draw_rates(curves: Mapping[str, Callable[[int], float]], num_steps: int, title: str) -> Figure:
    """Learning rates by step, for each label."""
    steps = range(1, num_steps + 1, max(1, num_steps // 1000))
    figure = new_figure(7, 3.8)
    axes = figure.subplots()
    for (label, rate), colour in zip(curves.items(), itertools.cycle(palette()), strict=False):
        axes.plot(steps, [rate(step) for step in steps], color=colour, label=label)
    axes.set(xlabel="update", ylabel=title, xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.ticklabel_format(axis="y", scilimits=(-3, 3), useMathText=True)
    axes.grid()
    axes.legend()
    return figure


def draw_training(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss, perplexity, BLEU, chrF and learning rate of runs against updates; `runs` maps names to `read_metrics`."""
    last = max((1, *(record["step"] for records in runs.values() for record in records)))
    has_chrf = any(is_validation(record) and "chrf" in record for records in runs.values() for record in records)
    panels = [*_PANELS, _CHRF_PANEL] if has_chrf else [*_PANELS]
    num_rows = (len(panels) + 1) // 2
    figure = new_figure(9, 3 * num_rows)
    found = list(figure.subplots(num_rows, 2).flat)
    for axes in found[len(panels) :]:
        axes.remove()
    for axes, (title, keys) in zip(found, panels, strict=False):
        for number, (name, records) in enumerate(runs.items()):
            for kind, key in _kinds(keys, records):
                points = [(line["step"], line[key]) for line in records if line["kind"] == kind and key in line]
                if points:
                    style = _style(number, kind, records, alone=len(points) == 1)
                    axes.plot(*zip(*points, strict=True), **style, label=f"{name}, {_NAMES.get(kind, kind)}")
        axes.set_xlim(-0.02 * last, 1.02 * last)
        _label(axes, _bleu_title(title, runs) if "BLEU" in title else title)
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    columns = 130 // (8 + max(map(len, lines), default=0))  # so many characters fit into the width
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=max(1, min(columns, len(lines))))
    return figure


def _bleu_title(title: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The title with the tokenizers of all runs: curves of different ones cannot be compared."""
    if not any("bleu_tokenizer" in record for records in runs.values() for record in records):
        return title
    names = dict.fromkeys(name for records in runs.values() for name in bleu_tokenizers(records))
    return f"{title.removesuffix(')')}; {', '.join(names)})"


def _kinds(keys: Mapping[str, str], records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Kinds of records and their key in a panel: with "validation" those of the further validation sets."""
    kinds = dict.fromkeys(record["kind"] for record in records)
    others = [kind for kind in kinds if kind.startswith("validation/")]
    return [(kind, key) for one, key in keys.items() for kind in ((one, *others) if one == "validation" else (one,))]


def _style(number: int, kind: str, records: Sequence[Mapping[str, Any]], *, alone: bool) -> dict[str, Any]:
    """Of a run's curve of this kind; a point `alone` is no line, and would be invisible without a marker."""
    repeat, colour = divmod(number, len(palette()))
    style = {"color": palette()[colour], **_STYLES["train" if kind == "train" else "validation"]}
    if kind.startswith("validation/"):
        place = [one for one, _ in _kinds({"validation": ""}, records)].index(kind) - 1
        return {"marker": _MARKERS_OF_SETS[place % len(_MARKERS_OF_SETS)], **style, "linewidth": 0.8}
    if kind == "train":
        return {"linestyle": _LINES[repeat % len(_LINES)], **style, **({"marker": "."} if alone else {})}
    return {"marker": _MARKERS[repeat % len(_MARKERS)], **style}


def _label(axes: Axes, title: str) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.set(xlabel="update", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid()
    if title.startswith("perplexity"):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        # Within a decade, 1, 2 and 5 are too few numbers; of many decades, LogLocator shows none of them.
        wide = LogLocator() if high > 1e6 * low else LogLocator(subs=(1, 2, 5))
        axes.yaxis.set_major_locator(wide if high > 10 * low else MaxNLocator(5))
        axes.yaxis.set_major_formatter("{x:,.6g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif "BLEU" in title or "chrF" in title:
        drawn: list[Any] = [line.get_ydata() for line in axes.lines]
        values: list[float] = [value for curve in drawn for value in curve if math.isfinite(value)]
        low = min(values, default=0.0)
        if max(values, default=0.0) < low + 1:  # differences that mean nothing; and no BLEU is negative
            axes.set_ylim(low - 0.05, low + 1.05)
    elif title == "learning rate":
        axes.ticklabel_format(axis="y", scilimits=(-3, 3), useMathText=True)

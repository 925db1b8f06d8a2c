"""Figures: sinusoids (section 3.5), learning rates (equation 3) and the learning curves of runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformer.inspection.canvas import COLOURS, new_figure
from transformer.model.embeddings import sinusoidal_positions
from transformer.training.optimizer import noam_lr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Panels of `draw_training`: title, and the key in the records of each kind.
_PANELS = (
    ("loss of training, in nats per token", {"train": "loss"}),
    ("perplexity", {"train": "ppl", "validation": "ppl"}),
    ("learning rate", {"train": "lr"}),
    ("greedy BLEU in validation", {"validation": "bleu"}),
)
_STYLES: dict[str, dict[str, Any]] = {"train": {"linewidth": 1}, "validation": {"marker": "o", "markersize": 3}}


def draw_positions(length: int, d_model: int) -> Figure:
    """PE(pos, i) for all positions and channels as colours, and for a few channels as curves."""
    table = sinusoidal_positions(length, d_model).numpy()
    figure = new_figure(9, 7)
    image, waves = figure.subplots(2, 1, sharex=True)
    shown = image.imshow(table.T, aspect="auto", origin="lower", cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
    image.set(ylabel="channel")
    figure.colorbar(shown, ax=image)
    # A sine and its cosine from each quarter of the channels.
    channels = sorted({2 * (quarter * d_model // 8) + i for quarter in range(4) for i in (0, 1)} & {*range(d_model)})
    for channel, colour in zip(channels, itertools.cycle(COLOURS), strict=False):
        waves.plot(table[:, channel], color=colour, linestyle="-" if channel % 2 == 0 else "--", label=f"{channel}")
    waves.set(xlabel="position")
    waves.legend(title="channel", ncols=len(channels), loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return figure


def draw_learning_rates(schedules: Sequence[tuple[int, int]]) -> Figure:
    """Equation 3 for some (d_model, warmup_steps), over five times the longest warm-up."""
    num_steps = 5 * max(warmup_steps for _, warmup_steps in schedules)
    steps = range(1, num_steps + 1, max(1, num_steps // 1000))
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for (d_model, warmup_steps), colour in zip(schedules, itertools.cycle(COLOURS), strict=False):
        rates = [noam_lr(step, d_model, warmup_steps) for step in steps]
        axes.plot(steps, rates, color=colour, label=f"d_model {d_model}, warmup_steps {warmup_steps}")
    axes.set(xlabel="update", ylabel="learning rate", xlim=(0, None), ylim=(0, None))
    axes.legend()
    return figure


def draw_training(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss, perplexity, learning rate and BLEU of runs against updates; `runs` maps names to `read_metrics`."""
    figure = new_figure(10, 7)
    for axes, (title, keys) in zip(figure.subplots(2, 2, sharex=True).flat, _PANELS, strict=True):
        for (name, records), colour in zip(runs.items(), itertools.cycle(COLOURS), strict=False):
            for kind, key in keys.items():
                label = f"{name}, validation" if kind == "validation" and "train" in keys else name
                points = [
                    (record["step"], record[key]) for record in records if record["kind"] == kind and key in record
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), color=colour, label=label, **_STYLES[kind])
        axes.set(title=title, xlabel="update", yscale="log" if title == "perplexity" else "linear")
        axes.label_outer()
        if axes.lines:
            axes.legend()
    return figure

"""Figure: scores by sentence length, of one system or of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from transformer.inference.by_length import LengthBucket
from transformer.inspection.canvas import new_figure, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL, _HEIGHT = 3.4, 3.2  # inches
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_by_length(systems: Mapping[str, Sequence[LengthBucket]], unit: str) -> Figure:
    """A panel for each metric, and one with the number of sentences.

    Args:
        systems: their buckets by name, from `score_by_length` with the same lengths.
        unit: of the lengths, such as "source words".

    Raises:
        ConfigError: matplotlib is not installed.
    """
    first = next(iter(systems.values()))
    metrics = {name: one.name for bucket in first for name, one in bucket.scores.items()}
    figure = new_figure(_PANEL * (len(metrics) + 1), _HEIGHT)
    *panels, counts = figure.subplots(1, len(metrics) + 1)
    names = [bucket.name for bucket in first]
    for axes, (metric, title) in zip(panels, metrics.items(), strict=True):
        for number, (system, buckets) in enumerate(systems.items()):
            scores = [bucket.scores[metric].score if bucket.scores else math.nan for bucket in buckets]
            style = {"color": palette()[number % len(palette())], "marker": _MARKERS[number % len(_MARKERS)]}
            axes.plot(range(len(names)), scores, label=system, **style)
        axes.set(xlabel=unit, ylabel=title)
        axes.set_ylim(0, 1.08 * axes.dataLim.y1 or 1)
        axes.grid(axis="y")
    counts.bar(range(len(names)), [bucket.sentences for bucket in first], color=palette()[-1])
    counts.set(xlabel=unit, ylabel="sentences")
    for axes in (*panels, counts):
        axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
        axes.set_xlim(-0.6, len(names) - 0.4)
    if len(systems) > 1:
        lines = panels[0].lines
        labels = [str(line.get_label()) for line in lines]
        figure.legend(lines, labels, loc="outside lower center", ncols=min(4, len(systems)))
    return figure

"""Cost of efficient attention by length: measured time and counted operations, from examples/attention_cost.py."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformer.inspection.canvas import new_figure, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {"ms": "one layer, forward (ms)", "multiply_adds": "multiply-adds of its matrix products"}


def draw_attention_cost(report: Mapping[str, Any]) -> Figure:
    """Two panels, on logarithmic axes, with a line per kind of attention; its legend is on the right.

    Args:
        report: with `points`, each of a kind (`of`), a length (`size`), `ms` and `multiply_adds`.
    """
    figure = new_figure(8.4, 3.6)
    names, sizes = (list(dict.fromkeys(point[key] for point in report["points"])) for key in ("of", "size"))
    for axes, (key, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for name, colour, marker in zip(names, itertools.cycle(palette()), itertools.cycle("os^Dv"), strict=False):
            costs = [point[key] for point in report["points"] if point["of"] == name]
            axes.plot(sizes, costs, marker=marker, markersize=4, linewidth=1.2, color=colour, label=name)
        axes.set(xscale="log", yscale="log", xlabel="length n", ylabel=label)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
        axes.minorticks_off()
        axes.grid()
    figure.axes[0].yaxis.set_major_formatter("{x:,.10g}")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure

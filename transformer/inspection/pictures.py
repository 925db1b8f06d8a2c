"""Lines and matrices as figures: what docs/WALKTHROUGH.md draws while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from transformer.inspection.canvas import colour_map, new_figure, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE_STYLES = ("-", "--", "-.", ":")
_INCHES = 0.19  # of a cell of a matrix
_SMALLEST, _WIDEST = 1.5, 8.0  # inches of a panel, of a row of panels


def draw_lines(
    curves: Mapping[str, tuple[Iterable[float], Iterable[float]]], x: str, y: str, *, scales: str = "linear linear"
) -> Figure:
    """Curves by their labels, each as its x and y values.

    Args:
        curves: x and y values by label.
        x, y: what the axes show, with its unit.
        scales: of both axes, "linear" or "log" each.
    """
    figure = new_figure(6, 3)
    axes = figure.subplots()
    for number, (label, (across, up)) in enumerate(curves.items()):
        # Told apart without colours, too.
        style: dict[str, Any] = {
            "color": palette()[number % len(palette())],
            "linestyle": _LINE_STYLES[number % len(_LINE_STYLES)],
        }
        axes.plot([*across], [*up], label=label, **style)
    across_scale, up_scale = scales.split()
    axes.set(xlabel=x, ylabel=y, xscale=across_scale, yscale=up_scale)
    axes.grid()
    if len(curves) > 1:
        axes.legend()
    return figure


def draw_matrices(matrices: Mapping[str, Tensor], rows: str, columns: str, *, label: str = "") -> Figure:
    """Matrices of numbers from 0 up, side by side, as colours of one scale.

    Args:
        matrices: (R, C) each, by title.
        rows, columns: what the axes count.
        label: of the colours; without one there is no scale, as for masks of 0 and 1.
    """
    found = {title: matrix.detach().float().cpu() for title, matrix in matrices.items()}
    highest = max(float(matrix.max()) for matrix in found.values())
    width = sum(max(_SMALLEST, _INCHES * matrix.size(1)) for matrix in found.values())
    height = max(_SMALLEST, *(_INCHES * matrix.size(0) for matrix in found.values()))
    scale = min(1.0, _WIDEST / width)
    figure = new_figure(scale * width + (1.6 if label else 0.8), scale * height + 0.9)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    # Masks in the colour of the middle, not in that of text.
    strongest = (highest or 1) / (1 if label else 0.6)
    options: dict[str, Any] = {"vmin": 0, "vmax": strongest, "aspect": "auto", "interpolation": "nearest"}
    for panel, (title, matrix) in zip(panels, found.items(), strict=True):
        shown = panel.imshow(matrix.numpy(), colour_map(), **options)
        panel.set(title=title, xlabel=columns)
        for axis in (panel.xaxis, panel.yaxis):
            axis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel(rows)
    if label:
        figure.colorbar(shown, ax=list(panels), label=label)
    return figure

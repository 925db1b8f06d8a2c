"""Shared by all figures: optional matplotlib, colours, files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformer.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Paul Tol's "muted" scheme (SRON/EPS/TN/09-002), safe for colour-blind readers.
COLOURS = ("#332288", "#cc6677", "#117733", "#88ccee", "#999933", "#aa4499", "#44aa99", "#882255", "#ddcc77")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches; ConfigError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("a figure needs matplotlib: pip install matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix; ConfigError if matplotlib does not support it."""
    if not path.suffix:
        raise ConfigError(f"{path}: its suffix must say what kind of file, such as .png or .svg")
    try:
        figure.savefig(path)
    except ValueError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None

"""Shared by all figures: optional matplotlib, one palette in a light and a dark theme, files.

A theme is a set of matplotlib's own settings, so drawings follow any other style as well.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformer.errors import ConfigError
from transformer.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure


class Theme(NamedTuple):
    """The colours of a theme."""

    background: str
    text: str
    faint: str  # frames, grids and bands
    colours: tuple[str, ...]


# After Okabe and Ito's palette for colour-blind readers; lightness is chosen for contrast with each background.
_LIGHT = ("#0a5ea8", "#d1570a", "#0f8a63", "#b2559a", "#4aa3d8", "#a87b00", "#6b4fbb", "#5c6670")
_DARK = ("#58a6ff", "#ff9b54", "#3fcf9b", "#e58fd0", "#9ad7ff", "#e6c14a", "#b39dff", "#aab4be")
THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#d5d9de", _LIGHT),
    "dark": Theme("#0d1117", "#e6edf3", "#3d444d", _DARK),
}
_DPI, _MAX_PIXELS = 200, 200_000_000  # some attention maps are metres wide: 200 million pixels take 800 MB
# PNG, SVG and PDF files are the same on every run: no dates, no random ids.
_METADATA = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}


@contextlib.contextmanager
def theme(name: str = "light") -> Iterator[None]:
    """Draw and save in a theme, "light" or "dark", for the whole process; ConfigError without matplotlib."""
    new_figure(1, 1)
    from matplotlib import rc_context
    from matplotlib.rcsetup import cycler

    background, text, faint, colours = THEMES[name]
    settings: dict[Any, Any] = {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), background),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), text),
        **dict.fromkeys(("axes.edgecolor", "grid.color", "legend.edgecolor"), faint),
        **dict.fromkeys(("font.size", "axes.titlesize"), 9),
        **dict.fromkeys(("legend.fontsize", "legend.title_fontsize", "xtick.labelsize", "ytick.labelsize"), 8),
        **dict.fromkeys(("figure.constrained_layout.w_pad", "figure.constrained_layout.h_pad"), 0.08),
        **{"axes.prop_cycle": cycler(color=colours), "font.family": "DejaVu Sans", "grid.linewidth": 0.6},
        "svg.fonttype": "path",
    }
    with rc_context(settings):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches; ConfigError without matplotlib or a place for its cache."""
    # Without a home directory it says in several lines that it uses a temporary one.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("a figure needs matplotlib: pip install matplotlib") from None
    except OSError:
        raise ConfigError("matplotlib has no place for its cache: set MPLCONFIGDIR to a writable directory") from None
    return Figure(figsize=(width, height), layout="constrained")


def palette() -> tuple[str, ...]:
    """The colours of lines in the current theme, in their order."""
    from matplotlib import rcParams

    return tuple(rcParams["axes.prop_cycle"].by_key()["color"])


def colour_map(*, diverging: bool = False) -> Colormap:
    """From the background to the strongest colour; diverging: between two colours, the background in the middle."""
    from matplotlib import rcParams
    from matplotlib.colors import LinearSegmentedColormap

    first, second, *_ = palette()
    background, text = rcParams["figure.facecolor"], rcParams["text.color"]
    if diverging:
        return LinearSegmentedColormap.from_list("diverging", [second, background, first], 257)
    return LinearSegmentedColormap.from_list("sequential", [(0, background), (0.6, first), (1, text)])


def check_format(path: Path) -> None:
    """ConfigError, before a long computation, unless `save` can write a figure to a file of this suffix."""
    supported = new_figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in supported:
        raise ConfigError(f"{path}: its suffix must say what kind of file, such as .png, .svg or .pdf")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix; ConfigError if matplotlib does not support it."""
    if not path.suffix:
        raise ConfigError(f"{path}: its suffix must say what kind of file, such as .png or .svg")
    dpi = min(_DPI, math.sqrt(_MAX_PIXELS / math.prod(figure.get_size_inches())))
    new_figure(1, 1)
    from matplotlib import rc_context

    form, drawn = path.suffix[1:].lower(), io.BytesIO()
    try:
        with rc_context({"svg.hashsalt": "transformer"}):
            figure.savefig(drawn, format=form, dpi=dpi, metadata=_METADATA.get(form))
    except ValueError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    write_atomic(path, drawn.getvalue())

"""Draw the figures of the documentation into docs/figures: python scripts/figures.py [NAME ...]

Each is NAME.svg, NAME-dark.svg and NAME.png, drawn from results kept in docs/results: nothing is trained or measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.figure import draw as draw_table3
from benchmarking.scaling import curves_from_report, draw_scaling
from benchmarking.table1 import draw_table1
from drawing.architecture import draw_architecture
from drawing.attention_cost import draw_attention_cost

from transformer.cli import run
from transformer.errors import ConfigError
from transformer.inference.by_length import LengthBucket
from transformer.inference.scoring import MetricScore
from transformer.inspection.attention import draw as draw_attention
from transformer.inspection.attention import from_json
from transformer.inspection.canvas import save, theme
from transformer.inspection.curves import draw_learning_rates, draw_positions, draw_training
from transformer.inspection.length_chart import draw_by_length
from transformer.training.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOCS = Path(__file__).parents[1] / "docs"
RESULTS, OUT = _DOCS / "results", _DOCS / "figures"
# Suffix of a file's name after the figure's, and its theme.
FILES = {".svg": "light", "-dark.svg": "dark", ".png": "light"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"by default all: {', '.join(FIGURES)}")
    parser.add_argument("--out", metavar="DIR", type=Path, default=OUT, help="default: docs/figures")
    arguments = parser.parse_args(argv)
    if unknown := sorted({*arguments.names} - FIGURES.keys()):
        raise ConfigError(f"{unknown[0]} is not one of the figures {', '.join(FIGURES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or FIGURES:
        for suffix in FILES:
            write(name, suffix, arguments.out)
    return 0


def write(name: str, suffix: str, out: Path) -> Path:
    """Draw one file of a figure; returns its path."""
    path = out / f"{name}{suffix}"
    with theme(FILES[suffix]):
        save(FIGURES[name](), path)
    if path.suffix == ".png":
        _reduce_colours(path)
    return path


def _reduce_colours(path: Path) -> None:
    """To 256 colours, which takes a third of the space."""
    from PIL import Image  # needed by matplotlib, too

    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        dpi = image.info["dpi"]
    reduced.save(path, optimize=True, dpi=dpi)


def _learning_curves() -> Figure:
    return draw_training(
        {path.parent.name: read_metrics(path.parent) for path in sorted(RESULTS.glob("*/metrics.jsonl"))}
    )


def _attention() -> Figure:
    return draw_attention(from_json((RESULTS / "quickstart" / "attention.json").read_text(encoding="utf-8")))


def _table1() -> Figure:
    report = _kept("table1")
    return draw_table1({letters: curves_from_report(report[f"against_{letters}"]) for letters in ("n", "d", "rk")})


def _scaling_length() -> Figure:
    report = _kept("scaling_length")
    return draw_scaling(curves_from_report(report), report["against"])


def _bottleneck(name: str) -> Figure:
    """Scores by source length; a line where sources are longer than any in training."""
    report = _kept(f"examples/{name}")
    systems = {system: [_bucket(bucket) for bucket in buckets] for system, buckets in report["systems"].items()}
    figure = draw_by_length(systems, report["unit"])
    if (longest := report["longest_in_training"]) is not None:
        trained = sum(bucket.low <= longest for bucket in next(iter(systems.values())))
        for axes in figure.axes:
            axes.axvline(trained - 0.5, color="grey", linestyle=":")
    return figure


def _bucket(kept: dict[str, Any]) -> LengthBucket:
    return LengthBucket(**kept | {"scores": {metric: MetricScore(**score) for metric, score in kept["scores"].items()}})


def _kept(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


FIGURES: dict[str, Callable[[], Figure]] = {
    "architecture": draw_architecture,
    "attention": _attention,
    "learning_curves": _learning_curves,
    "positions": lambda: draw_positions(100, 128),
    "learning_rates": lambda: draw_learning_rates([(512, 4000), (512, 8000), (1024, 4000)]),
    "table1": _table1,
    "table3": lambda: draw_table3(_kept("table3")),
    "scaling_length": _scaling_length,
    "bottleneck": lambda: _bottleneck("source_lengths"),
    "bottleneck_multi30k": lambda: _bottleneck("source_lengths_multi30k"),
    "attention_cost": lambda: draw_attention_cost(_kept("examples/attention_cost")),
}


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

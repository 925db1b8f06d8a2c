"""Figure of Table 3: difference of each row from base, here and in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ablation.report import BASE, Row, base_row, noise
from ablation.rows import PUBLISHED
from transformer.errors import ConfigError
from transformer.inspection.canvas import COLOURS, new_figure, save


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw perplexity and BLEU of each row relative to base, here and in the paper.

    ConfigError without a base row or matplotlib, or if the file format is not supported.
    """
    base = base_row(rows)
    if base is None:
        raise ConfigError("--plot draws differences from the base row, which has no result yet")
    others = [row for row in rows if row is not base]
    paper = PUBLISHED[BASE]
    figure = new_figure(9, 1.6 + 0.28 * len(others))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, title, here, there, limit in (
        (
            left,
            "perplexity, ratio to base (less is better)",
            [row.ppl.mean / base.ppl.mean for row in others],
            [None if row.published is None else row.published.ppl / paper.ppl for row in others],
            (noise(base.ppl, 1), base.ppl.mean, 1.0),
        ),
        (
            right,
            "BLEU, difference from base (more is better)",
            [row.bleu.mean - base.bleu.mean for row in others],
            [None if row.published is None else row.published.bleu - paper.bleu for row in others],
            (noise(base.bleu, 1), 1.0, 0.0),
        ),
    ):
        half, unit, centre = limit
        if half is not None:
            axes.axvspan(centre - half / unit, centre + half / unit, color="0.9", label="noise of one run")
        axes.axvline(centre, color="0.5", linewidth=0.8)
        known = [(x, y) for y, x in enumerate(there) if x is not None]
        if known:
            axes.plot(*zip(*known, strict=True), "o", color=COLOURS[1], markerfacecolor="none", label="paper")
        axes.plot(here, range(len(here)), "o", color=COLOURS[0], label="here")
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", color="0.95")
        axes.set_axisbelow(True)
    left.set_yticks(range(len(others)), [row.name for row in others])
    left.invert_yaxis()
    right.legend(fontsize=8)
    save(figure, path)

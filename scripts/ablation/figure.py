"""Figure of Table 3: difference of each row from base, here and in the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ablation.report import BASE, Row, base_row, records, two_standard_errors
from transformer.errors import ConfigError
from transformer.inspection.canvas import new_figure, palette, save, theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Score(NamedTuple):
    """A score of all rows but base, relative to base."""

    title: str
    here: list[float]
    paper: list[float | None]
    noise: float | None
    centre: float


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw perplexity and BLEU of each row relative to base, here and in the paper.

    ConfigError without a base row or matplotlib, or if the file format is not supported.
    """
    if base_row(rows) is None:
        raise ConfigError("--plot draws differences from the base row, which has no result yet")
    with theme():
        save(draw(records(rows)), path)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The figure of `records`, one of which is of the base row."""
    (base,) = (row for row in rows if row["row"] == BASE)
    others = [row for row in rows if row is not base]
    figure = new_figure(8.4, 1.4 + 0.24 * len(others))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, score in ((left, _ppl(base, others)), (right, _bleu(base, others))):
        _draw_score(axes, score)
        # The paper's groups of rows: heads, key size, model size, regularisation, positions.
        for y in range(1, len(others)):
            if others[y]["row"][:2] != others[y - 1]["row"][:2]:
                axes.axhline(y - 0.5, color=palette()[-1], linewidth=0.6, linestyle=":")
    left.set_yticks(range(len(others)), [row["row"] for row in others])
    left.set(ylabel="row of Table 3", ylim=(max(len(others), 1) - 0.5, -0.5))
    handles = {handle.get_label(): handle for handle in (*left.lines, *left.patches) if handle.get_label()[0] != "_"}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def _ppl(base: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> _Score:
    return _Score(
        "perplexity, ratio to base\n(left is better)",
        [row["ppl"] / base["ppl"] for row in rows],
        [row["paper_ppl"] and row["paper_ppl"] / base["paper_ppl"] for row in rows],
        base["ppl_sd"] and two_standard_errors(base["ppl_sd"], base["seeds"], 1) / base["ppl"],
        1.0,
    )


def _bleu(base: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> _Score:
    return _Score(
        "BLEU, difference from base\n(right is better)",
        [row["bleu"] - base["bleu"] for row in rows],
        [row["paper_bleu"] and row["paper_bleu"] - base["paper_bleu"] for row in rows],
        base["bleu_sd"] and two_standard_errors(base["bleu_sd"], base["seeds"], 1),
        0.0,
    )


def _draw_score(axes: Axes, score: _Score) -> None:
    here, paper, *_, neutral = palette()
    if score.noise is not None:
        limits = (score.centre - score.noise, score.centre + score.noise)
        axes.axvspan(*limits, color=neutral, alpha=0.18, linewidth=0, label="noise of one run (two standard errors)")
    axes.axvline(score.centre, color=neutral, linewidth=1)
    known = [(x, y) for y, x in enumerate(score.paper) if x is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "D", color=paper, markerfacecolor="none", markersize=5, label="paper")
    axes.plot(score.here, range(len(score.here)), "o", color=here, markersize=5.5, label="here")
    axes.set_xlabel(score.title)
    axes.grid(axis="y")
    axes.set_axisbelow(True)

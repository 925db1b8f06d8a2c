"""The table: noise, verdicts, notes and the figure."""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
from ablation.figure import draw, plot
from ablation.report import Spread, as_rows, markdown, noise, records, verdict
from ablation.runs import Result

from transformer.config import Config
from transformer.errors import ConfigError


def result(row: str, ppl: float, bleu: float, seed: int = 1, signature: str = "tok:13a", **changes: Any) -> Result:
    config = {**Config().flat(), "seed": seed, **{key.replace("__", "."): value for key, value in changes.items()}}
    return Result(row, seed, 700, 63_045_632, 1.5, math.log(ppl), bleu, signature, "13a", config)


BASE = [result("base", ppl, bleu, seed) for seed, (ppl, bleu) in enumerate([(5.0, 23.0), (5.1, 24.0), (4.9, 25.0)], 1)]


def cells(table: str, row: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_spread_is_the_mean_and_the_sample_standard_deviation() -> None:
    spread = Spread((1.0, 2.0, 6.0))
    assert (spread.mean, spread.sd) == (3.0, math.sqrt((4 + 1 + 9) / 2))
    assert str(spread) == "3.00 ± 2.65"
    assert (str(Spread((3.0,))), Spread((3.0,)).sd) == ("3.00", None)


def test_noise_is_two_standard_errors_of_the_difference_of_two_means() -> None:
    base = Spread((23.0, 24.0, 25.0))  # standard deviation 1
    assert noise(base, 1) == pytest.approx(2 * math.sqrt(1 + 1 / 3))
    assert noise(base, 3) == pytest.approx(2 * math.sqrt(2 / 3))
    assert noise(Spread((23.0,)), 3) is None


@pytest.mark.parametrize(
    ("here", "published", "limit", "better", "expected"),
    [
        (0.7, 0.3, 0.5, 1, "holds"),
        (-0.7, -0.3, 0.5, 1, "holds"),
        (-0.7, 0.3, 0.5, 1, "reversed"),
        (0.7, -0.3, 0.5, -1, "reversed"),
        (0.5, 0.3, 0.5, 1, "within noise"),
        (-0.5, 0.3, 0.5, 1, "within noise"),
        (0.1, 0.3, None, 1, "holds"),
        (-0.1, 0.3, None, 1, "reversed"),
        # The paper prints the same figure for both.
        (0.4, 0.0, 0.5, 1, "holds"),
        (0.7, 0.0, 0.5, 1, "differs"),
        (0.7, 0.0, None, 1, "equal in the paper"),
        # A row that the paper has not.
        (0.7, None, 0.5, 1, "better"),
        (0.7, None, 0.5, -1, "worse"),
        (-0.7, None, None, 1, "worse"),
        (0.4, None, 0.5, 1, "within noise"),
        (0.0, None, None, 1, "equal"),
        (0.0, 0.3, None, 1, "equal"),
    ],
)
def test_a_verdict_compares_the_order_of_two_rows_with_the_papers(
    here: float, published: float | None, limit: float | None, better: int, expected: str
) -> None:
    assert verdict(here, published, limit, better=better) == expected


def test_results_are_gathered_by_row_in_the_papers_order() -> None:
    rows = as_rows([result("rotary", 5, 20), result("c_n2", 6, 20), *BASE, result("a_h1", 5, 20)])
    assert [row.name for row in rows] == ["base", "a_h1", "c_n2", "rotary"]
    assert rows[0].bleu.values == (23.0, 24.0, 25.0)


def test_the_table_shows_what_varies_the_scores_the_papers_and_the_order() -> None:
    n2 = result("c_n2", 6.0, 24.5, model__num_layers=2)
    rotary = result("rotary", 4.0, 30.0, model__positional="learned", search__alpha=0.9, train__log_steps=3)
    table = markdown(as_rows([*BASE, n2, rotary]))
    minutes_and_parameters = ["63.05", "700", "1.5"]
    assert cells(table, "base")[2:5] == minutes_and_parameters
    assert cells(table, "base")[5:] == ["5.00 ± 0.10", "24.00 ± 1.00", "4.92", "25.8", "65", "", ""]
    assert cells(table, "c_n2")[1] == "num_layers 2"
    assert cells(table, "c_n2")[5:] == ["6.00", "24.50", "6.11", "23.7", "36", "holds", "within noise"]
    assert cells(table, "rotary")[1] == "positional learned, alpha 0.9", "what is only looked at does not count"
    assert cells(table, "rotary")[5:] == ["4.00", "30.00", "", "", "", "better", "better"]
    assert "Base: N 6, d_model 512, d_ff 2048, h 8, vocabulary 37000, 25000 target tokens an update" in table
    limits = [2 * sd * math.sqrt(4 / 3) for sd in (statistics.stdev((5.0, 5.1, 4.9)), 1.0)]
    assert f"up to {limits[0]:.2f} PPL and {limits[1]:.2f} BLEU between one run and the mean of the 3 of base" in table
    assert (
        "\nPPL against base, of 1 rows of the paper: 1 holds.\nBLEU against base, of 1 rows of the paper: 1 within"
        in table
    )
    assert table.endswith("\nBLEU: tok:13a")


def test_without_seeds_of_base_or_without_base_the_table_says_so() -> None:
    single = markdown(as_rows([BASE[0], result("c_n2", 6.0, 23.5)]))
    assert "The noise level is unknown: the base row has a single seed." in single
    assert cells(single, "c_n2")[-2:] == ["holds", "reversed"]
    alone = markdown(as_rows([result("c_n2", 6.0, 23.5)]))
    assert "The base row has no result yet, so there is nothing to compare with." in alone
    assert cells(alone, "c_n2")[-2:] == ["", ""]
    assert "none yet" in markdown(as_rows(BASE))


def test_a_key_that_is_newer_than_a_result_has_its_default() -> None:
    old = result("base", 5.0, 24.0)
    del old.config["model.norm"]
    assert cells(markdown(as_rows([old, result("c_n2", 6.0, 23.0)])), "c_n2")[1] == ""
    assert cells(markdown(as_rows([old, result("c_n2", 6.0, 23.0, model__norm="pre")])), "c_n2")[1] == "norm pre"


def test_scores_with_different_signatures_are_not_comparable() -> None:
    table = markdown(as_rows([*BASE, result("c_n2", 6.0, 23.5, signature="tok:none")]))
    assert table.endswith("\nBLEU: tok:13a and tok:none; not comparable")


def test_records_have_the_numbers_of_the_table() -> None:
    base, n2, rotary = records(
        as_rows([*BASE, result("c_n2", 6.0, 23.5, model__num_layers=2), result("rotary", 5, 24)])
    )
    assert (base["seeds"], base["ppl"], base["ppl_sd"]) == (3, pytest.approx(5.0), pytest.approx(0.1))
    assert (n2["row"], n2["differs_in"], n2["updates"], n2["bleu_sd"]) == ("c_n2", "num_layers 2", 700, None)
    assert (n2["parameters"], n2["paper_ppl"], n2["paper_bleu"], n2["paper_parameters"]) == (63.045632, 6.11, 23.7, 36)
    assert (rotary["paper_ppl"], rotary["paper_bleu"], rotary["paper_parameters"]) == (None, None, None)
    assert records(as_rows([result("c_n2", 6.0, 23.5)]))[0]["differs_in"] == ""


@pytest.mark.parametrize("number", [1, 3])
def test_the_figure_shows_differences_from_base_here_and_in_the_paper(number: int) -> None:
    pytest.importorskip("matplotlib")
    rows = records(as_rows([*BASE[:number], result("c_n2", 6.0, 25.5), result("rotary", 5.5, 22.0)]))
    figure = draw(rows)
    ppl, bleu = figure.axes
    assert [label.get_text() for label in ppl.get_yticklabels()] == ["c_n2", "rotary"]
    (here, paper), (bleu_here, bleu_paper) = (
        [line for label in ("here", "paper") for line in axes.lines if line.get_label() == label]
        for axes in (ppl, bleu)
    )
    base = sum(row.bleu for row in BASE[:number]) / number
    assert list(here.get_xdata()) == pytest.approx([6.0 / 5.0, 5.5 / 5.0])
    assert list(bleu_here.get_xdata()) == pytest.approx([25.5 - base, 22.0 - base])
    assert list(paper.get_xdata()) == pytest.approx([6.11 / 4.92])
    assert list(bleu_paper.get_xdata()) == pytest.approx([23.7 - 25.8])
    assert "better" in ppl.get_xlabel() and "better" in bleu.get_xlabel()
    bands = [patch.get_width() for patch in bleu.patches]
    assert bands == ([] if number == 1 else [pytest.approx(2 * 2 * math.sqrt(4 / 3))])
    (legend,) = figure.legends
    assert len(legend.get_texts()) == (2 if number == 1 else 3)


@pytest.mark.parametrize("number", [1, 3])
def test_the_figure_is_a_file(tmp_path: Path, number: int) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "table.svg"
    plot(as_rows([*BASE[:number], result("c_n2", 6.0, 23.5), result("rotary", 5.5, 23.9)]), path)
    assert path.stat().st_size > 1000


def test_a_figure_that_cannot_be_drawn_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match="--plot draws differences from the base row, which has no result yet"):
        plot(as_rows([result("c_n2", 6.0, 23.5)]), tmp_path / "table.png")
    with pytest.raises(ConfigError, match=r"table\.xyz: .*supported formats"):
        plot(as_rows(BASE), tmp_path / "table.xyz")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="a figure needs matplotlib: pip install matplotlib"):
        plot(as_rows(BASE), tmp_path / "table.png")

"""Exponents of known powers, predictions against counted products, and curves at tiny sizes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from benchmarking import scaling
from benchmarking.report import as_json
from benchmarking.scaling import (
    Cost,
    Curve,
    attention_layer,
    curves_from_report,
    draw_scaling,
    equation_1,
    exponent,
    plot,
    scale_batch,
    scale_beam,
    scale_d_model,
    scale_length,
    scale_threads,
    scaling_report,
    training_step,
)
from torch.utils.flop_counter import FlopCounterMode

from transformer.config import Config
from transformer.errors import ConfigError

QUICK = 0.001


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0, 1.7, 2.0])
def test_the_exponent_of_a_power_is_found_whatever_its_factor(power: float) -> None:
    sizes = [2, 3, 7, 19]
    assert exponent(sizes, [13.0 * size**power for size in sizes]) == pytest.approx(power)


def test_an_exponent_is_the_least_squares_slope_of_logarithms() -> None:
    # In logarithms to base 2 the points are (0, 0), (1, 2), (2, 1): their best line has slope 1/2.
    assert exponent([1, 2, 4], [1, 4, 2]) == pytest.approx(0.5)


def test_an_exponent_needs_two_sizes() -> None:
    with pytest.raises(ValueError, match="two different sizes"):
        exponent([3, 3], [1.0, 2.0])


@pytest.mark.parametrize("cost", [equation_1, attention_layer, training_step])
def test_a_prediction_is_the_number_of_operations(
    cost: scaling.Callable[..., Cost], tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def count(call: scaling.Callable[[], object], *_: object) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        counted.append(counter.get_total_flops())
        return 1.0

    monkeypatch.setattr(scaling, "_per_call", count)
    # The loss computes its gradients in its forward pass, which the counter sees as well.
    assert cost(tiny_config, 3, 11, QUICK) == (1.0, counted[0])


def test_equation_1_grows_with_the_square_of_the_length_and_with_the_width(tiny_config: Config) -> None:
    first, *_ = scale_length(tiny_config, [5, 10], 2, QUICK)
    assert (first.name, first.predicted_exponent) == ("equation 1", pytest.approx(2))
    first, *_ = scale_d_model(tiny_config, [64, 128], 2, 3, QUICK)
    assert (first.name, first.predicted_exponent) == ("equation 1", pytest.approx(1))


def test_a_layer_lies_between_its_limits(tiny_config: Config) -> None:
    _, layer, step = scale_length(tiny_config, [5, 7, 11], 2, QUICK)
    assert 1 < layer.predicted_exponent < 2
    assert 1 < step.predicted_exponent < 2
    _, layer, step = scale_d_model(tiny_config, [64, 128], 1, 3, QUICK)
    assert 1.9 < layer.predicted_exponent < 2
    assert 1 < step.predicted_exponent < 2


def test_a_larger_d_model_has_more_heads_of_the_same_size(tiny_config: Config) -> None:
    model = scaling._with_d_model(tiny_config, 192).model
    assert (model.d_model, model.d_ff, model.num_heads, model.d_k) == (192, 768, 3, None)
    with pytest.raises(ConfigError, match=r"model\.d_model=193 is not a multiple"):
        scaling._with_d_model(tiny_config, 193)


def test_cost_is_proportional_to_sentences_and_inverse_to_threads(tiny_config: Config) -> None:
    (batch,) = scale_batch(tiny_config, [2, 3, 5], 7, QUICK)
    assert batch.predicted_exponent == pytest.approx(1)
    before = torch.get_num_threads()
    (threads,) = scale_threads(tiny_config, [1, 2], 2, 3, QUICK)
    assert threads.predicted_exponent == pytest.approx(-1)
    assert torch.get_num_threads() == before


def test_more_hypotheses_need_more_products(tiny_config: Config) -> None:
    (beam,) = scale_beam(tiny_config, [1, 2, 5], 3, 7)
    assert 0 < beam.predicted_exponent < 1, "the encoder and the first position are shared"
    assert all(seconds > 0 for seconds in beam.seconds)


CURVES = [Curve("x", [2, 4, 8], [1.0, 3.0, 12.0], [1.0, 2.0, 8.0]), Curve("y", [2, 4, 8], [4.0, 2.0, 1.0], [3, 2, 1])]


def test_a_report_has_exponents_over_all_sizes_and_at_the_end_and_every_point() -> None:
    report = scaling_report(CURVES)
    first, second = report["exponents"]
    assert first["measured"] == pytest.approx(math.log2(12) / 2)
    assert first["predicted"] == pytest.approx(1.5)
    assert (first["measured_at_the_end"], first["predicted_at_the_end"]) == (pytest.approx(2), pytest.approx(2))
    assert second["measured"] == pytest.approx(-1)
    assert [(point["of"], point["size"], point["ms"]) for point in report["points"][2:4]] == [
        ("x", 8, 12000.0),
        ("y", 2, 4000.0),
    ]


def test_curves_are_drawn_from_a_report_as_from_a_measurement() -> None:
    (again, other) = curves_from_report(json.loads(as_json(scaling_report(CURVES))))
    assert (again.name, again.sizes, again.predicted) == ("x", [2, 4, 8], [1.0, 2.0, 8.0])
    assert again.seconds == pytest.approx(CURVES[0].seconds)
    assert other.measured_exponent == pytest.approx(CURVES[1].measured_exponent)


@pytest.mark.parametrize(
    ("against", "axis"), [("length", "length (tokens per sentence)"), ("threads", "threads"), ("d_model", "d_model")]
)
def test_points_are_measured_and_lines_have_the_predicted_slope(against: str, axis: str) -> None:
    pytest.importorskip("matplotlib")
    figure = draw_scaling(CURVES, against)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (axis, "forward + backward (ms)")
    points, line, *_ = axes.lines
    assert list(points.get_ydata()) == [1000, 3000, 12000]
    assert list(line.get_ydata()) == [1500, 3000, 12000], "meets the measurement at the largest size"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["x: 1.79 (1.50)", "y: -1.00 (-0.79)"]


def test_translation_has_no_backward_pass() -> None:
    pytest.importorskip("matplotlib")
    assert draw_scaling(CURVES, "beam").axes[0].get_ylabel() == "time per call (ms)"


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_plot_is_a_file_that_names_its_curves(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{suffix}"
    plot(CURVES, "length", path)
    assert path.stat().st_size > 1000


def test_an_unknown_kind_of_plot_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=r"plot\.xyz: .*supported formats"):
        plot(CURVES, "length", tmp_path / "plot.xyz")


def test_without_matplotlib_a_plot_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="a figure needs matplotlib: pip install matplotlib"):
        plot(CURVES, "length", tmp_path / "plot.png")

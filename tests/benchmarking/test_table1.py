"""Counted path lengths and sequential operations against Table 1's formulae; costs that have its exponents."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from benchmarking.scaling import Curve
from benchmarking.table1 import (
    LAYER_TYPES,
    Sizes,
    count,
    draw_table1,
    max_path_length,
    num_sequential_operations,
    plot,
    reach,
    scale_layers,
    table1_report,
)

CPU = torch.device("cpu")
LENGTHS = (2, 3, 7, 29, 53)


def path(name: str, sizes: Sizes) -> int:
    return max_path_length(LAYER_TYPES[name], sizes)


def num_operations(name: str, sizes: Sizes) -> int:
    return num_sequential_operations(LAYER_TYPES[name].build(sizes, 0), sizes)


@pytest.mark.parametrize("n", LENGTHS)
def test_one_layer_of_self_attention_connects_all_positions(n: int) -> None:
    assert path("self-attention", Sizes(n, 5, 3, 3)) == 1


@pytest.mark.parametrize("n", LENGTHS)
def test_a_recurrent_layer_takes_a_cell_per_position(n: int) -> None:
    assert path("recurrent", Sizes(n, 5, 3, 3)) == n


@pytest.mark.parametrize(("n", "k"), list(itertools.product(LENGTHS, (2, 3, 5, 7))))
def test_paths_through_convolutions_are_logarithmic_or_linear(n: int, k: int) -> None:
    sizes = Sizes(n, 3, 3, k)
    smallest = next(depth for depth in itertools.count() if k**depth >= n)  # log_k n, rounded up
    assert path("convolutional", sizes) == path("separable", sizes) == smallest
    assert path("contiguous", sizes) == math.ceil((n - 1) / (k - 1))


@pytest.mark.parametrize(("n", "r"), list(itertools.product(LENGTHS, (3, 5, 11, 31))))
def test_restricted_self_attention_walks_half_a_neighbourhood_at_a_time(n: int, r: int) -> None:
    steps = path("restricted", Sizes(n, 3, r, 3))
    assert steps == math.ceil((n - 1) / ((r - 1) / 2))
    assert (n - 1) / r <= steps <= 3 * n / r + 1, "O(n/r)"


@pytest.mark.parametrize("name", [name for name in LAYER_TYPES if name != "recurrent"])
def test_all_positions_of_other_layers_are_computed_at_once(name: str) -> None:
    assert num_operations(name, Sizes(67, 3, 5, 3)) == num_operations(name, Sizes(131, 3, 5, 3)) < 30


def test_the_sequential_operations_of_a_recurrent_layer_grow_by_a_cell_per_position() -> None:
    found = [num_operations("recurrent", Sizes(n, 3, 5, 3)) for n in (2, 3, 7, 31)]
    cell = found[1] - found[0]
    assert cell > 0
    assert found == [found[0] + (n - 2) * cell for n in (2, 3, 7, 31)]


def test_a_chain_of_operations_is_as_long_as_its_longest_branch() -> None:
    def layer(x: torch.Tensor) -> torch.Tensor:
        return x.exp().sin().cos() + x.exp()

    assert num_sequential_operations(layer, Sizes(2, 3, 5, 7)) == 4


def test_reach_says_which_output_depends_on_which_input() -> None:
    shift = reach(lambda x: torch.nn.functional.pad(x[:, :-1], (0, 0, 1, 0)), Sizes(3, 5, 1, 1))
    assert shift.tolist() == [[False, False, False], [True, False, False], [False, True, False]]


EXPONENTS = {
    "self-attention": (2, 1, 0),
    "recurrent": (1, 2, 0),
    "convolutional": (1, 2, 1),
    "restricted": (1, 1, 1),
}


@pytest.mark.parametrize(("letters", "column"), [("n", 0), ("d", 1), ("rk", 2)])
def test_predicted_exponents_are_those_of_table_1(letters: str, column: int) -> None:
    curves = scale_layers(Sizes(5, 7, 3, 3), letters, [3, 5], batch=1, device=CPU, seconds=0.0001)
    predicted = {curve.name: curve.predicted_exponent for curve in curves if not curve.name.startswith("separable")}
    assert predicted == {
        f"{name}, {passes}": pytest.approx(exponents[column])
        for name, exponents in EXPONENTS.items()
        if exponents[column]
        for passes in ("forward", "with backward")
    }
    assert all(seconds > 0 for curve in curves for seconds in curve.seconds)


def test_a_separable_convolution_costs_as_much_as_section_4_says() -> None:
    n, d, k = 11, 7, 5
    assert LAYER_TYPES["separable"].complexity(Sizes(n, d, 3, k)) == k * n * d + n * d**2


@pytest.mark.parametrize(("n", "d"), list(itertools.product((3, 7, 29, 512), repeat=2)))
def test_self_attention_costs_less_than_recurrence_if_the_length_is_below_the_size(n: int, d: int) -> None:
    sizes = Sizes(n, d, 3, 3)
    cheaper = LAYER_TYPES["self-attention"].complexity(sizes) < LAYER_TYPES["recurrent"].complexity(sizes)
    assert cheaper == (n < d)


def test_a_separable_convolution_as_wide_as_the_sequence_costs_self_attention_and_a_feed_forward_layer() -> None:
    n, d = 11, 7
    self_attention = LAYER_TYPES["self-attention"].complexity(Sizes(n, d, 3, 3))
    assert LAYER_TYPES["separable"].complexity(Sizes(n, d, 3, k=n)) == self_attention + n * d**2


def test_every_layer_keeps_the_shape_of_a_sequence() -> None:
    sizes = Sizes(11, 128, 5, 3)
    x = torch.randn(2, sizes.n, sizes.d)
    assert {layer.build(sizes, depth)(x).shape for layer in LAYER_TYPES.values() for depth in (0, 2)} == {x.shape}


def test_a_report_has_what_was_counted_and_all_exponents() -> None:
    curve = Curve("x", [2, 4], [1.0, 4.0], [1.0, 2.0])
    report = table1_report(count(31, 29), {"n": [curve]})
    (row,) = [row for row in report["counted"] if (row["of"], row["n"]) == ("recurrent", 128)]
    assert (row["path"], row["path_in_table_1"]) == (128, 128)
    assert report["against_n"]["exponents"][0]["measured"] == pytest.approx(2)


def test_a_figure_has_a_titled_panel_per_size_and_a_legend_each() -> None:
    pytest.importorskip("matplotlib")
    curves = [Curve(f"{name}, with backward", [2, 4], [1.0, 4.0], [1.0, 2.0]) for name in ("separable", "restricted")]
    curves.append(Curve("restricted, forward", [2, 4], [1.0, 4.0], [1.0, 2.0]))
    left, right = draw_table1({"n": curves, "rk": curves[1:]}).axes
    assert left.get_ylabel() == "forward + backward (ms)"
    assert (left.get_xlabel(), right.get_xlabel()) == ("length n", "neighbourhood r, kernel size k")
    labels = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (left, right)]
    assert labels == [["separable: 2.00 (1.00)", "restricted: 2.00 (1.00)"], ["restricted: 2.00 (1.00)"]]
    assert left.lines[2].get_color() == right.lines[0].get_color(), "a layer type has one colour"


def test_a_plot_has_a_panel_per_size(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves = [Curve(f"recurrent, {passes}", [2, 4], [1.0, 4.0], [1.0, 2.0]) for passes in ("forward", "with backward")]
    plot({"n": curves, "d": curves}, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000

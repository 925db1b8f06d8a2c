"""Lines and matrices are drawn as they are given, in the colours of the theme."""

from __future__ import annotations

import pytest
import torch

from transformer.inspection.canvas import THEMES, theme
from transformer.inspection.pictures import draw_lines, draw_matrices

pytest.importorskip("matplotlib")


def test_every_curve_has_its_values_its_label_and_a_style_of_its_own() -> None:
    curves = {f"curve {number}": (range(1, 4), [number, 2.0 * number, 3.0]) for number in range(5)}
    with theme("dark"):
        axes = draw_lines(curves, "x in m", "y in s", scales="linear log").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("x in m", "y in s", "log")
    assert [line.get_ydata().tolist() for line in axes.lines] == [up for _, up in curves.values()]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*curves]
    assert axes.lines[0].get_color() == THEMES["dark"].colours[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 5


def test_a_single_curve_needs_no_legend() -> None:
    assert draw_lines({"alone": ([1], [2])}, "x", "y").axes[0].get_legend() is None


def test_matrices_share_one_scale_of_colours() -> None:
    matrices = {"one": torch.eye(3, 5), "two": torch.full((3, 2), 7.0)}
    *panels, bar = draw_matrices(matrices, "query", "key", label="weight").axes
    assert [panel.get_title() for panel in panels] == ["one", "two"]
    assert {image.get_clim() for panel in panels for image in panel.images} == {(0, 7.0)}
    assert [image.get_array().shape for panel in panels for image in panel.images] == [(3, 5), (3, 2)]
    assert (panels[0].get_ylabel(), panels[0].get_xlabel(), bar.get_ylabel()) == ("query", "key", "weight")


def test_masks_have_no_scale_and_all_false_is_drawn() -> None:
    figure = draw_matrices({"mask": torch.zeros(2, 3, dtype=torch.bool)}, "query", "key")
    assert len(figure.axes) == 1


def test_wide_matrices_stay_on_the_page() -> None:
    assert draw_matrices({"wide": torch.rand(3, 400)}, "query", "key", label="weight").get_figwidth() < 10

"""Drawn curves equal the formulas and the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.config import Config, TrainConfig
from transformer.inspection.canvas import save, theme
from transformer.inspection.curves import draw_learning_rates, draw_positions, draw_schedules, draw_training
from transformer.model.embeddings import sinusoidal_positions
from transformer.training.schedule import learning_rate, noam_lr

pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg


def test_positions_are_drawn_whole_and_as_pairs_of_waves() -> None:
    sine, cosine, waves, bar = draw_positions(13, 17).axes
    table = sinusoidal_positions(13, 17)
    for first, axes in enumerate((sine, cosine)):
        (image,) = axes.images
        torch.testing.assert_close(torch.tensor(image.get_array()), table[:, first::2].T)
        left, right, low, high = image.get_extent()
        assert (left, right) == (-0.5, 12.5)
        # The middles of the cells are the channels.
        assert [low + (high - low) * (i + 0.5) / len(image.get_array()) for i in range(2)] == [first, first + 2]
    assert bar.get_ylabel() == "PE(position, channel)"
    drawn = [torch.tensor(line.get_ydata()).flatten() for line in waves.lines]
    for values, channel in zip(drawn, [0, 1, 4, 5, 8, 9, 12, 13], strict=True):
        torch.testing.assert_close(values, table[:, channel])


def test_wavelengths_are_those_of_section_3_5() -> None:
    (legend,) = draw_positions(3, 8).legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["0, 1 (6.3)", "2, 3 (62.8)", "4, 5 (628.3)", "6, 7 (6,283.2)"]


def test_a_channel_alone_and_more_positions_than_pixels_are_drawn_too(tmp_path: Path) -> None:
    _, waves, _ = draw_positions(3, 1).axes
    assert [line.get_label() for line in waves.lines if len(line.get_ydata(orig=False))][:1] == ["0 (6.3)"]
    *_, waves, _ = draw_positions(5003, 2).axes
    assert len(waves.lines[0].get_ydata()) == 100
    save(draw_positions(5003, 2), tmp_path / "positions.png")


def test_learning_rates_are_equation_3() -> None:
    schedules = [(512, 7), (11, 13)]
    (axes,) = draw_learning_rates(schedules).axes
    for line, (d_model, warmup_steps) in zip(axes.lines, schedules, strict=True):
        assert list(line.get_xdata()) == list(range(1, 66))
        assert list(line.get_ydata()) == [noam_lr(step, d_model, warmup_steps) for step in range(1, 66)]
        assert line.get_label() == f"d_model = {d_model}, warmup_steps = {warmup_steps}"


def test_the_learning_rates_of_configurations_are_drawn_to_their_last_step() -> None:
    cosine = TrainConfig(schedule="cosine", learning_rate=0.5, warmup_steps=3, max_steps=17)
    configs = {"mine": Config(train=cosine), "base": Config(train=TrainConfig(max_steps=13))}
    (axes,) = draw_schedules(configs).axes
    for line, (name, config) in zip(axes.lines, configs.items(), strict=True):
        assert line.get_label() == name
        assert list(line.get_ydata()) == [learning_rate(step, config.train, 512) for step in range(1, 18)]


RECORDS = [
    {"kind": "train", "step": 1, "loss": 7.5, "ppl": 100.0, "lr": 0.25},
    {"kind": "train", "step": 3, "loss": 5.5, "ppl": 10.0, "lr": 0.75},
    {"kind": "validation", "step": 3, "ppl": 20.0, "bleu": 11.0},
    {"kind": "validation", "step": 5, "ppl": 15.0},
]


def test_records_of_every_run_are_drawn_by_kind() -> None:
    figure = draw_training({"a": RECORDS, "b": RECORDS[:1]})
    loss, ppl, bleu, rate = [
        {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
        for axes in figure.axes
    ]
    trained, validated = "a, training", "a, validation"
    assert loss == {trained: ([1, 3], [7.5, 5.5]), "b, training": ([1], [7.5])}
    assert ppl == {trained: ([1, 3], [100, 10]), validated: ([3, 5], [20, 15]), "b, training": ([1], [100])}
    assert rate == {trained: ([1, 3], [0.25, 0.75]), "b, training": ([1], [0.25])}
    assert bleu == {validated: ([3], [11])}


def test_further_sets_are_further_lines_and_chrf_is_a_panel_of_its_own(tmp_path: Path) -> None:
    others = [{"kind": f"validation/{name}", "step": 3, "ppl": 30.0, "chrf": 41.0} for name in ("test", "news")]
    with theme():
        figure = draw_training({"a": [*RECORDS, *others]})
        save(figure, tmp_path / "a.png")
    _, ppl, bleu, _, chrf = figure.axes
    assert [line.get_label() for line in ppl.lines] == [
        *("a, training", "a, validation"),
        *("a, validation/test", "a, validation/news"),
    ]
    assert len({line.get_marker() for line in ppl.lines}) == 4
    assert [line.get_label() for line in bleu.lines] == ["a, validation"]
    assert (chrf.get_ylabel(), [list(line.get_ydata()) for line in chrf.lines]) == (
        "validation chrF (greedy search)",
        [[41.0], [41.0]],
    )


def test_the_panel_of_bleu_names_the_tokenizers_that_are_recorded() -> None:
    chinese = [{**record, "bleu_tokenizer": "zh"} if "bleu" in record else record for record in RECORDS]
    for runs, title in (
        ({"a": RECORDS}, "validation BLEU (greedy search)"),
        ({"a": chinese}, "validation BLEU (greedy search; zh)"),
        ({"a": RECORDS, "b": chinese}, "validation BLEU (greedy search; 13a, zh)"),
    ):
        assert draw_training(runs).axes[2].get_ylabel() == title


def test_training_and_validation_look_different_and_runs_have_colours() -> None:
    figure = draw_training({"a": RECORDS, "b": RECORDS})
    looks = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in figure.axes[1].lines}
    assert len({*looks.values()}) == len(looks) == 4
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(looks)


@pytest.mark.parametrize("name", ["run", "runs/2026-11-25/" + 20 * "long-", 200 * "x"])
def test_the_legend_of_several_runs_fits_and_leaves_the_panels_room(name: str) -> None:
    with theme():
        figure = draw_training({f"{name}{i}": RECORDS for i in range(3)})
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
    (legend,) = figure.legends
    box = legend.get_window_extent(renderer)
    assert len(name) == 200 or (box.x0 >= 0 and box.x1 <= figure.bbox.x1), "a name that fits into no line is cut off"
    assert all(axes.get_position().height > 0.2 for axes in figure.axes)


@pytest.mark.parametrize("records", [RECORDS, RECORDS[:1], []])
def test_every_panel_has_titles_and_numbers_on_both_axes(records: list[dict[str, Any]]) -> None:
    figure = draw_training({"a": records})
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        assert axes.get_xlabel() == "update" and axes.get_ylabel()
        for axis in (axes.xaxis, axes.yaxis):
            labels = [tick.label1 for tick in axis.get_major_ticks()]
            assert sum(label.get_visible() and bool(label.get_text()) for label in labels) >= 2


def test_perplexities_are_numbers_not_powers() -> None:
    ppl = draw_training({"a": RECORDS}).axes[1]
    FigureCanvasAgg(ppl.figure).draw()
    assert {"10", "20", "50", "100"} <= {label.get_text() for label in ppl.get_yticklabels()}


@pytest.mark.parametrize("last", [3, 7, 20, 1400])
def test_updates_are_whole_numbers_at_the_places_of_their_labels(last: int) -> None:
    records = [{"kind": "train", "step": step, "loss": 1.0, "ppl": 2.0, "lr": 0.1} for step in range(1, last + 1)]
    figure = draw_training({"run": records})
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        ticks = axes.get_xticks()
        labels = [label.get_text().replace("\N{MINUS SIGN}", "-") for label in axes.get_xticklabels()]
        assert labels == [f"{tick:,.0f}" for tick in ticks]
        assert all(tick == int(tick) for tick in ticks)


def visible_numbers(axis: Any) -> list[str]:
    """The labels of the ticks that lie on the axis."""
    low, high = axis.get_view_interval()
    labels = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [label.get_text() for place, label in labels if low <= place <= high and label.get_visible()]


ONE_VALIDATION = [{"kind": "train", "step": 1, "loss": 6.9, "ppl": 990.0, "lr": 1e-5}]
ONE_VALIDATION += [{"kind": "validation", "step": 1, "ppl": 720.0, "bleu": 0.0}]
RUNS_AT_THE_EDGE: dict[str, list[dict[str, Any]]] = {
    "one validation": ONE_VALIDATION,
    "one update": ONE_VALIDATION[:1],
    "nothing": [],
    "within a decade": [{"kind": "validation", "step": step, "ppl": 7.0 + step, "bleu": 0.0} for step in range(60)],
    "a decade": [{"kind": "validation", "step": step, "ppl": 10.0**step} for step in (0, 1)],
    "diverged": [{"kind": "train", "step": step, "ppl": 10.0 ** (70 * step)} for step in range(5)],
}


@pytest.mark.parametrize("records", RUNS_AT_THE_EDGE.values(), ids=RUNS_AT_THE_EDGE)
@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_every_panel_of_a_file_has_two_numbers_on_each_axis(
    records: list[dict[str, Any]], form: str, tmp_path: Path
) -> None:
    with theme():
        figure = draw_training({"a": records})
        save(figure, tmp_path / f"a.{form}")
    for axes in figure.axes:
        assert min(len([text for text in visible_numbers(axis) if text]) for axis in (axes.xaxis, axes.yaxis)) >= 2


def test_a_png_has_200_dots_per_inch(tmp_path: Path) -> None:
    from PIL import Image

    save(draw_training({"a": RECORDS}), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert [round(dpi) for dpi in image.info["dpi"]] == [200, 200]


@pytest.mark.parametrize("scores", [[0.0], [0.0, 0.0025, 0.0], [37.0, 37.5]])
def test_bleu_is_not_negative_and_differences_of_nothing_are_not_magnified(scores: list[float]) -> None:
    records = [{"kind": "validation", "step": step, "bleu": score} for step, score in enumerate(scores)]
    low, high = draw_training({"a": records}).axes[2].get_ylim()
    assert (low, high) == (pytest.approx(min(scores) - 0.05), pytest.approx(min(scores) + 1.05))


def test_a_curve_of_one_point_is_visible() -> None:
    (loss,) = draw_training({"a": RECORDS[:1]}).axes[0].lines
    assert loss.get_marker() == "."
    assert draw_training({"a": RECORDS}).axes[0].lines[0].get_marker() == "None"


def test_more_runs_than_colours_still_look_different() -> None:
    figure = draw_training({f"run {number}": RECORDS for number in range(19)})
    looks = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[1].lines]
    assert len({*looks}) == len(looks) == 38

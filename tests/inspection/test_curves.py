"""Drawn curves equal the formulas and the records."""

from __future__ import annotations

import pytest
import torch

from transformer.inspection.curves import draw_learning_rates, draw_positions, draw_training
from transformer.model.embeddings import sinusoidal_positions
from transformer.training.optimizer import noam_lr

pytest.importorskip("matplotlib")


def test_positions_are_drawn_whole_and_as_pairs_of_waves() -> None:
    image, waves, *_ = draw_positions(13, 17).axes
    table = sinusoidal_positions(13, 17)
    torch.testing.assert_close(torch.tensor(image.images[0].get_array()), table.T)
    drawn = {int(line.get_label()): torch.tensor(line.get_ydata()) for line in waves.lines}
    assert list(drawn) == [0, 1, 4, 5, 8, 9, 12, 13]
    for channel, values in drawn.items():
        torch.testing.assert_close(values, table[:, channel])


def test_one_channel_is_drawn_too() -> None:
    _, waves, *_ = draw_positions(3, 1).axes
    assert [line.get_label() for line in waves.lines] == ["0"]


def test_learning_rates_are_equation_3() -> None:
    schedules = [(512, 7), (11, 13)]
    (axes,) = draw_learning_rates(schedules).axes
    for line, (d_model, warmup_steps) in zip(axes.lines, schedules, strict=True):
        assert list(line.get_xdata()) == list(range(1, 66))
        assert list(line.get_ydata()) == [noam_lr(step, d_model, warmup_steps) for step in range(1, 66)]
        assert line.get_label() == f"d_model {d_model}, warmup_steps {warmup_steps}"


def test_records_of_every_run_are_drawn_by_kind() -> None:
    records = [
        {"kind": "train", "step": 1, "loss": 7.5, "ppl": 100.0, "lr": 0.25},
        {"kind": "train", "step": 3, "loss": 5.5, "ppl": 10.0, "lr": 0.75},
        {"kind": "validation", "step": 3, "ppl": 20.0, "bleu": 11.0},
        {"kind": "validation", "step": 5, "ppl": 15.0},
    ]
    figure = draw_training({"a": records, "b": records[:1]})
    loss, ppl, rate, bleu = [
        {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
        for axes in figure.axes
    ]
    assert loss == {"a": ([1, 3], [7.5, 5.5]), "b": ([1], [7.5])}
    assert ppl == {"a": ([1, 3], [100, 10]), "a, validation": ([3, 5], [20, 15]), "b": ([1], [100])}
    assert rate == {"a": ([1, 3], [0.25, 0.75]), "b": ([1], [0.25])}
    assert bleu == {"a": ([3], [11])}

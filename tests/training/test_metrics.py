"""Metrics of a run: JSON lines that survive crashes, TensorBoard and the display."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transformer.errors import CheckpointError
from transformer.training.metrics import MetricsLog, read_metrics

LINES = [
    {"kind": "train", "step": 1, "loss": 7.5, "epoch": 0},
    {"kind": "train", "step": 3, "loss": 5.25, "epoch": 0},
    {"kind": "validation", "step": 3, "nll": 4.125},
    {"kind": "train", "step": 5, "loss": 3.0625, "epoch": 1},
]


def write_lines(run: Path) -> None:
    """A log of five updates."""
    log = MetricsLog(run, 0, 11)
    for line in LINES:
        log.log(**line)
    log.close()


def scalars(run: Path, tag: str) -> list[tuple[int, float]]:
    """The steps and values of a curve, as TensorBoard shows it."""
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_text_is_kept_with_the_numbers_and_left_out_of_tensorboard(tmp_path: Path) -> None:
    line = {"kind": "validation", "step": 3, "bleu": 4.5, "bleu_tokenizer": "zh"}
    log = MetricsLog(tmp_path, 0, 11)
    log.log(**line)
    log.close()
    assert read_metrics(tmp_path) == [line]
    assert scalars(tmp_path, "validation/bleu") == [(3, 4.5)]
    with pytest.raises(KeyError):
        scalars(tmp_path, "validation/bleu_tokenizer")


@pytest.mark.parametrize(
    ("name", "value"), [("bleu_tokenizer", 5), ("bleu_tokenizer", "\x1b[2J"), ("bleu_tokenizer", None), ("bleu", "zh")]
)
def test_records_whose_text_is_not_the_name_of_a_tokenizer_are_skipped(
    tmp_path: Path, name: str, value: object
) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"kind": "validation", "step": 3, name: value}) + "\n")
    assert read_metrics(tmp_path) == []


def test_every_line_is_json_with_its_kind_and_step(tmp_path: Path) -> None:
    write_lines(tmp_path)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == LINES


def test_metrics_can_be_read_during_training(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, 11)
    log.log("train", 1, loss=7.5)
    assert read_metrics(tmp_path) == [{"kind": "train", "step": 1, "loss": 7.5}]
    log.close()


def test_numbers_are_read_back_exactly(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, 11)
    log.log("train", 7, loss=0.1 + 0.2, lr=1e-7 / 3)
    log.close()
    assert read_metrics(str(tmp_path)) == [{"kind": "train", "step": 7, "loss": 0.1 + 0.2, "lr": 1e-7 / 3}]


def test_a_run_without_a_log_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    with pytest.raises(CheckpointError, match=r"absent: no such run directory$"):
        read_metrics(tmp_path / "absent")


@pytest.mark.parametrize("tail", ['{"kind": "train", "step": 7, "lo', "{", "\x00\x00\x00"], ids=repr)
def test_a_truncated_line_is_skipped(tmp_path: Path, tail: str) -> None:
    write_lines(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(tail)
    assert read_metrics(tmp_path) == LINES


@pytest.mark.parametrize(("first_step", "num_kept"), [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3), (5, 4), (7, 4)])
def test_resuming_removes_the_lines_of_later_steps(tmp_path: Path, first_step: int, num_kept: int) -> None:
    write_lines(tmp_path)
    MetricsLog(tmp_path, first_step, 11).close()
    assert read_metrics(tmp_path) == LINES[:num_kept]


def test_resuming_removes_a_truncated_line(tmp_path: Path) -> None:
    write_lines(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 7, "lo')
    log = MetricsLog(tmp_path, 5, 11)
    log.log("train", 7, loss=2.5)
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [*LINES, {"kind": "train", "step": 7, "loss": 2.5}]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["metrics.jsonl"]


def test_tensorboard_shows_repeated_steps_once(tmp_path: Path) -> None:
    write_lines(tmp_path)
    log = MetricsLog(tmp_path, 3, 11)
    log.log("train", 5, loss=3.0625)
    log.log("train", 7, loss=2.5)
    log.close()
    assert scalars(tmp_path, "train/loss") == [(1, 7.5), (3, 5.25), (5, 3.0625), (7, 2.5)]
    assert scalars(tmp_path, "validation/nll") == [(3, 4.125)]


def test_lines_go_to_stdout_and_progress_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricsLog(tmp_path, 3, 11)
    log.advance()
    log.log("train", 4, loss=2.3449)
    log.log("validation", 5, nll=1.234)
    log.note("validating")
    log.print("step 7: validation nll 1.234")
    log.close()
    assert capsys.readouterr() == ("step 7: validation nll 1.234\n", "step 4  loss 2.345\n")

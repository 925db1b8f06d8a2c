"""Commands say which checkpoint of a run they took, and when it is not the newest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from transformer.commands import attend, average, evaluate, parse, translate
from transformer.commands.selection import report_checkpoint
from transformer.config import Config
from transformer.training.checkpoint import load_checkpoint, locate_checkpoint, save_checkpoint
from transformer.training.integrity import averaged_steps
from transformer.training.run_directory import checkpoint_name


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a best step of 5 and checkpoints of 4, 5 and 8, of which 5 and 7 were validated."""
    run = tmp_path / "run"
    for name in ("checkpoints/step-00000004", "checkpoints/step-00000008", "best/step-00000005"):
        (run / name).mkdir(parents=True)
        (run / name / "model.safetensors").touch()
        (run / name / "config.yaml").write_text(Config().to_yaml())
    log(run, 5, 7)
    return run


def log(run: Path, *steps: int) -> None:
    records = [{"kind": "train", "step": 8}, *({"kind": "validation", "step": step, "nll": 3.0} for step in steps)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


Report = Callable[[Path], list[str]]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """The lines for a run or a checkpoint."""

    def report(given: Path) -> list[str]:
        _, taken = locate_checkpoint(given)
        report_checkpoint(given, taken)
        captured = capsys.readouterr()
        assert captured.out == "", "translations go there"
        return captured.err.splitlines()

    return report


def test_a_directory_of_checkpoints_is_named_for_what_it_keeps(run: Path, report: Report) -> None:
    assert report(run / "best") == report(run)
    assert report(run / "checkpoints")[0] == (
        f"checkpoint: {run}/checkpoints/step-00000008 (the last of the directory)"
    )


def test_the_best_says_so_and_what_is_newer_and_was_not_validated(run: Path, report: Report) -> None:
    assert report(run) == [
        f"checkpoint: {run}/best/step-00000005 (best validation loss of 2)",
        f"note: {run}/checkpoints/step-00000008 is newer and was not validated",
    ]


def test_a_newer_one_that_was_validated_is_worse_and_not_worth_a_note(run: Path, report: Report) -> None:
    log(run, 5, 8)
    assert report(run) == [f"checkpoint: {run}/best/step-00000005 (best validation loss of 2)"]


def test_the_best_by_bleu_says_so(run: Path, report: Report) -> None:
    path = run / "best" / checkpoint_name(5) / "config.yaml"
    path.write_text(path.read_text().replace("best_by: loss", "best_by: bleu"))
    assert report(run)[0] == f"checkpoint: {run}/best/step-00000005 (best validation BLEU of 2)"


def test_without_a_log_there_is_no_number(run: Path, report: Report) -> None:
    (run / "metrics.jsonl").unlink()
    assert report(run)[0] == f"checkpoint: {run}/best/step-00000005 (best validation loss)"


def test_without_a_best_the_last_is_taken(run: Path, report: Report) -> None:
    shutil.rmtree(run / "best")
    assert report(run) == [f"checkpoint: {run}/checkpoints/step-00000008 (the last; none is kept as the best)"]


def test_a_checkpoint_that_was_named_says_itself(run: Path, report: Report) -> None:
    path = run / "checkpoints" / checkpoint_name(4)
    assert report(path) == [f"checkpoint: {path}"]


def test_a_model_of_the_hub_says_its_commit(capsys: pytest.CaptureFixture[str]) -> None:
    report_checkpoint("someone/some-model", "someone/some-model@0123")
    assert capsys.readouterr().err == "checkpoint: someone/some-model@0123\n"


def make_average(trained_run: Path, run: Path, *steps: int) -> None:
    config, tokenizer, model = load_checkpoint(locate_checkpoint(trained_run)[0])
    save_checkpoint(run / "averaged", config, tokenizer, model.state_dict(), averaged_steps=steps)


def test_an_average_names_its_steps_and_a_newer_checkpoint(run: Path, report: Report, trained_run: Path) -> None:
    make_average(trained_run, run, 4, 8)
    assert report(run) == [f"checkpoint: {run}/averaged (average of the steps 4, 8)"]
    (run / "checkpoints" / checkpoint_name(8)).rename(run / "checkpoints" / checkpoint_name(11))
    assert report(run)[1:] == [f"note: {run}/checkpoints/step-00000011 is newer than this average"]


def test_an_average_of_an_earlier_version_does_not_know_its_steps(run: Path, report: Report, trained_run: Path) -> None:
    make_average(trained_run, run)
    assert report(run) == [f"checkpoint: {run}/averaged (average)"]


def test_steps_that_cannot_be_read_are_none(run: Path, tmp_path: Path) -> None:
    assert averaged_steps(tmp_path / "absent") == []
    assert averaged_steps(run / "best" / checkpoint_name(5) / "model.safetensors") == []


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (translate.main, ["--text", "A dog.", "--beam", "1"]),
        (evaluate.main, ["--json", "--beam", "1", "--device", "cpu"]),
        (attend.main, ["A dog.", "--out", "attention.json"]),
        (parse.main, ["-", "--beam", "1"]),
    ],
    ids=["translate", "evaluate", "attend", "parse"],
)
def test_every_command_says_on_standard_error_which_checkpoint_it_took(
    command: Callable[[list[str]], int],
    arguments: list[str],
    trained_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformer.commands.parse.decode_lines", lambda *_: iter(["A dog ."]))
    monkeypatch.setattr("transformer.commands.parse.restore", lambda *_: [])
    monkeypatch.setattr("transformer.commands.parse.bracketed", lambda _: "")
    assert command([str(trained_run), *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0].startswith(f"checkpoint: {trained_run}/best/step-000000")
    assert captured.err.splitlines()[0].endswith(" (best validation loss of 3)")
    assert "checkpoint: " not in captured.out


def test_the_average_command_records_its_steps(trained_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run, tmp_path / "copied")
    average.main([str(run), "--last", "2"])
    steps = averaged_steps(run / "averaged" / "model.safetensors")
    assert len(steps) == 2
    assert steps[-1] == 11

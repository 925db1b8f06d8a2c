"""scripts/finetuning.py at tiny sizes: three runs, the updates that they took, and what they score."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import finetuning
import pytest

from transformer.config import load_config
from transformer.data import corpus
from transformer.errors import CheckpointError

SMALL = (
    "model.d_model=22",
    "model.num_layers=1",
    "model.num_heads=2",
    "model.d_ff=29",
    "data.builtin_size=211",
    "data.vocab_size=211",
    "train.tokens_per_update=307",
    "train.max_tokens=307",
    "train.warmup_steps=2",
    "train.max_steps=4",
    "train.validate_steps=2",
    "train.precision=fp32",
    "train.device=cpu",
)


def record(path: Path, *bleu: float) -> None:
    """Validations after 10, 20, ... updates."""
    path.mkdir(parents=True)
    lines = [{"kind": "validation", "step": 10 * number, "bleu": score} for number, score in enumerate(bleu, start=1)]
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_same_score_is_the_highest_that_both_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"general": (2.0, 80.0), "scratch": (75.0, 31.0), "tuned": (77.0, 61.0)}
    monkeypatch.setattr(finetuning, "_test_scores", lambda path, *_: scores[path.name])
    record(tmp_path / "scratch", 1.5, 40.0, 71.0, 69.0, 76.0)
    record(tmp_path / "tuned", 75.5, 76.5)
    report = finetuning.measure(tmp_path)
    assert (report["validation_bleu"], report["ratio"]) == (76.0, 2.5)
    assert [(row["run"], row["updates"]) for row in report["runs"]] == [
        ("general", None),
        ("scratch", 50),
        ("tuned", 20),
    ]
    assert finetuning.markdown(report).splitlines()[2:] == [
        "| `general`, not tuned | – | 2.0 | 80.0 |",
        "| random weights | 50 | 75.0 | 31.0 |",
        "| the weights of `general` | 20 | 77.0 | 61.0 |",
        "",
        "2.5 times fewer updates",
    ]


def test_a_run_without_a_validation_is_named(tmp_path: Path) -> None:
    record(tmp_path / "scratch")
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}/scratch: has no validation yet"):
        finetuning.measure(tmp_path)


def test_the_runs_differ_in_what_is_compared_only(tmp_path: Path) -> None:
    general, scratch = itertools.islice(finetuning.configurations(tmp_path, []), 2)
    assert scratch.model == general.model == load_config("quickstart").model
    differing = {key for key, value in scratch.flat().items() if general.flat()[key] != value}
    assert differing == {"run_dir", "data.subset", "train.validate_steps"}


@pytest.mark.slow
def test_three_runs_are_trained_and_scored_and_a_second_call_only_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(corpus, "_HELD_OUT_BUILTIN_SIZE", 17)
    monkeypatch.setattr(finetuning, "tune_process", lambda: None)
    arguments = [
        *SMALL,
        f"data.cache_dir={tmp_path}/cache",
        "--out",
        str(tmp_path / "out"),
        "--json",
        "--device",
        "cpu",
    ]
    reports = []
    for _ in range(2):
        assert finetuning.main(arguments) == 0
        out = capsys.readouterr().out
        reports.append(json.loads(out[out.index("{\n") :]))
    report: dict[str, Any] = reports[0]
    assert report == reports[1]
    assert {row["run"]: row["updates"] for row in report["runs"]}.keys() == {"general", "scratch", "tuned"}
    assert all(isinstance(row["bleu_general"], float) for row in report["runs"])
    recorded = json.loads((tmp_path / "out" / "tuned" / "starts.jsonl").read_text())["init_from"]
    assert recorded["init_from"] == str(tmp_path / "out" / "general")
    assert len((tmp_path / "out" / "tuned" / "starts.jsonl").read_text().splitlines()) == 1


def test_a_signal_ends_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        def fit(self, _: object) -> str:
            return "SIGTERM"

    monkeypatch.setattr(finetuning, "tune_process", lambda: None)
    monkeypatch.setattr(finetuning.Trainer, "from_config", lambda *_, **__: Stopped())
    assert finetuning.main(["--out", str(tmp_path)]) == 128 + signal.SIGTERM

"""The table of runs."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from transformer.commands.runs import main
from transformer.errors import CheckpointError
from transformer.files import try_lock
from transformer.training.overview import overview


@pytest.fixture
def runs(trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory `runs` with four runs: finished, stopped, damaged and without anything."""
    monkeypatch.chdir(tmp_path)
    for name in ("b_finished", "a_stopped", "damaged"):
        shutil.copytree(trained_run, f"runs/{name}")
    config = Path("runs/a_stopped/config.yaml")
    config.write_text(config.read_text().replace("max_steps: 11", "max_steps: 70001"))
    lines = [
        {"kind": "validation", "step": 10, "nll": 1.5, "ppl": 4.4817, "bleu": 17.125, "chrf": 41.5},
        {"kind": "validation", "step": 11, "nll": float("nan"), "ppl": 1e300, "bleu": 18.5, "elapsed_s": 3723.0},
    ]
    Path("runs/a_stopped/metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    Path("runs/damaged/config.yaml").write_text("model: 3\n")
    Path("runs/empty").mkdir()
    Path("runs/empty/.lock").touch()
    os.utime("runs/b_finished/metrics.jsonl", (time.time() + 1000, time.time() + 1000))
    return tmp_path / "runs"


def rows(out: str) -> list[list[str]]:
    """The cells of each line, which are separated by two blanks."""
    return [[cell for cell in line.split("  ") if cell] for line in out.splitlines()]


def test_every_run_is_an_aligned_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    header, stopped, finished, damaged, empty = out.splitlines()
    assert header.split()[:8] == ["run", "state", "step", "best", "nll", "ppl", "bleu", "chrf"]
    assert stopped.split()[:8] == ["runs/a_stopped", "stopped", "11/70001", "10", "1.500", "4.48", "18.50", "41.50"]
    assert finished.split()[:3] == ["runs/b_finished", "finished", "11/11"]
    assert damaged.startswith("runs/damaged     damaged  ")
    assert damaged.endswith("  config.yaml: model: expected a section of keys, got 3")
    assert empty == "runs/empty       no checkpoint"
    found = overview(runs / "b_finished")
    assert f"{found.parameters:,}  " in finished and "  397  " in finished
    ends = {line.index(text) + len(text) for line, text in ((header, " step"), (stopped, "70001"), (finished, "11/11"))}
    assert len(ends) == 1, "numbers are aligned to the right"


@pytest.mark.usefixtures("runs")
def test_json_has_the_same_and_more(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json"])
    out, err = capsys.readouterr()

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    found = json.loads(out, parse_constant=refuse)
    assert (err, [run["state"] for run in found]) == ("", ["stopped", "finished", "damaged", "no checkpoint"])
    assert found[0]["highest_bleu_step"] == 11
    written = datetime.fromisoformat(found[1]["active_at"])
    assert written.tzinfo == timezone.utc and written.timestamp() == pytest.approx(time.time() + 1000, abs=100)


@pytest.mark.parametrize(
    ("order", "first"),
    [("name", "a_stopped"), ("bleu", "a_stopped"), ("chrf", "a_stopped"), ("nll", "a_stopped"), ("time", "b_finished")],
)
@pytest.mark.usefixtures("runs")
def test_runs_are_sorted_by_name_or_the_best_or_newest_comes_first(
    capsys: pytest.CaptureFixture[str], order: str, first: str
) -> None:
    main(["--sort", order])
    assert capsys.readouterr().out.splitlines()[1].split()[0] == f"runs/{first}"


def test_a_run_in_use_is_running(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = try_lock(runs / "b_finished" / ".lock", "the run")
    main([str(runs / "b_finished")])
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "running"
    del lock


@pytest.mark.usefixtures("runs")
def test_a_run_below_two_directories_is_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    main(["runs", "runs/a_stopped", "runs"])
    names = [row[0] for row in rows(capsys.readouterr().out)[1:]]
    assert names == ["runs/a_stopped", "runs/b_finished", "runs/damaged", "runs/empty"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_directory_without_runs_is_said_to_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([str(tmp_path), *options]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (("[]\n", "") if options else ("", f"no runs in {tmp_path}\n"))


def test_a_directory_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: no such directory$"):
        main([str(tmp_path), str(tmp_path / "absent")])


def test_a_name_cannot_spoil_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "a\nb\x1b[31m"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    main([str(tmp_path)])
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path}/a\\nb\\x1b[31m  no checkpoint")


def test_numbers_of_any_size_leave_a_line_of_sensible_length(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"kind": "validation", "step": 10, "nll": 1e300, "ppl": 1e308, "bleu": -1e300, "elapsed_s": 1e300}
    (runs / "empty" / "config.yaml").write_text("{}")
    (runs / "empty" / "metrics.jsonl").write_text(f"{json.dumps(record)}\n")
    main([str(runs / "empty")])
    assert max(map(len, capsys.readouterr().out.splitlines())) < len(str(runs)) + 140

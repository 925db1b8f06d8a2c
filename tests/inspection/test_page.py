"""The program and the numbers of docs/INSPECTION.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from documented import ROOT, python_blocks

RESULTS = ROOT / "docs" / "results" / "inspection"


def test_the_program_runs_after_the_quickstart(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(trained_run)
    (program,) = python_blocks("docs/INSPECTION.md")
    names: dict[str, Any] = {}
    exec(program, names)
    parts = names["parts"]
    assert float((parts.values.sum(0) - parts.final).detach().abs().max()) < 1e-4
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["0", "1", "2"]
    assert len(lines) == 7


def test_the_kept_results_are_of_the_same_model() -> None:
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.iterdir())]
    assert {one["checkpoint"] for one in kept} == {"runs/quickstart/best/step-00000500"}


def test_the_kept_results_show_what_the_page_says() -> None:
    layers = json.loads((RESULTS / "layers.json").read_text(encoding="utf-8"))
    first, *_, last = layers["lens"]["depths"]
    assert first["current"]["first"] > 0.99 > last["reference"]["first"] > 0.9 > 0.01 > last["current"]["first"]
    assert sum(row["share"] for row in layers["stream"]["rows"]) == pytest.approx(2, abs=1e-4)
    assert all(row["effective_rank"] < row["random_effective_rank"] for row in layers["spectra"]["rows"])
    trained = json.loads((RESULTS.parent / "norm_depth.json").read_text(encoding="utf-8"))["trained"]
    losses = {(row["norm"], row["depth"], bool(row["warmup"])): [*row["nll"].values()] for row in trained}
    for depth in (2, 6, 12):
        assert (
            max(losses["pre", depth, False][-1], losses["pre", depth, True][-1]) < losses["pre", depth, True][0] - 0.5
        )
        assert losses["pre", depth, False][-1] < losses["pre", depth, True][-1]
    half, end = losses["post", 6, False]
    assert half - end < 0.1 < losses["post", 6, True][0] - losses["post", 6, True][1]
    assert losses["post", 12, True][0] - losses["post", 12, True][1] < 0.1 < 0.5 < losses["post", 2, False][0] - 3.5
    for word in ("looking", "eating"):
        rows = json.loads((RESULTS / f"probe_{word}.json").read_text(encoding="utf-8"))["probe"]["rows"]
        assert rows[0]["accuracy"] <= 0.5 < rows[2]["accuracy"], "only the context tells"

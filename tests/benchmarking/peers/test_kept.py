"""Rows of two measurements stand in one table if they are of one machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarking.peers.kept import joined

from transformer.errors import ConfigError


def report(rows: list[dict[str, Any]], **other: Any) -> dict[str, Any]:
    setting = {"commit": "a", "torch": "2", "processor": {"name": "x"}, "cpus": 2, "rounds": 3, "corpus": "builtin"}
    setting |= {"batch": None}
    return {"date": "2026-01-02", **setting, "rows": rows, "left_out": [], **other}


def row(peer: str, median: float, **other: Any) -> dict[str, Any]:
    return {"what": "train", "size": "small", "beam": None, "peer": peer, "precision": "fp32", "median": median} | other


def test_rows_that_are_measured_anew_replace_the_kept_ones(tmp_path: Path) -> None:
    kept = [row("a", 1.0), row("b", 2.0), row("a", 3.0, size="base")]
    (tmp_path / "kept").write_text(json.dumps(report(kept, left_out=[{"of": "c"}])))
    found = joined(report([row("a", 5.0)], date="2026-01-03", left_out=[{"of": "d"}]), tmp_path / "kept")
    assert found["rows"] == [row("b", 2.0), row("a", 3.0, size="base"), row("a", 5.0)]
    assert (found["date"], found["left_out"]) == ("2026-01-03", [{"of": "c"}, {"of": "d"}])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("commit", "b"), ("torch", "3"), ("processor", {"name": "y"}), ("cpus", 4)),
        *(("rounds", 2), ("corpus", "other"), ("batch", 1)),
    ],
)
def test_figures_of_another_setting_are_refused(tmp_path: Path, name: str, value: object) -> None:
    (tmp_path / "kept").write_text(json.dumps(report([], **{name: value})))
    with pytest.raises(ConfigError, match=rf"^--keep .*kept: its {name} is "):
        joined(report([]), tmp_path / "kept")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [{}], "left_out": []}', '{"rows": [3], "left_out": []}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "kept").write_text(text)
    with pytest.raises(ConfigError, match=r"kept: not the JSON of benchmark\.py peers$"):
        joined(report([]), tmp_path / "kept")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--keep .*absent: cannot be read: No such file"):
        joined(report([]), tmp_path / "absent")

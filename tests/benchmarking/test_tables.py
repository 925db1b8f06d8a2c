"""Reading tables: both readers see the same text, and each ratio is that of their times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarking import tables
from benchmarking.tables import benchmark_tables, write_table

from transformer.data.builtin import builtin_pairs
from transformer.data.tables import table_pairs


@pytest.mark.parametrize("name", tables.FORMATS)
def test_a_table_repeats_its_pairs_up_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(tables, "_DISTINCT", 5)
    path = tmp_path / f"a.{name}"
    write_table(path, 13)
    pairs = list(builtin_pairs("train", 5))
    assert list(table_pairs(path, "en", "de")) == (pairs * 3)[:13]


def test_each_format_is_read_by_both_readers_at_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "in_subprocess", lambda read, *words: {**read(*words), "peak_bytes": 3 << 20})
    lines: list[str] = []
    report = benchmark_tables(tmp_path, rows=230, repeat=2, log=lines.append)
    keys = [(row["rows"], row["format"], row["reader"]) for row in report["readings"]]
    assert keys == [(n, name, reader) for n in (23, 230) for name in tables.FORMATS for reader in ("ours", "datasets")]
    assert len(lines) == 8
    seconds = {key: row["cpu_seconds"] for key, row in zip(keys, report["readings"], strict=True)}
    for name, ratio in report["cpu_seconds_ours_to_datasets"].items():
        assert ratio == pytest.approx(seconds[230, name, "ours"] / seconds[230, name, "datasets"])
    assert report["memory_bytes_per_further_row_of_ours"] == dict.fromkeys(tables.FORMATS, 0)


def test_a_reader_of_another_text_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_subprocess(*_: Any) -> dict[str, Any]:
        return {"characters": 3, "cpu_seconds": 1.0, "peak_bytes": 1}

    monkeypatch.setattr(tables, "in_subprocess", in_subprocess)
    with pytest.raises(RuntimeError, match=r"ours read another text$"):
        benchmark_tables(tmp_path, rows=10)

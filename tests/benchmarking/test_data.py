"""A corpus of exactly the size asked for, and stages that run apart from each other."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from benchmarking.data import benchmark_data, in_subprocess, write_corpus

from transformer.config import Config
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import aligned_files

EXTRA = [("one\u2028two", "eins"), ("three", "drei\u0085")]


@pytest.mark.parametrize(
    ("pairs", "distinct"),
    [(17, 5), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((14, 5), (3, 5), (2, 1), (7, 5)))],
)
def test_a_corpus_repeats_its_pairs_and_is_as_long_as_asked(tmp_path: Path, pairs: int, distinct: int) -> None:
    write_corpus(tmp_path, pairs, distinct, EXTRA)
    pool = [*builtin_pairs("train", min(pairs, distinct)), *EXTRA]
    found = list(aligned_files(tmp_path / "train.en", tmp_path / "train.de"))
    assert found == list(itertools.islice(itertools.cycle(pool), pairs))
    validation = list(aligned_files(tmp_path / "validation.en", tmp_path / "validation.de"))
    assert validation == list(builtin_pairs("validation", 1000))


def whoami(number: int) -> dict[str, Any]:
    return {"pid": os.getpid(), "number": number}


@pytest.mark.slow
def test_a_stage_has_a_process_of_its_own_and_its_peak_memory() -> None:
    found = in_subprocess(whoami, 7)
    assert found["number"] == 7
    assert found["pid"] != os.getpid()
    assert found["peak_bytes"] > 1 << 20


@pytest.mark.slow
def test_every_stage_runs_at_both_sizes(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process: importing torch a dozen times takes long.
    monkeypatch.setattr(
        "benchmarking.data.in_subprocess",
        lambda stage, *arguments: {**stage(*arguments), "peak_bytes": 3 << 20},
    )
    monkeypatch.setattr("benchmarking.data.tune_process", lambda: None)
    place = tmp_path / "place"
    place.mkdir()
    lines: list[str] = []
    report = benchmark_data(tiny_config, place, pairs=4000, distinct=350, updates=3, log=lines.append)
    stages = ["generate", "fingerprint", "tokenizer", "encode", "plan", "start"]
    assert [(row["stage"], row["pairs"]) for row in report["stages"]] == [(s, n) for n in (400, 4000) for s in stages]
    assert len(lines) == 12
    assert report["memory_bytes_per_further_pair"] == dict.fromkeys(stages, 0)
    for row in report["stages"]:
        assert row["pairs_per_s"] == pytest.approx(row["pairs"] / row["seconds"])
        assert row["peak_memory_mib"] == 3
    assert report["seconds_to_first_update"] == report["stages"][-1]["seconds"]
    assert 0 < report["share_of_update_waiting_for_data"] < 1
    assert report["updates_per_epoch"] > 4000 * 10 / 509 / 2

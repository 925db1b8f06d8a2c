"""benchmark.py peers from end to end, with stand-ins for what takes long."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarking.commands import peers as command
from benchmarking.peers.peer import PeerError, Speed, Task

from transformer.cli import run

Call = Callable[..., tuple[int, str, str]]
SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmark.py"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The tasks of all runs, none of which takes place."""
    tasks: list[Task] = []

    def measure(self: Any, _python: Path, task: Task) -> Speed:
        tasks.append(task)
        if self.name == "fairseq":
            raise PeerError("exit status 1: ModuleNotFoundError: no module")
        return Speed(100.0 + len(tasks), 0.5)

    for name in ("Ours", "Plain", "Fairseq", "OpenNMT", "Marian", "CTranslate2"):
        monkeypatch.setattr(getattr(command, name), "measure", measure)
        monkeypatch.setattr(getattr(command, name), "prepare", lambda *_words: None)
    monkeypatch.setattr("benchmarking.peers.contest.build", lambda environment, *_words: Path(environment.name))
    monkeypatch.setattr(command, "prepare", lambda _config, cache, sentences: cache / f"data of {sentences}")
    return tasks


@pytest.fixture
def benchmark(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    module = runpy.run_path(str(SCRIPT))
    monkeypatch.setitem(module["main"].__globals__, "tune_process", lambda **_: None)
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run(lambda: module["main"](["peers", *map(str, argv)]))
        assert isinstance(end.value.code, int)
        return (end.value.code, *capfd.readouterr())

    return call


@pytest.mark.usefixtures("measured")
def test_all_peers_are_measured_at_both_sizes_and_a_failure_is_named(benchmark: Call) -> None:
    status, out, err = benchmark("--rounds", 2, "--json")
    assert status == 0
    found = json.loads(out)
    rows = found["rows"]
    of_training = [(row["peer"], row["precision"]) for row in rows if (row["what"], row["size"]) == ("train", "small")]
    assert of_training == [
        *(("this", "bf16"), ("this", "fp32"), ("plain", "bf16"), ("plain", "fp32")),
        *(("opennmt", "fp32"), ("marian", "bf16"), ("marian", "fp32")),
    ]
    of_decoding = {(row["peer"], row["precision"]) for row in rows if row["what"] == "decode"}
    assert of_decoding == {
        *(("this", "bf16"), ("this", "fp32"), ("this", "int8"), ("opennmt", "fp32"), ("marian", "fp32")),
        *(("ctranslate2", "fp32"), ("ctranslate2", "int8")),
    }
    assert {row["beam"] for row in rows if row["what"] == "decode"} == {1, 4}
    assert {"of": "train base fairseq fp32", "reason": "exit status 1: ModuleNotFoundError: no module"} in found[
        "left_out"
    ]
    assert "left out: decode small beam 4 fairseq fp32: exit status 1" in err
    assert {"name"} <= found["processor"].keys()
    assert (found["rounds"], found["corpus"], found["batch"]) == (2, "builtin", None)


def test_options_choose_and_limit(benchmark: Call, measured: list[Task], tmp_path: Path) -> None:
    chosen = ("--peer", "plain", "--size", "base", "--what", "train", "--updates", 7, "--threads", 3, "--sentences", 11)
    chosen += ("--batch", 5)
    status, out, _ = benchmark("data.vocab_size=61", *chosen, "--rounds", 1, "--cache", "kept")
    assert status == 0
    assert "rows\n" in out and "left_out" in out
    assert {(task.what, task.size, task.updates, task.threads, task.sentences, task.batch) for task in measured} == {
        ("train", "base", 7, 3, 11, 5)
    }
    assert {task.sizes.vocab_size for task in measured} == {61}
    assert all(task.data == tmp_path / "kept" / "data of 11" for task in measured)
    assert all(task.work.is_relative_to(tmp_path / "kept" / "work" / "data of 11") for task in measured)


def test_training_has_all_cpus_and_translation_one(
    benchmark: Call, measured: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "num_cpus", lambda: 5)
    assert benchmark("--peer", "marian", "--size", "small", "--rounds", 1)[0] == 0
    assert {(task.what, task.threads) for task in measured} == {("train", 5), ("decode", 1)}


def test_two_runs_are_joined_and_a_wrong_file_is_refused_at_once(
    benchmark: Call, measured: list[Task], tmp_path: Path
) -> None:
    choice = ("--peer", "plain", "--size", "small", "--rounds", 1, "--json")
    (tmp_path / "kept").write_text(benchmark("--what", "train", *choice)[1])
    status, out, _ = benchmark("--what", "decode", *choice, "--keep", tmp_path / "kept")
    assert status == 0
    assert {row["what"] for row in json.loads(out)["rows"]} == {"train", "decode"}
    measured.clear()
    status, out, err = benchmark("--what", "decode", *choice, "--keep", tmp_path / "absent")
    assert (status, out, measured) == (2, "", [])
    assert err.startswith("error: --keep ")


@pytest.mark.parametrize("word", ["model.norm=pre", "train.max_tokens=7", "model.d_model=64"])
def test_what_the_others_cannot_follow_is_refused(benchmark: Call, measured: list[Task], word: str) -> None:
    status, out, err = benchmark("data.vocab_size=61", word)
    assert (status, out, measured) == (2, "", [])
    expected = f"error: {word}: the sizes are fixed for all toolkits; only keys of data can be given\n"
    assert err == expected

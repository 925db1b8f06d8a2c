"""Trainings killed at the worst moments and started again end as if nothing had been; and the comparison would tell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from random import Random

import pytest
from differences import broken, differing_runs
from kill_points import KINDS, draw_training, table
from run_lifecycle import LAST_STEP, Ending, Kill, Laboratory, Life, status_faults
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

TRAINING = [
    Kill("claiming the run", 3, "KILL"),  # with nothing but half a configuration
    Kill("learning the tokenizer", 7, "INT"),
    Kill("learning the tokenizer", 9, "KILL"),
    Kill("building the cache", 7, "KILL"),
    Kill("in the middle of a write", 2, "XFSZ", limit=10_007),
    Kill("saving a checkpoint", 19, "TERM"),
    Kill("saving the best", 11, "KILL"),
    Kill("pruning", 3, "KILL"),  # of the best
    Kill("pruning", 6, "KILL"),
    Kill("inference", 2, "INT INT", delay_s=0.05),
    Kill("writing metrics", 5, "INT"),
    Kill("final save", 13, "KILL"),
]
# The thirteenth comes between the two renames that replace the average.
AVERAGING = [Kill("averaging", 11, "KILL"), Kill("averaging", 13, "KILL"), Kill("averaging", 12, "INT")]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    laboratory = Laboratory(tmp_path_factory.mktemp("kills"), is_forked=True)
    laboratory.prepare(["train", "average"])
    return laboratory


@pytest.mark.parametrize(("kind", "kills"), [("train", TRAINING), ("average", AVERAGING)])
def test_a_program_that_was_killed_ends_as_if_it_had_not_been(
    laboratory: Laboratory, kind: str, kills: list[Kill]
) -> None:
    done, life = laboratory.live(kind, 1, kills)
    assert life.faults == []
    assert [kill for kill, _ in done] == kills, "all of them came to be"


@pytest.fixture
def life(laboratory: Laboratory, tmp_path: Path) -> Life:
    """A finished run as it should be."""
    shutil.copytree(laboratory.whole, tmp_path / "life")
    life = Life(laboratory.plans[0], 1, tmp_path / "life")
    assert differing_runs(life.root, laboratory.whole) == []
    assert broken(life.root) == []
    return life


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_a_single_other_bit_is_a_fault(laboratory: Laboratory, life: Life, file: str) -> None:
    path = life.root / "run" / "checkpoints" / f"step-{LAST_STEP:08d}" / file
    tensors = load_file(path)
    name = max(tensors)
    tensors[name].view("uint8").reshape(-1)[-1] ^= 1
    save_file(tensors, path)
    assert differing_runs(life.root, laboratory.whole) == [
        f"{path.parent.name}/{file}: 1 tensors differ, such as {name}"
    ]


def test_other_lines_and_positions_are_faults_and_other_times_are_not(laboratory: Laboratory, life: Life) -> None:
    path = life.root / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"elapsed_s": 3.5}) + "\n" for line in lines))
    assert differing_runs(life.root, laboratory.whole) == []
    path.write_text("".join(json.dumps(line) + "\n" for line in (*lines, lines[-1])))
    assert differing_runs(life.root, laboratory.whole) == ["metrics.jsonl differs"]
    shutil.copy(laboratory.whole / "run" / "metrics.jsonl", path)
    progress = life.root / "run" / "checkpoints" / f"step-{LAST_STEP:08d}" / "training.json"
    progress.write_text(json.dumps(json.loads(progress.read_text()) | {"num_worse": 7}))
    (fault,) = differing_runs(life.root, laboratory.whole)
    assert "training.json" in fault
    assert "'num_worse': 7" in fault


def test_what_is_left_and_what_is_missing_are_faults(laboratory: Laboratory, life: Life) -> None:
    (life.root / "cache" / ".dead").touch()
    shutil.rmtree(next((life.root / "run" / "best").iterdir()))
    faults = differing_runs(life.root, laboratory.whole)
    assert [fault.split()[0] for fault in faults] == ["best", "cache"]


def test_half_a_checkpoint_under_its_name_is_a_fault(life: Life) -> None:
    path = life.root / "run" / "checkpoints" / f"step-{LAST_STEP:08d}"
    os.truncate(path / "optimizer.safetensors", 1009)
    (path.parent / "step-00000001").mkdir()
    assert sorted(broken(life.root)) == [f"checkpoints/{x} is not whole" for x in ("step-00000001", path.name)]


@pytest.mark.parametrize(
    ("signals", "status", "is_right"),
    [
        ("KILL", -signal.SIGKILL, True),
        ("KILL", 128 + signal.SIGKILL, True),
        ("KILL", 1, False),
        ("TERM", 143, True),
        ("TERM", -signal.SIGTERM, True),
        ("TERM", 130, False),
        ("INT", 130, True),
        ("INT INT", 130, True),
        ("INT", 2, False),
        ("INT", 0, True),
    ],
)
def test_the_status_tells_the_signal(signals: str, status: int, is_right: bool) -> None:
    kill = Kill("any time", 1, signals)
    assert (status_faults(kill, Ending(status, 1.0, "", "said")) == []) is is_right
    assert bool(status_faults(kill, Ending(status, None, "", "said"))) is bool(status), "it came without a signal"


def test_an_interrupted_import_may_end_in_another_error() -> None:
    for signals, is_right in (("INT", True), ("INT INT", True), ("TERM", False)):
        kill = Kill("importing", 1, signals)
        assert (status_faults(kill, Ending(1, 1.0, "numpy", "RecursionError")) == []) is is_right


def test_whoever_takes_long_to_end_is_at_fault() -> None:
    for status in (143, 0):  # 0: it went on to its end in spite of it
        assert status_faults(Kill("any time", 1, "TERM"), Ending(status, 31.0, "", "")) == ["took 31.0 s to end"]


def test_a_life_is_that_of_its_seed() -> None:
    assert draw_training(Random(7)) == draw_training(Random(7)) != draw_training(Random(11))


def test_the_table_counts_by_moment_and_signal() -> None:
    kills = [("train", Kill("pruning", number, "KILL"), number == 2) for number in (1, 2, 3)]
    kills.append(("average", Kill("averaging", 1, "INT"), False))
    assert {"train", "average"} <= set(KINDS)
    assert list(table(kills)) == [
        "tried/survived/lost",
        "| moment | KILL | TERM | INT | INT INT | XFSZ | all |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| average: averaging |  |  | 1/1/0 |  |  | 1/1/0 |",
        "| train: pruning | 3/2/1 |  |  |  |  | 3/2/1 |",
        "| all | 3/2/1 |  | 1/1/0 |  |  | 4/3/1 |",
    ]

"""Programs killed at the worst points and restarted end as if undisturbed, and differences would be detected."""

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
from run_lifecycle import LAST_STEP, Ending, Harness, Kill, Lifecycle, status_faults
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

TRAINING = [
    Kill("claiming the run", 3, "KILL"),  # with only half of config.yaml written
    Kill("training the tokenizer", 7, "INT"),
    Kill("training the tokenizer", 9, "KILL"),
    Kill("building the cache", 7, "KILL"),
    Kill("mid-write", 2, "XFSZ", limit=10_007),
    Kill("saving a checkpoint", 19, "TERM"),
    Kill("saving the best", 11, "KILL"),
    Kill("pruning", 3, "KILL"),  # of the best
    Kill("pruning", 6, "KILL"),
    Kill("inference", 2, "INT INT", delay_s=0.05),
    Kill("inference", 1, "TERM"),
    Kill("inference", 1, "HUP HUP", delay_s=0.02),
    Kill("writing metrics", 5, "INT"),
    Kill("final save", 13, "KILL"),
]
TUNING = [
    Kill("training the tokenizer", 2, "KILL"),  # that of the source, half written
    Kill("initialising", 2, "KILL"),
    Kill("saving a checkpoint", 5, "KILL"),  # the first one
    Kill("mid-write", 2, "XFSZ", limit=10_007),
    Kill("saving the best", 11, "TERM"),
    Kill("pruning", 3, "KILL"),
    Kill("inference", 2, "INT"),
    Kill("final save", 13, "KILL"),
]
CORPORA = [
    Kill("building the cache", 5, "KILL"),
    Kill("building the cache", 29, "KILL"),
    Kill("saving a checkpoint", 19, "TERM"),
    Kill("writing metrics", 5, "INT"),
    Kill("inference", 1, "KILL"),
    Kill("saving a checkpoint", 30, "KILL"),
    Kill("final save", 13, "KILL"),
]
# The thirteenth comes between the two renames that replace the average.
AVERAGING = [Kill("averaging", 11, "KILL"), Kill("averaging", 13, "KILL"), Kill("averaging", 12, "INT")]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    harness = Harness(tmp_path_factory.mktemp("kills"), is_forked=True)
    harness.prepare(["train", "tune", "corpora", "average"])
    return harness


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize(
    ("kind", "kills"), [("train", TRAINING), ("tune", TUNING), ("corpora", CORPORA), ("average", AVERAGING)]
)
def test_a_killed_program_ends_as_if_undisturbed(harness: Harness, kind: str, kills: list[Kill]) -> None:
    done, lifecycle = harness.run(kind, 1, kills)
    assert lifecycle.faults == []
    assert [kill for kill, _ in done] == kills, "all of them were reached"


@pytest.mark.slow
def test_a_killed_run_with_another_schedule_and_a_moving_average_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """In bfloat16, where training, its average and what computes are three sets of weights."""
    more = ", schedule: cosine, learning_rate: 0.01, decay_steps: 23, ema_decay: 0.9"
    harness = Harness(tmp_path, "bf16", more, is_forked=True)
    harness.prepare(["train"])
    kills = [
        Kill("saving a checkpoint", 19, "KILL"),
        Kill("saving the best", 11, "KILL"),
        Kill("inference", 2, "TERM"),
        Kill("mid-write", 2, "XFSZ", limit=10_007),
        Kill("writing metrics", 5, "KILL"),
    ]
    done, lifecycle = harness.run("train", 1, kills)
    assert lifecycle.faults == []
    assert [kill for kill, _ in done] == kills, "all of them were reached"


@pytest.mark.slow
def test_a_run_killed_while_a_thread_writes_its_checkpoints_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """Undisturbed, its checkpoints are written in the loop."""
    harness = Harness(tmp_path, is_forked=True, in_background=True)
    harness.prepare(["train"])
    kills = [
        Kill("mid-write", 2, "XFSZ", limit=10_007),
        Kill("saving a checkpoint", 19, "KILL"),
        Kill("saving a checkpoint", 12, "TERM"),
        Kill("saving the best", 11, "KILL"),
        Kill("pruning", 3, "KILL"),  # of the best
        Kill("saving the best", 5, "INT INT"),
        Kill("pruning", 6, "INT"),
        Kill("final save", 13, "KILL"),
        Kill("final save", 3, "INT"),
    ]
    done, lifecycle = harness.run("train", 1, kills)
    assert lifecycle.faults == []
    assert [kill for kill, _ in done] == kills, "all of them were reached"


@pytest.fixture
def lifecycle(harness: Harness, tmp_path: Path) -> Lifecycle:
    """A finished run without faults."""
    shutil.copytree(harness.reference, tmp_path / "lifecycle")
    lifecycle = Lifecycle(harness.scenarios[0], 1, tmp_path / "lifecycle")
    assert differing_runs(lifecycle.root, harness.reference) == []
    assert broken(lifecycle.root) == []
    return lifecycle


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_a_single_flipped_bit_is_a_fault(harness: Harness, lifecycle: Lifecycle, file: str) -> None:
    path = lifecycle.root / "run" / "checkpoints" / f"step-{LAST_STEP:08d}" / file
    tensors = load_file(path)
    name = max(tensors)
    tensors[name].view("uint8").reshape(-1)[-1] ^= 1
    save_file(tensors, path)
    assert differing_runs(lifecycle.root, harness.reference) == [
        f"{path.parent.name}/{file}: 1 tensors differ, such as {name}"
    ]


@pytest.mark.slow
def test_differing_records_are_faults_except_for_times(harness: Harness, lifecycle: Lifecycle) -> None:
    path = lifecycle.root / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"elapsed_s": 3.5}) + "\n" for line in lines))
    assert differing_runs(lifecycle.root, harness.reference) == []
    path.write_text("".join(json.dumps(line) + "\n" for line in (*lines, lines[-1])))
    assert differing_runs(lifecycle.root, harness.reference) == ["metrics.jsonl differs"]
    shutil.copy(harness.reference / "run" / "metrics.jsonl", path)
    progress = lifecycle.root / "run" / "checkpoints" / f"step-{LAST_STEP:08d}" / "training.json"
    progress.write_text(json.dumps(json.loads(progress.read_text()) | {"num_worse": 7}))
    (fault,) = differing_runs(lifecycle.root, harness.reference)
    assert "training.json" in fault
    assert "'num_worse': 7" in fault


@pytest.mark.slow
def test_leftovers_and_missing_files_are_faults(harness: Harness, lifecycle: Lifecycle) -> None:
    (lifecycle.root / "cache" / ".dead").touch()
    shutil.rmtree(next((lifecycle.root / "run" / "best").iterdir()))
    faults = differing_runs(lifecycle.root, harness.reference)
    assert [fault.split()[0] for fault in faults] == ["best", "cache"]


@pytest.mark.slow
def test_an_incomplete_checkpoint_is_a_fault(lifecycle: Lifecycle) -> None:
    path = lifecycle.root / "run" / "checkpoints" / f"step-{LAST_STEP:08d}"
    os.truncate(path / "optimizer.safetensors", 1009)
    (path.parent / "step-00000001").mkdir()
    assert sorted(broken(lifecycle.root)) == [f"checkpoints/{x} is not whole" for x in ("step-00000001", path.name)]


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
        ("HUP HUP", 129, True),
        ("INT", 0, True),
    ],
)
def test_the_status_must_match_the_signal(signals: str, status: int, is_right: bool) -> None:
    kill = Kill("pruning", 1, signals)
    assert (status_faults(kill, Ending(status, 1.0, "", "said")) == []) is is_right
    assert bool(status_faults(kill, Ending(status, None, "", "said"))) is bool(status), "it ended without a signal"


def test_an_interrupted_import_may_end_in_another_error() -> None:
    for signals, is_right in (("INT", True), ("INT INT", True), ("TERM", False)):
        kill = Kill("importing", 1, signals)
        assert (status_faults(kill, Ending(1, 1.0, "numpy", "RecursionError")) == []) is is_right
    for printed, is_right in (("RecursionError", True), ("device: cpu\nRecursionError", False)):
        assert (status_faults(Kill("any time", 1, "INT"), Ending(1, 1.0, "", printed)) == []) is is_right


def test_taking_long_to_end_is_a_fault() -> None:
    for status in (143, 0):  # 0: it went on to its end in spite of it
        assert status_faults(Kill("any time", 1, "TERM"), Ending(status, 31.0, "", "")) == ["took 31.0 s to end"]


def test_kills_are_determined_by_the_seed() -> None:
    assert draw_training(Random(7)) == draw_training(Random(7)) != draw_training(Random(11))


def test_the_table_counts_by_kill_point_and_signal() -> None:
    kills = [("train", Kill("pruning", number, "KILL"), number == 2) for number in (1, 2, 3)]
    kills.append(("average", Kill("averaging", 1, "INT"), False))
    assert {"train", "average"} <= set(KINDS)
    assert list(table(kills)) == [
        "tried/survived/lost",
        "| kill point | KILL | TERM | INT | INT INT | XFSZ | all |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| average: averaging |  |  | 1/1/0 |  |  | 1/1/0 |",
        "| train: pruning | 3/2/1 |  |  |  |  | 3/2/1 |",
        "| all | 3/2/1 |  | 1/1/0 |  |  | 4/3/1 |",
    ]

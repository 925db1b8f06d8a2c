"""The fuzzing harness catches every kind of fault, and every target holds on a few cases."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from harness import Case, fuzz
from targets import Targets, fuzz_target

from transformer.errors import DataError


def stats_of(case: Case, cases: int = 5, limit_s: float = 20.0) -> tuple[int, int, int, list[str]]:
    stats = fuzz("x", case, range(3, 3 + cases), seed=1, limit_s=limit_s, memory=1 << 29)
    return stats.cases, stats.ok, stats.errors, stats.faults


def test_results_and_expected_errors_are_not_faults() -> None:
    def case(rng: random.Random, directory: Path) -> None:
        assert not list(directory.iterdir())
        if rng.random() < 0.5:
            raise DataError("a line\nof a file")
        (directory / "left").touch()

    cases, ok, errors, faults = stats_of(case, 29)
    assert (cases, ok + errors, faults) == (29, 29, [])
    assert ok
    assert errors


def test_cases_are_reproducible(tmp_path: Path) -> None:
    def case(rng: random.Random, directory: Path) -> None:  # noqa: ARG001
        with (tmp_path / "numbers").open("a") as file:
            file.write(f"{rng.random()}\n")

    stats_of(case)
    stats_of(case)
    numbers = (tmp_path / "numbers").read_text().split()
    assert numbers[:5] == numbers[5:]
    assert len(set(numbers)) == 5


def crash(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(*_: object) -> None:
    os._exit(3)


def allocate(*_: object) -> None:
    bytearray(1 << 30)


def hang(*_: object) -> None:
    while True:
        time.sleep(0.01)


def hang_deaf_to_signals(*_: object) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    hang()


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        (crash, "SIGSEGV"),
        (leave, r"status 3"),
        (allocate, r"MemoryError: '' in test_harness\.py:\d+"),
        (hang, "takes too long"),
        (hang_deaf_to_signals, "SIGKILL"),
        (lambda *_: [].pop(), "IndexError: 'pop from empty list'"),
        (lambda *_: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
    ],
)
def test_each_kind_of_bug_is_a_fault_and_the_other_cases_still_run(bug: Case, message: str) -> None:
    calls = iter(range(100))

    def case(rng: random.Random, directory: Path) -> None:
        # Each child begins to count anew; only the first case of all has none before it.
        if next(calls) == 0 and rng.random() == random.Random("x 1 3").random():
            bug(rng, directory)

    cases, ok, errors, faults = stats_of(case, limit_s=2.0)  # on a busy machine too
    assert (cases, ok, errors, len(faults)) == (5, 4, 0, 1)
    assert faults[0].startswith("x case 3: ")
    assert re.search(message, faults[0])


@pytest.fixture(scope="module")
def clean_process() -> Iterator[ProcessPoolExecutor]:
    """A process that has run nothing else: tests before these may leave threads and arenas that no fork survives."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Targets:
    return Targets(tmp_path_factory.mktemp("fuzz") / "files")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "config",
        "override",
        "text file",
        "tree",
        "records",
        "tokenizer",
        "cache",
        "marian",
        "checkpoint",
        "command line",
        "translation",
        "tokenizer training",
        "table",
        "memory",
        "corpora",
    ],
)
def test_every_target_holds(clean_process: ProcessPoolExecutor, name: str, tmp_path: Path) -> None:
    number = {"table": 2, "command line": 5, "translation": 3, "checkpoint": 7}.get(name, 29)
    stats = clean_process.submit(fuzz_target, name, number, tmp_path).result()
    assert stats.faults == []
    assert stats.cases == number


def test_the_shares_of_the_targets_are_thousandths(targets: Targets) -> None:
    assert sum(target.share for target in targets.all().values()) == 1000

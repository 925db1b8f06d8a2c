"""Ranks end and save after the same update, although they exchange their reasons only now and then."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from transformer.config import TrainConfig
from transformer.training import agreement as agreement_module
from transformer.training.agreement import Agreement
from transformer.training.distributed import SINGLE_PROCESS, Abandoned, DistributedContext
from transformer.training.training_state import Progress
from transformer.training.validation import StopCheck

SIZE = 3


class Job:
    """Ranks in threads, which exchange through a barrier: it breaks if one of them does not come."""

    def __init__(self) -> None:
        self.num_exchanges = 0
        self._barrier = threading.Barrier(SIZE, timeout=20)
        self._values: dict[int, Any] = {}

    def all(self, rank: int, value: Any) -> list[Any]:
        self._values[rank] = value
        self._barrier.wait()
        found = [self._values[rank] for rank in range(SIZE)]
        self._barrier.wait()
        self.num_exchanges += rank == 0
        return found


class Rank(DistributedContext):
    """The rank of a thread."""

    def __init__(self, rank: int, job: Job) -> None:
        super().__init__(rank, SIZE, rank)
        object.__setattr__(self, "_job", job)

    def max(self, *values: float) -> list[float]:
        return [max(column) for column in zip(*self._job.all(self.rank, values), strict=True)]  # type: ignore[attr-defined]

    def all_gather(self, value: Any) -> list[Any]:
        return self._job.all(self.rank, value)  # type: ignore[attr-defined, no-any-return]


def train(context: DistributedContext, settings: TrainConfig, seed: int, update_s: float) -> dict[str, Any]:
    """The loop of a trainer with a clock of its own, which may be asked to stop; seed 0: it is not."""
    numbers, clock = random.Random(seed), SimpleNamespace(s=0.0)
    asked_s = numbers.uniform(0, 40 * update_s) if seed and numbers.random() < 0.15 else float("inf")
    thread.clock = clock
    agreement, progress, saves, saved_s = Agreement(settings, context), Progress(), [], 0.0
    should_stop = StopCheck(lambda: "SIGTERM" if clock.s >= asked_s else None)
    try:
        while (reason := agreement.reason_to_end(progress, should_stop)) is None:
            clock.s += numbers.uniform(0.5, 1.5) * update_s
            progress.step += 1
            progress.elapsed_s = clock.s
            is_saved = agreement.is_save_due(progress, clock.s - saved_s)
            if progress.step % settings.validate_steps == 0:
                progress.validated_step, progress.num_bad_validations = progress.step, progress.step // 8
            if is_saved:
                saves.append(progress.step)
                saved_s = clock.s
    except Abandoned:
        reason = agreement.first(should_stop.reason)
    return {"reason": reason, "step": progress.step, "saves": saves}


thread = threading.local()


@pytest.fixture(autouse=True)
def own_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement_module, "time", SimpleNamespace(monotonic=lambda: thread.clock.s))


def run(settings: TrainConfig, seed: int, update_s: float) -> tuple[dict[str, Any], int]:
    """What all ranks did, and how often they exchanged."""
    job = Job()
    with ThreadPoolExecutor(SIZE) as threads:
        ranks = [
            threads.submit(train, Rank(rank, job), settings, seed and 10 * seed + rank, update_s)
            for rank in range(SIZE)
        ]
        first, *others = [rank.result(60) for rank in ranks]
    assert others == [first] * (SIZE - 1)
    return first, job.num_exchanges


@pytest.mark.parametrize("update_s", [0.007, 0.3, 2.0])
@pytest.mark.parametrize(
    "settings",
    [
        {"max_steps": 53, "save_steps": 7},
        {"max_steps": 53, "max_hours": 20 / 3600, "save_minutes": 0.05},
        {"max_steps": 997, "validate_steps": 11, "patience": 3, "save_minutes": 0.01},
    ],
    ids=str,
)
def test_all_ranks_end_and_save_after_the_same_update(settings: dict[str, Any], update_s: float) -> None:
    ends = set()
    for seed in range(11):
        found, _ = run(TrainConfig(**settings), seed, update_s)
        ends.add(found["reason"].split(" ")[0])
        if "max_steps" in found["reason"]:
            assert found["step"] == settings["max_steps"], "not later"
        if "patience" in found["reason"]:
            assert found["step"] == 33, "the first validation after which there were three bad ones, of each 8 steps"
        if "save_steps" in settings:
            assert found["saves"] == list(range(7, found["step"] + 1, 7))
    assert "SIGTERM" in ends and len(ends) > 1, "some of them were asked to stop"


@pytest.mark.parametrize(("update_s", "most"), [(0.001, 15), (0.02, 60), (0.7, 1000)])
def test_ranks_exchange_twice_a_second_or_after_each_slower_update(update_s: float, most: int) -> None:
    found, number = run(TrainConfig(max_steps=997, save_minutes=None), 0, update_s)
    assert (found["step"], found["saves"]) == (997, [])
    assert most / 2 < number <= most


def test_a_single_process_looks_after_each_update() -> None:
    thread.clock = SimpleNamespace(s=0.0)
    agreement, progress, asked = Agreement(TrainConfig(max_steps=31), SINGLE_PROCESS), Progress(), []
    should_stop = StopCheck(lambda: asked.append(progress.step))  # type: ignore[func-returns-value]
    while agreement.reason_to_end(progress, should_stop) is None:
        progress.step += 1
    assert asked == list(range(31)), "and not once the last step is reached"


def test_a_reason_of_its_own_goes_before_a_request_to_stop() -> None:
    thread.clock = SimpleNamespace(s=0.0)
    agreement = Agreement(TrainConfig(max_steps=3), SINGLE_PROCESS)
    should_stop = StopCheck(lambda: "SIGTERM")
    assert agreement.reason_to_end(Progress(step=3), should_stop) == "train.max_steps=3 reached"
    with pytest.raises(Abandoned):
        agreement.reason_to_end(Progress(step=2), should_stop)

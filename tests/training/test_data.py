"""The updates that are sampled from the data of a run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from transformer.data.dataset import PairDataset, Side
from transformer.training.data import BatchSampler, Update, halve_batches
from transformer.training.distributed import SINGLE_PROCESS, DistributedContext
from transformer.training.training_state import Progress

UPDATE = Update(3, 0, 2, [torch.arange(5).numpy(), torch.arange(5, 11).numpy()])


def test_an_update_is_shown_as_step_position_and_pairs() -> None:
    assert str(UPDATE) == "step 3 (update 2 of epoch 0: pairs 0, 1, 2, 3, 4, 5, 6, 7 and 3 more)"
    assert str(Update(3, 0, 2, UPDATE.batches[:1])) == "step 3 (update 2 of epoch 0: pairs 0, 1, 2, 3, 4)"


def test_halving_keeps_all_pairs_in_order() -> None:
    batches = [torch.arange(7).numpy(), torch.tensor([11]).numpy()]
    assert [half.tolist() for half in halve_batches(batches)] == [[0, 1, 2, 3], [4, 5, 6], [11]]


@pytest.fixture
def dataset() -> PairDataset:
    """Pairs of 1 to 10 ids a side."""
    rng = np.random.default_rng(5)

    def side() -> Side:
        lengths = rng.integers(1, 11, 101)
        return Side(rng.integers(4, 31, lengths.sum()), lengths, np.cumsum(lengths) - lengths)

    return PairDataset(side(), side(), {}, "random")


def take(dataset: PairDataset, progress: Progress, number: int, context: DistributedContext) -> list[Update]:
    """The next updates."""
    sampler = BatchSampler(dataset, max_tokens=37, tokens_per_update=97, seed=7, context=context)
    updates = []
    for _ in range(number):
        updates.append(sampler.next(progress))
        progress.step += 1
    return updates


def pairs(updates: list[Update]) -> list[int]:
    return [int(i) for update in updates for batch in update.batches for i in batch]


def test_each_epoch_contains_every_pair_once_in_another_order(dataset: PairDataset) -> None:
    updates = take(dataset, Progress(), 20, SINGLE_PROCESS)
    first, second = ([update for update in updates if update.epoch == epoch] for epoch in (0, 1))
    assert updates[len(first) + len(second)].epoch == 2
    assert sorted(pairs(first)) == sorted(pairs(second)) == list(range(101))
    assert pairs(first) != pairs(second)
    assert [update.step for update in updates] == list(range(1, 21))
    assert [update.number for update in first] == list(range(1, len(first) + 1))


def test_sampling_resumes_at_any_position(dataset: PairDataset) -> None:
    expected = take(dataset, Progress(), 20, SINGLE_PROCESS)
    for stop in range(20):
        progress = Progress()
        take(dataset, progress, stop, SINGLE_PROCESS)
        assert [str(update) for update in take(dataset, progress, 20 - stop, SINGLE_PROCESS)] == list(
            map(str, expected[stop:])
        )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_ranks_share_the_pairs_of_an_update(dataset: PairDataset, size: int) -> None:
    shards, updates = [], []
    for rank in range(size):
        sampler = BatchSampler(dataset, 37, 97, 7, DistributedContext(rank, size))
        updates.append(sampler.next(Progress()))
        shards.append([int(i) for batch in sampler.shard(updates[-1]) for i in batch])
    assert sorted(itertools.chain(*shards)) == sorted(pairs(updates[:1]))
    assert all(shards)

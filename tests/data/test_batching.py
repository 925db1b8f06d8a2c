"""Batches and updates: every pair once, within the token budget, deterministic."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from transformer.data.batching import (
    Batch,
    bucket_by_length,
    collate,
    draw_updates,
    group_into_updates,
    pad,
    shard_update,
)
from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID

SEEDS = range(7)


def random_lengths(seed: int, longest: int = 31) -> tuple[Ints, Ints]:
    """Lengths of up to 400 pairs, with the dtype of datasets."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 401))
    src = rng.integers(2, longest, size, dtype=np.int32)
    return src, np.maximum(2, src + rng.integers(-5, 6, size)).astype(np.int32)


def plan(lengths: tuple[Ints, Ints], max_tokens: int, seed: int = 0) -> list[Ints]:
    return bucket_by_length(*lengths, max_tokens, np.random.default_rng(seed))


def updates(
    lengths: tuple[Ints, Ints], max_tokens: int = 113, tokens_per_update: int = 307, seed: int = 1, epoch: int = 0
) -> list[list[list[int]]]:
    found = group_into_updates(
        *lengths, max_tokens=max_tokens, tokens_per_update=tokens_per_update, seed=seed, epoch=epoch
    )
    return [[batch.tolist() for batch in update] for update in found]


def side(sentences: Sequence[Sequence[int]]) -> Side:
    lengths = np.array([len(ids) for ids in sentences], dtype=np.int32)
    ids = np.fromiter(itertools.chain.from_iterable(sentences), dtype=np.uint16)
    return Side(ids, lengths, np.cumsum(lengths) - lengths)


# Batches


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("max_tokens", [1, 37, 113, 10_007])
def test_every_pair_is_in_exactly_one_batch(seed: int, max_tokens: int) -> None:
    lengths = random_lengths(seed)
    batches = plan(lengths, max_tokens)
    assert all(len(batch) for batch in batches)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths[0])))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("max_tokens", [37, 113, 1009])
def test_neither_side_of_a_batch_exceeds_the_budget_unless_a_pair_alone_does(seed: int, max_tokens: int) -> None:
    src, tgt = random_lengths(seed, longest=53)
    batches = plan((src, tgt), max_tokens)
    for batch in batches:
        padded = len(batch) * max(src[batch].max(), tgt[batch].max())
        assert padded <= max_tokens or len(batch) == 1
    if max_tokens == 37:
        assert any(len(batch) == 1 and max(src[batch[0]], tgt[batch[0]]) > 37 for batch in batches)


def test_a_budget_that_is_met_exactly_is_used() -> None:
    lengths = np.full(15, 7), np.full(15, 5)
    assert [len(batch) for batch in plan(lengths, 35)] == [5, 5, 5]
    assert sorted(len(batch) for batch in plan(lengths, 34)) == [3, 4, 4, 4]


@pytest.mark.parametrize("seed", SEEDS)
def test_batches_are_those_of_filling_one_after_the_other_in_order_of_length(seed: int) -> None:
    # Lengths of the longer side without repetition leave one order only.
    rng = np.random.default_rng(seed)
    longer = rng.permutation(211) + 2
    sides = np.stack((longer, rng.integers(1, longer + 1)))
    src, tgt = rng.permuted(sides, axis=0)
    filled: list[list[int]] = [[]]
    for i in np.argsort(longer).tolist():
        longest = max(max(src[j], tgt[j]) for j in [*filled[-1], i])
        if filled[-1] and longest * (len(filled[-1]) + 1) > 997:
            filled.append([])
        filled[-1].append(i)
    assert sorted(batch.tolist() for batch in plan((src, tgt), 997, seed)) == sorted(filled)


@pytest.mark.parametrize("seed", SEEDS)
def test_lengths_of_two_batches_overlap_at_most_at_the_ends(seed: int) -> None:
    lengths = random_lengths(seed)
    longer = np.maximum(*lengths)
    ranges = sorted((int(longer[batch].min()), int(longer[batch].max())) for batch in plan(lengths, 113))
    assert all(longest <= next_shortest for (_, longest), (next_shortest, _) in itertools.pairwise(ranges))


def test_a_batch_across_two_lengths_holds_pairs_that_are_long_on_the_same_side() -> None:
    # Two to a batch: the lone pair of length 3 shifts the others across their lengths.
    src, tgt = np.array([3, 1, 4, 5, 1]), np.array([3, 4, 1, 1, 5])
    batches = plan((src, tgt), 10)
    assert sorted(sorted(batch.tolist()) for batch in batches) == [[0, 1], [2, 3], [4]]


def test_neither_the_order_of_batches_nor_that_of_equal_lengths_is_the_corpus_order() -> None:
    lengths = np.full(101, 7), np.full(101, 7)
    batches = plan(lengths, 49)
    assert np.concatenate(batches).tolist() != list(range(101))
    rising = np.arange(2, 103), np.arange(2, 103)
    order = [int(batch.max()) for batch in plan(rising, 211)]
    assert order != sorted(order)


def test_one_pair_is_one_batch_and_an_empty_corpus_has_no_batches() -> None:
    assert [batch.tolist() for batch in plan((np.array([5]), np.array([3])), 2)] == [[0]]
    assert plan((np.zeros(0, np.int32), np.zeros(0, np.int32)), 113) == []


def test_long_sentences_do_not_overflow_the_dtype_of_their_lengths() -> None:
    lengths = np.full(70_001, 256, np.int16), np.full(70_001, 256, np.int16)
    assert max(len(batch) for batch in plan(lengths, 10**7)) == 10**7 // 256


# Updates


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pair_is_in_exactly_one_update_of_an_epoch(seed: int) -> None:
    lengths = random_lengths(seed)
    flat = [i for update in updates(lengths) for batch in update for i in batch]
    assert sorted(flat) == list(range(len(lengths[0])))


def test_a_plan_is_a_function_of_its_arguments() -> None:
    lengths = random_lengths(3)
    np.random.seed(5)
    first = updates(lengths)
    np.random.seed(7)
    assert updates(lengths) == first
    assert updates(tuple(x.astype(np.int64) for x in lengths)) == first  # type: ignore[arg-type]


def test_seed_and_epoch_change_the_shuffle() -> None:
    lengths = random_lengths(3)
    # Seed 2 of epoch 3 is not seed 3 of epoch 2.
    plans = [updates(lengths, seed=seed, epoch=epoch) for seed in (1, 2, 3) for epoch in (0, 1, 2, 3)]
    assert all(one != other for one, other in itertools.combinations(plans, 2))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("max_tokens", "tokens_per_update"), [(61, 307), (113, 307), (113, 127), (1009, 307)])
def test_updates_come_as_near_to_their_size_as_whole_batches_allow(
    seed: int, max_tokens: int, tokens_per_update: int
) -> None:
    src, tgt = random_lengths(seed)
    found = updates((src, tgt), max_tokens, tokens_per_update)
    sizes = [[int(tgt[batch].sum()) for batch in update] for update in found]
    largest_batch = max(size for update in sizes for size in update)
    assert largest_batch <= min(max_tokens, tokens_per_update)
    for update in sizes[:-1]:
        assert abs(sum(update) - tokens_per_update) <= largest_batch / 2
    # The last has what is left over, of under half an update, besides.
    assert sum(sizes[-1]) < tokens_per_update * 3 / 2 + largest_batch / 2
    assert sum(sizes[-1]) >= tokens_per_update / 2 or len(sizes) == 1


def test_no_update_gets_closer_to_its_size_with_one_batch_more_or_less() -> None:
    src, tgt = random_lengths(5)
    found = updates((src, tgt))
    for update, following in itertools.pairwise(found[:-1]):
        size = tgt[np.concatenate(update)].sum()
        without, added = size - tgt[update[-1]].sum(), size + tgt[following[0]].sum()
        assert abs(size - 307) <= min(abs(without - 307), abs(added - 307))


def test_a_remainder_of_under_half_joins_the_last_update_and_a_larger_one_stands_alone() -> None:
    def sizes(num_pairs: int) -> list[int]:
        lengths = np.full(num_pairs, 5), np.full(num_pairs, 5)
        return [sum(map(len, update)) for update in updates(lengths, max_tokens=5, tokens_per_update=30)]

    assert sizes(12) == [6, 6]
    assert sizes(14) == [6, 8]  # 10 tokens left over
    assert sizes(15) == [6, 6, 3]  # 15, exactly half
    assert sizes(17) == [6, 6, 5]
    assert sizes(2) == [2]  # a whole epoch smaller than half an update


def test_an_epoch_without_pairs_has_no_updates() -> None:
    assert updates((np.zeros(0, np.int32), np.zeros(0, np.int32))) == []


def test_pairs_larger_than_an_update_are_updates_of_their_own() -> None:
    lengths = np.full(3, 11), np.full(3, 11)
    assert sorted(updates(lengths, max_tokens=100, tokens_per_update=7)) == [[[0]], [[1]], [[2]]]


def drawn(lengths: tuple[Ints, Ints], tokens_per_update: int = 307, seed: int = 1, epoch: int = 0) -> list[list[int]]:
    found = draw_updates(lengths[1], tokens_per_update=tokens_per_update, seed=seed, epoch=epoch)
    return [pairs.tolist() for [pairs] in found]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tokens_per_update", [7, 127, 307, 100_003])
def test_mixed_updates_have_every_pair_once_and_equally_many_tokens(seed: int, tokens_per_update: int) -> None:
    src, tgt = random_lengths(seed)
    found = drawn((src, tgt), tokens_per_update)
    assert sorted(i for update in found for i in update) == list(range(len(tgt)))
    number = max(1, round(int(tgt.sum()) / tokens_per_update))
    assert len(found) == number or tokens_per_update < 4 * tgt.max()
    assert all(abs(tgt[update].sum() - tgt.sum() / number) < 2 * tgt.max() for update in found)


def test_a_mixed_update_is_a_sample_of_all_lengths_at_another_place_in_each_epoch() -> None:
    lengths = np.arange(2, 403), np.arange(2, 403)
    first, second = drawn(lengths, 20_011), drawn(lengths, 20_011, epoch=1)
    assert first != second
    assert drawn(lengths, 20_011, seed=2) != first
    assert drawn(lengths, 20_011) == first
    for update in first:
        # Of 100 numbers drawn from 2 to 402, the mean is within three standard errors of 202, which are 35.
        assert abs(np.mean(lengths[0][update]) - 202) < 35


def test_an_epoch_without_pairs_has_no_mixed_updates() -> None:
    assert drawn((np.zeros(0, np.int32), np.zeros(0, np.int32))) == []


# Splits


def cost(batches: Sequence[Ints], src: Ints, tgt: Ints) -> float:
    """Tokens with padding, the mean of both sides, and 256 for each batch."""
    return sum(len(batch) * (int(src[batch].max()) + int(tgt[batch].max())) / 2 + 256 for batch in batches)


@pytest.mark.parametrize("seed", range(11))
def test_an_update_is_split_at_the_least_cost_of_all_splits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    longer = np.repeat(rng.choice(np.arange(2, 211), 7, replace=False), rng.integers(1, 41, 7))  # 7 lengths
    src, tgt = longer, np.maximum(1, longer - rng.integers(0, 5, len(longer)))
    [found] = [shard_update([np.arange(len(src))], src, tgt, max_tokens=10**6, rank=0, size=1)]
    groups = [np.flatnonzero(longer == length) for length in np.unique(longer)]
    best = min(
        cost([np.concatenate(groups[a:b]) for a, b in itertools.pairwise((0, *cuts, 7))], src, tgt)
        for number in range(7)
        for cuts in itertools.combinations(range(1, 7), number)
    )
    assert cost(found, src, tgt) == best
    assert sorted(np.concatenate(found).tolist()) == list(range(len(src)))


def test_pairs_of_one_length_are_split_evenly_where_they_exceed_the_budget() -> None:
    lengths = np.full(15, 7), np.full(15, 5)
    found = shard_update([np.arange(15)], *lengths, max_tokens=56, rank=0, size=1)
    assert [len(batch) for batch in found] == [8, 7]


# Shards


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [2, 3, 11])
def test_updates_are_sharded_evenly_and_within_the_budget(seed: int, size: int) -> None:
    src, tgt = random_lengths(seed)
    for update in group_into_updates(src, tgt, max_tokens=113, tokens_per_update=307, seed=seed, epoch=0):
        shards = [shard_update(update, src, tgt, max_tokens=113, rank=rank, size=size) for rank in range(size)]
        pairs = [np.concatenate([*shard, np.empty(0, dtype=np.int64)]) for shard in shards]
        assert sorted(np.concatenate(pairs).tolist()) == sorted(np.concatenate(update).tolist())
        assert max(map(len, pairs)) - min(map(len, pairs)) <= 1
        for batch in (batch for shard in shards for batch in shard):
            assert len(batch) * max(src[batch].max(), tgt[batch].max()) <= 113 or len(batch) == 1
        # Dealt out in order of length: no process has much more than another.
        longest = np.maximum(src, tgt)
        loads = [int(longest[of_one.astype(np.int64)].sum()) for of_one in pairs]
        assert max(loads) - min(loads) <= longest[np.concatenate(update)].max()


def test_a_process_without_pairs_has_no_batches() -> None:
    lengths = np.array([3, 5, 7], dtype=np.int32)
    update = [np.array([2]), np.array([0, 1])]
    shards = [shard_update(update, lengths, lengths, max_tokens=13, rank=rank, size=5) for rank in range(5)]
    assert [[batch.tolist() for batch in shard] for shard in shards] == [[[0]], [[1]], [[2]], [], []]


# Padding


def test_pad_pads_at_the_end() -> None:
    padded = pad([[5, 7], [11], [13, 17, 19]])
    torch.testing.assert_close(padded, torch.tensor([[5, 7, 0], [11, 0, 0], [13, 17, 19]]))
    assert padded.dtype == torch.int64


def test_pad_of_no_sentences_is_an_empty_matrix() -> None:
    assert pad([]).shape == (0, 0)
    assert pad([]).dtype == torch.int64
    assert pad([[], []]).shape == (2, 0)


def test_a_batch_is_padded_shifted_and_counted() -> None:
    dataset = PairDataset(
        src=side([[5, 7, EOS_ID], [11, EOS_ID], [13, 17, 19, 23, EOS_ID]]),
        tgt=side([[29, EOS_ID], [31, 37, 41, EOS_ID], [43, 47, EOS_ID]]),
        dropped={},
        fingerprint="",
    )
    batch = collate(dataset, np.array([2, 0]))
    pad_, bos, eos = PAD_ID, BOS_ID, EOS_ID
    torch.testing.assert_close(batch.src, torch.tensor([[13, 17, 19, 23, eos], [5, 7, eos, pad_, pad_]]))
    torch.testing.assert_close(batch.tgt_out, torch.tensor([[43, 47, eos], [29, eos, pad_]]))
    torch.testing.assert_close(batch.tgt_in, torch.tensor([[bos, 43, 47], [bos, 29, eos]]))
    torch.testing.assert_close(batch.target_positions, torch.tensor([0, 1, 2, 3, 4]))
    assert batch.num_tokens == 5
    batch = collate(dataset, np.array([0, 1]))
    torch.testing.assert_close(batch.target_positions, torch.tensor([0, 1, 4, 5, 6, 7]))
    torch.testing.assert_close(batch.tgt_in, torch.tensor([[bos, 29, eos, pad_], [bos, 31, 37, 41]]))


def test_a_batch_of_one_pair_has_no_padding() -> None:
    dataset = PairDataset(side([[5, EOS_ID], [7, 11, EOS_ID]]), side([[13, EOS_ID], [17, EOS_ID]]), {}, "")
    batch = collate(dataset, np.array([1]))
    torch.testing.assert_close(batch.src, torch.tensor([[7, 11, EOS_ID]]))
    torch.testing.assert_close(batch.tgt_in, torch.tensor([[BOS_ID, 17]]))
    torch.testing.assert_close(batch.tgt_out, torch.tensor([[17, EOS_ID]]))
    assert batch.num_tokens == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_collate_equals_padding_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sources, targets = (
        [[*rng.integers(4, 60_000, length).tolist(), EOS_ID] for length in rng.integers(1, 13, 17)] for _ in range(2)
    )
    dataset = PairDataset(side(sources), side(targets), {}, "")
    indices = rng.permutation(17)[: int(rng.integers(1, 17))]
    batch = collate(dataset, indices)
    chosen = [targets[i] for i in indices]
    width = max(map(len, chosen))
    torch.testing.assert_close(batch.src, pad([sources[i] for i in indices]))
    torch.testing.assert_close(batch.tgt_out, pad(chosen))
    torch.testing.assert_close(batch.tgt_in[:, 0], torch.full((len(indices),), BOS_ID))
    torch.testing.assert_close(batch.tgt_in[:, 1:], batch.tgt_out[:, :-1])
    real = [row * width + column for row, ids in enumerate(chosen) for column in range(len(ids))]
    torch.testing.assert_close(batch.target_positions, torch.tensor(real))
    assert batch.num_tokens == sum(map(len, chosen))
    assert {x.dtype for x in (batch.src, batch.tgt_in, batch.tgt_out, batch.target_positions)} == {torch.int64}


def test_a_batch_goes_to_a_device() -> None:
    batch = Batch(torch.tensor([[5, 3]]), torch.tensor([[2]]), torch.tensor([[3]]), torch.tensor([0]))
    assert batch.to(torch.device("cpu")) is batch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_on_a_gpu_is_the_same() -> None:
    batch = Batch(torch.tensor([[5, 3]]), torch.tensor([[2, 7]]), torch.tensor([[7, 3]]), torch.tensor([0, 1]))
    moved = batch.to(torch.device("cuda"))
    for name in ("src", "tgt_in", "tgt_out", "target_positions"):
        assert getattr(moved, name).is_cuda
        torch.testing.assert_close(getattr(moved, name).cpu(), getattr(batch, name))
    assert moved.num_tokens == 2


def test_a_batch_is_copied_to_devices_that_pin_no_memory() -> None:
    ids = torch.ones((2, 3), dtype=torch.int64)
    batch = Batch(ids, ids, ids, torch.arange(6))
    assert batch.to(torch.device("cpu")) is batch
    copied = batch.to(torch.device("meta"))
    assert {x.device.type for x in vars(copied).values()} == {"meta"}
    assert copied.num_tokens == 6

"""Updates as packed batches: how they are split, the one shape that they have, and what the keys mean."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_pairs import pairs_of

from transformer.config import Config, TrainConfig, load_config
from transformer.data.dataset import Ints, PairDataset
from transformer.errors import ConfigError
from transformer.model.transformer import Transformer
from transformer.training import train_step
from transformer.training.optimizer import MasterWeights
from transformer.training.packed.cuda_batch import PackedBatch, Shape
from transformer.training.packed.packers import GroupPacker, Packer, ShapePacker, packer_of
from transformer.training.run_keys import differing_keys
from transformer.training.train_step import accumulate_in_memory
from transformer.training.trainer import Trainer

NUM_PAIRS = 997


@pytest.fixture(scope="module")
def dataset() -> PairDataset:
    """Pairs of 2 to 97 ids a side, most of them short."""
    rng = np.random.default_rng(3)
    tgt = np.clip(rng.geometric(1 / 13, NUM_PAIRS) + 1, 2, 97)
    return pairs_of(np.clip(tgt + rng.integers(-3, 7, NUM_PAIRS), 2, 97), tgt)


def random_updates(dataset: PairDataset, number: int, num_tokens: int) -> list[Ints]:
    """Pairs at random, of about so many target tokens."""
    rng = np.random.default_rng(11)
    orders = [rng.permutation(NUM_PAIRS) for _ in range(number)]
    return [order[: np.searchsorted(dataset.tgt.lengths[order].cumsum(), num_tokens)] for order in orders]


def batches_of(packer: ShapePacker, dataset: PairDataset, indices: Ints) -> list[PackedBatch]:
    return [packer.collate(dataset, part) for part in packer.split(dataset, [indices])]


@pytest.mark.parametrize("max_tokens", [None, 701, 211, 89, 1])
def test_each_pair_is_in_one_batch_and_none_exceeds_the_limit(dataset: PairDataset, max_tokens: int | None) -> None:
    packer = ShapePacker(max_tokens)
    for update in random_updates(dataset, 5, 1301):
        parts = packer.split(dataset, np.array_split(update, 3))
        assert sorted(np.concatenate(parts)) == sorted(update)
        sizes = [max(int(side.lengths[part].sum()) for side in (dataset.src, dataset.tgt)) for part in parts]
        longest = max(int(side.lengths[update].max()) for side in (dataset.src, dataset.tgt))
        limit = max(max_tokens or 1 << 15, longest)
        assert max(sizes) <= limit
        whole = max(int(side.lengths[update].sum()) for side in (dataset.src, dataset.tgt))
        assert len(parts) >= -(-whole // limit)
        if limit > 3 * longest:
            assert len(parts) <= 1 + 1.5 * whole / limit


def test_an_update_within_the_limit_is_one_batch_in_its_order(dataset: PairDataset) -> None:
    (update,) = random_updates(dataset, 1, 1301)
    (part,) = ShapePacker().split(dataset, [update[:50], update[50:]])
    assert part.tolist() == update.tolist()


@pytest.mark.parametrize("packer", [ShapePacker(), GroupPacker()], ids=["one shape", "groups"])
def test_an_update_without_pairs_has_no_batches(dataset: PairDataset, packer: Packer) -> None:
    assert packer.split(dataset, []) == []


def test_batches_of_an_update_have_about_as_many_tokens_and_sentences(dataset: PairDataset) -> None:
    (update,) = random_updates(dataset, 1, 7001)
    parts = ShapePacker(1607).split(dataset, [update])
    assert len(parts) > 3
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    sizes = [int(dataset.tgt.lengths[part].sum()) for part in parts]
    assert max(sizes) < 1.2 * min(sizes)


@pytest.mark.parametrize("max_tokens", [None, 701])
def test_updates_of_about_the_same_size_get_one_shape(dataset: PairDataset, max_tokens: int | None) -> None:
    packer, shapes = ShapePacker(max_tokens), list[Shape]()
    for update in random_updates(dataset, 40, 4001):
        shapes += [batch.shape for batch in batches_of(packer, dataset, update)]
    assert len(set(shapes)) <= 3  # it may grow at first
    assert len(set(shapes[len(shapes) // 2 :])) == 1


def test_a_shape_has_little_room(dataset: PairDataset) -> None:
    packer = ShapePacker()
    (batch,) = batches_of(packer, dataset, np.arange(NUM_PAIRS))
    for size, side in zip(batch.shape[:2], (dataset.src, dataset.tgt), strict=True):
        assert 1 < size / int(side.lengths.sum()) < 1.045
    assert batch.shape.longest == 128


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(1, 300))
def test_a_new_shape_holds_the_batches_that_it_is_made_for(lengths: list[int], max_tokens: int) -> None:
    packer = ShapePacker(max_tokens)
    for batch in batches_of(packer, pairs_of(lengths, lengths), np.arange(len(lengths))):
        (ours,) = {int(part.sum()) for part in batch.lengths}
        assert batch.shape.holds(ours, ours, len(batch.lengths[0]), int(batch.lengths[0].max()))
        assert batch.numbers[: batch.shape.src].count_nonzero() == ours


# In groups


@pytest.mark.parametrize("max_tokens", [None, 701, 97, 1])
def test_each_pair_is_in_one_batch_of_about_the_limit_with_pairs_of_neighbouring_lengths(
    dataset: PairDataset, max_tokens: int | None
) -> None:
    update = np.random.default_rng(5).permutation(NUM_PAIRS)[:151]
    parts = GroupPacker(max_tokens).split(dataset, np.array_split(update, 3))
    assert sorted(np.concatenate(parts)) == sorted(update)
    limit = max_tokens or 4608
    longer = np.maximum(dataset.src.lengths, dataset.tgt.lengths)
    for part in parts:
        assert longer[part].sum() <= max(limit, longer[update].max())
    assert all(longer[one].max() <= longer[other].min() for one, other in itertools.pairwise(parts))
    if max_tokens is None:
        assert len(parts) == 1


def test_batches_that_do_not_fit_are_halved_in_this_update_alone(dataset: PairDataset) -> None:
    packer = GroupPacker()
    whole = packer.split(dataset, [np.arange(211)])
    halves = packer.halve(dataset, whole)
    assert [len(half) for half in halves] == [106, 105]
    assert np.concatenate(halves).tolist() == whole[0].tolist()
    longer = np.maximum(dataset.src.lengths, dataset.tgt.lengths)
    assert longer[halves[0]].max() <= longer[halves[1]].min()
    assert packer.max_tokens == 4608 and len(packer.split(dataset, halves)) == 1
    assert not packer.gives_up_compiling(RuntimeError())


# Halving


def test_halving_halves_this_update_and_all_later_ones(dataset: PairDataset) -> None:
    packer = ShapePacker()
    first, second = random_updates(dataset, 2, 4001)
    (whole,) = packer.split(dataset, [first])
    before = packer.shape
    halves = packer.halve(dataset, [whole])
    assert len(halves) in (2, 3) and sorted(np.concatenate(halves)) == sorted(first)
    assert before is not None and packer.shape is not None
    assert max(packer.shape[:2]) < 0.6 * max(before[:2])
    assert len(packer.split(dataset, [second])) in (2, 3)
    while len(halves) < len(first):
        number = len(halves)
        halves = packer.halve(dataset, halves)
        assert len(halves) > number


@pytest.mark.parametrize("packer", [ShapePacker(), GroupPacker(), None], ids=["one shape", "groups", "padded"])
def test_where_nothing_fits_halving_ends(packer: Packer | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside a pair so long that the others together are one batch."""
    pairs, halved = pairs_of([97, *[2] * 31], [97, *[2] * 31]), []

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(train_step, "accumulate_gradients", fail)
    weights = MasterWeights(make_model(), torch.float32)
    for indices in ([np.arange(32)], []):
        with pytest.raises(MemoryError, match="none left"):
            accumulate_in_memory(weights, pairs, indices, 0.1, 1, lambda: halved.append(1), packer=packer)
    assert 1 <= len(halved) <= 5


def test_a_batch_is_collated_after_its_update_was_split(dataset: PairDataset) -> None:
    with pytest.raises(ValueError, match=r"^an update is split before its batches are collated$"):
        ShapePacker().collate(dataset, np.arange(3))


@pytest.mark.parametrize("max_tokens", [-5, 0, math.nan])
def test_a_batch_has_room_for_a_token(max_tokens: Any) -> None:
    for packer in (ShapePacker, GroupPacker):
        with pytest.raises(ValueError, match=f"^max_tokens={max_tokens} must be at least 1$"):
            packer(max_tokens)


# The keys


def make_model() -> Transformer:
    return Transformer(31, d_model=24, num_layers=1, num_heads=3, d_ff=17)


def settings_of(**values: object) -> TrainConfig:
    return TrainConfig(**values)  # type: ignore[arg-type]


def test_on_a_cpu_batches_are_packed_in_groups_unless_that_is_off() -> None:
    assert packer_of(settings_of(packed=False), make_model(), 100_000) is None
    for packed in ("auto", True):
        packer = packer_of(settings_of(packed=packed, max_tokens=61), make_model(), 100_000)
        assert isinstance(packer, GroupPacker) and packer.max_tokens == 61


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"compile": True},
            "train.compile=true: only packed batches on CUDA, which have one shape, are compiled, and device=cpu; use "
            "auto or false",
        ),
        (
            {"compile": True, "packed": False},
            "train.compile=true: only packed batches on CUDA, which have one shape, are compiled, and "
            "train.packed=false; use auto or false",
        ),
    ],
)
def test_what_cannot_be_is_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        packer_of(settings_of(**values), make_model(), 100_000)
    assert str(raised.value) == message


def test_a_run_says_so_before_its_first_update(tiny_config: Config, tmp_path: Path) -> None:
    (tmp_path / "packed.yaml").write_text(tiny_config.to_yaml())
    overrides = ["train.packed=true", "model.positional=alibi"]
    with pytest.raises(ConfigError, match=r"^train\.packed=true: encoder\.layers\.0\.self_attention\.attention is a"):
        Trainer.from_config(load_config(tmp_path / "packed.yaml", overrides))


@pytest.mark.parametrize("value", ["off", "1", "automatic", "null"])
def test_other_values_are_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "empty.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=r"^train\.packed"):
        load_config(tmp_path / "empty.yaml", [f"train.packed={value}"])


def test_a_run_with_the_former_default_of_max_tokens_may_go_on_with_the_new_one() -> None:
    before, now = Config(train=TrainConfig(max_tokens=4096)), Config()
    assert now.train.max_tokens is None and now.train.padded_tokens == 4096
    assert differing_keys(before, now) == []
    assert differing_keys(now, Config(train=TrainConfig(max_tokens=61))) == ["train.max_tokens: null there, 61 here"]


def test_a_run_says_how_it_batches(tiny_config: Config, tmp_path: Path) -> None:
    assert "batches: packed" in Trainer.from_config(tiny_config).summary().splitlines()
    model = dataclasses.replace(tiny_config.model, positional="alibi")
    other = dataclasses.replace(tiny_config, model=model, run_dir=str(tmp_path / "other"))
    [line] = [line for line in Trainer.from_config(other).summary().splitlines() if line.startswith("batches")]
    assert line.startswith("batches: padded, as encoder.layers.0.self_attention.attention is a ")


def test_padded_batches_instead_of_packed_ones_that_are_asked_for_are_refused() -> None:
    model = make_model()
    model.register_forward_hook(lambda *_: None)
    assert not GroupPacker().takes(model)
    with pytest.raises(ConfigError, match=r"^train\.packed=true: the model has a hook, .*; use auto or false$"):
        GroupPacker(is_forced=True).takes(model)

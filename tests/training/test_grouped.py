"""Packed batches on a CPU: how updates are split, what is drawn and what a run says; their numbers: test_packed.py."""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.config import Config
from transformer.data.batching import collate
from transformer.data.dataset import PairDataset, Side
from transformer.data.tokenizer import BOS_ID
from transformer.errors import ConfigError
from transformer.model.transformer import Transformer
from transformer.training import grouped
from transformer.training.grouped import GroupPacker, collate_grouped
from transformer.training.packed import Shape, collate_packed
from transformer.training.train_step import batch_loss
from transformer.training.trainer import Trainer

V, NUM_PAIRS = 31, 211


def side(rng: np.random.Generator, lengths: np.ndarray) -> Side:  # type: ignore[type-arg]
    return Side(
        rng.integers(4, V, lengths.sum()).astype(np.uint16), lengths.astype(np.int32), lengths.cumsum() - lengths
    )


@pytest.fixture(scope="module")
def dataset() -> PairDataset:
    """Pairs of 1 to 41 ids a side."""
    rng = np.random.default_rng(3)
    lengths = np.clip(rng.geometric(1 / 11, (2, NUM_PAIRS)), 1, 41)
    return PairDataset(side(rng, lengths[0]), side(rng, lengths[1]), {}, "random")


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


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


def test_an_update_without_pairs_has_no_batches(dataset: PairDataset) -> None:
    assert GroupPacker().split(dataset, []) == []


def test_targets_are_shifted_within_their_sentences(dataset: PairDataset) -> None:
    batch = collate_grouped(dataset, np.array([7, 3, 11]))
    assert sorted(batch.lengths[1]) == sorted(dataset.tgt.lengths[[7, 3, 11]])
    start = 0
    for length in batch.lengths[1]:
        rows = slice(start, start + int(length))
        assert batch.tgt_in[rows].tolist() == [BOS_ID, *batch.tgt_out[rows][:-1].tolist()]
        assert batch.tgt_positions[rows].tolist() == list(range(length))
        start += int(length)
    assert (start, batch.shape) == (batch.num_tokens, (len(batch.src), batch.num_tokens))
    assert batch.to(torch.device("cpu")) is batch
    with pytest.raises(ValueError, match=r"^a batch in groups is for a CPU, not for cuda:1; `collate_packed` makes"):
        batch.to(torch.device("cuda:1"))


def test_a_batch_has_a_pair(dataset: PairDataset) -> None:
    none = np.zeros(0, np.int64)
    for collated in (collate_grouped, partial(collate_packed, shape=Shape(64, 64, 3, 64))):
        with pytest.raises(ValueError, match=r"^a batch needs a pair$"):
            collated(dataset, none)


@settings(max_examples=23, deadline=None)
@given(indices=st.lists(st.integers(0, NUM_PAIRS - 1), min_size=1, max_size=29), cost=st.sampled_from([1, 7, 10**6]))
def test_any_groups_have_the_numbers_of_the_padded_batch(dataset: PairDataset, indices: list[int], cost: int) -> None:
    torch.manual_seed(3)
    model = Transformer(V, d_model=11, num_layers=1, num_heads=3, d_ff=17, d_k=5, d_v=2, dropout=0.0).double()
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "_GROUP_COST", cost)
        for batch in (collate_grouped(dataset, np.array(indices)), collate(dataset, np.array(indices))):
            model.zero_grad()
            loss, nll = batch_loss(model, batch, 0.1)
            loss.backward()
            found.append({"loss": loss.detach(), "nll": nll, **gradients(model)})
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_weights_of_attention_are_dropped_in_each_group(dataset: PairDataset) -> None:
    torch.manual_seed(3)
    model = Transformer(V, d_model=12, num_layers=1, num_heads=3, d_ff=17, dropout=0.0).double()
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.self_attention.attention.dropout.p = 0.5
    batch = collate_grouped(dataset, np.arange(7))
    assert batch_loss(model, batch, 0.1)[0] != batch_loss(model, batch, 0.1)[0]
    model.eval()
    assert batch_loss(model, batch, 0.1)[0] == batch_loss(model, batch, 0.1)[0]


def test_batches_that_do_not_fit_are_halved_in_this_update_alone(dataset: PairDataset) -> None:
    packer = GroupPacker()
    whole = packer.split(dataset, [np.arange(NUM_PAIRS)])
    halves = packer.halve(dataset, whole)
    assert [len(half) for half in halves] == [106, 105]
    assert np.concatenate(halves).tolist() == whole[0].tolist()
    longer = np.maximum(dataset.src.lengths, dataset.tgt.lengths)
    assert longer[halves[0]].max() <= longer[halves[1]].min()
    assert packer.max_tokens == 4608 and len(packer.split(dataset, halves)) == 1
    assert not packer.gives_up_compiling(RuntimeError())


def test_a_run_says_how_it_batches(tiny_config: Config, tmp_path: Path) -> None:
    assert "batches: packed" in Trainer.from_config(tiny_config).summary().splitlines()
    model = dataclasses.replace(tiny_config.model, positional="alibi")
    other = dataclasses.replace(tiny_config, model=model, run_dir=str(tmp_path / "other"))
    [line] = [line for line in Trainer.from_config(other).summary().splitlines() if line.startswith("batches")]
    assert line.startswith("batches: padded, as encoder.layers.0.self_attention.attention is a ")


def test_padded_batches_instead_of_packed_ones_that_are_asked_for_are_refused() -> None:
    model = Transformer(V, d_model=12, num_layers=1, num_heads=3, d_ff=17)
    model.register_forward_hook(lambda *_: None)
    assert not GroupPacker().takes(model)
    with pytest.raises(ConfigError, match=r"^train\.packed=true: the model has a hook, .*; use auto or false$"):
        GroupPacker(is_forced=True).takes(model)

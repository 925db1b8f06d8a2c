"""Packed batches on a CPU: what stands in them, and the numbers of any groups; test_cuda_batch.py tries all models."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_pairs import VOCAB_SIZE, pairs_of

from transformer.data.batching import collate
from transformer.data.dataset import PairDataset
from transformer.data.tokenizer import BOS_ID
from transformer.model.transformer import Transformer
from transformer.training.packed import cpu_batch
from transformer.training.packed.cpu_batch import collate_grouped
from transformer.training.packed.cuda_batch import Shape, collate_packed
from transformer.training.train_step import batch_loss

NUM_PAIRS = 211


@pytest.fixture(scope="module")
def dataset() -> PairDataset:
    """Pairs of 1 to 41 ids a side."""
    return pairs_of(*np.clip(np.random.default_rng(3).geometric(1 / 11, (2, NUM_PAIRS)), 1, 41))


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


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
    model = Transformer(VOCAB_SIZE, d_model=11, num_layers=1, num_heads=3, d_ff=17, d_k=5, d_v=2, dropout=0.0).double()
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_batch, "_GROUP_COST", cost)
        for batch in (collate_grouped(dataset, np.array(indices)), collate(dataset, np.array(indices))):
            model.zero_grad()
            loss, nll = batch_loss(model, batch, 0.1)
            loss.backward()
            found.append({"loss": loss.detach(), "nll": nll, **gradients(model)})
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_weights_of_attention_are_dropped_in_each_group(dataset: PairDataset) -> None:
    torch.manual_seed(3)
    model = Transformer(VOCAB_SIZE, d_model=12, num_layers=1, num_heads=3, d_ff=17, dropout=0.0).double()
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.self_attention.attention.dropout.p = 0.5
    batch = collate_grouped(dataset, np.arange(7))
    assert batch_loss(model, batch, 0.1)[0] != batch_loss(model, batch, 0.1)[0]
    model.eval()
    assert batch_loss(model, batch, 0.1)[0] == batch_loss(model, batch, 0.1)[0]

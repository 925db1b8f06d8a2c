"""One update and one validation."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.data.batching import Batch, collate
from transformer.data.dataset import PairDataset, Side
from transformer.data.tokenizer import EOS_ID, PAD_ID
from transformer.model.transformer import Transformer
from transformer.training.loss import label_smoothed_loss
from transformer.training.precision import MasterWeights
from transformer.training.step import batch_loss, train_step, validation_nll

VOCAB_SIZE = 31
NUM_PAIRS = 13
CPU = torch.device("cpu")


def make_model(dropout: float = 0.0) -> Transformer:
    torch.manual_seed(3)
    return Transformer(VOCAB_SIZE, d_model=22, num_layers=2, num_heads=3, d_ff=29, d_k=7, d_v=5, dropout=dropout)


def random_side(rng: np.random.Generator) -> Side:
    lengths = rng.integers(1, 11, NUM_PAIRS)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    ids = rng.integers(EOS_ID + 1, VOCAB_SIZE, lengths.sum())
    ids[starts + lengths - 1] = EOS_ID
    return Side(ids, lengths, starts)


@pytest.fixture
def dataset() -> PairDataset:
    """Random pairs, 1 to 10 ids a side."""
    rng = np.random.default_rng(5)
    return PairDataset(random_side(rng), random_side(rng), {}, "random")


def batches_of(dataset: PairDataset, sizes: Sequence[int]) -> list[Batch]:
    """The pairs in order, so many to each batch."""
    assert sum(sizes) == NUM_PAIRS
    return [collate(dataset, indices) for indices in np.split(np.arange(NUM_PAIRS), np.cumsum(sizes)[:-1])]


def update(model: Transformer, batches: list[Batch], label_smoothing: float = 0.1) -> tuple[dict[str, Tensor], Tensor]:
    """The gradients by name, and the two sums, of one update that starts from `model`."""
    weights = MasterWeights(copy.deepcopy(model), torch.float32)
    sums = torch.stack(train_step(weights, batches, label_smoothing))
    gradients = {name: parameter.grad for name, parameter in weights.master.named_parameters()}
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}, sums


def reference_sums(model: Transformer, dataset: PairDataset, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Loss and NLL of all pairs in one batch, by way of `forward` and all its logits."""
    (batch,) = batches_of(dataset, [NUM_PAIRS])
    is_real = batch.tgt_out != PAD_ID
    return label_smoothed_loss(model(batch.src, batch.tgt_in)[is_real], batch.tgt_out[is_real], label_smoothing)


@pytest.mark.parametrize("sizes", [(6, 7), (2, 3, 8), (11, 1, 1), (1,) * NUM_PAIRS], ids=str)
def test_one_batch_equals_its_micro_batches(dataset: PairDataset, sizes: tuple[int, ...]) -> None:
    model = make_model()
    whole, whole_sums = update(model, batches_of(dataset, [NUM_PAIRS]))
    split, split_sums = update(model, batches_of(dataset, sizes))
    assert whole.keys() == dict(model.named_parameters()).keys()
    assert_close(split, whole, rtol=0, atol=1e-6)
    assert_close(split_sums, whole_sums, rtol=1e-6, atol=0)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_an_update_is_that_of_the_logits_at_real_positions(dataset: PairDataset, label_smoothing: float) -> None:
    model = make_model()
    gradients, sums = update(model, batches_of(dataset, [2, 3, 8]), label_smoothing)
    loss, nll = reference_sums(model, dataset, label_smoothing)
    (loss / int(dataset.tgt.lengths.sum())).backward()
    assert_close(sums, torch.stack((loss, nll)).detach(), rtol=1e-6, atol=0)
    assert_close(gradients, {name: p.grad for name, p in model.named_parameters()}, rtol=0, atol=1e-6)


def test_more_padding_changes_neither_loss_nor_gradients(dataset: PairDataset) -> None:
    model = make_model()
    (batch,) = batches_of(dataset, [NUM_PAIRS])
    src, tgt_in, tgt_out = (
        torch.nn.functional.pad(ids, (0, extra), value=PAD_ID)
        for ids, extra in ((batch.src, 5), (batch.tgt_in, 3), (batch.tgt_out, 3))
    )
    padded = Batch(src, tgt_in, tgt_out, (tgt_out.flatten() != PAD_ID).nonzero().flatten())
    assert padded.num_tokens == batch.num_tokens == dataset.tgt.lengths.sum()
    expected, expected_sums = update(model, [batch])
    actual, actual_sums = update(model, [padded])
    assert_close(actual, expected, rtol=0, atol=1e-6)
    assert_close(actual_sums, expected_sums, rtol=1e-6, atol=0)


def test_what_the_decoder_reads_at_padded_positions_does_not_matter(dataset: PairDataset) -> None:
    model = make_model()
    (batch,) = batches_of(dataset, [NUM_PAIRS])
    is_padding = batch.tgt_out == PAD_ID
    assert is_padding.any()
    nonsense = Batch(batch.src, batch.tgt_in.masked_fill(is_padding, 17), batch.tgt_out, batch.real)
    assert torch.equal(torch.stack(batch_loss(model, nonsense, 0.1)), torch.stack(batch_loss(model, batch, 0.1)))


def test_gradients_of_a_bfloat16_model_are_added_up_in_float32(dataset: PairDataset) -> None:
    weights = MasterWeights(make_model(), torch.bfloat16)
    batches = batches_of(dataset, [2, 3, 8])
    num_tokens = sum(batch.num_tokens for batch in batches)
    expected = {name: torch.zeros_like(p) for name, p in weights.master.named_parameters()}
    for batch in batches:
        model = copy.deepcopy(weights.model)
        (batch_loss(model, batch, 0.1)[0] / num_tokens).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            expected[name] += parameter.grad.float()
    train_step(weights, batches, 0.1)
    assert_close({name: p.grad for name, p in weights.master.named_parameters()}, expected, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in weights.model.parameters())


@pytest.mark.parametrize("max_tokens", [1, 23, 1009])
def test_validation_is_the_mean_nll_however_it_is_batched(dataset: PairDataset, max_tokens: int) -> None:
    model = make_model()
    expected = reference_sums(model, dataset, 0.1)[1].item() / int(dataset.tgt.lengths.sum())
    assert validation_nll(model, dataset, max_tokens, CPU) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("is_training", [True, False])
def test_validation_does_without_dropout_and_leaves_the_mode_as_it_was(dataset: PairDataset, is_training: bool) -> None:
    without, model = make_model(), make_model(dropout=0.5).train(is_training)
    assert validation_nll(model, dataset, 23, CPU) == validation_nll(without, dataset, 23, CPU)
    assert [module.training for module in model.modules()] == [is_training] * len(list(model.modules()))


def test_validation_draws_no_random_numbers_and_leaves_no_gradients(dataset: PairDataset) -> None:
    model = make_model(dropout=0.5)
    before = torch.get_rng_state()
    validation_nll(model, dataset, 23, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())

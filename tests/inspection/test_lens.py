"""The lens after l layers is the model without its later layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.data.batching import Batch
from transformer.inspection import lens
from transformer.inspection.examples import is_target
from transformer.inspection.lens import lens_logits, logit_lens, read_sentence
from transformer.inspection.stacks import record_stacks
from transformer.model.transformer import Transformer
from transformer.training.loss import label_smoothed_cross_entropy

Make = Callable[..., Transformer]


def without_later_layers(model: Transformer, batch: Batch, depth: int) -> Tensor:
    """Logits (N, V) of the decoder's first layers alone."""
    state = model.encode(batch.src)
    layers = model.decoder.layers
    try:
        model.decoder.layers = nn.ModuleList(list(layers)[:depth])  # type: ignore[assignment]
        return model.logits(model.decode(batch.tgt_in, state)[0])[is_target(batch)]
    finally:
        model.decoder.layers = layers


@torch.no_grad()
def test_the_lens_is_the_model_without_its_later_layers(any_model: Transformer, batch: Batch) -> None:
    _, call = record_stacks(any_model, batch)
    for depth in (1, 2, 3):
        expected = without_later_layers(any_model, batch, depth)
        assert_close(lens_logits(any_model, call, depth), expected, rtol=0, atol=1e-11)
    assert_close(lens_logits(any_model, call, 3), any_model(batch.src, batch.tgt_in)[is_target(batch)])


@torch.no_grad()
def test_depth_0_reads_the_embedding_itself(make_model: Make, batch: Batch) -> None:
    model = make_model("untied")
    _, call = record_stacks(model, batch)
    embedded = model.target_positions(model.embedding(batch.tgt_in, is_target=True))[is_target(batch)]
    weight, bias = model.embedding.output_weight, model.embedding.output_bias
    assert_close(lens_logits(model, call, 0), embedded @ weight.T + bias)


@pytest.mark.parametrize("variant", ["paper", "pre"])
@torch.no_grad()
def test_the_numbers_are_those_of_all_positions_one_by_one(make_model: Make, batch: Batch, variant: str) -> None:
    model = make_model(variant)
    real = is_target(batch)
    logits = [without_later_layers(model, batch, depth).numpy() for depth in (1, 2, 3)]
    final = logits[-1].argmax(-1)
    p_final = np.exp(logits[-1]) / np.exp(logits[-1]).sum(-1, keepdims=True)
    found = logit_lens(model, [batch])
    assert [depth.layer for depth in found] == [0, 1, 2, 3]
    for depth, scores in zip(found[1:], logits, strict=True):
        p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        for rated, tokens in (
            (depth.final, final),
            (depth.reference, batch.tgt_out[real].numpy()),
            (depth.current, batch.tgt_in[real].numpy()),
        ):
            ranks = [1 + int((row > row[token]).sum()) for row, token in zip(scores, tokens, strict=True)]
            assert rated.first == pytest.approx(np.mean([rank == 1 for rank in ranks]))
            assert rated.median_rank == sorted(ranks)[(len(ranks) - 1) // 2]
            assert rated.probability == pytest.approx(p[range(len(tokens)), tokens].mean())
        assert depth.nll == pytest.approx(-np.log(p[range(len(final)), batch.tgt_out[real].numpy()]).mean())
        assert depth.entropy == pytest.approx(-(p * np.log(p)).sum(-1).mean())
        assert depth.divergence == pytest.approx((p_final * np.log(p_final / p)).sum(-1).mean(), abs=1e-12)


def test_the_last_depth_has_the_loss_and_the_choice_of_the_model(any_model: Transformer, batch: Batch) -> None:
    last = logit_lens(any_model, [batch])[-1]
    rows = any_model(batch.src, batch.tgt_in)[is_target(batch)]
    _, nll = label_smoothed_cross_entropy(rows, batch.tgt_out[is_target(batch)])
    assert last.nll == pytest.approx(float(nll.detach()) / batch.num_tokens)
    assert (last.final.first, last.final.median_rank, last.divergence) == (1, 1, pytest.approx(0, abs=1e-12))


def test_batches_and_blocks_of_positions_do_not_change_the_numbers(
    make_model: Make, batch: Batch, pairs: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    whole = logit_lens(model, [batch])
    monkeypatch.setattr(lens, "_CHUNK_NUMEL", 3 * 31)  # three positions at a time
    for a, b in zip(whole, logit_lens(model, pairs), strict=True):
        assert (a.nll, a.divergence, a.entropy) == pytest.approx((b.nll, b.divergence, b.entropy), abs=1e-12)
        assert (a.final.first, a.reference.median_rank) == (b.final.first, b.reference.median_rank)


@torch.no_grad()
def test_a_sentence_is_read_at_every_depth(make_model: Make, pairs: list[Batch], batch: Batch) -> None:
    model = make_model("pre")
    readings = read_sentence(model, pairs[1])
    for depth in (1, 2, 3):
        p = without_later_layers(model, pairs[1], depth).softmax(-1)
        assert readings[depth].choices == p.argmax(-1).tolist()
        assert readings[depth].probabilities == pytest.approx(p.amax(-1).tolist())
    assert readings[3].final_ranks == [1] * 5
    of_final = [int((row > row[i]).sum()) + 1 for row, i in zip(p.log(), readings[3].choices, strict=True)]
    assert of_final == readings[3].final_ranks
    with pytest.raises(ValueError, match=r"^give a batch of one pair; this one has 3$"):
        read_sentence(model, batch)

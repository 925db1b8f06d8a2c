"""Packed batches, on CUDA and on a CPU: the numbers of padded ones, whatever is beside a sentence."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_pairs import VOCAB_SIZE, pairs_of, random_pairs
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.data.batching import collate
from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.tokenizer import BOS_ID, PAD_ID
from transformer.errors import ConfigError
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer
from transformer.training.freezing import freeze
from transformer.training.packed.cpu_batch import collate_grouped
from transformer.training.packed.cuda_batch import PackedBatch, Shape, collate_packed, packed_states
from transformer.training.packed.models import model_obstacle
from transformer.training.recomputation import recompute_layers
from transformer.training.train_step import AnyBatch, batch_loss

NUM_PAIRS, LONGEST = 13, 11
SHAPE = Shape(src=101, tgt=103, sentences=29, longest=LONGEST)

# Parts of a model, each with its choices; all pairs of choices are tried.
CHOICES: dict[str, list[dict[str, Any]]] = {
    "norm": [{}, {"norm": "pre"}],
    "positional": [
        *({"positional": name} for name in ("sinusoidal", "none", "shaw", "t5", "alibi", "rotary")),
        {"positional": "learned", "max_positions": LONGEST},
    ],
    "score": [{"attention_score": name} for name in ("scaled_dot", "dot", "general", "additive", "cosine", "location")],
    "scale": [{}, {"attention_temperature": 0.7}, {"attention_window": 3}],
    "tie": [{"tie": name} for name in ("all", "decoder", "none")],
    "heads": [{}, {"num_kv_heads": 1}, {"d_v": 5}],
    "depths": [{}, {"num_layers": 1, "num_decoder_layers": 2}],
    "details": [{}, {"activation": "gelu", "attention_bias": True}, {"activation": "swish"}],
    "recomputed": [{}, {"recomputed": True}],
    "vocabularies": [{}, {"source_vocab_size": 37}],
    "output": [{}, {"output_bias": True}],
}
# What flash attention cannot do, or what needs sentences in rows.
REFUSED = [
    *({"positional": name} for name in ("shaw", "t5", "alibi", "rotary")),
    *({"attention_score": name} for name in ("additive", "location")),
    {"attention_window": 3},
]


def combinations() -> list[dict[str, Any]]:
    """Every choice with every choice of another part, as far as a model can have both."""
    found = []
    for one, other in itertools.combinations(CHOICES.values(), 2):
        for options in itertools.starmap(lambda x, y: x | y, itertools.product(one, other)):
            sizes = {"tie": "decoder"} if "source_vocab_size" in options and options.get("tie") in (None, "all") else {}
            try:
                ModelConfig(**{"d_k": 6} | {key: options[key] for key in options if key not in OF_THE_RUN})
            except ConfigError:
                continue
            if options | sizes not in found:
                found.append(options | sizes)
    return found


OF_THE_RUN = ("recomputed", "source_vocab_size")


def make_model(**options: Any) -> Transformer:
    """A small model whose parameters would all show a mistake; float64, in training, without dropout."""
    torch.manual_seed(3)
    sizes = {"d_model": 11, "num_layers": 1, "num_heads": 3, "d_ff": 17, "d_k": 6, "dropout": 0.0}
    values = {key: value for key, value in (sizes | options).items() if key not in OF_THE_RUN}
    model = build_model(VOCAB_SIZE, ModelConfig(**values), source_vocab_size=options.get("source_vocab_size")).double()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    if options.get("recomputed"):
        recompute_layers(model)
    return model


@pytest.fixture(scope="module")
def dataset() -> PairDataset:
    return random_pairs(NUM_PAIRS, LONGEST)


EVERYTHING = np.arange(NUM_PAIRS)


def sums_and_gradients(model: Transformer, *batches: AnyBatch) -> dict[str, Tensor]:
    """Loss and NLL, and gradients by name, summed over batches."""
    model.zero_grad()
    sums: list[Any] = [0.0, 0.0]
    for batch in batches:
        loss, nll = batch_loss(model, batch, 0.1)
        loss.backward()
        sums = [sums[0] + loss.detach(), sums[1] + nll]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"sums": torch.stack(sums), **gradients}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


def packed(dataset: PairDataset, indices: Ints = EVERYTHING, shape: Shape = SHAPE) -> PackedBatch:
    return collate_packed(dataset, indices, shape)


# The laws


@pytest.mark.parametrize("options", combinations(), ids=str)
def test_a_packed_batch_has_the_numbers_of_a_padded_one_or_is_refused(
    dataset: PairDataset, options: dict[str, Any]
) -> None:
    model = make_model(**options)
    is_refused = any(refused.items() <= options.items() for refused in REFUSED)
    assert (model_obstacle(model) is not None) == is_refused
    if not is_refused:
        expected = sums_and_gradients(model, collate(dataset, EVERYTHING))
        assert_same(sums_and_gradients(model, packed(dataset)), expected)
        assert_same(sums_and_gradients(model, collate_grouped(dataset, EVERYTHING)), expected)


def test_the_order_of_sentences_does_not_matter(dataset: PairDataset) -> None:
    model, backwards = make_model(), EVERYTHING[::-1]
    assert_same(sums_and_gradients(model, packed(dataset, backwards)), sums_and_gradients(model, packed(dataset)))


@pytest.mark.parametrize("sizes", [(6, 7), (2, 3, 8), (1,) * NUM_PAIRS], ids=str)
def test_a_split_batch_has_the_numbers_of_the_whole(dataset: PairDataset, sizes: tuple[int, ...]) -> None:
    model = make_model(norm="pre")
    parts = [packed(dataset, part) for part in np.split(EVERYTHING, np.cumsum(sizes)[:-1])]
    assert_same(sums_and_gradients(model, *parts), sums_and_gradients(model, packed(dataset)))


@pytest.mark.parametrize("shape", [(83, 101, 19, 11), (160, 101, 40, 16), (256, 256, 64, 64)])
def test_the_shape_does_not_matter(dataset: PairDataset, shape: tuple[int, int, int, int]) -> None:
    model = make_model(positional="learned", max_positions=LONGEST)
    found = sums_and_gradients(model, packed(dataset, EVERYTHING[:9], Shape(*shape)))
    assert_same(found, sums_and_gradients(model, packed(dataset, EVERYTHING[:9])))


def test_a_sentence_alone_has_the_hidden_states_that_it_has_among_others(dataset: PairDataset) -> None:
    model = make_model()
    together = hidden_of(model, packed(dataset))
    ends = dataset.tgt.lengths.cumsum()
    for pair in (0, 5, 12):
        alone = hidden_of(model, packed(dataset, EVERYTHING[pair : pair + 1]))
        length = dataset.tgt.lengths[pair]
        assert_close(alone[:length], together[ends[pair] - length : ends[pair]], rtol=1e-12, atol=1e-12)


def hidden_of(model: Transformer, batch: PackedBatch) -> Tensor:
    found: list[Tensor] = []

    def states(*inputs: Any) -> Tensor:
        found.append(packed_states(*inputs))
        return found[0]

    dataclasses.replace(batch, states=states).loss(model, 0.1)
    return found[0]


@pytest.mark.parametrize("frozen", ["embedding", "decoder", "encoder.layers.0.self_attention"])
def test_frozen_weights_get_no_gradients_and_change_no_others(dataset: PairDataset, frozen: str) -> None:
    model = make_model(tie="none")
    expected = sums_and_gradients(model, packed(dataset))
    model = freeze(model, (frozen,))
    found = sums_and_gradients(model, packed(dataset))
    assert len(found) < len(expected)
    assert_same(found, {name: expected[name] for name in found})


@pytest.mark.parametrize("is_without", ["bias of some", "projection"])
def test_projections_of_the_memory_need_not_be_alike(dataset: PairDataset, is_without: str) -> None:
    model = make_model(num_layers=2, d_model=18)
    attention = model.decoder.layers[1].cross_attention
    assert attention is not None
    if is_without == "projection":
        attention.w_k = nn.Identity()
    else:
        attention.w_k = nn.Linear(18, 18, bias=True).double()
    for batch in (packed(dataset), collate_grouped(dataset, EVERYTHING)):
        assert_same(sums_and_gradients(model, batch), sums_and_gradients(model, collate(dataset, EVERYTHING)))


def test_dropout_drops_tokens_and_sublayers_as_often_as_in_padded_batches(dataset: PairDataset) -> None:
    model = make_model().float()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    losses = []
    for batch in (packed(dataset), collate(dataset, EVERYTHING)):
        torch.manual_seed(7)
        losses.append([batch_loss(model, batch, 0.1)[0].item() for _ in range(40)])
    (mean, other), (deviation, _) = np.mean(losses, axis=1), np.std(losses, axis=1)
    assert deviation > 0
    assert abs(mean - other) < 5 * deviation / math.sqrt(20)


def test_gradients_of_padding_are_zero(dataset: PairDataset) -> None:
    model = make_model(tie="none")
    gradients = sums_and_gradients(model, packed(dataset))
    for name in ("embedding.weight", "embedding.target_weight"):
        assert gradients[name][PAD_ID].abs().max() == 0
        assert gradients[name].abs().max() > 0


# What stands in a batch


def test_a_batch_by_hand() -> None:
    src = Side(np.array([5, 6, 2, 7, 2], np.uint16), np.array([3, 2], np.int32), np.array([0, 3]))
    tgt = Side(np.array([8, 2, 9, 10, 11, 2], np.uint16), np.array([2, 4], np.int32), np.array([0, 2]))
    shape = Shape(src=8, tgt=10, sentences=6, longest=5)
    assert shape.num_padding == 2
    batch = collate_packed(PairDataset(src, tgt, {}, ""), np.array([1, 0]), shape)
    expected = [
        *(7, 2, 5, 6, 2, 0, 0, 0),  # source
        *(0, 1, 0, 1, 2, 0, 0, 0),  # its positions
        *(BOS_ID, 9, 10, 11, BOS_ID, 8, 0, 0, 0, 0),  # target, shifted
        *(0, 1, 2, 3, 0, 1, 0, 0, 0, 0),
        *(9, 10, 11, 2, 8, 2, 0, 0, 0, 0),
        *(0, 2, 5, 6, 8, 8, 8),  # two sentences, two of padding, two empty ones
        *(0, 4, 6, 8, 10, 10, 10),
    ]
    assert batch.numbers.dtype == torch.int32
    assert batch.numbers.tolist() == expected
    assert batch.num_tokens == 6
    assert [lengths.tolist() for lengths in batch.lengths] == [[2, 3], [4, 2]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=40), st.sampled_from([64, 128]), st.integers(0, 700))
def test_no_sentence_of_padding_is_empty_or_longer_than_the_longest(
    lengths: list[int], longest: int, room: int
) -> None:
    longest = max(longest, 1 << (max(lengths) - 1).bit_length())
    total = sum(lengths)
    shape = Shape(total + room, total + 2 * room, 200, longest)
    if not shape.holds(total, total, len(lengths), max(lengths)):
        return
    numbers = collate_packed(pairs_of(lengths, lengths), np.arange(len(lengths)), shape).numbers
    for starts in numbers[-402:].view(2, 201).tolist():
        found = np.diff(starts)
        assert found[: len(lengths)].tolist() == lengths
        padding = found[len(lengths) : len(lengths) + shape.num_padding]
        assert padding.min() > 0 and padding.max() <= longest
        assert found[len(lengths) + shape.num_padding :].sum() == 0


def test_a_sentence_beyond_learned_positions_is_an_error_as_in_a_padded_batch(dataset: PairDataset) -> None:
    model = make_model(positional="learned", max_positions=LONGEST - 1)
    for batch in (packed(dataset), collate(dataset, EVERYTHING)):
        with pytest.raises(ValueError, match=f"position {LONGEST} is past max_positions={LONGEST - 1}"):
            batch_loss(model, batch, 0.1)


@pytest.mark.parametrize(
    "shape", [Shape(6, 8, 7, 5), Shape(8, 6, 7, 5), Shape(8, 8, 3, 5), Shape(8, 8, 7, 4), Shape(7, 7, 7, 5)]
)
def test_a_shape_without_room_for_the_pairs_is_an_error(shape: Shape) -> None:
    pairs = pairs_of([3, 4], [2, 5])
    collate_packed(pairs, np.arange(2), Shape(9, 9, 4, 5))
    with pytest.raises(ValueError, match=r" does not hold 2 pairs of 7 source and 7 target tokens, the longest of 5, "):
        collate_packed(pairs, np.arange(2), shape)


def test_a_copy_on_the_same_device_is_the_batch(dataset: PairDataset) -> None:
    batch = packed(dataset)
    assert batch.to(torch.device("cpu")) is batch
    assert batch.to(torch.device("meta")).numbers.is_meta

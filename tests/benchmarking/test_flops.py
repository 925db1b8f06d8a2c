"""Counted matrix products against those that torch sees, and against counting by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from benchmarking.flops import Product, Work, batch_work, forward_flops, num_padded, weight_products
from torch.utils.flop_counter import FlopCounterMode

from transformer.config import ModelConfig
from transformer.data.batching import Batch
from transformer.data.dataset import PairDataset, Side
from transformer.errors import ConfigError
from transformer.model.transformer import Transformer
from transformer.training.packed.cuda_batch import Shape, collate_packed

VOCAB_SIZE = 101


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(d_model=22, num_layers=3, num_heads=2, d_ff=29, d_k=7, d_v=5),
        ModelConfig(d_model=22, num_layers=2, num_heads=2, d_ff=29, d_k=7),
        ModelConfig(d_model=33, num_layers=1, num_heads=3, d_ff=23),
    ],
)
def test_a_forward_pass_has_as_many_operations_as_torch_counts(model: ModelConfig) -> None:
    b, s, t = 3, 13, 11  # too few keys for the fused kernel, of which nothing is counted
    module = Transformer(
        VOCAB_SIZE, model.d_model, model.num_layers, model.num_heads, model.d_ff, d_k=model.d_k, d_v=model.d_v
    )
    src, tgt = (torch.randint(1, VOCAB_SIZE, (b, length)) for length in (s, t))
    with FlopCounterMode(display=False) as counter:
        module(src, tgt)
    work = Work(b, b * s, b * t, b * s * s, b * t * t, b * t * s)
    assert forward_flops(model, VOCAB_SIZE, work) == counter.get_total_flops()


def test_a_backward_pass_has_twice_as_many() -> None:
    model = ModelConfig(d_model=22, num_layers=2, num_heads=2, d_ff=29)
    module = Transformer(VOCAB_SIZE, model.d_model, model.num_layers, model.num_heads, model.d_ff)
    src, tgt = (torch.randint(1, VOCAB_SIZE, (3, length)) for length in (13, 11))
    with FlopCounterMode(display=False) as counter:
        module(src, tgt).sum().backward()
    work = Work(3, 3 * 13, 3 * 11, 3 * 13**2, 3 * 11**2, 3 * 13 * 11)
    assert 3 * forward_flops(model, VOCAB_SIZE, work) == counter.get_total_flops()


def test_weight_shapes_are_listed_once_with_their_uses() -> None:
    model = ModelConfig(d_model=10, num_layers=3, num_heads=2, d_ff=7)
    assert weight_products(model, 31) == [
        Product(10, 10, 3 * (4 + 2), 3 * (4 + 2)),
        Product(10, 7, 3, 3),
        Product(7, 10, 3, 3),
        Product(10, 31, 0, 1),
    ]


def test_the_base_model_needs_what_its_matrices_say() -> None:
    # Six operations per weight and token: 12 attention and 4 feed-forward matrices of 512 x 512 per encoder layer, ...
    per_token = 2 * 512 * (6 * (12 * 512 + 4 * 2048) + 37000)
    assert forward_flops(ModelConfig(), 37000, Work(source_tokens=1, target_tokens=1)) == per_token


@pytest.mark.parametrize(
    "options", [{"attention_score": "additive"}, {"attention_window": 7}, {"positional": "shaw"}], ids=str
)
def test_other_kinds_of_attention_are_not_miscounted(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{'.*'.join(f'{k}={v}' for k, v in options.items())}"):
        weight_products(ModelConfig(**options), VOCAB_SIZE)


def test_padding_is_not_counted() -> None:
    src = torch.tensor([[5, 6, 3], [7, 3, 0]])
    tgt_out = torch.tensor([[5, 3, 0, 0], [6, 7, 8, 3]])
    batch = Batch(src, tgt_in=tgt_out, tgt_out=tgt_out, target_positions=(tgt_out.flatten() != 0).nonzero().flatten())
    assert batch_work([batch]) == Work(2, 3 + 2, 2 + 4, 3**2 + 2**2, 2**2 + 4**2, 2 * 3 + 4 * 2)
    assert batch_work([batch, batch]) == batch_work([batch]) + batch_work([batch])
    assert num_padded([batch, batch]) == (12, 16)


def test_a_packed_batch_has_the_work_of_its_sentences_and_the_positions_of_its_shape() -> None:
    src = Side(np.array([5, 6, 3, 7, 3]), np.array([3, 2], np.int32), np.array([0, 3]))
    tgt = Side(np.array([5, 3, 6, 7, 8, 3]), np.array([2, 4], np.int32), np.array([0, 2]))
    batch = collate_packed(PairDataset(src, tgt, {}, ""), np.array([0, 1]), Shape(11, 13, 5, 7))
    assert batch_work([batch]) == Work(2, 3 + 2, 2 + 4, 3**2 + 2**2, 2**2 + 4**2, 2 * 3 + 4 * 2)
    assert num_padded([batch, batch]) == (22, 26)

"""Attention of sentences end to end, in padded groups: equation 1 for each, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from transformer.model.alternatives.layers import GroupedQueryAttention
from transformer.model.attention import MultiHeadAttention, causal_mask
from transformer.model.grouping import Grouping, Places

QUERIES = [np.array([3, 3]), np.array([5, 7, 6]), np.array([11])]
KEYS = [np.array([2, 4]), np.array([4, 4, 1]), np.array([13])]


def tokens(groups: list[np.ndarray], seed: int) -> torch.Tensor:  # type: ignore[type-arg]
    generator = torch.Generator().manual_seed(seed)
    number = int(np.concatenate(groups).sum())
    return torch.randn(1, number, 12, generator=generator, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("layer", [MultiHeadAttention, GroupedQueryAttention])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
def test_each_sentence_has_the_output_and_gradients_that_it_has_alone(layer: type, kind: str) -> None:
    torch.manual_seed(1)
    sizes = {"num_kv_heads": 2} if layer is GroupedQueryAttention else {}
    attention = layer(12, 4, d_k=5, d_v=7, **sizes).double()
    x, memory = tokens(QUERIES, 2), tokens(KEYS, 3)
    keys, is_causal = (KEYS if kind == "cross" else QUERIES), kind == "decoder"
    groups = Grouping(Places(QUERIES), Places(keys), is_causal)
    found = attention(x, memory if kind == "cross" else None, mask=groups)
    weights = torch.randn(found.shape, dtype=torch.float64)
    inputs = [x, *([memory] if kind == "cross" else []), *attention.parameters()]
    gradients = torch.autograd.grad(found, inputs, weights)
    lengths = [int(n) for n in np.concatenate(QUERIES)], [int(n) for n in np.concatenate(keys)]
    sentences = zip(x.split(lengths[0], 1), (memory if kind == "cross" else x).split(lengths[1], 1), strict=True)
    alone = [attention(one, other, mask=causal_mask(one.size(1)) if is_causal else None) for one, other in sentences]
    expected = torch.cat(alone, dim=1)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert_close(gradients, torch.autograd.grad(expected, inputs, weights), rtol=1e-11, atol=1e-12)


def test_groups_of_other_tokens_are_refused() -> None:
    attention, groups = MultiHeadAttention(12, 4).double(), Grouping(Places(QUERIES), Places(QUERIES))
    x = tokens(QUERIES, 2)
    with pytest.raises(ValueError, match=r"for \(1, H, Q, M\) = \(1, 4, 35, 35\), not \(1, 4, 34, 34\)"):
        attention(x[:, :-1], mask=groups)
    with pytest.raises(ValueError, match=r"not \(2, 4, 35, 35\)"):
        attention(x.expand(2, -1, -1), mask=groups)

"""Attention of sentences end to end, in padded groups: equation 1 for each, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from transformer.model.alternatives.layers import GroupedQueryAttention
from transformer.model.attention import DotProductAttention, MultiHeadAttention, causal_mask
from transformer.model.padded_groups import Grouping, Places

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


@pytest.mark.parametrize(
    ("queries", "keys", "is_causal", "message"),
    [
        ([[3, 7]], [[7, 3]], True, "causal attention in groups has keys of other lengths than its queries"),
        ([[4, 6]], [[6, 4]], True, "causal attention in groups has keys of other lengths than its queries"),
        ([[10]], [[5, 5]], False, "groups of [1] sentences of queries and [2] of keys; each needs its own"),
        ([[3], [2]], [[3, 2]], False, "groups of [1, 1] sentences of queries and [2] of keys; each needs its own"),
        (
            [[2.0, 3.0]],
            [[2, 3]],
            False,
            "lengths of a group's sentences are [2. 3.]; they must be integers of at least 1",
        ),
        ([[2, 0]], [[2, 3]], False, "lengths of a group's sentences are [2 0]; they must be integers of at least 1"),
        ([[]], [[2, 3]], False, "lengths of a group's sentences are []; they must be integers of at least 1"),
        ([[[2]]], [[2]], False, "lengths of a group's sentences are [[2]]; they must be integers of at least 1"),
        ([], [[2]], False, "there are no groups of sentences; there must be at least one"),
    ],
)
def test_groups_that_would_attend_wrongly_in_silence_are_errors(
    queries: list[Any], keys: list[Any], is_causal: bool, message: str
) -> None:
    with pytest.raises(ValueError) as error:
        Grouping(*(Places([np.array(group) for group in side]) for side in (queries, keys)), is_causal)
    assert str(error.value) == message


class Shifted(DotProductAttention):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None) -> torch.Tensor:
        return super().forward(q + 1, k, v, mask)


class Squared(DotProductAttention):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None) -> torch.Tensor:
        return self.weights(q, k, mask) @ v

    def scores(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return super().scores(q, k) ** 2


@pytest.mark.parametrize("attention", [Shifted(), Squared()])
def test_what_a_subclass_computes_is_computed_once(attention: DotProductAttention) -> None:
    torch.manual_seed(1)
    layer, x = MultiHeadAttention(12, 4, attention=attention).double(), tokens(QUERIES, 2)
    expected = torch.cat([layer(one) for one in x.split(list(np.concatenate(QUERIES)), 1)], dim=1)
    assert_close(layer(x, mask=Grouping(Places(QUERIES), Places(QUERIES))), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("is_causal", [False, True])
def test_it_is_differentiable_twice(is_causal: bool) -> None:
    torch.manual_seed(1)
    layer = MultiHeadAttention(4, 2).double()
    places = Places([np.array([1, 3]), np.array([2])])
    x = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    groups = Grouping(places, places, is_causal)
    assert gradcheck(lambda y: layer(y, mask=groups), x)
    assert gradgradcheck(lambda y: layer(y, mask=groups), x)


@pytest.mark.parametrize("is_causal", [False, True])
def test_groups_made_or_used_in_inference_mode_can_train(is_causal: bool) -> None:
    layer, x = MultiHeadAttention(12, 4).double(), tokens(QUERIES, 2)
    with torch.inference_mode():
        groups = Grouping(Places(QUERIES), Places(QUERIES), is_causal)
        expected = layer(x, mask=groups).numpy()
    found = layer(x, mask=groups)
    found.sum().backward()
    assert np.array_equal(found.detach().numpy(), expected)

"""Scores and their softmax (section 3.2.1): saturation, temperature, lengths of vectors, mixtures of values."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from transformer.model.alternatives.scores import AdditiveAttention, DotAttention, TemperatureAttention
from transformer.model.attention import DotProductAttention, MultiHeadAttention, masked_softmax

Q, M, D_K, D_V = 5, 13, 7, 3


def jacobian_of_softmax(p: Tensor) -> Tensor:
    """diag(p) - ppᵀ for each row of p (..., M): (..., M, M)."""
    return torch.diag_embed(p) - p[..., :, None] * p[..., None, :]


def test_the_jacobian_of_the_weights_is_diag_p_minus_p_p_transposed() -> None:
    torch.manual_seed(3)
    scores = torch.randn(M, dtype=torch.float64)
    actual = torch.func.jacrev(masked_softmax)(scores)
    assert_close(actual, jacobian_of_softmax(scores.softmax(0)))
    assert_close(actual.sum(-1), torch.zeros(M, dtype=torch.float64))  # a constant added to all scores
    assert torch.linalg.eigvalsh(actual).min() > -1e-12


def test_a_constant_added_to_all_scores_changes_nothing_and_does_not_overflow() -> None:
    torch.manual_seed(3)
    scores = torch.randn(Q, M)
    assert torch.exp(scores + 1e3).isinf().all()
    assert_close(masked_softmax(scores + 1e3), masked_softmax(scores), rtol=1e-3, atol=0.0)
    assert_close(masked_softmax(scores - 1e3), masked_softmax(scores), rtol=1e-3, atol=0.0)


def mean_norm_of_jacobian(attention: DotProductAttention, d_k: int) -> float:
    torch.manual_seed(3)
    q, k = (torch.randn(1, 1, length, d_k, dtype=torch.float64) for length in (499, M))
    p = attention.weights(attention.queries(q, 0), k)
    return jacobian_of_softmax(p).norm(dim=(-2, -1)).mean().item()


def test_without_the_root_of_d_k_the_softmax_saturates_and_gradients_vanish() -> None:
    sizes = (7, 67, 601)
    scaled, unscaled = (
        [mean_norm_of_jacobian(attention, d_k) for d_k in sizes]
        for attention in (DotProductAttention(), DotAttention())
    )
    assert max(scaled) < 1.1 * min(scaled)
    assert unscaled[0] > unscaled[1] > unscaled[2]
    assert unscaled[2] < 0.4 * scaled[2]


@pytest.mark.parametrize("num_heads", [1, 8, 60])
def test_the_first_scores_have_the_variance_of_a_quarter_at_any_d_k(num_heads: int) -> None:
    # Glorot's bound with a gain of √½ (section 3.2.2) makes queries and keys of variance ½ of normalised inputs.
    torch.manual_seed(3)
    module, x = MultiHeadAttention(240, num_heads), torch.randn(1, 499, 240)
    with torch.no_grad():
        k = module.project(x).keys  # (1, H, 499, d_k)
        q = module.w_q(x).view(1, 499, num_heads, -1).transpose(1, 2)
        assert_close(k.var(), torch.tensor(0.5), rtol=0.03, atol=0.0)
        assert_close(module.attention.scores(q, k).var(), torch.tensor(0.25), rtol=0.1, atol=0.0)


def test_the_more_extreme_the_scores_the_smaller_the_jacobian() -> None:
    scores = torch.randn(M, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    norms = [torch.func.jacrev(masked_softmax)(factor * scores).norm().item() for factor in (8, 16, 32, 64, 512)]
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 1e-9


def test_the_entropy_of_the_weights_grows_with_the_temperature() -> None:
    torch.manual_seed(3)
    q, k = (torch.randn(1, 1, length, D_K, dtype=torch.float64) for length in (Q, M))
    entropies = []
    for temperature in (0.2, 0.5, 1.0, 2.0, 5.0, 1e4):
        attention = TemperatureAttention(temperature=temperature)
        weights = attention.weights(attention.queries(q, 0), k)
        entropies.append(torch.special.entr(weights).sum(-1))
        assert torch.equal(weights.argmax(-1), (q @ k.mT).argmax(-1))  # the order of the keys stays
    for lower, higher in pairwise(entropies):
        assert (lower < higher).all()
    assert_close(entropies[-1], torch.full_like(entropies[-1], M).log())


def test_a_score_is_the_cosine_times_both_lengths() -> None:
    torch.manual_seed(3)
    q, k = (torch.randn(length, D_K, dtype=torch.float64) for length in (Q, M))
    scores = DotProductAttention().scores(q, k)
    cosines = torch.cosine_similarity(q[:, None], k[None], dim=-1)
    assert_close(scores, cosines * q.norm(dim=-1)[:, None] * k.norm(dim=-1) / D_K**0.5)
    # So a longer key is attended to more where its score is positive, and less where it is negative.
    longer = k.clone()
    longer[4] *= 3
    before, after = (DotProductAttention().weights(q, keys)[:, 4] for keys in (k, longer))
    assert torch.equal(after > before, scores[:, 4] > 0)
    assert (scores[:, 4] > 0).any() and (scores[:, 4] < 0).any()


def test_each_output_lies_between_the_smallest_and_the_largest_value() -> None:
    torch.manual_seed(3)
    q, k = (3 * torch.randn(1, 1, length, D_K) for length in (Q, M))
    v = torch.randn(1, 1, M, D_V)
    context = DotProductAttention()(q, k, v)
    assert (context >= v.amin(2, keepdim=True)).all() and (context <= v.amax(2, keepdim=True)).all()
    assert_close(DotProductAttention()(q, k, torch.ones(1, 1, M, 1)), torch.ones(1, 1, Q, 1))


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


@pytest.mark.parametrize("d_k", [7, 31])
def test_additive_scores_hold_d_k_numbers_per_pair_and_products_hold_one(d_k: int) -> None:
    q, k = torch.randn(1, 2, 53, d_k), torch.randn(1, 2, 59, d_k)
    held = []
    for attention in (DotProductAttention(), AdditiveAttention(2, d_k)):
        with torch.no_grad(), LargestTensor() as largest:
            attention.weights(q, k)
        held.append(largest.numel)
    assert held == [2 * 53 * 59, 2 * 53 * 59 * d_k]

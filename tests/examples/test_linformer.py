"""Linformer: attention to k combinations of keys and values."""

from __future__ import annotations

import re

import linformer
import pytest
import torch
from linformer import LengthProjection, LinformerAttention, best_of_rank
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from transformer import DotProductAttention, MultiHeadAttention, causal_mask, padding_mask
from transformer.model.alternatives.scores import WrittenOutAttention

B, H, N, D, K = 2, 3, 23, 5, 7


def inputs(length: int = N) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    q, k, v = (torch.randn(B, H, length, size, dtype=torch.float64) for size in (D, D, 11))
    return q, k, v


def projection(weight: Tensor) -> LengthProjection:
    module = LengthProjection(*weight.shape).double()
    module.weight = nn.Parameter(weight.double() * weight.size(1) ** 0.5)
    return module


def test_with_identities_it_is_full_attention() -> None:
    q, k, v = inputs()
    attention = LinformerAttention(DotProductAttention(), projection(torch.eye(N)), projection(torch.eye(N)))
    assert_close(attention(q, k, v), DotProductAttention()(q, k, v))
    assert_close(attention.weights(q, k), DotProductAttention().weights(q, k))


def test_it_is_the_printed_formula() -> None:
    q, k, v = inputs()
    e, f = (projection(torch.randn(K, N)) for _ in range(2))
    keys, values = (torch.einsum("kn,bhnd->bhkd", p.weight / N**0.5, x) for p, x in ((e, k), (f, v)))
    expected = (q @ keys.mT / D**0.5).softmax(-1) @ values
    attention = LinformerAttention(DotProductAttention(), e, f)
    assert_close(attention(q, k, v), expected)
    assert_close(attention.weights(q, k) @ v, expected)


def test_means_over_segments_are_exact_if_keys_are_constant_in_each() -> None:
    """Each segment of a keys counts once instead of a times, which is the same for all of them."""
    q, _, v = inputs(21)
    k = torch.randn(B, H, 7, D, dtype=torch.float64).repeat_interleave(3, dim=2)
    means = projection(torch.eye(7).repeat_interleave(3, dim=1) / 3)
    assert_close(LinformerAttention(DotProductAttention(), means)(q, k, v), DotProductAttention()(q, k, v))


def test_padding_does_not_matter() -> None:
    q, k, v = inputs()
    attention = LinformerAttention(DotProductAttention(), projection(torch.randn(K, N)))
    mask = padding_mask((torch.arange(N) < torch.tensor([[N], [13]])).long())
    short = attention(*(x[1:, :, :13] for x in (q, k, v)))
    assert_close(attention(q, k, v, mask)[1:, :, :13], short)


def test_cost_grows_with_the_length_and_not_with_its_square() -> None:
    def flops(length: int) -> int:
        attention = LinformerAttention(WrittenOutAttention(), LengthProjection(K, length))
        q, v = torch.randn(1, 1, length, D), torch.randn(1, 1, length, 11)
        with FlopCounterMode(display=False) as counter:
            attention(q, q, v)
        return counter.get_total_flops()

    assert flops(128) == 2 * 128 * K * (D + 11 + D + 11)
    assert flops(256) == 2 * flops(128)


def test_projections_are_shared_by_headwise_key_value_and_layerwise_sharing() -> None:
    def num_projections(attentions: list[LinformerAttention]) -> int:
        layers = nn.ModuleList(MultiHeadAttention(6, 2, attention=attention) for attention in attentions)
        return sum(p.shape == (K, N) for p in layers.parameters())

    def new() -> LengthProjection:
        return LengthProjection(K, N)

    one = new()
    assert num_projections([LinformerAttention(DotProductAttention(), new(), new()) for _ in range(12)]) == 24
    assert num_projections([LinformerAttention(DotProductAttention(), new()) for _ in range(12)]) == 12
    assert num_projections([LinformerAttention(DotProductAttention(), one) for _ in range(12)]) == 1


def test_at_first_it_takes_means_of_segments() -> None:
    x = torch.arange(N * 1.0).view(1, 1, N, 1)
    found = LengthProjection(K, N)(x).flatten()
    segments = [[i for i in range(N) if i * K // N == segment] for segment in range(K)]
    assert_close(found, torch.tensor([sum(segment) / len(segment) for segment in segments]))
    q, k, v = (x.float() for x in inputs())
    whole = LinformerAttention(DotProductAttention(), LengthProjection(N, N))
    assert_close(whole(q, k, v), DotProductAttention()(q, k, v))


def test_the_best_of_a_rank_has_it_and_no_other_is_nearer() -> None:
    torch.manual_seed(3)
    weights = torch.randn(2, 11, 11, dtype=torch.float64).softmax(-1)
    best = best_of_rank(weights, 3)
    assert torch.linalg.matrix_rank(best).tolist() == [3, 3]
    # Eckart and Young: the error is what the other singular values sum up to.
    rest = torch.linalg.svdvals(weights)[:, 3:].square().sum(-1).sqrt()
    assert_close(torch.linalg.matrix_norm(weights - best), rest)


def test_a_longer_input_than_the_projection_is_an_error() -> None:
    attention = LinformerAttention(DotProductAttention(), LengthProjection(K, N - 1).double())
    with pytest.raises(ValueError, match=f"{N} positions are more than max_length={N - 1}"):
        attention(*inputs())


def test_a_mask_that_is_not_that_of_padding_is_an_error() -> None:
    attention = LinformerAttention(DotProductAttention(), LengthProjection(K, N).double())
    with pytest.raises(ValueError, match=re.escape(f"mask (1, 1, {N}, {N}) is not (B, 1, 1, {N}), that of padding")):
        attention(*inputs(), causal_mask(N))


def test_a_small_run_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    linformer.main(["--updates", "2", "--items", "16"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-2]]
    assert [row[0] for row in rows] == ["full", "k = 2", "k = 8", "k = 16", "k = 32"]
    best = [float(row[2]) for row in rows[1:]]
    assert best == sorted(best, reverse=True) and best[-1] == 0
    assert all(float(row[1]) >= float(row[2]) for row in rows[1:])


@pytest.mark.parametrize("size", [0, N + 1])
def test_more_combinations_than_positions_are_an_error(size: int) -> None:
    """The means of segments without a position would be NaN."""
    with pytest.raises(ValueError, match=f"^size={size} is not from 1 to max_length={N}$"):
        LengthProjection(size, N)

"""Reformer's attention: full attention with shared queries and keys, to the pairs that meet in a bucket."""

from __future__ import annotations

import math
import re

import lsh
import pytest
import torch
import torch.nn.functional as F
from lsh import FullAttention, LSHAttention, SharedQueryKey
from torch import Tensor
from torch.testing import assert_close

from transformer import causal_mask, padding_mask

B, H, N, D, CHUNK = 2, 3, 23, 5, 3
SEED = 5


def queries_and_values(length: int = N) -> tuple[Tensor, Tensor, Tensor]:
    q, v = (torch.randn(B, H, length, size, dtype=torch.float64, requires_grad=True) for size in (D, 7))
    return q, FullAttention().keys(q, 0), v


def hashed(attention: LSHAttention, *arguments: Tensor) -> Tensor:
    """The attention's output with the hyperplanes that `buckets` draws after the same seed."""
    torch.manual_seed(SEED)
    return attention(*arguments)


def pairs_met(attention: LSHAttention, q: Tensor, lengths: list[int]) -> Tensor:
    """Pair by pair: the same bucket, and chunks of the sorted order that are the same or neighbours, in any round."""
    torch.manual_seed(SEED)
    buckets = attention.buckets(q)
    met = torch.zeros(B, H, q.size(2), q.size(2), dtype=torch.bool)
    for row, length in enumerate(lengths):
        for head in range(H):
            for bucket in buckets[row, head].tolist():
                order = sorted(range(length), key=lambda i: (bucket[i], i))
                for place, i in enumerate(order):
                    for other, j in enumerate(order):
                        behind = place // attention.chunk - other // attention.chunk
                        met[row, head, i, j] |= bucket[i] == bucket[j] and behind in (0, 1)
                        met[row, head, i, j] &= j <= i or not attention.causal
    return met


@pytest.mark.parametrize("causal", [False, True])
def test_one_bucket_and_one_chunk_are_full_attention(causal: bool) -> None:
    torch.manual_seed(1)
    q, k, v = queries_and_values()
    full = FullAttention()(q, k, v, causal_mask(N) if causal else None)
    for num_rounds in (1, 3):
        assert_close(LSHAttention(1, 29, num_rounds, causal=causal)(q, k, v), full)


@pytest.mark.parametrize("num_rounds", [1, 2, 5])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_full_attention_to_the_pairs_met_in_value_and_gradient(
    num_rounds: int, causal: bool, padded: bool
) -> None:
    torch.manual_seed(2)
    q, k, v = queries_and_values()
    attention = LSHAttention(4, CHUNK, num_rounds, causal=causal)
    lengths = [N, 14] if padded else [N, N]
    real = torch.arange(N) < torch.tensor(lengths)[:, None]
    padding = (padding_mask(real.long()),) if padded else ()
    rows = real[:, None, :, None]  # what padding attends to does not matter
    actual = hashed(attention, q, k, v, *padding) * rows
    expected = FullAttention()(q, k, v, pairs_met(attention, q, lengths)) * rows
    assert_close(actual, expected)
    assert_close(hashed(attention, q, k, v, *padding) * rows, (_weights(attention, q, k, *padding) @ v) * rows)
    upstream = torch.randn_like(actual)
    assert_close(*(torch.autograd.grad(y, (q, v), upstream, retain_graph=True) for y in (actual, expected)))


def _weights(attention: LSHAttention, *arguments: Tensor) -> Tensor:
    torch.manual_seed(SEED)
    return attention.weights(*arguments)


def test_a_position_attends_to_itself_only_if_it_meets_no_other() -> None:
    torch.manual_seed(3)
    q, k, _ = queries_and_values()
    attention = LSHAttention(4, CHUNK, 2)
    alone = pairs_met(attention, q, [N, N]).sum(-1) == 1
    assert 0 < alone.sum() < alone.numel() and alone[:, :, 0].all()
    torch.manual_seed(SEED)
    own = attention.weights(q, k).diagonal(dim1=2, dim2=3)
    assert_close(own, alone.double())


def test_no_weight_is_on_later_positions() -> None:
    torch.manual_seed(4)
    q, k, v = queries_and_values()
    (gradient,) = torch.autograd.grad(hashed(LSHAttention(4, CHUNK, 3), q, k, v)[:, :, 11].sum(), v)
    assert (gradient[:, :, 12:] == 0).all() and (gradient[:, :, :12] != 0).any()


def test_buckets_are_of_directions_and_opposite_vectors_are_far_apart() -> None:
    torch.manual_seed(5)
    q, k, _ = queries_and_values(200)
    attention = LSHAttention(8, CHUNK, 2)

    def buckets(x: Tensor) -> Tensor:
        torch.manual_seed(SEED)
        return attention.buckets(x)

    assert torch.equal(buckets(q), buckets(k))
    assert torch.equal((buckets(q) + 4) % 8, buckets(-q))
    assert buckets(q).unique().tolist() == list(range(8))
    near = F.normalize(q, dim=-1) + 0.05 * F.normalize(torch.randn_like(q), dim=-1)
    assert (buckets(near) == buckets(q)).float().mean() > 0.8


def test_the_error_falls_with_the_rounds() -> None:
    """On vectors in clusters, as trained ones are."""
    torch.manual_seed(6)
    centres = 3 * torch.randn(16, 16)
    q = (centres[torch.randint(16, (1, 2, 256))] + torch.randn(1, 2, 256, 16)).double()
    k, v = FullAttention().keys(4 * q, 0) * 4, torch.randn(1, 2, 256, 7, dtype=torch.float64)
    full = FullAttention()(q, k, v)
    errors = [
        float((hashed(LSHAttention(16, 32, num_rounds, causal=False), q, k, v) - full).norm() / full.norm())
        for num_rounds in (1, 2, 4, 8, 16)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 5


def test_queries_and_keys_are_one_projection() -> None:
    module = SharedQueryKey(12, 3, FullAttention())
    assert sum(parameter.numel() for parameter in module.parameters()) == 3 * 12**2
    x = torch.randn(2, 7, 12)
    keys = module.project(x).keys
    q = module.w_q(x).unflatten(-1, (3, 4)).transpose(1, 2)
    assert_close(keys, q / q.norm(dim=-1, keepdim=True))


def test_products_grow_with_the_length_and_not_with_its_square() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    found = []
    for length in (128, 256):
        q, v = torch.randn(1, 1, length, 4), torch.randn(1, 1, length, 5)
        with FlopCounterMode(display=False) as counter:
            LSHAttention(8, 16, 2)(q, q, v)
        # Per round: hashing by 4 hyperplanes, and chunks of 16 against 32.
        assert counter.get_total_flops() == 2 * 2 * length * (4 * 4 + 32 * (4 + 5))
        found.append(counter.get_total_flops())
    assert found[1] == 2 * found[0]


def test_a_mask_that_is_not_that_of_padding_is_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape(f"mask (1, 1, {N}, {N}) is not (B, 1, 1, {N}), that of padding")):
        LSHAttention(4, CHUNK)(*queries_and_values(), causal_mask(N))


def test_a_small_run_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    lsh.main(["--updates", "2", "--items", "5", "--chunk", "3"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:-2] if "---" not in line]
    kinds = ["full attention", "1 round", "2 rounds", "4 rounds", "8 rounds"]
    assert rows[0] == ["trained with", *kinds]
    assert [row[0] for row in rows[1:]] == ["full attention", "1 round", "4 rounds"]
    assert all(
        0 <= float(cell.strip(" %")) <= 100 and math.isfinite(float(cell[:-2])) for row in rows[1:] for cell in row[1:]
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 3), "num_buckets=0 is neither a positive even number nor 1"),
        ((-2, 3), "num_buckets=-2 is neither a positive even number nor 1"),
        ((3, 3), "num_buckets=3 is neither a positive even number nor 1"),
        ((2, 0), "chunk=0 and num_rounds=1 must be at least 1"),
        ((2, 3, 0), "chunk=3 and num_rounds=0 must be at least 1"),
    ],
)
def test_sizes_that_meet_nothing_are_an_error(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        LSHAttention(*sizes)


def test_the_last_resort_has_room_in_float16() -> None:
    """-10⁵ has none; what is not visible is still below it."""
    torch.manual_seed(7)
    q, k, v = (x.detach() for x in queries_and_values(4))
    exact = FullAttention()(q, k, v, causal_mask(4))
    q, k, v = (x.half() for x in (q, k, v))
    for found in (FullAttention()(q, k, v, causal_mask(4)), LSHAttention(1, 4)(q, k, v)):
        assert_close(found.double(), exact, atol=5e-3, rtol=0)

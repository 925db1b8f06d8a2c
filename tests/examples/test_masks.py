"""What attentions of the examples refuse, which do not write out all pairs of positions."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from linformer import LengthProjection, LinformerAttention
from lsh import FullAttention, LSHAttention, SharedQueryKey
from masks import check_lengths, check_mask
from performer import PerformerAttention
from sparse import Pattern, SparseAttention
from torch import Tensor

from transformer import DotProductAttention, MultiHeadAttention

B, H, N, D = 3, 2, 7, 4
Make = Callable[[], DotProductAttention]
OF_ONE_SEQUENCE = {
    "sparse": lambda: SparseAttention(DotProductAttention(), Pattern(3, 2)),
    "LSH": lambda: LSHAttention(2, 3),
    "LSH, full": FullAttention,
    "causal Performer": lambda: PerformerAttention(5, D),
}
ANY = {
    **{name: make for name, make in OF_ONE_SEQUENCE.items() if name != "LSH, full"},
    "Performer": lambda: PerformerAttention(5, D, causal=False),
    "Linformer": lambda: LinformerAttention(DotProductAttention(), LengthProjection(3, N)),
}


def inputs(queries: int = N, keys: int = N) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    q, k, v = (torch.randn(B, H, length, D) for length in (queries, keys, keys))
    return q, k, v


@pytest.mark.parametrize("make", ANY.values(), ids=ANY)
@pytest.mark.parametrize("shape", [(B, 1, 1, 1), (B, 1, 1, N + 1), (1, 1, N, N), (N, N), (B, H, 1, N), (N,)])
def test_only_a_mask_of_padding_is_taken(make: Make, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"mask {shape} is not (B, 1, 1, {N}), that of padding")):
        make()(*inputs(), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("make", ANY.values(), ids=ANY)
def test_one_mask_may_be_that_of_all_sentences(make: Make) -> None:
    attention, row = make(), torch.arange(N) < 5
    found = []
    for mask in (row.expand(1, 1, 1, N), row.expand(B, 1, 1, N)):
        torch.manual_seed(2)
        found.append(attention(*inputs(), mask)[:, :, :5])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("make", OF_ONE_SEQUENCE.values(), ids=OF_ONE_SEQUENCE)
@pytest.mark.parametrize(("queries", "keys"), [(1, N), (5, N), (N, 5)])
def test_queries_behind_a_cache_are_refused_instead_of_taken_for_the_first(make: Make, queries: int, keys: int) -> None:
    with pytest.raises(ValueError, match=f"^{queries} queries and {keys} keys are not of the same positions$"):
        make()(*inputs(queries, keys))


def test_a_step_behind_a_cache_is_refused_in_a_layer() -> None:
    module = SharedQueryKey(8, 2, LSHAttention(2, 3))
    past = module.project(torch.randn(1, 5, 8))
    x = torch.randn(1, 1, 8)
    with pytest.raises(ValueError, match=r"^1 queries and 6 keys"):
        module(x, module.project(x, past))
    assert MultiHeadAttention(8, 2)(x, past).shape == x.shape


def test_what_is_right_passes() -> None:
    q, k, _ = inputs()
    check_lengths(q, k)
    check_mask(None, N)
    check_mask(torch.ones(1, 1, 1, N, dtype=torch.bool), N)

"""Several heads (section 3.2.2): their shapes, their sum, their rank and their cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from transformer.model import kernels
from transformer.model.attention import DotProductAttention, MultiHeadAttention

B, H, T, S, D, D_K, D_V = 2, 3, 5, 7, 23, 11, 13


def make_attention(d_k: int | None = D_K, d_v: int | None = D_V, num_heads: int = H) -> MultiHeadAttention:
    torch.manual_seed(3)
    return MultiHeadAttention(D, num_heads, d_k=d_k, d_v=d_v).double()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def contexts(module: MultiHeadAttention, x: Tensor, memory: Tensor) -> Tensor:
    """What each head gathers, before W^O: (B, H, T, d_v)."""
    q = module.w_q(x).unflatten(-1, (module.num_heads, module.d_k)).transpose(1, 2)  # (B, H, T, d_k)
    return module.attention(q, *module.project(memory))


def test_one_product_with_the_packed_matrices_gives_queries_keys_and_values_of_all_heads() -> None:
    module, x = make_attention(), rows(S, D)
    matrices = [linear.weight.T for linear in (module.w_q, module.w_k, module.w_v)]  # (D, H·size)
    packed = x @ torch.cat(matrices, dim=1)  # (S, H·(2·d_k + d_v))
    assert packed.shape == (S, H * (2 * D_K + D_V))
    q, k, v = packed.split([H * D_K, H * D_K, H * D_V], dim=1)
    for head in range(H):
        keys = slice(head * D_K, (head + 1) * D_K)
        values = slice(head * D_V, (head + 1) * D_V)
        assert_close(q[:, keys], x @ matrices[0][:, keys])  # W_i^Q (D, d_k)
        assert_close(k[:, keys], module.project(x[None]).keys[0, head])
        assert_close(v[:, values], module.project(x[None]).values[0, head])
    context = DotProductAttention()(*(y.unflatten(1, (H, -1)).transpose(0, 1)[None] for y in (q, k, v)))
    assert_close(module(x[None]), context.transpose(1, 2).flatten(2) @ module.w_o.weight.T)


def test_scores_of_all_pairs_are_a_matrix_per_head_of_as_many_rows_as_queries() -> None:
    module, x, memory = make_attention(), rows(B, T, D), rows(B, S, D)
    q = module.w_q(x).unflatten(-1, (H, D_K)).transpose(1, 2)
    assert module.attention.scores(q, module.project(memory).keys).shape == (B, H, T, S)
    assert module.attention.scores(q, module.project(x).keys).shape == (B, H, T, T)
    assert contexts(module, x, memory).shape == (B, H, T, D_V)


def test_w_o_is_square_only_if_the_values_of_all_heads_fill_d_model() -> None:
    assert make_attention().w_o.weight.shape == (D, H * D_V)
    square = MultiHeadAttention(22, 2)
    assert square.d_v == 11 and square.w_o.weight.shape == (22, 22)


def test_concatenation_and_w_o_are_the_sum_of_what_each_head_writes() -> None:
    module, x, memory = make_attention(), rows(B, T, D), rows(B, S, D)
    blocks = module.w_o.weight.split(D_V, dim=1)  # W_i^O, as (D, d_v)
    written = [contexts(module, x, memory)[:, head] @ block.T for head, block in enumerate(blocks)]
    assert_close(module(x, memory), torch.stack(written).sum(0))


@pytest.mark.parametrize(("num_heads", "d_k"), [(1, D), (3, 11), (7, 3)])
def test_a_head_compares_tokens_in_at_most_d_k_directions(num_heads: int, d_k: int) -> None:
    module = make_attention(d_k, d_k, num_heads)
    for w_q, w_k in zip(module.w_q.weight.split(d_k), module.w_k.weight.split(d_k), strict=True):
        assert torch.linalg.matrix_rank(w_q.T @ w_k) == d_k  # x W_i^Q (y W_i^K)ᵀ = x (W_i^Q W_i^Kᵀ) yᵀ


@pytest.mark.parametrize("num_heads", [1, 2, 11])
def test_only_the_exponentials_grow_with_the_number_of_heads(num_heads: int) -> None:
    module = MultiHeadAttention(22, num_heads)
    kv = module.project(rows(1, S, 22).float())
    weights = module.attention.weights(kv.keys, kv.keys)
    assert sum(parameter.numel() for parameter in module.parameters()) == 4 * 22**2
    assert weights.numel() * module.d_k == S**2 * 22  # multiply-adds of all scores
    assert weights.numel() == num_heads * S**2  # each an exponential


def test_nothing_but_their_start_makes_heads_differ() -> None:
    module, x = make_attention(), rows(B, T, D)
    with torch.no_grad():
        for linear, size in ((module.w_q, D_K), (module.w_k, D_K), (module.w_v, D_V)):
            linear.weight.copy_(linear.weight[:size].repeat(H, 1))
        module.w_o.weight.copy_(module.w_o.weight[:, :D_V].repeat(1, H))
    module(x).square().sum().backward()
    for gradient in (module.w_q.weight.grad, module.w_k.weight.grad, module.w_v.weight.grad, module.w_o.weight.grad.T):
        first, *others = gradient.chunk(H)
        assert first.abs().max() > 1e-6
        for other in others:
            assert_close(other, first)


def test_a_context_changes_with_a_value_by_its_weight_alone() -> None:
    attention = DotProductAttention()
    q, k, v = rows(1, 1, T, D_K), 2 * rows(1, 1, S, D_K), rows(1, 1, S, D_V)
    jacobian = torch.func.jacrev(lambda values: attention(q, k, values))(v)[0, 0, :, :, 0, 0]  # (T, d_v, S, d_v)
    weights = attention.weights(q, k)[0, 0]
    identity = torch.eye(D_V, dtype=torch.float64)
    assert_close(jacobian, torch.einsum("ts,de->tdse", weights, identity))


def test_the_largest_weight_need_not_contribute_most() -> None:
    module, x = make_attention(num_heads=1), rows(1, T, D)
    kv = module.project(x)
    weights = module.attention.weights(module.w_q(x)[:, None], kv.keys)[0, 0]  # (T, T)
    favourite = int(weights[0].argmax())
    values = kv.values.clone()
    values[:, :, favourite] = 0
    contributions = weights[0, :, None] * (values[0, 0] @ module.w_o.weight.T)  # (T, D)
    assert_close(module(x, kv._replace(values=values))[0, 0], contributions.sum(0))
    assert contributions.norm(dim=-1).argmin() == favourite


@pytest.mark.parametrize("length", [11, 46, 67])
def test_pairs_cost_more_than_projections_only_beyond_twice_d_model(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "prefers_fused", lambda *_: False)
    module = MultiHeadAttention(D, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.randn(1, length, D))
    projections, pairs = 4 * length * D**2, 2 * length**2 * D  # multiplications
    assert counter.get_total_flops() == 2 * (projections + pairs)
    assert (pairs > projections) == (length > 2 * D)

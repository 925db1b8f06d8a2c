"""Grouped-query attention: by hand, and multi-head attention with repeated weights of keys and values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.layers import GroupedQueryAttention
from transformer.model.attention import DotProductAttention, KeyValue, MultiHeadAttention, causal_mask, padding_mask

B, W, H, L, M, D_MODEL, D_K, D_V = 2, 3, 6, 7, 11, 13, 5, 3
MASKS = ("none", "causal", "padding")

both_kernels = pytest.mark.usefixtures("kernel")


def randomise(module: MultiHeadAttention) -> MultiHeadAttention:
    torch.manual_seed(3)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def grouped(num_kv_heads: int, *, bias: bool = True) -> GroupedQueryAttention:
    return randomise(GroupedQueryAttention(D_MODEL, H, num_kv_heads=num_kv_heads, d_k=D_K, d_v=D_V, bias=bias))


def repeated(module: GroupedQueryAttention, num_kv_heads: int) -> MultiHeadAttention:
    """Multi-head attention in which each head has the projections of keys and values of its group."""
    plain = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V, bias=module.w_q.bias is not None).double()
    group_of = [head * num_kv_heads // H for head in range(H)]
    weights = {}
    for name, weight in module.state_dict().items():
        if name.startswith(("w_k", "w_v")):
            heads = weight.unflatten(0, (num_kv_heads, -1))
            weight = torch.cat([heads[group] for group in group_of])
        weights[name] = weight
    plain.load_state_dict(weights)
    return plain


def make_mask(kind: str, num_keys: int) -> Tensor | None:
    ids = torch.ones(B, num_keys, dtype=torch.int64)
    ids[1, -2:] = 0
    return {"none": None, "causal": causal_mask(L, num_keys - L), "padding": padding_mask(ids)}[kind]


@both_kernels
def test_grouped_query_attention_by_hand() -> None:
    # d_model = 4: four query heads, each of which reads one channel, and two heads of keys and values: the first reads
    # channels 1 and 2 as key and value, the second channels 3 and 4. d_k = 1, so scores are plain products.
    module = GroupedQueryAttention(4, 4, num_kv_heads=2)
    with torch.no_grad():
        module.w_q.weight.copy_(torch.eye(4))
        module.w_k.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]]))
        module.w_v.weight.copy_(torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 1]]))
        module.w_o.weight.copy_(torch.eye(4))
    query = torch.tensor([[[1.0, 2.0, 1.0, -1.0]]])
    # Keys are ln 2 and 0 in the first group, ln 3 and 0 in the second; values 10 and 1, 100 and 0.
    memory = torch.tensor([[[math.log(2), 10.0, math.log(3), 100.0], [0.0, 1.0, 0.0, 0.0]]])
    # Head 1: e^(1 ln 2) : e^0 = 2 : 1, weights 2/3 and 1/3; head 2: 4 : 1, 4/5 and 1/5; both of values 10 and 1.
    # Head 3: 3 : 1, 3/4 and 1/4; head 4: e^(-ln 3) : 1 = 1/3 : 1, 1/4 and 3/4; both of values 100 and 0.
    expected = torch.tensor([[[20 / 3 + 1 / 3, 40 / 5 + 1 / 5, 75.0, 25.0]]])
    assert_close(module(query, memory), expected)


@both_kernels
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 3, 6])
def test_it_is_multi_head_attention_with_repeated_weights(num_kv_heads: int, bias: bool, kind: str) -> None:
    module = grouped(num_kv_heads, bias=bias)
    plain = repeated(module, num_kv_heads)
    x, memory = (torch.randn(B, n, D_MODEL, dtype=torch.float64, requires_grad=True) for n in (L, M))
    mask, upstream = make_mask(kind, M), torch.randn(B, L, D_MODEL, dtype=torch.float64)
    actual, expected = module(x, memory, mask=mask), plain(x, memory, mask=mask)
    assert_close(actual, expected)
    for a, e in zip(*(torch.autograd.grad(y, [x, memory], upstream) for y in (actual, expected)), strict=True):
        assert_close(a, e)
    assert_close(module(x), plain(x))  # self-attention


@both_kernels
def test_with_as_many_heads_of_keys_and_values_it_is_multi_head_attention() -> None:
    module = grouped(H)
    plain = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V, bias=True).double()
    plain.load_state_dict(module.state_dict())
    x = torch.randn(B, L, D_MODEL).double()
    assert_close(module(x), plain(x))


@both_kernels
def test_multi_query_attention_has_one_head_of_keys_and_values() -> None:
    module, x = grouped(1, bias=False), torch.randn(B, L, D_MODEL).double()
    assert module.w_k.weight.shape == (D_K, D_MODEL)
    assert module.w_v.weight.shape == (D_V, D_MODEL)
    k, v = x @ module.w_k.weight.T, x @ module.w_v.weight.T  # (B, L, size), of all heads
    heads = []
    for q in (x @ module.w_q.weight.T).chunk(H, dim=-1):
        heads.append((q @ k.mT / math.sqrt(D_K)).softmax(-1) @ v)
    assert_close(module(x), torch.cat(heads, dim=-1) @ module.w_o.weight.T)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 3, 6])
def test_the_cache_has_only_the_heads_of_keys_and_values(num_kv_heads: int) -> None:
    module, x = grouped(num_kv_heads), torch.randn(B, L, D_MODEL).double()
    kv = None
    for piece in x.split([3, 1, 3], dim=1):
        kv = module.project(piece, kv)
    assert kv.keys.shape == (B, num_kv_heads, L, D_K)
    assert kv.values.shape == (B, num_kv_heads, L, D_V)
    assert_close(kv, module.project(x))
    assert_close(module(x, kv), module(x))


def test_the_caches_of_a_model_are_smaller_by_the_size_of_a_group() -> None:
    sizes = {}
    for num_kv_heads in (None, 6, 2, 1):
        config = ModelConfig(d_model=12, num_layers=2, num_heads=6, d_ff=29, num_kv_heads=num_kv_heads)
        model = build_model(31, config).eval()
        _, state = model.decode(
            torch.ones(B * W, 5, dtype=torch.int64), model.encode(torch.ones(B, L, dtype=torch.int64))
        )
        caches: tuple[KeyValue, ...] = (*state.past, *state.memory)
        sizes[num_kv_heads] = sum(tensor.numel() for kv in caches for tensor in kv)
    # Per layer, keys and values of 5 positions of 6 hypotheses and of 7 of 2 sentences, 12 numbers each.
    assert sizes == {None: 2 * 2 * (5 * 6 + 7 * 2) * 12, 6: sizes[None], 2: sizes[None] / 3, 1: sizes[None] / 6}


@both_kernels
@pytest.mark.parametrize("num_kv_heads", [1, 3])
def test_beams_share_the_memory_of_their_sentence(num_kv_heads: int) -> None:
    module = grouped(num_kv_heads)
    x, memory = torch.randn(B * W, L, D_MODEL).double(), torch.randn(B, M, D_MODEL).double()
    mask = make_mask("padding", M)
    expected = module(x, memory.repeat_interleave(W, dim=0), mask=mask.repeat_interleave(W, dim=0))
    assert_close(module(x, memory, mask=mask), expected)


def test_projections_start_within_the_bound_of_their_own_sizes() -> None:
    torch.manual_seed(5)
    module = GroupedQueryAttention(61, 8, num_kv_heads=2, d_k=19, d_v=17, bias=True)
    # As in multi-head attention: √½ times Glorot's √(6 / (fan_in + fan_out)).
    bounds = {module.w_q: 61 + 8 * 19, module.w_k: 61 + 2 * 19, module.w_v: 61 + 2 * 17}
    for linear, fans in bounds.items():
        assert 0.9 * math.sqrt(3 / fans) < linear.weight.abs().max() <= math.sqrt(3 / fans)
        assert_close(linear.bias, torch.zeros_like(linear.bias))


def test_it_takes_the_options_of_multi_head_attention() -> None:
    attention = DotProductAttention(0.3)
    module = GroupedQueryAttention(12, 6, num_kv_heads=2, attention=attention)
    assert module.attention is attention
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "w_q.weight": (12, 12),
        "w_k.weight": (4, 12),
        "w_v.weight": (4, 12),
        "w_o.weight": (12, 12),
    }


@pytest.mark.parametrize("num_kv_heads", [4, 5, 7, 12])
def test_heads_that_are_not_a_multiple_of_those_of_keys_and_values_are_an_error(num_kv_heads: int) -> None:
    with pytest.raises(ValueError, match=f"num_heads=6 is not a multiple of num_kv_heads={num_kv_heads}"):
        GroupedQueryAttention(D_MODEL, H, num_kv_heads=num_kv_heads, d_k=D_K)


def test_a_d_model_that_the_heads_do_not_divide_is_an_error() -> None:
    with pytest.raises(ValueError, match="d_model=13 is not a multiple of num_heads=6"):
        GroupedQueryAttention(D_MODEL, H, num_kv_heads=2)

"""Masks, equation 1 and multi-head attention: hand-computed values, the equations as printed, and torch.nn."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from transformer.model import kernels
from transformer.model.attention import (
    DotProductAttention,
    KeyValue,
    MultiHeadAttention,
    causal_mask,
    masked_softmax,
    padding_mask,
)

# Batch, beams, heads, positions, sizes: small and all different; H * D_V = 15 is not D_MODEL.
B, W, H, L, D_MODEL, D_K, D_V = 2, 5, 3, 13, 11, 7, 5
MASKS = ("none", "causal", "padding", "both", "hidden row")

both_kernels = pytest.mark.usefixtures("kernel")


def table(*rows: str) -> Tensor:
    """A bool matrix from rows of 0 and 1."""
    return torch.tensor([[character == "1" for character in row] for row in rows])


def make_mask(kind: str) -> Tensor | None:
    """A mask over L x L positions; two of the second sentence are padding."""
    ids = torch.ones(B, L, dtype=torch.int64)
    ids[1, -2:] = 0
    if kind == "none":
        return None
    if kind == "causal":
        return causal_mask(L)
    if kind == "padding":
        return padding_mask(ids)
    both = padding_mask(ids) & causal_mask(L)  # (B, 1, L, L)
    if kind == "hidden row":
        both[0, 0, 4] = False
    return both


def equation_1(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Equation 1 for one head, (Q, d_k), (M, d_k), (M, d_v), query by query: an oracle without softmax or fill."""
    contexts, all_weights = [], []
    for i in range(q.size(0)):
        allowed = [j for j in range(k.size(0)) if mask is None or mask[i, j]]
        powers = [torch.exp(q[i] @ k[j] / math.sqrt(k.size(1))) for j in allowed]
        weights = [q.new_zeros(())] * k.size(0)
        for j, power in zip(allowed, powers, strict=True):
            weights[j] = power / sum(powers)
        contexts.append(sum((weights[j] * v[j] for j in range(k.size(0))), start=v.new_zeros(v.size(1))))
        all_weights.append(torch.stack(weights))
    return torch.stack(contexts), torch.stack(all_weights)


def multi_head_as_printed(module: MultiHeadAttention, query: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
    """Concat(head_1, ..., head_h) W^O, with head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V), sentence by sentence."""

    def project(linear: nn.Linear, x: Tensor, head: int) -> Tensor:
        rows = slice(head * linear.out_features // H, (head + 1) * linear.out_features // H)
        y = x @ linear.weight[rows].T
        return y if linear.bias is None else y + linear.bias[rows]

    outputs = []
    for b in range(query.size(0)):
        heads = []
        for head in range(H):
            q = project(module.w_q, query[b], head)
            k, v = (project(linear, memory[b], head) for linear in (module.w_k, module.w_v))
            rows = None if mask is None else mask.expand(query.size(0), H, q.size(0), k.size(0))[b, head]
            heads.append(equation_1(q, k, v, rows)[0])
        concat = torch.cat(heads, dim=-1) @ module.w_o.weight.T
        outputs.append(concat if module.w_o.bias is None else concat + module.w_o.bias)
    return torch.stack(outputs)


def random_attention(*, bias: bool = True, dropout: float = 0.0) -> MultiHeadAttention:
    """In float64, with random biases too: initial ones are zero and would hide mistakes."""
    torch.manual_seed(3)
    module = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V, bias=bias, attention=DotProductAttention(dropout))
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def heads_of(linear: nn.Linear, x: Tensor) -> Tensor:
    """A projection of x (B, L, D), head by head: (B, H, L, size)."""
    return torch.stack(linear(x).chunk(H, dim=-1), dim=1)


# Masks


def test_the_padding_mask_is_true_at_real_tokens_and_broadcasts_over_heads_and_queries() -> None:
    ids = torch.tensor([[5, 3, 2, 0, 0], [7, 2, 0, 0, 0], [4, 4, 4, 4, 2]])
    mask = padding_mask(ids)
    assert mask.shape == (3, 1, 1, 5)
    assert_close(mask[:, 0, 0], table("11100", "11000", "11111"))


def test_the_padding_mask_takes_any_pad_id() -> None:
    assert_close(padding_mask(torch.tensor([[0, 3, 7, 7]]), pad_id=7)[:, 0, 0], table("1100"))


def test_the_causal_mask_allows_a_query_itself_and_earlier_positions() -> None:
    mask = causal_mask(5)
    assert mask.shape == (1, 1, 5, 5)
    assert_close(mask[0, 0], table("10000", "11000", "11100", "11110", "11111"))


def test_the_causal_mask_allows_every_query_the_past() -> None:
    mask = causal_mask(3, num_past=2)
    assert mask.shape == (1, 1, 3, 5)
    assert_close(mask[0, 0], table("11100", "11110", "11111"))


def test_a_causal_mask_with_a_past_is_the_last_rows_of_a_longer_one() -> None:
    for num_past in range(7):
        assert_close(causal_mask(7 - num_past, num_past), causal_mask(7)[:, :, num_past:])


def test_the_causal_mask_is_made_on_the_requested_device() -> None:
    assert causal_mask(3, device="meta").device.type == "meta"
    assert causal_mask(3).dtype == torch.bool


# Equation 1


@both_kernels
def test_equation_1_gives_the_values_computed_by_hand() -> None:
    # √d_k = 2, so the scores are ln 1, ln 2, ln 3 and the weights 1/6, 2/6, 3/6.
    q = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]])
    k = torch.tensor([[[[math.log(n), 5.0, -7.0, n] for n in (1, 2, 3)]]])
    v = torch.tensor([[[[6.0, 0.0], [0.0, 6.0], [6.0, 12.0]]]])
    attention = DotProductAttention()
    assert_close(attention.weights(q, k), torch.tensor([[[[1 / 6, 2 / 6, 3 / 6]]]]))
    assert_close(attention(q, k, v), torch.tensor([[[[4.0, 8.0]]]]))


@both_kernels
def test_a_masked_key_has_no_part_in_equation_1() -> None:
    q = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]])
    k = torch.tensor([[[[math.log(n), 0.0, 0.0, 0.0] for n in (1, 2, 3)]]])
    v = torch.tensor([[[[6.0, 0.0], [0.0, 6.0], [6.0, 12.0]]]])
    mask, attention = torch.tensor([[True, True, False]]), DotProductAttention()
    assert_close(attention.weights(q, k, mask), torch.tensor([[[[1 / 3, 2 / 3, 0.0]]]]))
    assert_close(attention(q, k, v, mask), torch.tensor([[[[2.0, 4.0]]]]))


@both_kernels
@pytest.mark.parametrize("kind", MASKS)
def test_equation_1_equals_a_loop_over_queries_and_keys(kind: str) -> None:
    torch.manual_seed(5)
    q, k, v = (torch.randn(B, H, L, size, dtype=torch.float64) for size in (D_K, D_K, D_V))
    mask, attention = make_mask(kind), DotProductAttention()
    context, weights = attention(q, k, v, mask), attention.weights(q, k, mask)
    for b, head in itertools.product(range(B), range(H)):
        rows = None if mask is None else mask.expand(B, H, L, L)[b, head]
        expected_context, expected_weights = equation_1(q[b, head], k[b, head], v[b, head], rows)
        assert_close(context[b, head], expected_context)
        assert_close(weights[b, head], expected_weights)


def test_weights_are_not_negative_and_sum_to_one_unless_all_keys_are_masked() -> None:
    torch.manual_seed(5)
    q, k = (torch.randn(B, H, L, D_K) for _ in range(2))
    mask = make_mask("hidden row")
    weights = DotProductAttention().weights(q, k, mask)
    expected = torch.ones(B, H, L)
    expected[0, :, 4] = 0.0
    assert_close(weights.sum(-1), expected)
    assert (weights >= 0).all()
    assert (weights[~mask.expand_as(weights)] == 0).all()


def test_weights_do_not_overflow_if_scores_are_huge() -> None:
    q = torch.tensor([[1e4], [-1e4]])
    k = torch.tensor([[1e4], [-1e4], [0.0]])
    assert_close(DotProductAttention().weights(q, k), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


def test_scores_are_divided_by_the_root_of_d_k() -> None:
    # Footnote 4: the product of two random vectors has variance d_k, so divided scores have variance 1.
    torch.manual_seed(5)
    q, k = (torch.randn(499, 61, dtype=torch.float64) for _ in range(2))
    scores = DotProductAttention().weights(q, k).log()
    scores -= scores.mean(dim=-1, keepdim=True)
    assert_close(scores.var(), torch.tensor(1.0, dtype=torch.float64), rtol=0.02, atol=0.0)
    products = q @ k.T
    products -= products.mean(dim=-1, keepdim=True)
    assert_close(scores, products / math.sqrt(61))
    assert_close(DotProductAttention().scores(q, k), q @ k.T / math.sqrt(61))


def test_the_masked_softmax_is_that_of_the_allowed_scores() -> None:
    scores = torch.tensor([[0.0, math.log(3), 50.0], [1.0, 2.0, 3.0]])
    mask = table("110", "000")
    assert_close(masked_softmax(scores, mask), torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]]))
    assert_close(masked_softmax(scores), scores.exp() / scores.exp().sum(-1, keepdim=True))


@both_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_without_allowed_keys_gets_zeros_and_finite_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    q, k, v = (torch.randn(1, 1, L, size, dtype=dtype, requires_grad=True) for size in (D_K, D_K, D_V))
    mask = torch.ones(L, L, dtype=torch.bool)
    mask[4] = False
    context, weights = DotProductAttention()(q, k, v, mask), DotProductAttention().weights(q, k, mask)
    context.square().sum().backward()
    assert_close(context[0, 0, 4], torch.zeros(D_V, dtype=dtype))
    assert_close(weights[0, 0, 4], torch.zeros(L, dtype=dtype))
    assert_close(q.grad[0, 0, 4], torch.zeros(D_K, dtype=dtype))
    for x in (q, k, v):
        assert x.grad.isfinite().all()


@both_kernels
def test_dropout_of_weights_keeps_their_mean() -> None:
    torch.manual_seed(5)
    num_draws, p = 4001, 0.3
    q, k, v = (torch.randn(1, 1, n, size, dtype=torch.float64) for n, size in ((5, D_K), (7, D_K), (7, D_V)))
    attention = DotProductAttention(p)
    context = attention(*(x.expand(num_draws, -1, -1, -1) for x in (q, k, v)))
    clean, clean_weights = DotProductAttention()(q, k, v), DotProductAttention().weights(q, k)
    assert_close(attention.weights(q, k), clean_weights)  # those before dropout
    # A weight kept with probability 1 - p, then divided by it, varies by w² p / (1 - p).
    deviation = (clean_weights.square() @ v.square() * p / (1 - p) / num_draws).sqrt()
    assert ((context.mean(0) - clean[0]).abs() < 5 * deviation[0]).all()
    assert (context.std(0) > 0).all()


def test_equation_1_transforms_neither_queries_nor_keys() -> None:
    x = torch.randn(B, H, L, D_K)
    assert DotProductAttention().queries(x, 5) is x
    assert DotProductAttention().keys(x, 5) is x


# Multi-head attention


@both_kernels
@pytest.mark.parametrize("kind", MASKS)
def test_both_kernels_equal_multi_head_attention_as_printed_in_value_and_gradient(kind: str) -> None:
    module = random_attention()
    query, memory = (torch.randn(B, L, D_MODEL, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask, inputs = make_mask(kind), [query, memory, *module.parameters()]
    upstream = torch.randn(B, L, D_MODEL, dtype=torch.float64)
    actual = module(query, memory, mask=mask)
    expected = multi_head_as_printed(module, query, memory, mask)
    assert_close(actual, expected)
    for a, e in zip(
        torch.autograd.grad(actual, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        assert_close(a, e)


@both_kernels
def test_without_biases_attention_is_the_papers_and_has_four_matrices() -> None:
    module = random_attention(bias=False)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "w_q.weight": (H * D_K, D_MODEL),
        "w_k.weight": (H * D_K, D_MODEL),
        "w_v.weight": (H * D_V, D_MODEL),
        "w_o.weight": (D_MODEL, H * D_V),
    }
    query, memory = torch.randn(B, 5, D_MODEL).double(), torch.randn(B, 7, D_MODEL).double()
    assert_close(module(query, memory), multi_head_as_printed(module, query, memory, None))


def test_the_bias_option_adds_a_vector_to_each_projection() -> None:
    module = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V, bias=True)
    biases = {name: tuple(p.shape) for name, p in module.named_parameters() if name.endswith("bias")}
    assert biases == {"w_q.bias": (21,), "w_k.bias": (21,), "w_v.bias": (15,), "w_o.bias": (D_MODEL,)}


def test_without_memory_it_is_self_attention() -> None:
    module = random_attention()
    x = torch.randn(B, L, D_MODEL).double()
    assert_close(module(x), multi_head_as_printed(module, x, x, None))


def test_the_chosen_kernel_changes_nothing_at_any_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    module = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V)
    query = torch.randn(B, L, D_MODEL)
    for num_keys in (1, 47, 48, 53, 331):  # 48 is where float32 changes over
        memory = torch.randn(B, num_keys, D_MODEL)
        chosen = module(query, memory)
        for fused in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(kernels, "prefers_fused", lambda *_, fused=fused: fused)
                assert_close(module(query, memory), chosen, rtol=0, atol=1e-6)


def test_attention_runs_on_devices_other_than_a_cpu() -> None:
    module = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V).to("meta")
    assert module(torch.empty(B, L, D_MODEL, device="meta")).shape == (B, L, D_MODEL)


@both_kernels
@pytest.mark.parametrize("kind", MASKS)
def test_weights_are_those_that_forward_mixes_values_with(kind: str) -> None:
    module = random_attention()
    query, memory = (torch.randn(B, L, D_MODEL, dtype=torch.float64) for _ in range(2))
    mask, kv = make_mask(kind), module.project(memory)
    weights = module.attention.weights(heads_of(module.w_q, query), kv.keys, mask)
    assert weights.shape == (B, H, L, L)
    mixed = weights @ kv.values  # (B, H, L, d_v)
    expected = module.w_o(torch.cat(mixed.unbind(1), dim=-1))
    assert_close(module(query, kv, mask=mask), expected)


@both_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_masked_row_gives_only_the_output_bias_and_no_nan_on_either_kernel(dtype: torch.dtype) -> None:
    module = random_attention().to(dtype)
    x = torch.randn(B, L, D_MODEL, dtype=dtype, requires_grad=True)
    y = module(x, mask=make_mask("hidden row"))
    y.square().sum().backward()
    assert_close(y[0, 4], module.w_o.bias)
    assert y.isfinite().all()
    for tensor in (x, *module.parameters()):
        assert tensor.grad.isfinite().all()


def test_keys_and_values_are_the_heads_of_their_projections() -> None:
    module, x = random_attention(), torch.randn(B, L, D_MODEL).double()
    kv = module.project(x)
    assert kv.keys.shape == (B, H, L, D_K)
    assert kv.values.shape == (B, H, L, D_V)
    assert_close(kv, KeyValue(heads_of(module.w_k, x), heads_of(module.w_v, x)))


@pytest.mark.parametrize("sizes", [(13,), (5, 5, 3), (12, 1), (1, 1, 11)])
def test_keys_and_values_may_be_projected_in_pieces(sizes: tuple[int, ...]) -> None:
    module, x = random_attention(), torch.randn(B, L, D_MODEL).double()
    kv = None
    for piece in x.split(list(sizes), dim=1):
        kv = module.project(piece, kv)
    assert_close(kv, module.project(x))


@both_kernels
def test_memory_may_be_given_as_its_keys_and_values() -> None:
    module = random_attention()
    query, memory = torch.randn(B, 5, D_MODEL).double(), torch.randn(B, 7, D_MODEL).double()
    assert_close(module(query, module.project(memory)), module(query, memory))


@both_kernels
def test_attention_does_not_depend_on_the_order_of_the_memory() -> None:
    module = random_attention()
    query, memory = torch.randn(B, 5, D_MODEL).double(), torch.randn(B, L, D_MODEL).double()
    assert_close(module(query, memory[:, torch.randperm(L)]), module(query, memory))


@both_kernels
@pytest.mark.parametrize("num_queries", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_beams_share_the_memory_of_their_sentence_as_if_it_were_repeated(masked: bool, num_queries: int) -> None:
    module = random_attention()
    x, memory = torch.randn(B * W, num_queries, D_MODEL).double(), torch.randn(B, L, D_MODEL).double()
    mask = make_mask("padding") if masked else None
    repeated = None if mask is None else mask.repeat_interleave(W, dim=0)
    assert_close(module(x, memory, mask=mask), module(x, memory.repeat_interleave(W, dim=0), mask=repeated))


def test_a_batch_without_rows_has_an_output_without_rows() -> None:
    module = random_attention()
    assert module(torch.empty(0, 5, D_MODEL).double()).shape == (0, 5, D_MODEL)


@both_kernels
def test_attention_dropout_keeps_the_mean_in_training_and_is_off_in_eval() -> None:
    module, num_draws = random_attention(dropout=0.3), 2003
    x = torch.randn(1, 7, D_MODEL).double()
    expected = random_attention(dropout=0.0)(x)
    assert_close(module.eval()(x), expected)
    draws = module.train()(x.expand(num_draws, -1, -1))
    deviation = draws.std(0) / math.sqrt(num_draws)
    assert (deviation > 0).all()
    assert ((draws.mean(0) - expected[0]).abs() < 5 * deviation).all()


@both_kernels
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["none", "causal", "padding", "both"])  # torch.nn gives NaN for a hidden row
def test_multi_head_attention_equals_that_of_torch_nn(bias: bool, kind: str) -> None:
    torch.manual_seed(5)
    d_model = 21
    ours = MultiHeadAttention(d_model, H, bias=bias).double()
    theirs = nn.MultiheadAttention(d_model, H, bias=bias, batch_first=True, dtype=torch.float64)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]))
        theirs.out_proj.weight.copy_(ours.w_o.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([ours.w_q.bias, ours.w_k.bias, ours.w_v.bias]))
            theirs.out_proj.bias.copy_(ours.w_o.bias)
    query, memory = (torch.randn(B, L, d_model, dtype=torch.float64) for _ in range(2))
    mask = make_mask(kind)
    # torch.nn's masks are True where a query may not attend, and have a row per sentence and head.
    hidden = None if mask is None else ~mask.expand(B, H, L, L).flatten(0, 1)
    expected, weights = theirs(query, memory, memory, attn_mask=hidden, average_attn_weights=False)
    assert_close(ours(query, memory, mask=mask), expected)
    assert_close(ours.attention.weights(heads_of(ours.w_q, query), ours.project(memory).keys, mask), weights)


@both_kernels
def test_masks_of_fewer_dimensions_or_of_size_one_are_broadcast() -> None:
    module = random_attention()
    x, memory = torch.randn(B, 5, D_MODEL).double(), torch.randn(B, 7, D_MODEL).double()
    torch.manual_seed(7)
    whole = torch.rand(B, H, 5, 7) < 0.6
    for mask in (whole, whole[:1], whole[:, :1], whole[:, :, :1], whole[1, 2], whole[1, 2, :1]):
        expected = multi_head_as_printed(module, x, memory, mask.expand(B, H, 5, 7))
        assert_close(module(x, memory, mask=mask), expected)


@both_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8])
def test_a_mask_that_is_not_bool_is_an_error(dtype: torch.dtype) -> None:
    module, x = random_attention(), torch.randn(B, L, D_MODEL).double()
    with pytest.raises(TypeError, match=rf"mask is {dtype}; it must be bool, True where a query may attend"):
        module(x, mask=torch.ones(L, L, dtype=dtype))


@both_kernels
@pytest.mark.parametrize("shape", [(B, L, L), (L,), (B, 1, 1, L - 1), (B + 1, 1, L, L), (B, 2, L, L), (L - 1, L)])
def test_a_mask_of_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    module, x = random_attention(), torch.randn(B, L, D_MODEL).double()
    message = r"mask \({}\) is neither \(Q, M\) nor broadcastable to \(B, H, Q, M\) = \(2, 3, 13, 13\)"
    with pytest.raises(ValueError, match=message.format(", ".join(map(str, shape)) + "," * (len(shape) == 1))):
        module(x, mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("num_rows", [1, 3, 5])
def test_rows_that_are_not_a_multiple_of_the_memorys_are_an_error(num_rows: int) -> None:
    module, memory = random_attention(), torch.randn(2, L, D_MODEL).double()
    with pytest.raises(ValueError, match=f"x has {num_rows} rows, not a multiple of the memory's 2"):
        module(torch.randn(num_rows, 7, D_MODEL).double(), memory)


def test_by_default_d_k_is_d_model_divided_by_the_heads_and_d_v_is_d_k() -> None:
    shapes = {name: tuple(p.shape) for name, p in MultiHeadAttention(21, 3).named_parameters()}
    assert set(shapes.values()) == {(21, 21)}
    shapes = {name: tuple(p.shape) for name, p in MultiHeadAttention(11, 3, d_k=7).named_parameters()}
    assert shapes["w_k.weight"] == shapes["w_v.weight"] == (21, 11)


@pytest.mark.parametrize("num_heads", [2, 3, 4, 8])
def test_several_small_heads_cost_as_much_as_one_of_full_size(num_heads: int) -> None:
    def cost(num_heads: int) -> tuple[int, int]:
        module = MultiHeadAttention(24, num_heads)
        with FlopCounterMode(display=False) as counter:
            module(torch.randn(2, 7, 24), torch.randn(2, 11, 24))
        return counter.get_total_flops(), sum(parameter.numel() for parameter in module.parameters())

    assert cost(num_heads) == cost(1)


def test_a_d_model_that_the_heads_do_not_divide_is_an_error_unless_d_k_is_given() -> None:
    with pytest.raises(ValueError, match="d_model=11 is not a multiple of num_heads=3; change one or give d_k"):
        MultiHeadAttention(11, 3)
    with pytest.raises(ValueError, match="d_model=11 is not a multiple"):
        MultiHeadAttention(11, 3, d_v=5)
    assert MultiHeadAttention(11, 3, d_k=5)(torch.randn(1, 2, 11)).shape == (1, 2, 11)


def test_its_printed_form_names_its_sizes() -> None:
    assert "num_heads=3, d_k=7, d_v=5" in repr(random_attention())


def test_projections_start_within_the_bound_of_one_fused_matrix_and_biases_at_zero() -> None:
    torch.manual_seed(5)
    d_model, heads, d_k, d_v = 47, 5, 19, 17
    module = MultiHeadAttention(d_model, heads, d_k=d_k, d_v=d_v, bias=True)
    # Glorot: √(6 / (fan_in + fan_out)), for q, k and v times √½.
    bounds = {
        module.w_q: math.sqrt(3 / (d_model + heads * d_k)),
        module.w_k: math.sqrt(3 / (d_model + heads * d_k)),
        module.w_v: math.sqrt(3 / (d_model + heads * d_v)),
        module.w_o: math.sqrt(6 / (d_model + heads * d_v)),
    }
    for linear, bound in bounds.items():
        assert 0.9 * bound < linear.weight.abs().max() <= bound
        # A uniform distribution over (-b, b) has variance b² / 3.
        assert_close(linear.weight.var().item(), bound**2 / 3, rtol=0.1, atol=0.0)
        assert_close(linear.bias, torch.zeros_like(linear.bias))


def test_query_key_and_value_start_as_the_thirds_of_one_glorot_matrix() -> None:
    torch.manual_seed(5)
    d_model = 61
    module = MultiHeadAttention(d_model, 1)
    fused = nn.init.xavier_uniform_(torch.empty(3 * d_model, d_model))  # bound √(6 / 4d)
    for linear in (module.w_q, module.w_k, module.w_v):
        assert_close(linear.weight.abs().max(), fused.abs().max(), rtol=0.01, atol=0.0)

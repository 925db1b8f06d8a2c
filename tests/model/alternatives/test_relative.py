"""Positions in attention: hand-computed values, the printed formulas, and Hugging Face's T5 and GPT-J."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model import kernels
from transformer.model.alternatives.relative import (
    AlibiAttention,
    RelativeAttention,
    RotaryAttention,
    ShawAttention,
    T5Attention,
    T5Bias,
    WrappedAttention,
)
from transformer.model.alternatives.scores import CosineAttention, GeneralAttention, TemperatureAttention
from transformer.model.attention import DotProductAttention, MultiHeadAttention, causal_mask, padding_mask
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Decoder, DecoderState

B, H, L, D_MODEL, D_K, D_V = 2, 3, 7, 11, 10, 5

both_kernels = pytest.mark.usefixtures("kernel")


def random_attention(attention: DotProductAttention) -> MultiHeadAttention:
    torch.manual_seed(3)
    module = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V, attention=attention).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def heads_of(linear: nn.Linear, x: Tensor) -> Tensor:
    """A projection of x (B, L, D), head by head: (B, H, L, size)."""
    return torch.stack(linear(x).chunk(H, dim=-1), dim=1)


def relative_positions(num_queries: int, num_keys: int, *, centred: bool = False) -> Tensor:
    attention = RelativeAttention(DotProductAttention(), centred=centred)
    return attention.relative_positions(torch.empty(1, 1, num_queries, 1), torch.empty(1, 1, num_keys, 1))


# Relative positions


def test_a_relative_position_is_the_keys_position_minus_the_querys() -> None:
    assert_close(relative_positions(3, 3), torch.tensor([[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]))


def test_queries_are_the_last_positions_of_the_keys() -> None:
    assert_close(relative_positions(2, 4), torch.tensor([[-2, -1, 0, 1], [-3, -2, -1, 0]]))
    for num_past, num_new in ((0, 1), (0, 5), (3, 1), (3, 2)):
        assert_close(
            relative_positions(num_new, num_past + num_new),
            relative_positions(8, 8)[num_past:, :][:num_new, : num_past + num_new],
        )


def test_centred_queries_have_as_many_keys_on_either_side() -> None:
    assert_close(relative_positions(2, 4, centred=True), torch.tensor([[-1, 0, 1, 2], [-2, -1, 0, 1]]))
    assert_close(relative_positions(3, 3, centred=True), relative_positions(3, 3))


def test_a_wrapped_attention_transforms_queries_and_keys_and_drops_as_the_inner_one() -> None:
    inner = CosineAttention(H, D_K, 0.3, 1.7)
    outer, x = WrappedAttention(inner), torch.randn(B, H, L, D_K)
    assert torch.equal(outer.queries(x, 5), inner.queries(x, 5))
    assert torch.equal(outer.keys(x, 5), inner.keys(x, 5))
    assert outer.dropout.p == 0.3


# Rotary positions


def test_rotary_by_hand() -> None:
    # d_k = 4: the first pair turns by pos, the second by pos / 100.
    attention = RotaryAttention(DotProductAttention(), 4)
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0]]).expand(1, 1, 3, 4)
    expected = [[math.cos(p), math.sin(p), -math.sin(p / 100), math.cos(p / 100)] for p in (0, 1, 2)]
    assert_close(attention.queries(x, 0)[0, 0], torch.tensor(expected))
    assert_close(attention.keys(x, 0)[0, 0], torch.tensor(expected))


def test_the_product_of_rotated_vectors_depends_on_the_distance_only() -> None:
    torch.manual_seed(3)
    q, k = torch.randn(D_K), torch.randn(D_K)
    attention = RotaryAttention(DotProductAttention(), D_K)
    rotated_q, rotated_k = attention.queries(q.expand(1, 1, L, -1), 0), attention.keys(k.expand(1, 1, L, -1), 0)
    products = (rotated_q @ rotated_k.mT)[0, 0]
    for i, j in itertools.product(range(L - 1), range(L - 1)):
        assert_close(products[i + 1, j + 1], products[i, j], rtol=0, atol=1e-5)
    assert_close(products.diagonal(), (q @ k).expand(L), rtol=0, atol=1e-5)
    assert (products[0, 1:] - products[0, :-1]).abs().min() > 1e-3


def test_rotary_positions_are_those_of_gpt_j() -> None:
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    torch.manual_seed(3)
    x = torch.randn(B, H, L, D_K)
    sine, cosine = gptj.create_sinusoidal_positions(L, D_K).chunk(2, dim=-1)
    expected = gptj.apply_rotary_pos_emb(x.transpose(1, 2), sine[None], cosine[None]).transpose(1, 2)
    assert_close(RotaryAttention(DotProductAttention(), D_K).queries(x, 0), expected)


@pytest.mark.parametrize("start", [1, 5, 6])
def test_later_positions_turn_on(start: int) -> None:
    attention, x = RotaryAttention(DotProductAttention(), D_K), torch.randn(B, H, L, D_K)
    assert_close(attention.queries(x[:, :, start:], start), attention.queries(x, 0)[:, :, start:])
    assert_close(attention.keys(x[:, :, start:], start), attention.keys(x, 0)[:, :, start:])


def test_keys_are_rotated_by_their_positions_before_they_are_cached() -> None:
    module, x = random_attention(RotaryAttention(DotProductAttention(), D_K)), torch.randn(B, L, D_MODEL).double()
    past = module.project(x[:, :4])
    assert_close(module.project(x[:, 4:], past), module.project(x))
    assert_close(module(x[:, 5:], module.project(x)), module(x)[:, 5:])


def test_rotary_positions_set_no_limit_even_in_training_after_inference() -> None:
    attention = RotaryAttention(DotProductAttention(), D_K)
    kernels._table.cache_clear()
    with torch.inference_mode():
        attention.queries(torch.zeros(1, 1, 307, D_K), 0)
    x = torch.randn(1, 1, 307, D_K, requires_grad=True)
    attention.queries(x, 0).square().sum().backward()
    assert_close(x.grad, 2 * x.detach())  # a rotation keeps lengths
    assert list(attention.parameters()) == [] == list(attention.state_dict())


def test_an_odd_d_k_is_an_error_with_rotary_positions() -> None:
    with pytest.raises(ValueError, match="positional='rotary' rotates pairs of channels and d_k=7 is odd"):
        RotaryAttention(DotProductAttention(), 7)


@both_kernels
@pytest.mark.parametrize("name", ["general", "cosine", "temperature"])
def test_rotary_scores_depend_on_the_distance_with_every_score_that_is_a_product(name: str) -> None:
    inner = {
        "general": lambda: GeneralAttention(H, D_K),
        "cosine": lambda: CosineAttention(H, D_K),
        "temperature": lambda: TemperatureAttention(temperature=1.7),
    }[name]()
    module = random_attention(RotaryAttention(inner, D_K))
    x = torch.randn(1, 1, D_MODEL).double().expand(1, L, -1)  # the same at every position
    q, k = module.attention.queries(heads_of(module.w_q, x), 0), module.project(x).keys
    weights = module.attention.weights(q, k)
    scores = weights.log()
    first: Tensor = scores[:, :, :-1, :-1] - scores[:, :, 1:, 1:]
    # Each query's scores are known up to a constant.
    assert_close(first, first[..., :1].expand_as(first), rtol=0, atol=1e-5)
    context = (weights @ module.project(x).values).transpose(1, 2).flatten(2)
    assert_close(module(x), module.w_o(context))  # forward uses the same weights


# Shaw's


def test_shaw_by_hand() -> None:
    # One head, d_k = d_v = 1, distances clipped to [-1, 1]; q and k are 1, so e_ij = 1 + a^K.
    attention = ShawAttention(DotProductAttention(), 1, 1, 1)
    with torch.no_grad():
        attention.key_table.copy_(torch.tensor([[0.0], [math.log(2)], [math.log(3)]]))
        attention.value_table.copy_(torch.tensor([[10.0], [20.0], [30.0]]))
    ones = torch.ones(1, 1, 3, 1)
    y = attention(ones, ones, ones)[0, 0, :, 0]
    # Distances of the first query: 0, 1, 2 -> 1: weights 2/8, 3/8, 3/8; of the second: -1, 0, 1: weights 1/6, 2/6, 3/6;
    # of the third: -2 -> -1, -1, 0: weights 1/4, 1/4, 2/4. Values are 1 and what the table adds.
    first, second, third = (2 * 20 + 6 * 30) / 8, (10 + 2 * 20 + 3 * 30) / 6, (2 * 10 + 2 * 20) / 4
    assert_close(y, 1 + torch.tensor([first, second, third]))


@pytest.mark.parametrize("masked", [False, True])
def test_shaw_is_as_printed(masked: bool) -> None:
    clip = 2
    module = random_attention(ShawAttention(DotProductAttention(), D_K, D_V, clip))
    key_table, value_table = module.attention.key_table, module.attention.value_table
    x = torch.randn(B, L, D_MODEL, dtype=torch.float64)
    q, k, v = (heads_of(w, x) for w in (module.w_q, module.w_k, module.w_v))
    z = torch.zeros(B, H, L, D_V, dtype=torch.float64)
    for b, h, i in itertools.product(range(B), range(H), range(L)):
        seen = range(i + 1 if masked else L)
        row = [min(max(j - i, -clip), clip) + clip for j in seen]
        e = [q[b, h, i] @ (k[b, h, j] + key_table[row[j]]) / math.sqrt(D_K) for j in seen]
        alpha = torch.stack(e).softmax(0)
        z[b, h, i] = sum(alpha[j] * (v[b, h, j] + value_table[row[j]]) for j in seen)
    actual = module(x, mask=causal_mask(L) if masked else None)
    assert_close(actual, module.w_o(z.transpose(1, 2).flatten(2)))


def test_a_temperature_divides_shaws_scores_as_a_whole() -> None:
    module = random_attention(ShawAttention(TemperatureAttention(temperature=3.0), D_K, D_V, 2))
    plain = random_attention(ShawAttention(DotProductAttention(), D_K, D_V, 2))
    x = torch.randn(B, L, D_MODEL, dtype=torch.float64)
    plain.w_q.weight.data /= 3.0
    assert_close(module(x), plain(x))


def test_shaws_tables_are_shared_by_the_heads() -> None:
    shapes = {name: tuple(p.shape) for name, p in ShawAttention(DotProductAttention(), D_K, D_V, 3).named_parameters()}
    assert shapes == {"key_table": (7, D_K), "value_table": (7, D_V)}


def test_shaws_tables_start_within_the_glorot_bound() -> None:
    torch.manual_seed(3)
    attention = ShawAttention(DotProductAttention(), 61, 59, 20)
    for table in attention.parameters():
        bound = math.sqrt(6 / sum(table.shape))
        assert 0.9 * bound < table.abs().max() <= bound


@both_kernels
def test_shaws_weights_drop_before_they_mix_both_kinds_of_values() -> None:
    module, num_draws = random_attention(ShawAttention(DotProductAttention(0.3), D_K, D_V, 2)), 2003
    clean = random_attention(ShawAttention(DotProductAttention(), D_K, D_V, 2))
    x = torch.randn(1, 5, D_MODEL, dtype=torch.float64)
    assert_close(module.eval()(x), clean(x))
    draws = module.train()(x.expand(num_draws, -1, -1))
    deviation = draws.std(0) / math.sqrt(num_draws)
    assert (deviation > 0).all()
    assert ((draws.mean(0) - clean(x)[0]).abs() < 5 * deviation).all()


@pytest.mark.parametrize("max_distance", [0, -1])
def test_a_distance_to_clip_at_that_is_less_than_one_is_an_error(max_distance: int) -> None:
    with pytest.raises(ValueError, match=f"max_relative_position={max_distance} is less than 1"):
        ShawAttention(DotProductAttention(), D_K, D_V, max_distance)


# T5's


def bucket(distance: int, **options: Any) -> int:
    return int(T5Bias(H, **options).buckets(torch.tensor([[distance]])))


def test_buckets_by_hand() -> None:
    # Eight buckets. Causal: 0 to 3 exactly, then 4 · 2^(i/4) up to 8: from 4, 4.76, 5.66 and 6.73.
    causal = {"bidirectional": False, "num_buckets": 8, "max_distance": 8}
    assert [bucket(-n, **causal) for n in range(9)] == [0, 1, 2, 3, 4, 5, 6, 7, 7]
    assert [bucket(n, **causal) for n in (1, 8)] == [0, 0]
    # Both ways: four per sign: 0 and 1 exactly, then from 2 and from 2 · √(32 / 2) = 8.
    both = {"bidirectional": True, "num_buckets": 8, "max_distance": 32}
    assert [bucket(-n, **both) for n in (0, 1, 2, 7, 8, 31, 32)] == [0, 1, 2, 2, 3, 3, 3]
    assert [bucket(n, **both) for n in (1, 2, 7, 8, 32)] == [5, 6, 6, 7, 7]


def test_a_power_that_is_met_exactly_opens_its_bucket() -> None:
    # Ten buckets: 0 to 4 exactly, then 5 · 2^i up to 160. Unrounded, log(10 / 5) / log(160 / 5) * 5 is less than 1.
    options = {"bidirectional": False, "num_buckets": 10, "max_distance": 160}
    assert [bucket(-n, **options) for n in (4, 5, 9, 10, 19, 20, 39, 40, 79, 80, 160)] == [
        4,
        5,
        5,
        6,
        6,
        7,
        7,
        8,
        8,
        9,
        9,
    ]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_buckets_are_those_of_hugging_faces_t5(bidirectional: bool) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = torch.arange(-1009, 1009)
    expected = t5.T5Attention._relative_position_bucket(distances, bidirectional=bidirectional)
    assert_close(T5Bias(H, bidirectional=bidirectional).buckets(distances), expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_t5_adds_the_bias_of_the_bucket_to_the_score(bidirectional: bool) -> None:
    options = {"bidirectional": bidirectional, "num_buckets": 8, "max_distance": 5}
    bias = T5Bias(H, **options).double()
    nn.init.normal_(bias.table)
    module = random_attention(T5Attention(DotProductAttention(), bias))
    x = torch.randn(B, L, D_MODEL, dtype=torch.float64)
    q, k, v = (heads_of(w, x) for w in (module.w_q, module.w_k, module.w_v))
    scores = q @ k.mT / math.sqrt(D_K)
    for i, j in itertools.product(range(L), range(L)):
        # Farther than 5 is as far as 5.
        scores[:, :, i, j] += bias.table[bucket(min(max(j - i, -5), 5), **options)]
    assert_close(module.attention.weights(q, k), scores.softmax(-1))
    assert_close(module(x), module.w_o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))


def test_the_bias_is_not_divided_by_the_temperature() -> None:
    bias = T5Bias(H, bidirectional=True).double()
    nn.init.normal_(bias.table)
    attention = T5Attention(TemperatureAttention(temperature=3.0), bias)
    q, k = torch.randn(B, H, L, D_K).double(), torch.randn(B, H, L, D_K).double()
    expected = q @ k.mT / math.sqrt(D_K) / 3 + bias(relative_positions(L, L))
    assert_close(attention.scores(attention.queries(q, 0), k), expected)


def test_t5s_table_belongs_to_the_stack_and_not_to_the_attention() -> None:
    bias = T5Bias(H, bidirectional=False)
    assert {name: tuple(p.shape) for name, p in bias.named_parameters()} == {"table": (32, H)}
    assert list(T5Attention(DotProductAttention(), bias).parameters()) == []
    assert bucket(1, bidirectional=True) == 17
    assert bucket(1, bidirectional=False) == 0


def test_t5s_table_starts_within_the_glorot_bound() -> None:
    torch.manual_seed(3)
    table = T5Bias(59, bidirectional=True, num_buckets=61).table
    assert 0.9 * math.sqrt(6 / 120) < table.abs().max() <= math.sqrt(6 / 120)


# ALiBi


def test_alibi_by_hand() -> None:
    # Two heads: slopes 2^-4 = 1/16 and 2^-8 = 1/256. All q·k / √d_k are 0, so the scores are -slope · |i - j|.
    q = torch.zeros(1, 2, 3, 1, dtype=torch.float64)
    scores = AlibiAttention(DotProductAttention()).scores(q, q)[0]
    assert scores.tolist() == [
        [[0, -1 / 16, -2 / 16], [-1 / 16, 0, -1 / 16], [-2 / 16, -1 / 16, 0]],
        [[0, -1 / 256, -2 / 256], [-1 / 256, 0, -1 / 256], [-2 / 256, -1 / 256, 0]],
    ]
    # One query, at the last position of three, slope 1/16: e^(-2/16), e^(-1/16) and 1 are 0.88250, 0.93941 and 1, of
    # sum 2.82191; values 0, 0, 1.
    v = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).view(1, 1, 3, 1).expand(1, 2, 3, 1)
    context = AlibiAttention(DotProductAttention())(q[:, :, 2:], q, v)
    assert_close(context[0, 0, 0, 0].item(), 1 / 2.82191, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(
    ("num_heads", "slopes"),
    [
        (8, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]),  # those that the paper prints
        (4, [1 / 4, 1 / 16, 1 / 64, 1 / 256]),
        (1, [1 / 256]),
        (3, [2 ** (-8 / 3), 2 ** (-16 / 3), 1 / 256]),
    ],
)
def test_slopes_are_a_geometric_sequence_that_ends_at_2_to_the_minus_8(num_heads: int, slopes: list[float]) -> None:
    q = torch.zeros(1, num_heads, 2, 1)
    scores = AlibiAttention(DotProductAttention()).scores(q, q)
    assert_close(scores[0, :, 0, 1], -torch.tensor(slopes))


@pytest.mark.parametrize("masked", [False, True])
def test_alibi_is_as_printed(masked: bool) -> None:
    module, x = random_attention(AlibiAttention(DotProductAttention())), torch.randn(B, L, D_MODEL).double()
    q, k, v = (heads_of(w, x) for w in (module.w_q, module.w_k, module.w_v))
    z = torch.zeros(B, H, L, D_V, dtype=torch.float64)
    for b, h, i in itertools.product(range(B), range(H), range(L)):
        seen = range(i + 1 if masked else L)
        slope = (2 ** (-8 / H)) ** (h + 1)
        e = torch.stack([q[b, h, i] @ k[b, h, j] / math.sqrt(D_K) - slope * abs(i - j) for j in seen])
        z[b, h, i] = e.softmax(0) @ v[b, h, : len(seen)]
    actual = module(x, mask=causal_mask(L) if masked else None)
    assert_close(actual, module.w_o(z.transpose(1, 2).flatten(2)), rtol=1e-6, atol=1e-6)  # slopes are float32


def test_alibi_is_symmetric_in_an_encoder() -> None:
    # Read backwards, the output is that of reading forwards, backwards.
    module, x = random_attention(AlibiAttention(DotProductAttention())), torch.randn(B, L, D_MODEL).double()
    assert_close(module(x.flip(1)), module(x).flip(1))
    assert (module(x[:, [1, 0, 2, 3, 4, 5, 6]])[:, 2:] - module(x)[:, 2:]).abs().max() > 1e-6  # but order counts


def test_alibi_has_no_parameters() -> None:
    assert list(AlibiAttention(DotProductAttention()).state_dict()) == []


# All of them, in a decoder


def t5() -> T5Attention:
    bias = T5Bias(H, bidirectional=False, num_buckets=5, max_distance=11).double()
    nn.init.normal_(bias.table)
    return T5Attention(DotProductAttention(), bias)


RELATIVE: dict[str, Callable[[], DotProductAttention]] = {
    "rotary": lambda: RotaryAttention(DotProductAttention(), D_K),
    "shaw": lambda: ShawAttention(DotProductAttention(), D_K, D_V, 2),
    "t5": t5,
    "alibi": lambda: AlibiAttention(DotProductAttention()),
}


def make_decoder(name: str) -> Decoder:
    layers = (
        Layer(random_attention(RELATIVE[name]()), FeedForward(D_MODEL, 29).double(), dropout=0.0).double()
        for _ in range(2)
    )
    return Decoder(layers)


@both_kernels
@pytest.mark.parametrize("chunks", [(1,) * 7, (4, 3), (1, 5, 1)])
@pytest.mark.parametrize("name", RELATIVE)
def test_relative_positions_go_on_with_the_cache(name: str, chunks: tuple[int, ...]) -> None:
    decoder, x = make_decoder(name), torch.randn(B, L, D_MODEL).double()
    expected, _ = decoder(x, DecoderState())
    outputs, state = [], DecoderState()
    for chunk in x.split(list(chunks), dim=1):
        y, state = decoder(chunk, state)
        outputs.append(y)
    assert_close(torch.cat(outputs, dim=1), expected)


@both_kernels
@pytest.mark.parametrize("name", RELATIVE)
def test_relative_positions_do_not_change_if_all_positions_are_shifted(name: str) -> None:
    # Left padding of a decoder-only prompt is such a shift: the padded batch equals each prompt alone.
    decoder, x = make_decoder(name), torch.randn(B, L, D_MODEL).double()
    is_real = torch.arange(L) >= torch.tensor([[0], [4]])
    y, _ = decoder(x, DecoderState(), padding_mask(is_real.long()))
    alone, _ = decoder(x[1:, 4:], DecoderState())
    assert_close(y[1:, 4:], alone)

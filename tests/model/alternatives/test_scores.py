"""Each attention score against hand-computed values and its formula, query by query and key by key."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model.alternatives.scores import (
    AdditiveAttention,
    CosineAttention,
    DotAttention,
    GeneralAttention,
    LocationAttention,
    LocationMultiHeadAttention,
    TemperatureAttention,
)
from transformer.model.attention import DotProductAttention, KeyValue, MultiHeadAttention, causal_mask

B, H, Q, M, D_MODEL, D_K, D_V, LIMIT = 2, 3, 5, 7, 11, 13, 17, 19

# By name, from heads, d_k, most positions, dropout and temperature.
SCORES: dict[str, Callable[[int, int, int, float, float], TemperatureAttention]] = {
    "scaled_dot": lambda _h, _d_k, _limit, dropout, temperature: TemperatureAttention(dropout, temperature),
    "dot": lambda _h, _d_k, _limit, dropout, temperature: DotAttention(dropout, temperature),
    "general": lambda h, d_k, _limit, dropout, temperature: GeneralAttention(h, d_k, dropout, temperature),
    "additive": lambda h, d_k, _limit, dropout, temperature: AdditiveAttention(h, d_k, dropout, temperature),
    "cosine": lambda h, d_k, _limit, dropout, temperature: CosineAttention(h, d_k, dropout, temperature),
    "location": lambda h, d_k, limit, dropout, temperature: LocationAttention(h, d_k, limit, dropout, temperature),
}

both_kernels = pytest.mark.usefixtures("kernel")


def one_head(name: str, temperature: float = 1.0) -> TemperatureAttention:
    """The score of a single head of size 2."""
    return SCORES[name](1, 2, 3, 0.0, temperature)


def weights(attention: DotProductAttention, q: list[float], keys: list[list[float]]) -> Tensor:
    """Of one query at the last position, one weight per key; also as the attention mixes values with them."""
    last = len(keys) - 1
    transformed = attention.queries(torch.tensor([[[q]]]), last), attention.keys(torch.tensor([[keys]]), 0)
    result = attention.weights(*transformed)[0, 0, 0]
    mixed = attention(*transformed, torch.eye(len(keys))[None, None])
    assert_close(mixed[0, 0, 0], result)
    return result


def softmax(*scores: float) -> Tensor:
    powers = torch.tensor([math.exp(score) for score in scores])
    return powers / powers.sum()


# By hand


@both_kernels
def test_dot_by_hand() -> None:
    # 1·3 + 2·1 = 5 and 1·0 + 2·2 = 4.
    assert_close(weights(one_head("dot"), [1.0, 2.0], [[3.0, 1.0], [0.0, 2.0]]), softmax(5, 4))


@both_kernels
def test_scaled_dot_by_hand() -> None:
    expected = softmax(5 / math.sqrt(2), 4 / math.sqrt(2))
    for attention in (one_head("scaled_dot"), DotProductAttention()):
        assert_close(weights(attention, [1.0, 2.0], [[3.0, 1.0], [0.0, 2.0]]), expected)


@both_kernels
def test_general_by_hand() -> None:
    attention = one_head("general")
    with torch.no_grad():
        attention.weight.copy_(torch.tensor([[[1.0, 2.0], [0.0, -1.0]]]))
    # W k is [3 + 2, -1] = [5, -1] and [4, -2]; times q = [1, 2] that is 3 and 0.
    assert_close(weights(attention, [1.0, 2.0], [[3.0, 1.0], [0.0, 2.0]]), softmax(3, 0))


@both_kernels
def test_additive_by_hand() -> None:
    attention = one_head("additive")
    with torch.no_grad():
        attention.w_q.copy_(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]))
        attention.w_k.copy_(torch.tensor([[[0.0, 1.0], [2.0, 0.0]]]))
        attention.v.copy_(torch.tensor([[3.0, -1.0]]))
    # W_q q = [0.1, 0.3]; W_k k = [0.2, 0.8] and [0.5, 0].
    first = 3 * math.tanh(0.1 + 0.2) - math.tanh(0.3 + 0.8)
    second = 3 * math.tanh(0.1 + 0.5) - math.tanh(0.3)
    assert_close(weights(attention, [0.1, 0.2], [[0.4, 0.2], [0.0, 0.5]]), softmax(first, second))


@both_kernels
def test_cosine_by_hand() -> None:
    attention = one_head("cosine")
    nn.init.constant_(attention.log_strength, math.log(7))
    # β = 7; the cosine with [3, 4] is 3/5 of [10, 0], 4/5 of [0, 0.1] and -1 of the opposite.
    keys = [[10.0, 0.0], [0.0, 0.1], [-3.0, -4.0]]
    assert_close(weights(attention, [3.0, 4.0], keys), softmax(7 * 3 / 5, 7 * 4 / 5, -7))


@both_kernels
def test_location_by_hand() -> None:
    attention = one_head("location")
    with torch.no_grad():
        attention.weight.copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]]))
    # W_a q = [1, 2, 27], of which there are two keys; their values do not matter.
    for keys in ([[3.0, 1.0], [0.0, 2.0]], [[-5.0, 8.0], [7.0, 7.0]]):
        assert_close(weights(attention, [1.0, 2.0], keys), softmax(1, 2))


@both_kernels
def test_a_temperature_divides_scores_by_hand() -> None:
    # Scaled dot product is dot product with the temperature √d_k.
    keys = [[3.0, 1.0], [0.0, 2.0]]
    expected = softmax(5 / math.sqrt(2), 4 / math.sqrt(2))
    assert_close(weights(one_head("dot", math.sqrt(2)), [1.0, 2.0], keys), expected)
    assert_close(weights(one_head("dot", 3.0), [1.0, 2.0], keys), softmax(5 / 3, 4 / 3))
    assert_close(weights(one_head("scaled_dot", 3.0), [1.0, 2.0], keys), softmax(5 / 18**0.5, 4 / 18**0.5))


# By definition


def random_attention(name: str, temperature: float = 1.0, dropout: float = 0.0) -> MultiHeadAttention:
    torch.manual_seed(3)
    multi_head = LocationMultiHeadAttention if name == "location" else MultiHeadAttention
    attention = SCORES[name](H, D_K, LIMIT, dropout, temperature)
    module = multi_head(D_MODEL, H, d_k=D_K, d_v=D_V, attention=attention).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def as_defined(name: str, attention: nn.Module, head: int, q: Tensor, k: Tensor, position: int) -> Tensor:
    """The score of two vectors, from its definition."""
    if name == "dot":
        return q @ k
    if name == "scaled_dot":
        return q @ k / math.sqrt(D_K)
    if name == "general":
        return q @ attention.weight[head] @ k
    if name == "additive":
        return attention.v[head] @ torch.tanh(attention.w_q[head] @ q + attention.w_k[head] @ k)
    if name == "cosine":
        return attention.log_strength[head, 0, 0].exp() * (q @ k) / (q.norm() * k.norm())
    return (attention.weight[head] @ q)[position]


def weights_of(module: MultiHeadAttention, query: Tensor, memory: Tensor) -> Tensor:
    q = module.w_q(query).unflatten(-1, (H, -1)).transpose(1, 2)
    return module.attention.weights(module.attention.queries(q, M - Q), module.project(memory).keys)


@both_kernels
@pytest.mark.parametrize("temperature", [1.0, 0.4, 7.0])
@pytest.mark.parametrize("name", SCORES)
def test_every_weight_and_the_output_are_those_of_the_definition(name: str, temperature: float) -> None:
    module = random_attention(name, temperature)
    query, memory = (torch.randn(B, n, D_MODEL, dtype=torch.float64) for n in (Q, M))
    heads = [x.unflatten(-1, (H, -1)) for x in (module.w_q(query), module.w_v(memory))]
    keys = heads[1] if name == "location" else module.w_k(memory).unflatten(-1, (H, -1))
    expected = torch.zeros(B, H, Q, M, dtype=torch.float64)
    for b, head, i in itertools.product(range(B), range(H), range(Q)):
        z = [as_defined(name, module.attention, head, heads[0][b, i, head], keys[b, j, head], j) for j in range(M)]
        powers = torch.stack([torch.exp(score / temperature) for score in z])
        expected[b, head, i] = powers / powers.sum()
    assert_close(weights_of(module, query, memory), expected)
    mixed = torch.einsum("bhqm,bmhv->bqhv", expected, heads[1]).flatten(2)
    assert_close(module(query, memory), module.w_o(mixed))


@both_kernels
@pytest.mark.parametrize("name", SCORES)
def test_masked_keys_get_no_weight(name: str) -> None:
    module, x = random_attention(name), torch.randn(B, M, D_MODEL, dtype=torch.float64)
    whole = module(x, mask=causal_mask(M))
    for length in range(1, M + 1):
        assert_close(module(x[:, :length])[:, -1], whole[:, length - 1])


@pytest.mark.parametrize("name", SCORES)
def test_a_low_temperature_picks_one_key_and_a_high_one_is_uniform(name: str) -> None:
    query, memory = (torch.randn(B, n, D_MODEL, dtype=torch.float64) for n in (Q, M))

    def at(temperature: float) -> Tensor:
        return weights_of(random_attention(name, temperature), query, memory)

    one = nn.functional.one_hot(at(1.0).argmax(-1), M).double()
    assert_close(at(1e-6), one, rtol=0, atol=1e-9)
    assert_close(at(1e6), torch.full_like(one, 1 / M), rtol=0, atol=1e-4)


@both_kernels
@pytest.mark.parametrize("name", SCORES)
def test_dropout_falls_on_the_weights_in_training_only(name: str) -> None:
    module = random_attention(name, dropout=0.3)
    query, memory = torch.randn(1, 1, D_MODEL, dtype=torch.float64), torch.randn(1, M, D_MODEL, dtype=torch.float64)
    clean = random_attention(name)(query, memory)
    assert_close(module.eval()(query, memory), clean)
    draws = module.train()(query.expand(2003, -1, -1), memory.expand(2003, -1, -1))
    deviation = draws.std(0) / math.sqrt(2003)
    assert (deviation > 0).all()
    assert ((draws.mean(0) - clean[0]).abs() < 5 * deviation).all()


@pytest.mark.parametrize("name", ["scaled_dot", "dot", "general", "cosine"])
def test_products_may_run_on_the_fused_kernel_and_others_may_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("transformer.model.kernels.prefers_fused", lambda *_: called.append(name))
    x = torch.randn(B, M, D_MODEL, dtype=torch.float64)
    random_attention(name)(x)
    assert called
    called.clear()
    for other in ("additive", "location"):
        random_attention(other)(x)
    assert not called


# Initial values


def test_a_general_score_starts_as_the_scaled_dot_product() -> None:
    attention = GeneralAttention(H, D_K)
    q, k, v = (torch.randn(B, H, n, D_K) for n in (Q, M, M))
    actual = attention(attention.queries(q, 0), attention.keys(k, 0), v)
    assert_close(actual, DotProductAttention()(q, k, v))


@pytest.mark.parametrize("name", ["scaled_dot", "general", "cosine", "additive", "location"])
def test_the_first_scores_of_random_vectors_have_a_variance_of_about_one(name: str) -> None:
    # As footnote 4 wants it; of additive scores the tanh leaves half.
    torch.manual_seed(3)
    d_k, n = 31, 199
    attention = SCORES[name](5, d_k, n, 0.0, 1.0)
    q, k = torch.randn(2, 5, n, d_k), torch.randn(2, 5, n, d_k)
    scores = attention.scores(attention.queries(q, 0), attention.keys(k, 0))
    assert 0.3 < scores.var() < 1.7


def test_additive_weights_start_within_the_glorot_bound() -> None:
    torch.manual_seed(3)
    attention = AdditiveAttention(5, 61)
    for weight, bound in ((attention.w_q, 3 / 61), (attention.w_k, 3 / 61), (attention.v, 6 / 62)):
        assert 0.9 * math.sqrt(bound) < weight.abs().max() <= math.sqrt(bound)


# What is particular to one


@both_kernels
def test_a_cosine_score_does_not_depend_on_lengths_and_is_0_for_a_vector_of_zeros() -> None:
    attention = CosineAttention(1, D_K)
    q, k = torch.randn(1, 1, Q, D_K), torch.randn(1, 1, M, D_K)
    expected = attention.queries(q, 0) @ attention.keys(k, 0).mT
    assert_close(attention.queries(q * 1e3, 0) @ attention.keys(k * 1e-3, 0).mT, expected)
    assert_close(attention.queries(0 * q, 0), 0 * q)


def test_a_position_past_those_of_a_location_score_is_an_error() -> None:
    attention, q = LocationAttention(H, D_K, 3), torch.randn(1, H, 4, D_K)
    message = "position 4 is past max_positions=3; raise it or use another score"
    for mask in (None, causal_mask(4)):
        with pytest.raises(ValueError, match=message):
            attention.weights(q, torch.empty(1, H, 4, 1), mask)
    assert attention.scores(q, torch.empty(1, H, 3, 1)).shape == (1, H, 4, 3)


def test_a_location_score_has_no_projection_of_keys() -> None:
    module = random_attention("location")
    assert {name for name, _ in module.named_parameters()} == {
        "w_q.weight",
        "w_v.weight",
        "w_o.weight",
        "attention.weight",
    }


@pytest.mark.parametrize("sizes", [(7,), (3, 3, 1), (1, 6)])
def test_keys_of_a_location_score_only_count_positions(sizes: tuple[int, ...]) -> None:
    module, x = random_attention("location"), torch.randn(B, M, D_MODEL, dtype=torch.float64)
    kv: KeyValue | None = None
    for piece in x.split(list(sizes), dim=1):
        kv = module.project(piece, kv)
    assert kv.keys.shape == (B, H, M, 1)
    assert_close(kv.values, module.w_v(x).unflatten(-1, (H, -1)).transpose(1, 2))
    assert_close(module(x[:, -2:], kv), module(x[:, -2:], x))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", SCORES)
def test_a_temperature_that_is_not_above_zero_is_an_error(name: str, temperature: float) -> None:
    with pytest.raises(ValueError, match=f"attention_temperature={temperature} is not a finite number above 0"):
        SCORES[name](H, D_K, LIMIT, 0.0, temperature)


@pytest.mark.parametrize("name", SCORES)
def test_a_dropout_outside_of_its_range_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"dropout=1.0 is not in \[0, 1\)"):
        SCORES[name](H, D_K, LIMIT, 1.0, 1.0)

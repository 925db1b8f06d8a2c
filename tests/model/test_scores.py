"""Each attention score against numbers worked out by hand and its formula, query by query and key by key."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model.attention import MultiHeadAttention, attention
from transformer.model.masks import causal_mask, lineage_mask
from transformer.model.scores import AttentionScore, CosineScore, GeneralScore, LocationScore, Score, make_score

B, H, Q, M, D_MODEL, D_K, D_V, LIMIT = 2, 3, 5, 7, 11, 13, 17, 19
SCORES: tuple[AttentionScore, ...] = ("scaled_dot", "dot", "general", "additive", "cosine", "location")


def identity_attention(score: AttentionScore, temperature: float = 1.0, max_positions: int = 3) -> MultiHeadAttention:
    """One head whose queries, keys and values of size 2 are what is handed in."""
    module = MultiHeadAttention(2, 1, score=score, temperature=temperature, max_positions=max_positions)
    for linear in (module.w_q, module.w_k, module.w_v, module.w_o):
        if linear is not None:
            nn.init.eye_(linear.weight)
    return module


def weights(module: MultiHeadAttention, q: list[float], keys: list[list[float]]) -> Tensor:
    """Of one query, one weight per key."""
    return module.weights(torch.tensor([[q]]), module.keys_values(torch.tensor([keys])))[0, 0, 0]


def softmax(*scores: float) -> Tensor:
    powers = torch.tensor([math.exp(score) for score in scores])
    return powers / powers.sum()


def test_dot_by_hand() -> None:
    # 1·3 + 2·1 = 5 and 1·0 + 2·2 = 4.
    assert_close(weights(identity_attention("dot"), [1.0, 2.0], [[3.0, 1.0], [0.0, 2.0]]), softmax(5, 4))


def test_scaled_dot_by_hand() -> None:
    expected = softmax(5 / math.sqrt(2), 4 / math.sqrt(2))
    assert_close(weights(identity_attention("scaled_dot"), [1.0, 2.0], [[3.0, 1.0], [0.0, 2.0]]), expected)


def test_general_by_hand() -> None:
    module = identity_attention("general")
    with torch.no_grad():
        module.score.weight.copy_(torch.tensor([[[1.0, 2.0], [0.0, -1.0]]]))
    # W k is [3 + 2, -1] = [5, -1] and [4, -2]; times q = [1, 2] that is 3 and 0.
    assert_close(weights(module, [1.0, 2.0], [[3.0, 1.0], [0.0, 2.0]]), softmax(3, 0))


def test_additive_by_hand() -> None:
    module = identity_attention("additive")
    with torch.no_grad():
        module.score.w_q.copy_(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]))
        module.score.w_k.copy_(torch.tensor([[[0.0, 1.0], [2.0, 0.0]]]))
        module.score.v.copy_(torch.tensor([[3.0, -1.0]]))
    # W_q q = [0.1, 0.3]; W_k k = [0.2, 0.8] and [0.5, 0].
    first = 3 * math.tanh(0.1 + 0.2) - math.tanh(0.3 + 0.8)
    second = 3 * math.tanh(0.1 + 0.5) - math.tanh(0.3)
    assert_close(weights(module, [0.1, 0.2], [[0.4, 0.2], [0.0, 0.5]]), softmax(first, second))


def test_cosine_by_hand() -> None:
    module = identity_attention("cosine")
    nn.init.constant_(module.score.log_strength, math.log(7))
    # β = 7; the cosine with [3, 4] is 3/5 of [10, 0], 4/5 of [0, 0.1] and -1 of the opposite.
    keys = [[10.0, 0.0], [0.0, 0.1], [-3.0, -4.0]]
    assert_close(weights(module, [3.0, 4.0], keys), softmax(7 * 3 / 5, 7 * 4 / 5, -7))


def test_location_by_hand() -> None:
    module = identity_attention("location")
    with torch.no_grad():
        module.score.weight.copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]]))
    # W_a q = [1, 2, 27], of which there are two keys; what they are does not matter.
    for keys in ([[3.0, 1.0], [0.0, 2.0]], [[-5.0, 8.0], [7.0, 7.0]]):
        assert_close(weights(module, [1.0, 2.0], keys), softmax(1, 2))


def test_a_temperature_divides_scores_by_hand() -> None:
    # Scaled dot product is dot product with the temperature √d_k.
    keys = [[3.0, 1.0], [0.0, 2.0]]
    expected = softmax(5 / math.sqrt(2), 4 / math.sqrt(2))
    assert_close(weights(identity_attention("dot", math.sqrt(2)), [1.0, 2.0], keys), expected)
    assert_close(weights(identity_attention("dot", 3.0), [1.0, 2.0], keys), softmax(5 / 3, 4 / 3))


def random_attention(score: AttentionScore, temperature: float = 1.0, dropout: float = 0.0) -> MultiHeadAttention:
    torch.manual_seed(3)
    module = MultiHeadAttention(
        D_MODEL, H, d_k=D_K, d_v=D_V, score=score, temperature=temperature, max_positions=LIMIT, dropout=dropout
    ).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def as_defined(name: AttentionScore, score: Score | None, head: int, q: Tensor, k: Tensor, position: int) -> Tensor:
    """score(q, k) of two vectors, from its definition."""
    if name == "dot":
        return q @ k
    if name == "scaled_dot":
        return q @ k / math.sqrt(D_K)
    if name == "general":
        return q @ score.weight[head] @ k
    if name == "additive":
        return score.v[head] @ torch.tanh(score.w_q[head] @ q + score.w_k[head] @ k)
    if name == "cosine":
        return score.log_strength[head, 0, 0].exp() * (q @ k) / (q.norm() * k.norm())
    return (score.weight[head] @ q)[position]


@pytest.mark.parametrize("temperature", [1.0, 0.4, 7.0])
@pytest.mark.parametrize("name", SCORES)
def test_every_weight_and_the_output_are_those_of_the_definition(name: AttentionScore, temperature: float) -> None:
    module = random_attention(name, temperature)
    query, memory = (torch.randn(B, n, D_MODEL, dtype=torch.float64) for n in (Q, M))
    heads = [x.unflatten(-1, (H, -1)) for x in (module.w_q(query), module.w_v(memory))]
    keys = heads[1] if module.w_k is None else module.w_k(memory).unflatten(-1, (H, -1))
    expected = torch.zeros(B, H, Q, M, dtype=torch.float64)
    for b, head, i in itertools.product(range(B), range(H), range(Q)):
        z = [as_defined(name, module.score, head, heads[0][b, i, head], keys[b, j, head], j) for j in range(M)]
        powers = torch.stack([torch.exp(score / temperature) for score in z])
        expected[b, head, i] = powers / powers.sum()
    assert_close(module.weights(query, module.keys_values(memory)), expected)
    mixed = torch.einsum("bhqm,bmhv->bqhv", expected, heads[1]).flatten(2)
    assert_close(module(query, memory), module.w_o(mixed))


@pytest.mark.parametrize("name", SCORES)
def test_a_low_temperature_picks_one_key_and_a_high_one_none(name: AttentionScore) -> None:
    query, memory = (torch.randn(B, n, D_MODEL, dtype=torch.float64) for n in (Q, M))

    def at(temperature: float) -> Tensor:
        module = random_attention(name, temperature)
        return module.weights(query, module.keys_values(memory))

    one = nn.functional.one_hot(at(1.0).argmax(-1), M).double()
    assert_close(at(1e-6), one, rtol=0, atol=1e-9)
    assert_close(at(1e6), torch.full_like(one, 1 / M), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_dropout_falls_on_the_weights_in_training_only(name: AttentionScore) -> None:
    module = random_attention(name, dropout=0.3)
    query, memory = torch.randn(1, 1, D_MODEL, dtype=torch.float64), torch.randn(1, M, D_MODEL, dtype=torch.float64)
    clean = random_attention(name)(query, memory)
    assert_close(module.eval()(query, memory), clean)
    draws = module.train()(query.expand(2003, -1, -1), memory.expand(2003, -1, -1))
    deviation = draws.std(0) / math.sqrt(2003)
    assert (deviation > 0).all()
    assert ((draws.mean(0) - clean[0]).abs() < 5 * deviation).all()


def test_only_another_score_or_temperature_than_the_papers_costs_anything() -> None:
    assert MultiHeadAttention(D_MODEL, H, d_k=D_K).score is None
    assert make_score("scaled_dot", H, D_K, temperature=2.0) is not None


def test_a_general_score_starts_as_the_scaled_dot_product() -> None:
    score = GeneralScore(H, D_K)
    q, k, v = (torch.randn(B, H, n, D_K) for n in (Q, M, M))
    assert_close(attention(score.query(q), score.key(k), v), attention(q, k, v))


@pytest.mark.parametrize("name", ["scaled_dot", "general", "cosine", "additive", "location"])
def test_the_first_scores_of_random_vectors_have_a_variance_of_about_one(name: AttentionScore) -> None:
    # As footnote 4 wants it; of additive scores the tanh leaves half.
    torch.manual_seed(3)
    d_k, n = 31, 199
    score = make_score(name, 5, d_k, max_positions=n)
    q, k = torch.randn(2, 5, n, d_k), torch.randn(2, 5, n, d_k)
    if score is None or score.is_product:
        mapped_q, mapped_k = (q, k) if score is None else (score.query(q), score.key(k))
        scores = mapped_q @ mapped_k.mT / math.sqrt(d_k)
    else:
        scores = score(score.query(q), score.key(k))
    assert 0.3 < scores.var() < 1.7


def test_a_cosine_score_does_not_depend_on_lengths_nor_break_where_there_is_none() -> None:
    score = CosineScore(1, D_K)
    q, k = torch.randn(1, 1, Q, D_K), torch.randn(1, 1, M, D_K)
    assert_close(score.query(q * 1e3) @ score.key(k * 1e-3).mT, score.query(q) @ score.key(k).mT)
    assert_close(score.query(0 * q), 0 * q)


def test_location_counts_the_keys_that_a_query_may_see() -> None:
    # Two hypotheses share two past positions; the second has lost what was third.
    score = LocationScore(H, D_K, max_positions=4).double()
    mask = lineage_mask(torch.tensor([[[True, True, True], [True, True, False]]]), 1)  # (1, 1, 2, 5)
    q = torch.randn(1, H, 2, D_K, dtype=torch.float64)
    scores = score(q, torch.empty(1, H, 5, 1), mask)
    alone = score.weight @ q[0].mT  # (H, 4, 2)
    assert_close(scores[0, :, 0][:, [0, 1, 2, 3]], alone[:, [0, 1, 2, 3], 0])
    assert_close(scores[0, :, 1][:, [0, 1, 4]], alone[:, [0, 1, 2], 1])


def test_a_position_past_those_of_a_location_score_is_an_error() -> None:
    score, q = LocationScore(H, D_K, max_positions=3), torch.randn(1, H, 4, D_K)
    message = "position 4 is past max_positions=3; raise it or use another score"
    with pytest.raises(ValueError, match=message):
        score(q, torch.empty(1, H, 4, 1))
    with pytest.raises(ValueError, match=message):
        score(q, torch.empty(1, H, 4, 1), causal_mask(4))
    assert score(q[:, :, :3], torch.empty(1, H, 4, 1), causal_mask(4)[:, :, :3]).shape == (1, H, 3, 4)


def test_a_location_score_has_no_projection_of_keys() -> None:
    module = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V, score="location", max_positions=LIMIT)
    assert {name for name, _ in module.named_parameters()} == {
        "w_q.weight",
        "w_v.weight",
        "w_o.weight",
        "score.weight",
    }


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_above_zero_is_an_error(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"attention_temperature={temperature} is not a finite number above 0"):
        MultiHeadAttention(D_MODEL, H, d_k=D_K, temperature=temperature)


def test_an_unknown_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="attention_score='bilinear' is not one of 'scaled_dot', 'dot', 'general', "):
        MultiHeadAttention(D_MODEL, H, d_k=D_K, score="bilinear")

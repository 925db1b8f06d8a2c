"""Relative positions, against numbers worked out by hand, their formulas, and Hugging Face's T5 and GPT-J."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model.attention import MultiHeadAttention
from transformer.model.decoder import Decoder
from transformer.model.encoder import Encoder
from transformer.model.masks import causal_mask, lineage_mask
from transformer.model.relative import (
    Place,
    RotaryPositions,
    ShawPositions,
    T5Positions,
    all_offsets,
    causal_offsets,
)

B, H, L, D_K, D_V, N = 2, 3, 7, 10, 5, 2


def place(length: int) -> Place:
    """All positions of a sentence at once."""
    return Place(0, length, 1, lambda: all_offsets(length))


def random_attention() -> MultiHeadAttention:
    torch.manual_seed(3)
    return MultiHeadAttention(11, H, d_k=D_K, d_v=D_V).double()


# Offsets


def test_the_offset_is_the_keys_position_minus_the_querys() -> None:
    assert_close(all_offsets(3), torch.tensor([[[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]]))


@pytest.mark.parametrize(("num_past", "num_new"), [(0, 1), (0, 5), (3, 1), (3, 2)])
def test_causal_offsets_count_back_from_the_query(num_past: int, num_new: int) -> None:
    num_keys = num_past + num_new
    expected = all_offsets(num_keys)[:, num_past:]
    visible = causal_mask(num_new, num_past)[0]
    actual = causal_offsets(causal_mask(num_new, num_past), num_keys)
    assert_close(actual[visible], expected[visible])
    if num_new == 1:
        assert_close(causal_offsets(None, num_keys), expected)


def test_hypotheses_that_share_a_past_count_only_their_own() -> None:
    # Of three past positions the first is both's; then each has one new position, which is its own last key.
    lineage = torch.tensor([[[True, True, False], [True, False, True]]])
    offsets = causal_offsets(lineage_mask(lineage, 1), 5)
    assert_close(offsets[0, 0, [0, 1, 3]], torch.tensor([-2, -1, 0]))
    assert_close(offsets[0, 1, [0, 2, 4]], torch.tensor([-2, -1, 0]))


# Rotary positions


def test_rotary_by_hand() -> None:
    # d_k = 4: the first pair turns by pos, the second by pos / 100.
    (rotation,) = RotaryPositions(1, 4)(place(3))
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0]]).expand(1, 1, 3, 4)
    expected = [[math.cos(p), math.sin(p), -math.sin(p / 100), math.cos(p / 100)] for p in (0, 1, 2)]
    assert_close(rotation.rotate(x)[0, 0], torch.tensor(expected))


def test_the_product_of_rotated_vectors_depends_on_the_distance_only() -> None:
    torch.manual_seed(3)
    q, k = torch.randn(D_K), torch.randn(D_K)
    (rotation,) = RotaryPositions(1, D_K)(place(L))
    products = (rotation.rotate(q.expand(1, 1, L, -1)) @ rotation.rotate(k.expand(1, 1, L, -1)).mT)[0, 0]
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
    (rotation,) = RotaryPositions(1, D_K)(place(L))
    assert_close(rotation.rotate(x), expected)


def test_later_positions_and_several_hypotheses_turn_on() -> None:
    positions, x = RotaryPositions(N, D_K), torch.randn(B, H, 2 * 3, D_K)
    rotation, again = positions(Place(5, 3, 2, lambda: torch.empty(0)))
    assert rotation is again  # the same in every layer
    whole = positions(place(8))[0].rotate(torch.cat((torch.zeros(B, H, 5, D_K), x[:, :, 3:]), dim=2))
    assert_close(rotation.rotate(x)[:, :, 3:], whole[:, :, 5:])


def test_rotary_positions_have_no_longest_input_even_in_training_after_inference() -> None:
    positions = RotaryPositions(1, D_K)
    with torch.inference_mode():
        positions(place(307))
    x = torch.randn(1, 1, 307, D_K, requires_grad=True)
    positions(place(307))[0].rotate(x).square().sum().backward()
    assert_close(x.grad, 2 * x.detach())  # a rotation keeps lengths
    assert list(positions.parameters()) == [] == list(positions.state_dict())


# Shaw's


def test_shaw_by_hand() -> None:
    # One head, d_k = d_v = 1, distances clipped to [-1, 1]; q and k are 1, so e_ij = 1 + a^K.
    module = MultiHeadAttention(1, 1)
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    positions = ShawPositions(1, 1, 1, max_distance=1)
    with torch.no_grad():
        positions.keys[0].copy_(torch.tensor([[0.0], [math.log(2)], [math.log(3)]]))
        positions.values[0].copy_(torch.tensor([[10.0], [20.0], [30.0]]))
    (relation,) = positions(place(3))
    y = module(torch.ones(1, 3, 1), relation=relation)[0, :, 0]
    # Distances of the first query: 0, 1, 2 -> 1: weights 2/8, 3/8, 3/8; of the second: -1, 0, 1: weights 1/6, 2/6, 3/6;
    # of the third: -2 -> -1, -1, 0: weights 1/4, 1/4, 2/4. Values are 1 and what the table adds.
    first, second, third = (2 * 20 + 6 * 30) / 8, (10 + 2 * 20 + 3 * 30) / 6, (2 * 10 + 2 * 20) / 4
    assert_close(y, 1 + torch.tensor([first, second, third]))


@pytest.mark.parametrize("masked", [False, True])
def test_shaw_is_as_printed(masked: bool) -> None:
    module, clip = random_attention(), 2
    positions = ShawPositions(N, D_K, D_V, clip).double()
    x = torch.randn(B, L, 11, dtype=torch.float64)
    mask = causal_mask(L) if masked else None
    for layer, relation in enumerate(positions(place(L))):
        q, k, v = (w(x).unflatten(-1, (H, -1)).transpose(1, 2) for w in (module.w_q, module.w_k, module.w_v))
        z = torch.zeros(B, H, L, D_V, dtype=torch.float64)
        for b, h, i in itertools.product(range(B), range(H), range(L)):
            seen = range(i + 1 if masked else L)
            row = [min(max(j - i, -clip), clip) + clip for j in seen]
            e = [q[b, h, i] @ (k[b, h, j] + positions.keys[layer][row[j]]) / math.sqrt(D_K) for j in seen]
            alpha = torch.stack(e).softmax(0)
            z[b, h, i] = sum(alpha[j] * (v[b, h, j] + positions.values[layer][row[j]]) for j in seen)
        assert_close(module(x, mask=mask, relation=relation), module.w_o(z.transpose(1, 2).flatten(2)))


def test_shaws_tables_belong_to_one_layer_and_all_its_heads() -> None:
    shapes = {name: tuple(p.shape) for name, p in ShawPositions(N, D_K, D_V, 3).named_parameters()}
    assert shapes == {
        f"{kind}.{layer}": (7, size) for kind, size in (("keys", D_K), ("values", D_V)) for layer in (0, 1)
    }


def test_a_distance_to_clip_at_that_is_less_than_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_relative_position=0 is less than 1"):
        Encoder(1, d_model=6, num_heads=3, positional="shaw", max_relative_position=0)


# T5's


def bucket(offset: int, **options: Any) -> int:
    positions = T5Positions(1, H, **options)
    return int(positions.buckets[offset + positions.max_distance])


def test_buckets_by_hand() -> None:
    # Eight buckets. Causal: 0 to 3 exactly, then 4 · 2^(i/4) up to 8: from 4, 4.76, 5.66 and 6.73.
    causal = {"bidirectional": False, "num_buckets": 8, "max_distance": 8}
    assert [bucket(-n, **causal) for n in range(9)] == [0, 1, 2, 3, 4, 5, 6, 7, 7]
    assert [bucket(n, **causal) for n in (1, 8)] == [0, 0]
    # Both ways: four per sign: 0 and 1 exactly, then from 2 and from 2 · √(32 / 2) = 8.
    both = {"bidirectional": True, "num_buckets": 8, "max_distance": 32}
    assert [bucket(-n, **both) for n in (0, 1, 2, 7, 8, 31, 32)] == [0, 1, 2, 2, 3, 3, 3]
    assert [bucket(n, **both) for n in (1, 2, 7, 8, 32)] == [5, 6, 6, 7, 7]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_buckets_are_those_of_hugging_faces_t5(bidirectional: bool) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    positions = T5Positions(1, H, bidirectional=bidirectional)
    offsets = torch.arange(-128, 129)
    assert_close(positions.buckets, t5.T5Attention._relative_position_bucket(offsets, bidirectional=bidirectional))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_t5_adds_the_number_of_the_bucket_to_the_score(bidirectional: bool) -> None:
    options = {"bidirectional": bidirectional, "num_buckets": 8, "max_distance": 5}
    module, positions = random_attention(), T5Positions(N, H, **options).double()
    nn.init.normal_(positions.table)
    x = torch.randn(B, L, 11, dtype=torch.float64)
    relation, again = positions(place(L))
    assert relation is again  # the same in every layer
    q, k = (w(x).unflatten(-1, (H, -1)).transpose(1, 2) for w in (module.w_q, module.w_k))
    scores = q @ k.mT / math.sqrt(D_K)
    for i, j in itertools.product(range(L), range(L)):
        # Farther than 5 is as far as 5.
        scores[:, :, i, j] += positions.table[bucket(min(max(j - i, -5), 5), **options)]
    assert_close(module.weights(x, module.keys_values(x), None, relation), scores.softmax(-1))


def test_t5s_table_is_one_per_stack_and_none_is_in_cross_attention() -> None:
    decoder = Decoder(3, d_model=6, num_heads=3, d_ff=5, positional="t5")
    tables = {name: tuple(p.shape) for name, p in decoder.named_parameters() if "relative" in name}
    assert tables == {"relative.table": (32, 3)}
    encoder = Encoder(3, d_model=6, num_heads=3, d_ff=5, positional="t5")
    assert bucket(1, bidirectional=True) == int(encoder.relative.buckets[129]) == 17
    assert int(decoder.relative.buckets[129]) == 0


# Combinations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"positional": "rotary", "attention_score": "additive"},
            "positional='rotary' is not defined for attention_score='additive', only for 'scaled_dot', 'dot', "
            "'general', 'cosine'",
        ),
        ({"positional": "rotary", "attention_score": "location"}, "not defined for attention_score='location'"),
        (
            {"positional": "shaw", "attention_score": "cosine"},
            "positional='shaw' is not defined for attention_score='cosine', only for 'scaled_dot', 'dot', 'general'",
        ),
        ({"positional": "rotary", "d_k": 7}, "positional='rotary' turns pairs of channels and d_k=7 is odd"),
    ],
)
def test_positions_that_do_not_go_with_other_options_are_an_error(options: dict[str, Any], message: str) -> None:
    for stack in (Encoder, Decoder):
        with pytest.raises(ValueError, match=message):
            stack(1, d_model=12, num_heads=3, d_ff=5, **options)


@pytest.mark.parametrize("positional", ["sinusoidal", "learned", "none"])
def test_positions_that_are_not_relative_leave_the_stacks_alone(positional: str) -> None:
    for stack in (Encoder, Decoder):
        assert stack(1, d_model=12, num_heads=3, d_ff=5, positional=positional).relative is None


@pytest.mark.parametrize("score", ["general", "cosine"])
def test_rotary_products_depend_on_the_distance_with_every_score_that_is_a_product(score: Any) -> None:
    torch.manual_seed(3)
    module = MultiHeadAttention(11, H, d_k=D_K, score=score)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 1, 11).expand(1, L, -1)  # the same at every position
    (rotation,) = RotaryPositions(1, D_K)(place(L))
    scores = module.weights(x, module.keys_values(x, rotation), None, rotation).log()
    first: Tensor = scores[:, :, :-1, :-1] - scores[:, :, 1:, 1:]
    # Each query's scores are known up to a constant.
    assert_close(first, first[..., :1].expand_as(first), rtol=0, atol=1e-3)

"""Order without and with positions (section 3.5): which orders of tokens a model can tell apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.attention import MultiHeadAttention
from transformer.model.embeddings import sinusoidal_positions
from transformer.model.transformer import Transformer

V, D, H, D_FF, L = 31, 22, 1, 29, 7
SRC = torch.tensor([[5, 17, 3, 29, 11, 2, 23]])
ORDER = torch.tensor([3, 0, 6, 1, 5, 2, 4])
RELATIVE = ("shaw", "t5", "rotary", "alibi")


def make_model(positional: str, num_layers: int = 2) -> Transformer:
    torch.manual_seed(3)
    config = ModelConfig(d_model=D, num_layers=num_layers, num_heads=H, d_ff=D_FF, positional=positional)
    return build_model(V, config).double().eval()


def memory_of(model: Transformer, src: Tensor) -> Tensor:
    memory = model.encode(src).memory
    assert isinstance(memory, Tensor)
    return memory


def test_self_attention_alone_is_permutation_equivariant() -> None:
    torch.manual_seed(3)
    attention, x = MultiHeadAttention(D, 2).double(), torch.randn(2, L, D, dtype=torch.float64)
    assert_close(attention(x[:, ORDER]), attention(x)[:, ORDER])


def test_without_positions_an_encoder_is_equivariant_and_only_what_is_pooled_is_invariant() -> None:
    model = make_model("none")
    before, after = memory_of(model, SRC), memory_of(model, SRC[:, ORDER])
    assert_close(after, before[:, ORDER])
    assert_close(after.mean(1), before.mean(1))
    assert (after - before).abs().amax(-1).min() > 0.1


def test_without_positions_a_translation_does_not_depend_on_the_order_of_the_source() -> None:
    model, tgt = make_model("none"), torch.tensor([[7, 19, 13]])
    assert_close(model(SRC[:, ORDER], tgt), model(SRC, tgt))


@pytest.mark.parametrize("positional", ["sinusoidal", "learned", *RELATIVE])
def test_every_kind_of_position_tells_orders_apart(positional: str) -> None:
    model, tgt = make_model(positional), torch.tensor([[7, 19, 13]])
    # The same token, with the same tokens around it, at another place.
    assert (memory_of(model, SRC[:, ORDER]) - memory_of(model, SRC)[:, ORDER]).abs().amax(-1).min() > 1e-3
    assert (model(SRC[:, ORDER], tgt) - model(SRC, tgt)).abs().max() > 1e-3


def test_a_causal_mask_alone_tells_orders_apart_but_only_from_the_second_layer_on() -> None:
    # One layer sees a set of earlier tokens. In two, each of them has already seen those before it.
    earlier = torch.tensor([2, 0, 3, 1])
    tgt = torch.tensor([[7, 19, 13, 5, 11]])
    other = torch.cat((tgt[:, earlier], tgt[:, 4:]), dim=1)
    differences = []
    for num_layers in (1, 2):
        model = make_model("none", num_layers)
        differences.append((model(SRC, other)[:, -1] - model(SRC, tgt)[:, -1]).abs().max().item())
    assert differences[0] < 1e-12
    assert differences[1] > 1e-3


def weights_of_equal_tokens(positional: str) -> Tensor:
    """Of the one head of the first layer: (L, L)."""
    model = make_model(positional)
    x = model.source_positions(torch.randn(D, dtype=torch.float64).expand(1, L, D))
    module = model.encoder.layers[0].self_attention
    q = module.attention.queries(module.w_q(x)[:, None], 0)  # (1, 1, L, d_k)
    return module.attention.weights(q, module.project(x).keys)[0, 0]


def deviation_from_distances(positional: str) -> float:
    """How far scores among equal tokens, less that of the query itself, are from one number per distance."""
    scores = weights_of_equal_tokens(positional).log()  # but for a number per row
    relative = scores - scores.diagonal()[:, None]
    by_distance = [relative.diagonal(distance) for distance in range(1 - L, L)]
    assert max(diagonal.abs().max().item() for diagonal in by_distance) > 1e-3  # positions do have an effect
    return max((diagonal - diagonal[0]).abs().max().item() for diagonal in by_distance)


@pytest.mark.parametrize("positional", RELATIVE)
def test_among_equal_tokens_relative_scores_depend_on_the_distance_only(positional: str) -> None:
    assert deviation_from_distances(positional) < 1e-6  # tables of sines are rounded to float32


@pytest.mark.parametrize("positional", ["sinusoidal", "learned"])
def test_among_equal_tokens_absolute_scores_depend_on_the_place_too(positional: str) -> None:
    assert deviation_from_distances(positional) > 1e-2


@pytest.mark.parametrize("positional", RELATIVE)
def test_weights_depend_on_the_place_even_where_scores_do_not(positional: str) -> None:
    own = weights_of_equal_tokens(positional).diagonal()  # distance 0, of tokens with other neighbours on either side
    assert own.max() > 1.001 * own.min()


def test_sinusoids_are_equally_long_and_their_products_depend_on_the_distance_only() -> None:
    table = sinusoidal_positions(101, D, dtype=torch.float64)
    products = table @ table.T
    assert_close(products.diagonal(), torch.full((101,), D / 2, dtype=torch.float64))
    for distance in (1, 2, 13, 97):
        diagonal = products.diagonal(distance)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal))
        assert diagonal[0] < D / 2 - 1e-3  # no two positions have the same vector

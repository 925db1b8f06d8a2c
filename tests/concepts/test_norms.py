"""LayerNorm and its place (section 3.1): what it removes, and what a residual connection passes on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.attention import MultiHeadAttention
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Encoder

B, L, D, H, D_FF, N = 2, 5, 22, 2, 31, 3


def make_layer(kind: type[Layer], norm_eps: float = 1e-6) -> Layer:
    return kind(MultiHeadAttention(D, H), FeedForward(D, D_FF), norm_eps=norm_eps).double().eval()


def norm_of_a_layer(norm_eps: float = 1e-6) -> nn.LayerNorm:
    """That after self-attention, with gains and offsets of its own."""
    torch.manual_seed(3)
    norm = make_layer(Layer, norm_eps).norm_1
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.normal_(norm.bias)
    return norm


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_a_norm_is_of_one_position_alone() -> None:
    norm, x = norm_of_a_layer(), rows(B, L, D)
    y = norm(x)
    for b in range(B):
        for position in range(L):
            mean = sum(x[b, position]) / D
            variance = sum((number - mean) ** 2 for number in x[b, position]) / D
            expected = norm.weight * (x[b, position] - mean) / (variance + 1e-6) ** 0.5 + norm.bias
            assert_close(y[b, position], expected)


def test_a_norm_sees_neither_the_mean_nor_the_scale_of_its_input() -> None:
    norm, x = norm_of_a_layer(norm_eps=1e-12), rows(B, L, D)
    assert_close(norm(7 * x + 3), norm(x))
    assert (norm(-x) - norm(x)).abs().max() > 1


def test_the_jacobian_of_a_norm_removes_two_directions_and_shrinks_with_the_deviation_of_its_input() -> None:
    norm, x = norm_of_a_layer(norm_eps=1e-12), rows(D)
    jacobian = torch.func.jacrev(norm)(x)
    zeros = torch.zeros(D, dtype=torch.float64)
    assert_close(jacobian @ torch.ones(D, dtype=torch.float64), zeros)  # the mean
    assert_close(jacobian @ (x - x.mean()), zeros)  # the radial direction
    assert torch.linalg.matrix_rank(jacobian, rtol=1e-9) == D - 2
    assert_close(torch.func.jacrev(norm)(7 * x), jacobian / 7)
    assert_close(torch.func.jacrev(norm)(x + 1001), jacobian)  # much longer, and equally far from its mean


def test_the_sum_of_a_normalised_vector_has_no_gradient() -> None:
    layer = make_layer(Layer)
    x = rows(B, L, D).requires_grad_()
    y, *_ = layer(x)
    assert torch.autograd.grad(y.sum(), x, retain_graph=True)[0].abs().max() < 1e-12
    assert torch.autograd.grad((y * rows(D)).sum(), x)[0].abs().max() > 1e-2


@pytest.mark.parametrize("kind", [Layer, PreNormLayer])
def test_a_layer_that_writes_nothing_passes_its_input_on_in_pre_norm_and_normalises_it_in_post_norm(
    kind: type[Layer],
) -> None:
    layer, x = make_layer(kind), 3 * rows(B, L, D) + 2
    with torch.no_grad():
        for parameter in (layer.self_attention.w_o.weight, layer.feed_forward.w_2.weight, layer.feed_forward.w_2.bias):
            parameter.zero_()
    y, *_ = layer(x)
    if kind is PreNormLayer:
        assert torch.equal(y, x)
    else:
        assert_close(y, torch.nn.functional.layer_norm(x, (D,), eps=1e-6), rtol=1e-5, atol=1e-5)


def test_a_pre_norm_stack_is_its_input_and_the_sum_of_what_every_sublayer_writes() -> None:
    torch.manual_seed(3)
    encoder, x = Encoder(make_layer(PreNormLayer) for _ in range(N)), rows(B, L, D)
    written: list[Tensor] = []
    for layer in encoder.layers:
        for sublayer in (layer.self_attention, layer.feed_forward):
            sublayer.register_forward_hook(lambda _module, _args, output: written.append(output))
    y = encoder(x)
    assert len(written) == 2 * N
    assert_close(y, x + torch.stack(written).sum(0))


def test_without_a_final_norm_the_output_of_a_pre_norm_stack_grows_with_its_depth() -> None:
    torch.manual_seed(3)
    lengths = []
    for depth in (1, 5, 23):
        layers = [make_layer(PreNormLayer) for _ in range(depth)]
        lengths.append(Encoder(layers)(rows(B, L, D)).square().mean().item())
        normalised = Encoder(layers, nn.LayerNorm(D).double())(rows(B, L, D))
        assert_close(normalised.square().mean(-1), torch.ones(B, L, dtype=torch.float64), rtol=1e-3, atol=0.0)
    assert lengths[1] > 1.5 * lengths[0] and lengths[2] > 1.5 * lengths[1]
    post = Encoder(make_layer(Layer) for _ in range(23))(rows(B, L, D))
    assert_close(post.square().mean(-1), torch.ones(B, L, dtype=torch.float64), rtol=1e-3, atol=0.0)

"""The feed-forward network (equation 2) and the layer: by hand, as printed, and torch.nn's with the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model.attention import KeyValue, MultiHeadAttention, causal_mask, padding_mask
from transformer.model.layers import FeedForward, Layer

B, W, S, T, D, H, D_FF = 3, 2, 7, 5, 15, 3, 29


def random_feed_forward(**options: Any) -> FeedForward:
    """In float64, with random biases: initial ones are zero and would hide mistakes."""
    torch.manual_seed(3)
    module = FeedForward(D, D_FF, **options).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


# The feed-forward network


def test_equation_2_gives_the_values_computed_by_hand() -> None:
    module = FeedForward(2, 3)
    with torch.no_grad():
        module.w_1.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
        module.w_1.bias.copy_(torch.tensor([1.0, 0, -5]))
        module.w_2.weight.copy_(torch.tensor([[1.0, 10, 100], [2, 20, 200]]))
        module.w_2.bias.copy_(torch.tensor([0.5, -0.5]))
    # Inner: max(0, [2 + 1, -7, -5 - 5]) = [3, 0, 0], and max(0, [5, 3, 2]).
    assert_close(module(torch.tensor([[2.0, -7], [4, 3]])), torch.tensor([[3.5, 5.5], [235.5, 469.5]]))


def test_equation_2_is_as_printed() -> None:
    module, x = random_feed_forward(), torch.randn(2, 7, D).double()
    inner = torch.maximum(torch.zeros(()).double(), x @ module.w_1.weight.T + module.w_1.bias)
    assert_close(module(x), inner @ module.w_2.weight.T + module.w_2.bias)


def test_equation_2_is_two_convolutions_with_kernel_size_1() -> None:
    module, x = random_feed_forward(), torch.randn(2, 7, D).double()
    convolutions = [nn.Conv1d(y.in_features, y.out_features, kernel_size=1).double() for y in (module.w_1, module.w_2)]
    with torch.no_grad():
        for convolution, linear in zip(convolutions, (module.w_1, module.w_2), strict=True):
            convolution.weight.copy_(linear.weight[:, :, None])
            convolution.bias.copy_(linear.bias)
    first, second = convolutions
    assert_close(module(x), second(F.relu(first(x.mT))).mT)


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        (F.relu, lambda y: y * (y > 0)),
        (F.gelu, lambda y: y * (1 + torch.erf(y / math.sqrt(2))) / 2),
        (F.silu, lambda y: y / (1 + torch.exp(-y))),
        (torch.tanh, lambda y: 1 - 2 / (torch.exp(2 * y) + 1)),
    ],
)
def test_the_activation_argument_replaces_the_maximum_with_zero(
    activation: Callable[[Tensor], Tensor], formula: Callable[[Tensor], Tensor]
) -> None:
    module, x = random_feed_forward(activation=activation), torch.randn(2, 7, D).double()
    inner = formula(x @ module.w_1.weight.T + module.w_1.bias)
    assert_close(module(x), inner @ module.w_2.weight.T + module.w_2.bias)


def test_every_position_is_computed_alike_and_alone() -> None:
    module, x = random_feed_forward(), torch.randn(3, 7, D).double()
    whole = module(x)
    for b in range(3):
        for position in range(7):
            assert_close(whole[b, position], module(x[b, position]))


def test_dropout_of_inner_activations_keeps_the_mean_in_training_and_is_off_in_eval() -> None:
    module, num_draws = random_feed_forward(dropout=0.3), 2003
    x = torch.randn(D).double()
    expected = random_feed_forward()(x)
    assert_close(module.eval()(x), expected)
    draws = module.train()(x.expand(num_draws, -1))
    deviation = draws.std(0) / math.sqrt(num_draws)
    assert (deviation > 0).all()
    assert ((draws.mean(0) - expected).abs() < 5 * deviation).all()
    # The inner activations are dropped: outputs are never zero, as w_2 mixes the others.
    assert (draws != 0).all()


def test_without_dropout_training_and_eval_are_the_same() -> None:
    module, x = random_feed_forward(), torch.randn(2, D).double()
    assert torch.equal(module.train()(x), module.eval()(x))


def test_weights_start_within_the_glorot_bound_and_biases_at_zero() -> None:
    torch.manual_seed(3)
    module = FeedForward(47, 101)
    bound = math.sqrt(6 / (47 + 101))
    for linear in (module.w_1, module.w_2):
        assert 0.9 * bound < linear.weight.abs().max() <= bound
        assert_close(linear.weight.var().item(), bound**2 / 3, rtol=0.1, atol=0.0)
        assert_close(linear.bias, torch.zeros_like(linear.bias))


# The residual connection and LayerNorm, around sub-layers that are plain functions


class FunctionAttention(nn.Module):
    """Computes a function of its input instead of attention."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def project(self, x: Tensor, past: KeyValue | None = None) -> KeyValue:  # noqa: ARG002
        return KeyValue(x, x)

    def forward(self, x: Tensor, memory: Any, *, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return self.function(x)


class FunctionFeedForward(FunctionAttention):
    """Likewise instead of the feed-forward network, of which a layer reads its size."""

    def __init__(self, function: Callable[[Tensor], Tensor], d_model: int) -> None:
        super().__init__(function)
        self.w_2 = nn.Linear(1, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def function_layer(
    *functions: Callable[[Tensor], Tensor], d_model: int = D, layer: type[Layer] = Layer, **options: Any
) -> Layer:
    """A layer with these sub-layers, two or, with cross-attention in the middle, three; dropout 0 unless given."""
    first, *cross, last = functions
    return layer(
        FunctionAttention(first),
        FunctionFeedForward(last, d_model),
        FunctionAttention(cross[0]) if cross else None,
        **{"dropout": 0.0, **options},
    )


def randomise(module: nn.Module) -> nn.Module:
    """In float64, each parameter of it, biases and norms included, with a value that would show a mistake."""
    torch.manual_seed(3)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    return module


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + eps), with the variance of a whole population."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def test_post_norm_gives_the_values_computed_by_hand() -> None:
    layer = function_layer(torch.square, torch.zeros_like, d_model=2)
    # x + x² = [2, 6], of mean 4 and deviation 2: [-1, 1], which the second norm keeps.
    assert_close(layer(torch.tensor([1.0, 2.0]))[0], torch.tensor([-1.0, 1.0]), rtol=0, atol=1e-5)


def test_norm_eps_is_added_to_the_variance_inside_the_root() -> None:
    # Deviation 0.001, so the variance equals the paper code's 1e-6, and the result of the first norm is 1 / √2; the
    # second norm gives r / √(r² + eps) of it.
    x = torch.tensor([0.001, -0.001])
    for norm_eps, first in ((1e-6, math.sqrt(1 / 2)), (3e-6, math.sqrt(1 / 4))):
        layer = function_layer(torch.zeros_like, torch.zeros_like, d_model=2, norm_eps=norm_eps)
        captured: list[Tensor] = []
        layer.norm_1.register_forward_hook(lambda *args, captured=captured: captured.append(args[-1]))
        y, _, _ = layer(x)
        assert_close(captured[0], torch.tensor([first, -first]))
        second = first / math.sqrt(first**2 + norm_eps)
        assert_close(y, torch.tensor([second, -second]))


def test_an_encoder_layer_is_as_printed() -> None:
    layer = randomise(function_layer(torch.sin, torch.cos))
    x = torch.randn(2, 5, D).double()
    y = layer_norm(layer.norm_1, x + x.sin())
    assert_close(layer(x)[0], layer_norm(layer.norm_2, y + y.cos()))


def test_a_decoder_layer_is_as_printed_with_cross_attention_in_between() -> None:
    layer = randomise(function_layer(torch.sin, torch.tanh, torch.cos))
    x, memory = torch.randn(2, 5, D).double(), torch.randn(2, 7, D).double()
    y = layer_norm(layer.norm_1, x + x.sin())
    y = layer_norm(layer.norm_cross, y + y.tanh())
    assert_close(layer(x, memory=memory)[0], layer_norm(layer.norm_2, y + y.cos()))


def test_dropout_leaves_the_residual_path_alone() -> None:
    layer = randomise(function_layer(torch.zeros_like, torch.zeros_like, dropout=0.7)).train()
    x = torch.randn(2, 5, D).double()
    assert_close(layer(x)[0], layer_norm(layer.norm_2, layer_norm(layer.norm_1, x)))


def test_each_sublayers_output_is_dropped_before_the_sum() -> None:
    layer = function_layer(torch.ones_like, torch.ones_like, torch.ones_like, d_model=101, dropout=0.5).double()
    captured: list[Tensor] = []
    for norm in (layer.norm_1, layer.norm_cross, layer.norm_2):
        norm.register_forward_hook(lambda _, args, y: captured.extend((args[0], y)))
    x = torch.randn(1, 101).double()
    layer(x, memory=x)
    assert len(captured) == 6
    for before, summed in zip((x, *captured[1:4:2]), captured[0::2], strict=True):
        added = summed - before
        dropped = added.abs() < 1e-9
        assert_close(added, torch.where(dropped, 0.0, 2.0).double())
        assert 0.3 < dropped.double().mean() < 0.7


def test_post_norm_normalises_after_dropout() -> None:
    layer = function_layer(torch.sin, torch.cos, dropout=0.5).double().train()
    y, _, _ = layer(torch.randn(101, D).double())
    assert_close(y.mean(-1), torch.zeros(101).double(), rtol=0, atol=1e-9)
    assert_close(y.square().mean(-1), torch.ones(101).double(), rtol=0, atol=1e-4)
    assert (y != 0).all()


def test_in_eval_nothing_is_dropped() -> None:
    x = torch.randn(2, 5, D).double()
    dropping = randomise(function_layer(torch.sin, torch.cos, dropout=0.7)).eval()
    clean = randomise(function_layer(torch.sin, torch.cos))
    assert torch.equal(dropping(x)[0], clean(x)[0])


def test_a_layer_drops_a_tenth_by_default_and_adds_a_millionth_to_the_variance() -> None:
    layer = Layer(MultiHeadAttention(D, H), FeedForward(D, D_FF), MultiHeadAttention(D, H))
    assert layer.dropout.p == 0.1
    assert [norm.eps for norm in (layer.norm_1, layer.norm_cross, layer.norm_2)] == [1e-6] * 3


@pytest.mark.parametrize("dropout", [1.0, -0.5])
def test_a_dropout_outside_of_its_range_is_an_error(dropout: float) -> None:
    with pytest.raises(ValueError, match=rf"dropout={dropout} is not in \[0, 1\)"):
        Layer(MultiHeadAttention(D, H), FeedForward(D, D_FF), dropout=dropout)


# The whole layer


def make_layer(*, has_cross: bool, norm_eps: float = 1e-6) -> Layer:
    cross = MultiHeadAttention(D, H, bias=True) if has_cross else None
    attention = MultiHeadAttention(D, H, bias=True)
    return randomise(Layer(attention, FeedForward(D, D_FF), cross, dropout=0.0, norm_eps=norm_eps))


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    """Copy our weights into torch's attention."""
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.w_q.bias, ours.w_k.bias, ours.w_v.bias]))
    theirs.out_proj.load_state_dict(ours.w_o.state_dict())


def torch_layer(ours: Layer, norm_eps: float) -> nn.TransformerEncoderLayer | nn.TransformerDecoderLayer:
    """Torch's layer with our weights; its activation is ReLU by default."""
    is_decoder = ours.cross_attention is not None
    layer_class = nn.TransformerDecoderLayer if is_decoder else nn.TransformerEncoderLayer
    theirs = layer_class(D, H, D_FF, 0.0, layer_norm_eps=norm_eps, batch_first=True, dtype=torch.float64)
    copy_attention(ours.self_attention, theirs.self_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.w_1.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.w_2.state_dict())
    theirs.norm1.load_state_dict(ours.norm_1.state_dict())
    if is_decoder:
        copy_attention(ours.cross_attention, theirs.multihead_attn)
        theirs.norm2.load_state_dict(ours.norm_cross.state_dict())
        theirs.norm3.load_state_dict(ours.norm_2.state_dict())
    else:
        theirs.norm2.load_state_dict(ours.norm_2.state_dict())
    return theirs


def make_input(length: int, *lengths: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random x (B, length, D), its padding mask, and torch's, which is True at padding."""
    is_padding = torch.arange(length) >= torch.tensor(lengths)[:, None]
    x = torch.randn(B, length, D, dtype=torch.float64, requires_grad=True)
    return x, padding_mask((~is_padding).long()), is_padding


def assert_same_gradients(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    upstream = torch.randn_like(actual)
    for a, e in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (actual, expected)), strict=True):
        assert_close(a, e)


@pytest.mark.parametrize("norm_eps", [1e-6, 0.1])
def test_an_encoder_layer_equals_that_of_torch_nn(norm_eps: float) -> None:
    ours = make_layer(has_cross=False, norm_eps=norm_eps)
    theirs = torch_layer(ours, norm_eps)
    x, mask, is_padding = make_input(S, 7, 4, 2)
    for our_mask, their_mask in ((None, None), (mask, is_padding)):
        actual, kv, memory = ours(x, our_mask)
        expected = theirs(x, src_key_padding_mask=their_mask)
        assert_close(actual, expected)
        assert_same_gradients(actual, expected, [x])
        assert kv.keys.shape == kv.values.shape == (B, H, S, 5)
        assert memory is None


@pytest.mark.parametrize("norm_eps", [1e-6, 0.1])
def test_a_decoder_layer_equals_that_of_torch_nn(norm_eps: float) -> None:
    ours = make_layer(has_cross=True, norm_eps=norm_eps)
    theirs = torch_layer(ours, norm_eps)
    memory, memory_mask, is_padding = make_input(S, 7, 4, 2)
    x, causal = make_input(T, 5, 5, 5)[0], causal_mask(T)
    actual, kv, memory_kv = ours(x, causal, None, memory, memory_mask)
    expected = theirs(x, memory, tgt_mask=~causal[0, 0], memory_key_padding_mask=is_padding)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, memory])
    assert kv.keys.shape == kv.values.shape == (B, H, T, 5)
    assert memory_kv.keys.shape == memory_kv.values.shape == (B, H, S, 5)
    # And without any mask.
    assert_close(ours(x, memory=memory)[0], theirs(x, memory))


def test_a_layer_goes_on_from_the_keys_and_values_that_it_returned() -> None:
    layer = make_layer(has_cross=True)
    memory, memory_mask, _ = make_input(S, 7, 4, 2)
    x = torch.randn(B, T, D, dtype=torch.float64)
    expected, expected_kv, _ = layer(x, causal_mask(T), None, memory, memory_mask)
    outputs, past, kept = [], None, memory
    for position in range(T):
        y, past, kept = layer(x[:, position : position + 1], None, past, kept, memory_mask)
        outputs.append(y)
        assert isinstance(kept, KeyValue)
        assert all(tensor.is_contiguous() for tensor in kept)
    assert_close(torch.cat(outputs, dim=1), expected)
    assert_close(past, expected_kv)


def test_beams_share_the_memory_of_their_sentence() -> None:
    layer = make_layer(has_cross=True)
    memory, memory_mask, _ = make_input(S, 7, 4, 2)
    x = torch.randn(B * W, T, D, dtype=torch.float64)
    y, kv, memory_kv = layer(x, causal_mask(T), None, memory, memory_mask)
    repeated = (tensor.repeat_interleave(W, dim=0) for tensor in (memory, memory_mask))
    assert_close(y, layer(x, causal_mask(T), None, *repeated)[0])
    assert (len(kv.keys), len(memory_kv.keys)) == (B * W, B)

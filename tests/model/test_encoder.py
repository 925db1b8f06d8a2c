"""The encoder, against torch.nn with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model.encoder import Encoder, EncoderLayer
from transformer.model.masks import padding_mask
from transformer.model.options import LayerOptions, NormPlacement

B, S, D_MODEL, H, D_FF = 3, 7, 15, 3, 29
OPTIONS: LayerOptions = {"d_model": D_MODEL, "num_heads": H, "d_ff": D_FF, "attention_bias": True, "dropout": 0.0}


def randomise(module: nn.Module) -> None:
    """Give every parameter, biases and norms included, a value that a mistake would show."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)


def copy_encoder_layer(ours: EncoderLayer, theirs: nn.TransformerEncoderLayer) -> None:
    """Copy our weights into torch's layer."""
    attention = ours.self_attention
    q, k, v = attention.w_q, attention.w_k, attention.w_v
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([q.weight, k.weight, v.weight]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([q.bias, k.bias, v.bias]))
    theirs.self_attn.out_proj.load_state_dict(attention.w_o.state_dict())
    theirs.linear1.load_state_dict(ours.feed_forward.w_1.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.w_2.state_dict())
    theirs.norm1.load_state_dict(ours.residual_1.norm.state_dict())
    theirs.norm2.load_state_dict(ours.residual_2.norm.state_dict())


def torch_layer(norm: NormPlacement, norm_eps: float) -> nn.TransformerEncoderLayer:
    """Torch's layer of our sizes; its activation is ReLU unless told otherwise."""
    return nn.TransformerEncoderLayer(
        D_MODEL, H, D_FF, 0.0, layer_norm_eps=norm_eps, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )


def embedded_source() -> tuple[Tensor, Tensor, Tensor]:
    """Random x (B, S, D), its mask, and torch's mask, which is True at padding."""
    torch.manual_seed(5)
    ids = torch.ones(B, S, dtype=torch.int64)
    ids[1, 4:] = 0
    ids[2, 2:] = 0
    x = torch.randn(B, S, D_MODEL, dtype=torch.float64, requires_grad=True)
    return x, padding_mask(ids), ids == 0


def assert_same_gradient(actual: Tensor, expected: Tensor, x: Tensor) -> None:
    upstream = torch.randn_like(actual)
    (a,), (e,) = (torch.autograd.grad(y, x, upstream) for y in (actual, expected))
    assert_close(a, e)


@pytest.mark.parametrize("norm_eps", [1e-6, 0.1])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_layer_equals_that_of_torch_nn(norm: NormPlacement, norm_eps: float) -> None:
    ours = EncoderLayer(**OPTIONS, norm=norm, norm_eps=norm_eps).double()
    theirs = torch_layer(norm, norm_eps)
    randomise(ours)
    copy_encoder_layer(ours, theirs)
    x, mask, is_padding = embedded_source()
    for our_mask, their_mask in ((None, None), (mask, is_padding)):
        actual, expected = ours(x, our_mask), theirs(x, src_key_padding_mask=their_mask)
        assert_close(actual, expected)
        assert_same_gradient(actual, expected, x)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_stack_equals_that_of_torch_nn(norm: NormPlacement) -> None:
    ours = Encoder(3, **OPTIONS, norm=norm).double()
    randomise(ours)
    # torch's stack has a final norm only if it is given one: the paper's has none.
    final = nn.LayerNorm(D_MODEL, eps=1e-6, dtype=torch.float64) if norm == "pre" else None
    theirs = nn.TransformerEncoder(torch_layer(norm, 1e-6), 3, norm=final, enable_nested_tensor=False)
    for our_layer, their_layer in zip(ours.layers, theirs.layers, strict=True):
        copy_encoder_layer(our_layer, their_layer)
    if final is not None:
        final.load_state_dict(ours.norm.state_dict())
    x, mask, is_padding = embedded_source()
    actual, expected = ours(x, mask), theirs(x, src_key_padding_mask=is_padding)
    assert_close(actual, expected)
    assert_same_gradient(actual, expected, x)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_attention_weights_are_those_that_the_layers_mix_values_with(norm: NormPlacement) -> None:
    encoder = Encoder(2, **OPTIONS, norm=norm).double()
    randomise(encoder)
    x, mask, _ = embedded_source()
    weights = encoder.attention_weights(x, mask)
    assert len(weights) == 2
    for layer, layer_weights in zip(encoder.layers, weights, strict=True):
        assert_close(layer.attention_weights(x, mask), layer_weights)
        assert_close(layer_weights.sum(-1), torch.ones(B, H, S, dtype=torch.float64))
        # The layer's first half, with these weights in place of a softmax.
        y = layer.residual_1.norm(x) if norm == "pre" else x
        attention = layer.self_attention
        mixed = layer_weights @ attention.keys_values(y).values
        x_1 = x + attention.w_o(torch.cat(mixed.unbind(1), dim=-1))
        x_1 = x_1 if norm == "pre" else layer.residual_1.norm(x_1)
        expected = layer.residual_2(x_1, layer.feed_forward)
        x = layer(x, mask)
        assert_close(x, expected)


def test_a_stack_has_its_own_weights_in_every_layer() -> None:
    torch.manual_seed(3)
    first, second = Encoder(2, **OPTIONS).layers
    assert (first.self_attention.w_q.weight != second.self_attention.w_q.weight).all()
    assert (first.feed_forward.w_1.weight != second.feed_forward.w_1.weight).all()


def test_layers_norms_and_sizes_follow_their_options() -> None:
    encoder = Encoder(5, d_model=11, num_heads=3, d_ff=29, d_k=7, d_v=5, norm="pre", norm_eps=0.01)
    assert len(encoder.layers) == 5
    assert [m.eps for m in encoder.modules() if isinstance(m, nn.LayerNorm)] == [0.01] * 11
    assert encoder(torch.randn(2, 13, 11)).shape == (2, 13, 11)
    layer = encoder.layers[0]
    assert layer.self_attention.w_k.weight.shape == (21, 11)
    assert layer.self_attention.w_v.weight.shape == (15, 11)
    assert layer.feed_forward.w_1.weight.shape == (29, 11)

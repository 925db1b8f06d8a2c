"""Modules of torch.nn become ours and ours theirs: equal outputs and gradients, the same weights to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.interop.torch_nn import from_torch, to_torch
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.attention import MultiHeadAttention, causal_mask, padding_mask
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Decoder, DecoderState, Encoder, Transformer

# Head sizes of 11 in float64: no fused kernel of either side, and sizes that are distinct primes.
D_MODEL, HEADS, D_FF, SOURCE, TARGET = 22, 2, 31, 9, 7
SOURCE_PADDING = torch.arange(SOURCE) >= torch.tensor([9, 2, 1])[:, None]  # True where masked
SUBSEQUENT = ~causal_mask(TARGET)[0, 0]
norm_first = pytest.mark.parametrize("norm_first", [False, True], ids=["post", "pre"])
bias = pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])


@torch.no_grad()
def randomised(module: Any) -> Any:
    """Change what is 0 or 1 at first, such as biases; in eval mode."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter) / 5)
    return module.eval()


def options(**more: Any) -> dict[str, Any]:
    return {"dtype": torch.float64, **more}


def vectors(*shape: int) -> Tensor:
    return torch.randn(*shape, D_MODEL, dtype=torch.float64)


def small(norm: str = "post", *, attention_bias: bool = False, **more: Any) -> Transformer:
    sizes: dict[str, Any] = {"d_model": D_MODEL, "num_heads": HEADS, "d_ff": D_FF, "num_layers": 2}
    config = ModelConfig(**sizes, num_decoder_layers=3, norm=norm, attention_bias=attention_bias, **more)
    return randomised(build_model(53, config).double())


def check_equal_to_the_bit(one: Any, other: Any) -> None:
    assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    flags = [[p.requires_grad for p in module.parameters()] for module in (one, other)]
    assert flags[0] == flags[1]
    assert str(one) == str(other)  # sizes, dropout, biases, epsilons


# From torch.nn


@bias
@pytest.mark.parametrize("length", [7, 60])
def test_multihead_attention_of_torch(length: int, bias: bool) -> None:
    theirs = randomised(nn.MultiheadAttention(D_MODEL, HEADS, bias=bias, batch_first=True, **options()))
    ours = from_torch(theirs)
    x, memory = vectors(3, length), vectors(3, SOURCE)
    assert_close(ours(x), theirs(x, x, x)[0])
    expected = theirs(x, memory, memory, key_padding_mask=SOURCE_PADDING)[0]
    assert_close(ours(x, memory, mask=~SOURCE_PADDING[:, None, None]), expected)
    causal = nn.Transformer.generate_square_subsequent_mask(length).isinf()
    assert_close(ours(x, mask=~causal), theirs(x, x, x, attn_mask=causal)[0])
    check_equal_to_the_bit(to_torch(ours), theirs)


def test_keys_and_values_of_another_size_than_the_queries() -> None:
    theirs = randomised(nn.MultiheadAttention(D_MODEL, HEADS, kdim=13, vdim=13, batch_first=True, **options()))
    ours = from_torch(theirs)
    x, memory = vectors(3, TARGET), torch.randn(3, SOURCE, 13, dtype=torch.float64)
    assert_close(ours(x, memory), theirs(x, memory, memory)[0])
    check_equal_to_the_bit(to_torch(ours), theirs)


@norm_first
@bias
@pytest.mark.parametrize("activation", [F.relu, F.gelu, nn.PReLU(dtype=torch.float64)], ids=["relu", "gelu", "prelu"])
def test_encoder_and_decoder_layers_of_torch(norm_first: bool, bias: bool, activation: Any) -> None:
    more = options(batch_first=True, norm_first=norm_first, activation=activation, bias=bias)
    source, target = vectors(3, SOURCE), vectors(3, TARGET)
    encoder = randomised(nn.TransformerEncoderLayer(D_MODEL, HEADS, D_FF, **more))
    ours = from_torch(encoder)
    expected = encoder(source, src_key_padding_mask=SOURCE_PADDING)
    real = ~SOURCE_PADDING
    # At padding the fast path of theirs writes zeros.
    assert_close(ours(source, real[:, None, None])[0][real], expected[real])
    check_equal_to_the_bit(to_torch(ours), encoder)
    decoder = randomised(nn.TransformerDecoderLayer(D_MODEL, HEADS, D_FF, **more))
    ours = from_torch(decoder)
    assert_close(ours(target, causal_mask(TARGET), memory=source)[0], decoder(target, source, tgt_mask=SUBSEQUENT))
    check_equal_to_the_bit(to_torch(ours), decoder)


@norm_first
@bias
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer_of_torch(norm_first: bool, bias: bool, batch_first: bool) -> None:
    more = options(norm_first=norm_first, bias=bias, batch_first=batch_first)
    theirs = randomised(nn.Transformer(D_MODEL, HEADS, 2, 3, D_FF, **more))
    encoder, decoder = from_torch(theirs)
    source, target = vectors(3, SOURCE), vectors(3, TARGET)
    masks = {"src_key_padding_mask": SOURCE_PADDING, "memory_key_padding_mask": SOURCE_PADDING, "tgt_mask": SUBSEQUENT}
    if batch_first:
        expected = theirs(source, target, **masks)
    else:
        expected = theirs(source.transpose(0, 1), target.transpose(0, 1), **masks).transpose(0, 1)
    real = ~SOURCE_PADDING[:, None, None]
    state = DecoderState(encoder(source, real), real)
    assert_close(decoder(target, state)[0], expected)
    steps = []
    for position in range(TARGET):  # and with the KV cache that theirs lacks
        hidden, state = decoder(target[:, position : position + 1], state)
        steps.append(hidden)
    assert_close(torch.cat(steps, dim=1), expected)


def test_gradients_are_those_of_torch() -> None:
    theirs = randomised(nn.TransformerDecoderLayer(D_MODEL, HEADS, D_FF, **options(batch_first=True, dropout=0.0)))
    ours = from_torch(theirs)
    target, memory, weight = vectors(3, TARGET), vectors(3, SOURCE), vectors(3, TARGET)
    (theirs(target, memory, tgt_mask=SUBSEQUENT) * weight).sum().backward()
    (ours(target, causal_mask(TARGET), memory=memory)[0] * weight).sum().backward()
    names = {"linear1": "feed_forward.w_1", "norm2": "norm_cross", "self_attn.out_proj": "self_attention.w_o"}
    for old, new in names.items():
        assert_close(ours.get_parameter(f"{new}.weight").grad, theirs.get_parameter(f"{old}.weight").grad)
    stacked = [ours.self_attention.get_parameter(f"{name}.weight").grad for name in ("w_q", "w_k", "w_v")]
    assert_close(torch.cat(stacked), theirs.self_attn.in_proj_weight.grad)


# To torch.nn


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("attention_bias", [False, True], ids=["plain", "bias"])
def test_a_transformer_of_ours_in_torch(norm: str, attention_bias: bool) -> None:
    model = small(norm, attention_bias=attention_bias, activation="gelu", attention_dropout=0.3)
    theirs = to_torch(model)
    assert (theirs.d_model, theirs.nhead, theirs.batch_first) == (D_MODEL, HEADS, True)
    src, tgt = torch.randint(4, 53, (3, SOURCE)), torch.randint(4, 53, (3, TARGET))
    src[SOURCE_PADDING] = 0
    source, target = (positions(model.embedding(ids)) for positions, ids in
                      ((model.source_positions, src), (model.target_positions, tgt)))  # fmt: skip
    masks = {"src_key_padding_mask": src == 0, "memory_key_padding_mask": src == 0, "tgt_mask": SUBSEQUENT}
    expected = model(src, tgt)
    assert_close(model.logits(theirs(source, target, **masks)), expected)
    again = copy.deepcopy(model)
    again.encoder, again.decoder = from_torch(theirs)
    check_equal_to_the_bit(again, model)
    assert_close(again(src, tgt), expected, rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_training_mode_dropout_and_frozen_weights_go_along(training: bool) -> None:
    torch.manual_seed(3)
    attention = from_torch(nn.MultiheadAttention(D_MODEL, HEADS, dropout=0.3))
    attention.w_o.requires_grad_(False)
    feed_forward = FeedForward(D_MODEL, D_FF, dropout=0.2)
    layer = Layer(attention, feed_forward, dropout=0.1).train(training)
    layer.norm_1.requires_grad_(False)
    theirs = to_torch(layer)
    assert {module.training for module in theirs.modules()} == {training}
    assert (theirs.self_attn.dropout, theirs.dropout.p, theirs.dropout1.p, theirs.dropout2.p) == (0.3, 0.2, 0.1, 0.1)
    frozen = {name for name, parameter in theirs.named_parameters() if not parameter.requires_grad}
    assert frozen == {"self_attn.out_proj.weight", "self_attn.out_proj.bias", "norm1.weight", "norm1.bias"}
    check_equal_to_the_bit(from_torch(theirs), layer)


def test_converting_draws_no_random_numbers_and_copies() -> None:
    theirs = nn.Transformer(D_MODEL, HEADS, 1, 1, D_FF, batch_first=True)
    model = small()
    before = torch.get_rng_state()
    encoder, _ = from_torch(theirs)
    back = to_torch(model)
    assert torch.equal(torch.get_rng_state(), before)
    pointers = {parameter.data_ptr() for module in (theirs, model) for parameter in module.parameters()}
    assert pointers.isdisjoint(parameter.data_ptr() for module in (encoder, back) for parameter in module.parameters())
    assert all(parameter.device.type == "cpu" for module in (encoder, back) for parameter in module.parameters())


def test_a_stack_without_weights_is_converted_without_them() -> None:
    with torch.device("meta"):
        theirs = nn.Transformer(D_MODEL, HEADS, 1, 1, D_FF, batch_first=True)
    encoder, decoder = from_torch(theirs)
    assert {parameter.device.type for stack in (encoder, decoder) for parameter in stack.parameters()} == {"meta"}


# What is refused


def with_dropout(layer: nn.TransformerEncoderLayer) -> nn.TransformerEncoderLayer:
    layer.dropout2.p = 0.3
    return layer


class Subclass(nn.TransformerEncoderLayer):
    """May compute anything."""


def tied(stack: nn.TransformerEncoder) -> nn.TransformerEncoder:
    stack.layers[1] = stack.layers[0]
    return stack


FROM: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "linear": (lambda: nn.Linear(2, 3), TypeError, "^Linear is none of MultiheadAttention, TransformerEncoderLayer, "),
    "subclass": (lambda: Subclass(2, 1), TypeError, "^Subclass is none of .*; a subclass may compute something else$"),
    "bias_kv": (lambda: nn.MultiheadAttention(2, 1, add_bias_kv=True), ValueError, "with add_bias_kv or add_zero_attn"),
    "zero": (lambda: nn.MultiheadAttention(2, 1, add_zero_attn=True), ValueError, "attends to a key that ours lacks$"),
    "sizes": (lambda: nn.MultiheadAttention(2, 1, kdim=3, vdim=5), ValueError, "^kdim=3 and vdim=5 differ; ours are "),
    "dropout": (
        lambda: with_dropout(nn.TransformerEncoderLayer(2, 1, 3)),
        ValueError,
        r"^the sub-layers have dropout 0\.1, 0\.3; a layer of ours has one$",
    ),
    "shared": (
        lambda: tied(nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 1, 3), 2, enable_nested_tensor=False)),
        ValueError,
        "^modules of this TransformerEncoder share weights, and their copies would not$",
    ),
    "custom": (
        lambda: nn.Transformer(2, 1, 1, 1, 3, custom_encoder=nn.Identity()),
        TypeError,
        "^Identity is none of ",
    ),
}


@pytest.mark.parametrize("kind", FROM)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_what_ours_cannot_compute_is_refused(kind: str) -> None:
    make, error, message = FROM[kind]
    with pytest.raises(error, match=message):
        from_torch(make())


def changed(change: Callable[[Layer], Any], kind: type[Layer] = Layer) -> Layer:
    layer = kind(MultiHeadAttention(6, 2), FeedForward(6, 7))
    change(layer)
    return layer


def shared_encoder() -> Encoder:
    layer = changed(lambda _: None)
    return Encoder([layer, layer])


def of(**model: Any) -> Transformer:
    return build_model(53, ModelConfig(d_model=6, num_heads=2, d_ff=7, num_layers=1, **model))


TO: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "rotary": (lambda: of(positional="rotary", d_k=4), ValueError, "^torch.nn has no RotaryAttention, only equation 1"),
    "temperature": (lambda: of(attention_temperature=2.0), ValueError, "^torch.nn has no TemperatureAttention"),
    "grouped": (lambda: of(num_kv_heads=1), TypeError, "^GroupedQueryAttention is none of MultiHeadAttention, Layer, "),
    "d_k": (lambda: of(d_k=5), ValueError, "^d_k=5, d_v=5: in torch.nn both are d_model / h = 6 / 2$"),
    "d_v": (lambda: of(d_v=5), ValueError, "^d_k=3, d_v=5: in torch.nn both are d_model / h = 6 / 2$"),
    "adapter": (
        lambda: changed(lambda layer: setattr(layer.self_attention, "w_v", nn.Sequential())),
        TypeError,
        "^w_v is a Sequential, not nn.Linear; merge adapters into it first$",
    ),
    "biases": (
        lambda: changed(lambda layer: setattr(layer.self_attention, "w_o", nn.Linear(6, 6))),
        ValueError,
        "^some of w_q, w_k, w_v, w_o have a bias; in torch.nn all or none have$",
    ),
    "frozen": (
        lambda: changed(lambda layer: layer.self_attention.w_k.requires_grad_(False)),
        ValueError,
        "^some of w_q, w_k, w_v are frozen; in torch.nn they are one weight, frozen or not$",
    ),
    "feed_forward": (
        lambda: changed(lambda layer: setattr(layer, "feed_forward", nn.Identity()), PreNormLayer),
        TypeError,
        "^feed_forward is a Identity; a layer of torch.nn has a FeedForward only$",
    ),
    "empty": (lambda: Encoder([]), ValueError, "^Encoder has no layers, and a stack of torch.nn at least one$"),
    "decoder_only": (
        lambda: Decoder([changed(lambda _: None)]),
        ValueError,
        "^Decoder has layers without cross-attention, and torch.nn no such stack$",
    ),
    "crossing_encoder": (
        lambda: Encoder([Layer(MultiHeadAttention(6, 2), FeedForward(6, 7), MultiHeadAttention(6, 2))]),
        ValueError,
        "^Encoder has layers with cross-attention, and torch.nn no such stack$",
    ),
    "shared": (shared_encoder, ValueError, "^modules of this Encoder share weights, and their copies would not$"),
}


@pytest.mark.parametrize("kind", TO)
def test_what_torch_cannot_compute_is_refused(kind: str) -> None:
    make, error, message = TO[kind]
    with pytest.raises(error, match=message):
        to_torch(make())


def test_a_decoder_without_cross_attention_is_an_encoder_under_a_causal_mask() -> None:
    layers = [Layer(MultiHeadAttention(D_MODEL, HEADS), FeedForward(D_MODEL, D_FF)) for _ in range(2)]
    decoder = randomised(Decoder(layers).double())
    x = vectors(3, TARGET)
    theirs = to_torch(Encoder(decoder.layers, decoder.norm).eval())
    assert_close(theirs(x, mask=SUBSEQUENT), decoder(x, DecoderState())[0])


def test_the_masks_of_both_sides_are_each_others_opposite() -> None:
    ids = torch.tensor([[5, 6, 0]])
    theirs = randomised(nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True, **options()))
    x = vectors(1, 3)
    assert_close(from_torch(theirs)(x, mask=padding_mask(ids)), theirs(x, x, x, key_padding_mask=ids == 0)[0])

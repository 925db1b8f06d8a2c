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
from transformer.model.alternatives.embeddings import BiasedTransformer
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
# Without them, layers of torch take another path, if they have biases and ReLU or GELU.
gradients = pytest.mark.parametrize("gradients", [False, True], ids=["inference", "gradients"])


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
@gradients
@pytest.mark.parametrize("activation", [F.relu, F.gelu, nn.PReLU(dtype=torch.float64)], ids=["relu", "gelu", "prelu"])
def test_encoder_and_decoder_layers_of_torch(norm_first: bool, bias: bool, activation: Any, gradients: bool) -> None:
    more = options(batch_first=True, norm_first=norm_first, activation=activation, bias=bias)
    source, target = vectors(3, SOURCE), vectors(3, TARGET)
    encoder = randomised(nn.TransformerEncoderLayer(D_MODEL, HEADS, D_FF, **more))
    ours = from_torch(encoder)
    real = ~SOURCE_PADDING
    with torch.set_grad_enabled(gradients):
        expected = encoder(source, src_key_padding_mask=SOURCE_PADDING)
        found = ours(source, real[:, None, None])[0]
        assert_close(found[real], expected[real])
        causal = encoder(source, src_mask=~causal_mask(SOURCE)[0, 0])
        assert_close(ours(source, causal_mask(SOURCE))[0], causal)
    check_equal_to_the_bit(to_torch(ours), encoder)
    decoder = randomised(nn.TransformerDecoderLayer(D_MODEL, HEADS, D_FF, **more))
    ours = from_torch(decoder)
    assert_close(ours(target, causal_mask(TARGET), memory=source)[0], decoder(target, source, tgt_mask=SUBSEQUENT))
    check_equal_to_the_bit(to_torch(ours), decoder)


@norm_first
@bias
@gradients
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_transformer_of_torch(norm_first: bool, bias: bool, batch_first: bool, gradients: bool) -> None:
    more = options(norm_first=norm_first, bias=bias, batch_first=batch_first)
    theirs = randomised(nn.Transformer(D_MODEL, HEADS, 2, 3, D_FF, **more))
    encoder, decoder = from_torch(theirs)
    source, target = vectors(3, SOURCE), vectors(3, TARGET)
    masks = {"src_key_padding_mask": SOURCE_PADDING, "memory_key_padding_mask": SOURCE_PADDING, "tgt_mask": SUBSEQUENT}
    with torch.set_grad_enabled(gradients):
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


def with_gradients_as_weights(module: Any) -> Any:
    """A copy, so that a conversion of it is one of the gradients."""
    copied = copy.deepcopy(module)
    for parameter, original in zip(copied.parameters(), module.parameters(), strict=True):
        parameter.data = original.grad
    return copied


@norm_first
@bias
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_gradients_are_those_of_torch(norm_first: bool, bias: bool, training: bool) -> None:
    more = options(norm_first=norm_first, bias=bias, batch_first=True, dropout=0.0, activation=F.gelu)
    theirs = randomised(nn.Transformer(D_MODEL, HEADS, 2, 1, D_FF, **more)).train(training)
    encoder, decoder = from_torch(theirs)
    inputs = [vectors(3, length).requires_grad_() for length in (SOURCE, TARGET, SOURCE, TARGET)]
    direction, real = vectors(3, TARGET), ~SOURCE_PADDING[:, None, None]
    masks = {"src_key_padding_mask": SOURCE_PADDING, "memory_key_padding_mask": SOURCE_PADDING, "tgt_mask": SUBSEQUENT}
    for mine, other in zip(inputs[2:], inputs[:2], strict=True):
        mine.data = other.data.clone()
    (theirs(*inputs[:2], **masks) * direction).sum().backward()
    (decoder(inputs[3], DecoderState(encoder(inputs[2], real), real))[0] * direction).sum().backward()
    for mine, other in zip(inputs[2:], inputs[:2], strict=True):
        assert_close(mine.grad, other.grad)
    expected = from_torch(with_gradients_as_weights(theirs))
    for mine, other in zip((encoder, decoder), expected, strict=True):
        assert_close(with_gradients_as_weights(mine).state_dict(), other.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_go_along_each_by_itself(dtype: torch.dtype) -> None:
    theirs = nn.TransformerDecoderLayer(D_MODEL, HEADS, D_FF, batch_first=True).to(dtype)
    theirs.norm3.float()
    ours = from_torch(theirs)
    assert {name: parameter.dtype for name, parameter in ours.named_parameters()} == {
        name: torch.float32 if name.startswith("norm_2.") else dtype for name, _ in ours.named_parameters()
    }
    check_equal_to_the_bit(to_torch(ours), theirs)


# To torch.nn


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("attention_bias", [False, True], ids=["plain", "bias"])
@gradients
def test_a_transformer_of_ours_in_torch(norm: str, attention_bias: bool, gradients: bool) -> None:
    model = small(norm, attention_bias=attention_bias, activation="gelu", attention_dropout=0.3)
    theirs = to_torch(model)
    assert (theirs.d_model, theirs.nhead, theirs.batch_first) == (D_MODEL, HEADS, True)
    src, tgt = torch.randint(4, 53, (3, SOURCE)), torch.randint(4, 53, (3, TARGET))
    src[SOURCE_PADDING] = 0
    source, target = (positions(model.embedding(ids)) for positions, ids in
                      ((model.source_positions, src), (model.target_positions, tgt)))  # fmt: skip
    masks = {"src_key_padding_mask": src == 0, "memory_key_padding_mask": src == 0, "tgt_mask": SUBSEQUENT}
    with torch.set_grad_enabled(gradients):
        expected = model(src, tgt)
        assert_close(model.logits(theirs(source, target, **masks)), expected)
    again = copy.deepcopy(model)
    again.encoder, again.decoder = from_torch(theirs)
    check_equal_to_the_bit(again, model)
    with torch.set_grad_enabled(gradients):
        assert_close(again(src, tgt), expected, rtol=0, atol=0)


def test_a_model_with_an_output_bias_as_marians_gives_its_stacks() -> None:
    model = small(output_bias=True)
    assert type(model) is BiasedTransformer
    encoder, decoder = from_torch(to_torch(model))
    check_equal_to_the_bit(encoder, model.encoder)
    check_equal_to_the_bit(decoder, model.decoder)


class Twice(nn.Linear):
    """Stands for a layer with an adapter: its weight is not all that it computes with."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


# What the fast path of torch would leave out, compute as something else, or stumble over.
PARTS: dict[str, Callable[[Layer], Any]] = {
    "none": lambda _: None,
    "tanh": lambda layer: setattr(layer.feed_forward, "activation", nn.GELU(approximate="tanh")),
    "adapter": lambda layer: setattr(layer.feed_forward, "w_1", Twice(D_MODEL, D_FF)),
    "biases": lambda layer: setattr(layer.feed_forward, "w_2", nn.Linear(D_FF, D_MODEL, bias=False)),
    "rms": lambda layer: setattr(layer, "norm_1", nn.RMSNorm(D_MODEL, 1e-6)),
    "norm": lambda layer: setattr(layer, "norm_2", nn.LayerNorm(D_MODEL, 1e-6, elementwise_affine=False)),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", [Layer, PreNormLayer])
@gradients
def test_other_parts_of_a_layer_compute_in_torch_what_they_compute_here(
    part: str, kind: type[Layer], gradients: bool
) -> None:
    layer = kind(MultiHeadAttention(D_MODEL, HEADS, bias=True), FeedForward(D_MODEL, D_FF, activation=F.gelu))
    PARTS[part](layer)
    layer, x = randomised(layer.double()), vectors(3, SOURCE)
    with torch.set_grad_enabled(gradients):
        assert_close(to_torch(layer)(x), layer(x)[0])


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


# Their names in torch.nn, and ours.
PARTS_IN_EVAL = {
    "layers.0": "layers.0",
    "layers.1.self_attn": "layers.1.self_attention",
    "layers.1.dropout": "layers.1.feed_forward.dropout",
    "layers.1.norm1": "layers.1.norm_1",
    "norm": "norm",
}


@pytest.mark.parametrize("name", PARTS_IN_EVAL)
def test_each_part_keeps_its_training_mode_there_and_back(name: str) -> None:
    layer = nn.TransformerEncoderLayer(D_MODEL, HEADS, D_FF, 0.5, batch_first=True)
    theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(D_MODEL), enable_nested_tensor=False)
    theirs.get_submodule(name).eval()
    ours = from_torch(theirs)
    in_eval = {one for one, part in ours.named_modules() if not part.training}
    whole = ours.get_submodule(PARTS_IN_EVAL[name])
    assert in_eval == {one for one, part in ours.named_modules() if any(part is x for x in whole.modules())}
    again = {one for one, part in to_torch(ours).named_modules() if not part.training}
    assert again == {one for one, part in theirs.named_modules() if not part.training}


def test_a_frozen_encoder_in_eval_mode_has_no_dropout_here_either() -> None:
    theirs = nn.Transformer(D_MODEL, HEADS, 1, 1, D_FF, 0.5, batch_first=True)
    theirs.encoder.eval()
    encoder, decoder = from_torch(theirs)
    x = vectors(3, 7).float()
    assert torch.equal(encoder(x), encoder(x))
    assert decoder.training
    model = small().train()
    model.encoder.eval()
    stacks = to_torch(model)
    assert (stacks.training, stacks.encoder.training, stacks.decoder.training) == (True, False, True)


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


def hooked(module: nn.Module, name: str) -> nn.Module:
    module.get_submodule(name).register_forward_hook(lambda *_: None)
    return module


def with_part(module: nn.Module) -> nn.Module:
    module.extra = nn.Linear(2, 3)
    return module


def with_forward(module: nn.Module, name: str) -> nn.Module:
    part = module.get_submodule(name)
    part.forward = part.forward  # as one that was wrapped
    return module


def with_dropout_in_eval(layer: nn.TransformerEncoderLayer) -> nn.TransformerEncoderLayer:
    layer.dropout1.eval()
    return layer


def tied(stack: nn.TransformerEncoder) -> nn.TransformerEncoder:
    stack.layers[1] = stack.layers[0]
    return stack


FROM: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "linear": (lambda: nn.Linear(2, 3), TypeError, "^Linear is none of MultiheadAttention, TransformerEncoderLayer, "),
    "subclass": (lambda: Subclass(2, 1), TypeError, "^Subclass is none of .*; a subclass may compute something else$"),
    "bias_kv": (lambda: nn.MultiheadAttention(2, 1, add_bias_kv=True), ValueError, "with add_bias_kv or add_zero_attn"),
    "zero": (lambda: nn.MultiheadAttention(2, 1, add_zero_attn=True), ValueError, "attends to a key that ours lacks$"),
    "sizes": (lambda: nn.MultiheadAttention(2, 1, kdim=3, vdim=5), ValueError, "^kdim=3 and vdim=5 differ; ours are "),
    "one": (lambda: nn.MultiheadAttention(2, 1, dropout=1.0), ValueError, r"^dropout=1\.0 is not in "),
    "hook": (
        lambda: hooked(nn.TransformerEncoderLayer(2, 1, 3), "linear1"),
        ValueError,
        "^linear1 has hooks, which its counterpart would not have; remove them first$",
    ),
    "dropout": (
        lambda: with_dropout(nn.TransformerEncoderLayer(2, 1, 3)),
        ValueError,
        r"^the sub-layers have dropout 0\.1, 0\.3; a layer of ours has one$",
    ),
    "mode": (
        lambda: with_dropout_in_eval(nn.TransformerEncoderLayer(2, 1, 3)),
        ValueError,
        r"^the sub-layers have dropout 0\.1 in eval mode, 0\.1; a layer of ours has one$",
    ),
    "forward": (
        lambda: with_forward(nn.TransformerEncoderLayer(2, 1, 3), "linear1"),
        ValueError,
        "^linear1 has a forward of its own, which its counterpart would not have; remove them first$",
    ),
    "part": (
        lambda: with_part(nn.TransformerEncoderLayer(2, 1, 3)),
        ValueError,
        "^this TransformerEncoderLayer has weights for which its counterpart has no place$",
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
        "^w_v is a Sequential, not nn.Linear; merge adapters first, and convert before prepacking$",
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
    "hook": (
        lambda: hooked(MultiHeadAttention(6, 2), ""),
        ValueError,
        "^this MultiHeadAttention has hooks, which its counterpart would not have; remove them first$",
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


@pytest.mark.parametrize(
    ("mask", "ours"),
    [
        (~causal_mask(TARGET)[0, 0], causal_mask(TARGET)),
        (nn.Transformer.generate_square_subsequent_mask(TARGET, dtype=torch.float64), causal_mask(TARGET)),
        (~causal_mask(TARGET).expand(3 * HEADS, 1, -1, -1)[:, 0], causal_mask(TARGET).expand(3, HEADS, -1, -1)),
    ],
    ids=["bool", "float", "head"],
)
def test_all_forms_of_torchs_masks_have_one_here(mask: Tensor, ours: Tensor) -> None:
    theirs = randomised(nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True, **options()))
    x = vectors(3, TARGET)
    assert_close(from_torch(theirs)(x, mask=ours), theirs(x, x, x, attn_mask=mask)[0])
    said_on_the_page = mask == 0 if mask.dtype != torch.bool else ~mask
    said_on_the_page = said_on_the_page.unflatten(0, (3, HEADS)) if mask.dim() == 3 else said_on_the_page
    assert torch.equal(said_on_the_page.expand(ours.shape), ours)


def test_a_query_without_any_key_is_nan_there_and_zero_here() -> None:
    theirs = randomised(nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True, **options()))
    ours, x = from_torch(theirs), vectors(1, TARGET)
    nothing = torch.zeros(1, 1, 1, TARGET, dtype=torch.bool)
    assert theirs(x, x, x, key_padding_mask=~nothing[0, 0])[0].isnan().all()
    assert_close(ours(x, mask=nothing), ours.w_o.bias.expand(1, TARGET, -1))

"""A layer for inference computes as the layer that it was made from, in every step of every search."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.inference.prepacked import (
    PrepackedLinear,
    QuantizedLinear,
    can_quantize,
    prepack_linears,
    prepack_model,
)
from transformer.inference.prepacked_layer import PrepackedLayer, is_plain
from transformer.inspection import attention_maps
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.scores import WrittenOutAttention
from transformer.model.attention import KeyValue, MultiHeadAttention, masked_softmax
from transformer.model.layers import FeedForward, Layer
from transformer.model.packed_attention import Packing
from transformer.model.transformer import DecoderState, Transformer

TOLERANCE = 2e-5
OPTIONS: dict[str, dict[str, Any]] = {
    "post": {},
    "pre": {"norm": "pre"},
    "bias": {"attention_bias": True},
    "gelu": {"activation": "gelu"},
    "sizes": {"d_k": 7, "d_v": 5},
}
SIZES: dict[str, Any] = {"d_model": 22, "num_layers": 3, "num_heads": 2, "d_ff": 29}
SRC = torch.tensor([[3, 17, 11, 5, 2], [11, 7, 2, 0, 0], [13, 2, 0, 0, 0]])
pytestmark = pytest.mark.skipif(not can_quantize(torch.zeros(1)), reason="torch has no kernel here")


def make_model(dtype: torch.dtype = torch.float32, **options: Any) -> Transformer:
    torch.manual_seed(7)
    model = build_model(19, ModelConfig(**SIZES | options))
    for parameter in model.parameters():  # biases and norms too
        nn.init.normal_(parameter, mean=0.5 * (parameter.dim() == 1), std=0.3)
    return model.to(dtype).eval().requires_grad_(False)


def prepacked(model: Transformer, linear: type[PrepackedLinear] = PrepackedLinear) -> Transformer:
    model = copy.deepcopy(model)
    prepack_linears(model, linear)
    assert all(type(layer) is PrepackedLayer for stack in (model.encoder, model.decoder) for layer in stack.layers)
    return model


def watched(model: Transformer) -> Transformer:
    """A copy of which each layer has a hook, so that it computes with its parts."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.attention.register_forward_hook(lambda *_: None)
    return model


def search_like(model: Transformer) -> list[Tensor]:
    """Hidden states of a prompt, then of steps between which beams are repeated, reordered and dropped."""
    hidden, state = model.decode(torch.tensor([[1, 5, 3], [1, 11, 7], [1, 2, 13]]), model.encode(SRC))
    found = [hidden]
    for rows, tokens in (
        ([[0, 0], [1, 1], [2, 2]], [3, 5, 7, 11, 13, 17]),
        ([[1, 0], [3, 3], [4, 5]], [5, 7, 11, 13, 17, 3]),
        ([[1, 0], [5, 4]], [2, 3, 5, 7]),  # the second sentence is over
        ([[3, 2]], [11, 13]),
    ):
        hidden, state = model.decode(torch.tensor(tokens)[:, None], state.select(torch.tensor(rows)))
        found.append(hidden)
    return found


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kernel", ["fused", "written"])
def test_steps_prompts_beams_and_dropped_sentences_are_those_of_the_model(
    options: dict[str, Any], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(**options)
    expected = search_like(copy.deepcopy(model).double())
    packed = prepacked(model)
    assert packed.state_dict().keys() == model.state_dict().keys()
    monkeypatch.setattr("transformer.model.kernels.prefers_fused", lambda *_: kernel == "fused")
    for one in (packed, copy.deepcopy(packed), pickle.loads(pickle.dumps(packed)), watched(packed)):
        for hidden, wanted in zip(search_like(one), expected, strict=True):
            assert hidden.dtype == torch.float32
            assert_close(hidden.double(), wanted, rtol=TOLERANCE, atol=5 * TOLERANCE)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_layers_have_the_products_of_int8_linear_layers(dtype: torch.dtype, options: dict[str, Any]) -> None:
    packed = prepacked(make_model(dtype, **options), QuantizedLinear)
    # A number at the edge between two steps may be rounded to either.
    mean, most = (1e-3, 0.05) if dtype == torch.float32 else (2e-2, 0.2)
    for hidden, wanted in zip(search_like(packed), search_like(watched(packed)), strict=True):
        assert hidden.dtype == dtype
        assert (hidden - wanted).abs().mean() < mean
        assert_close(hidden, wanted, rtol=most, atol=most)


def test_layers_in_bfloat16_stay_as_they_are_but_for_their_products() -> None:
    model = make_model(torch.bfloat16)
    prepack_linears(model)
    assert {type(layer) for stack in (model.encoder, model.decoder) for layer in stack.layers} == {Layer}
    assert type(model.decoder.layers[1].self_attention.w_q) is PrepackedLinear  # type: ignore[index, union-attr]


@pytest.mark.parametrize("kernel", ["fused", "written"])
def test_a_query_from_which_all_is_hidden_attends_to_nothing(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformer.model.kernels.prefers_fused", lambda *_: kernel == "fused")
    model, src = make_model(), torch.tensor([[3, 17, 2], [0, 0, 0]])
    packed, tgt = prepacked(model), torch.tensor([[1, 5], [1, 7]])
    assert_close(packed(src, tgt), model(src, tgt), rtol=1e-5, atol=1e-5)
    assert packed(src, tgt).isfinite().all()


def test_recorded_attention_weights_are_those_of_the_model_and_leave_the_layer_as_it_was() -> None:
    model, tgt = make_model(), torch.tensor([[1, 5], [1, 7], [1, 3]])
    packed = prepacked(model)
    before = packed(SRC, tgt)
    expected, maps = attention_maps(model, SRC, tgt), attention_maps(packed, SRC, tgt)
    for name in ("encoder", "decoder", "cross"):
        assert_close(getattr(maps, name), getattr(expected, name), rtol=1e-5, atol=1e-5)
    assert torch.equal(packed(SRC, tgt), before)


@pytest.mark.parametrize(
    "part", ["self_attention", "cross_attention", "feed_forward", "norm_1", "norm_2", "norm_cross"]
)
@pytest.mark.parametrize("before", [False, True])
def test_hooks_of_parts_are_called(part: str, before: bool) -> None:
    packed, called = prepacked(make_model()), []
    module = packed.decoder.layers[1].get_submodule(part)  # type: ignore[index]
    register: Any = module.register_forward_pre_hook if before else module.register_forward_hook
    handle = register(lambda *_: called.append(part))
    packed(SRC, SRC)
    assert called and set(called) == {part}
    handle.remove()
    called.clear()
    packed(SRC, SRC)
    assert not called


def test_hooks_of_all_modules_are_called() -> None:
    packed, seen = prepacked(make_model()), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        packed(SRC, SRC)
    finally:
        handle.remove()
    assert FeedForward in seen


class Capped(WrittenOutAttention):
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return torch.tanh(super().scores(q, k))


def replace_attention(layer: Any) -> None:
    layer.self_attention.attention = Capped()


def replace_cross_attention(layer: Any) -> None:
    torch.manual_seed(11)
    layer.cross_attention = MultiHeadAttention(22, 2).requires_grad_(False).eval()


def replace_norm(layer: Any) -> None:
    layer.norm_2 = nn.Identity()


def replace_activation(layer: Any) -> None:
    layer.feed_forward.activation = torch.sin


def replace_network(layer: Any) -> None:
    layer.feed_forward = nn.Identity()


def replace_dropout(layer: Any) -> None:
    layer.dropout = nn.Tanh()


def set_queries(layer: Any) -> None:
    layer.self_attention.attention.queries = lambda q, start: q * (1 + start)


def set_scores(layer: Any) -> None:
    layer.self_attention.attention.scores = lambda q, k: torch.tanh(q @ k.mT)
    layer.self_attention.attention.forward = lambda q, k, v, mask: masked_softmax(torch.tanh(q @ k.mT), mask) @ v


def set_forward(layer: Any) -> None:
    layer.feed_forward.w_1.forward = lambda x: torch.cat((x, x[..., :7]), dim=-1)


def set_sizes(layer: Any) -> None:
    layer.self_attention.num_heads, layer.self_attention.d_k, layer.self_attention.d_v = 11, 2, 2


CHANGES = [
    replace_attention,
    replace_cross_attention,
    replace_norm,
    replace_activation,
    replace_network,
    replace_dropout,
    set_queries,
    set_scores,
    set_forward,
    set_sizes,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("is_packed_before", [False, True])
def test_a_part_or_method_that_is_replaced_is_used_in_copies_too(
    change: Callable[[Any], None], is_packed_before: bool
) -> None:
    model = make_model()
    packed = prepacked(model) if is_packed_before else copy.deepcopy(model)
    for one in (model, packed):
        change(one.decoder.layers[1])  # type: ignore[index]
    if not is_packed_before:
        prepack_linears(packed)
    for one in (packed, copy.deepcopy(packed)):
        assert_close(one(SRC, SRC), model(SRC, SRC), rtol=1e-5, atol=5e-5)


def test_a_pickled_layer_uses_the_part_that_was_replaced() -> None:
    model = make_model()
    packed = prepacked(model)
    for one in (model, packed):
        replace_activation(one.decoder.layers[1])  # type: ignore[index]
    assert_close(pickle.loads(pickle.dumps(packed))(SRC, SRC), model(SRC, SRC), rtol=1e-5, atol=2e-5)


class Other(Layer):
    pass


def test_layers_with_other_parts_hooks_or_methods_are_not_plain() -> None:
    def layer(kind: type[Layer] = Layer) -> Any:
        return kind(MultiHeadAttention(22, 2), FeedForward(22, 29))

    assert is_plain(layer())
    assert not is_plain(layer(Other)) and not is_plain(layer().feed_forward)
    for change in (
        lambda x: setattr(x.self_attention, "attention", Capped()),
        lambda x: setattr(x.self_attention, "w_q", nn.Sequential(nn.Linear(22, 22))),
        lambda x: x.self_attention.w_v.register_forward_hook(lambda *_: None),
        lambda x: x.register_forward_pre_hook(lambda *_: None),
        lambda x: setattr(x.feed_forward, "forward", lambda y: y),
        lambda x: setattr(x.self_attention, "project", lambda y: y),
        lambda x: setattr(x.self_attention, "w_q", nn.Identity()),
        lambda x: setattr(x.self_attention.attention, "keys", lambda y, _: y),
        lambda x: setattr(x.feed_forward.w_1, "forward", lambda y: y),
    ):
        other = layer()
        change(other)
        assert not is_plain(other)


def test_a_prepacked_layer_refuses_to_be_trained() -> None:
    model = make_model()
    assert prepack_model(model) is not None
    with pytest.raises(RuntimeError, match="prepacked for inference cannot be trained"):
        model.train()(SRC, SRC)
    with pytest.raises(RuntimeError, match="prepacked for inference cannot be trained"):
        model.eval().encoder(torch.randn(2, 3, 22).requires_grad_())


def test_gradients_and_tangents_do_not_vanish_in_a_prepacked_layer() -> None:
    packed: Any = prepacked(make_model())
    layer, x, memory = packed.decoder.layers[1], torch.randn(2, 3, 22), torch.randn(2, 5, 22)
    past = KeyValue(torch.randn(2, 2, 4, 11), torch.randn(2, 2, 4, 11))
    layer(x, None, past, memory)
    for given in (memory, past.keys, past.values, layer.norm_1.weight, layer.self_attention.w_q.weight):
        given.requires_grad_()
        with pytest.raises(RuntimeError, match="prepacked for inference cannot be trained"):
            layer(x, None, past, memory)
        with torch.no_grad():
            layer(x, None, past, memory)
        given.requires_grad_(False)
    with torch.no_grad(), pytest.raises(RuntimeError, match="prepacked for inference cannot be trained"):
        torch.func.jvp(lambda y: layer(y, None, past, memory)[0], (x,), (x,))


def outcome(layer: Any, *inputs: Any) -> Any:
    try:
        return layer(*inputs)[0]
    except (TypeError, ValueError, AttributeError) as error:
        return repr(error)


def packing(*lengths: int) -> Packing:
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    return Packing(starts, starts, max(lengths), max(lengths))


@pytest.mark.parametrize("linear", [PrepackedLinear, QuantizedLinear])
def test_odd_inputs_have_the_result_or_the_error_of_the_model(linear: type[PrepackedLinear]) -> None:
    model: Any = make_model()
    packed: Any = prepacked(model, linear)

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, 22, generator=torch.Generator().manual_seed(3))

    for inputs in (
        (rows(0, 3), None, None, rows(0, 5)),
        (rows(2, 0), None, None, rows(2, 5)),
        (rows(0, 1), None, None, rows(2, 5)),
        (rows(3, 1), None, None, rows(2, 5)),
        (rows(2, 1), None, None, rows(3, 5)),
        (rows(2, 1), None, None, rows(2, 0)),
        (rows(2, 1), [[True]], None, rows(2, 5)),
        (rows(2, 1), None, None, rows(2, 5), "mask"),
    ):
        found, expected = (outcome(one.decoder.layers[1], *inputs) for one in (packed, model))
        if isinstance(expected, str):
            assert found == expected
        else:
            assert_close(found, expected, rtol=1e-5 if linear is PrepackedLinear else 0.3, atol=0.3)
    x, mask = rows(1, 5), packing(2, 3)
    found, expected = (outcome(one.encoder.layers[1], x, mask) for one in (packed, model))
    assert_close(found, expected, rtol=1e-5, atol=1e-5 if linear is PrepackedLinear else 0.3)


@pytest.mark.parametrize("kernel", ["fused", "written"])
def test_a_mask_that_is_changed_in_place_hides_other_positions(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformer.model.kernels.prefers_fused", lambda *_: kernel == "fused")
    model = make_model()
    packed, state = prepacked(model), DecoderState(torch.randn(3, 5, 22))
    x, mask = torch.randn(3, 4, 22), torch.ones(4, 4, dtype=torch.bool)
    for hidden in ((3, 1), (3, 0), (2, 1)):
        mask.numpy()[hidden] = False  # which torch does not count as a change
        assert_close(packed.decoder(x, state, mask)[0], model.decoder(x, state, mask)[0], rtol=1e-5, atol=1e-5)
        assert_close(packed.encoder(x, mask), model.encoder(x, mask), rtol=1e-5, atol=1e-5)


def test_masks_of_other_shapes_and_dtypes_are_errors_as_in_the_model() -> None:
    packed, x = prepacked(make_model()), torch.randn(3, 4, 22)
    with pytest.raises(ValueError, match="mask"):
        packed.encoder(x, torch.ones(4, 5, dtype=torch.bool))
    with pytest.raises(TypeError, match="it must be bool"):
        packed.encoder(x, torch.ones(4, 4))
    state = DecoderState(torch.randn(3, 5, 22))
    _, state = packed.decoder(x, state)
    with pytest.raises((ValueError, RuntimeError)):
        packed.decoder(torch.randn(4, 1, 22), state)

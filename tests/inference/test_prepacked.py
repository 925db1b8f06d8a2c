"""Prepacked weights: the same model in another memory layout, frozen."""

from __future__ import annotations

import copy
import math
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.inference.prepacked import (
    PrepackedLinear,
    QuantizedLinear,
    can_prepack,
    can_quantize,
    prepack_linears,
)
from transformer.model.alternatives.build import build_model
from transformer.model.layers import FeedForward

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
DTYPES = [
    pytest.param(
        dtype, marks=pytest.mark.skipif(not can_prepack(torch.zeros(1, dtype=dtype)), reason="torch has no kernel here")
    )
    for dtype in TOLERANCE
]

QUANTIZED = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(not can_quantize(torch.zeros(1, dtype=dtype)), reason="torch has no kernel here"),
    )
    for dtype in TOLERANCE
]


def random_linear(dtype: torch.dtype, bias: bool) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(11, 23, bias=bias).to(dtype)


def assert_equal_linears(one: nn.Module, other: nn.Module, dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    with torch.no_grad():
        for shape in ((1, 11), (7, 11), (2, 5, 11), (0, 11)):
            x = torch.randn(shape).to(dtype)
            assert_close(one(x), other(x), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prepacked_linear_equals_the_one_it_was_made_from(dtype: torch.dtype, bias: bool) -> None:
    linear = random_linear(dtype, bias)
    prepacked = PrepackedLinear(linear.weight, linear.bias)
    assert_equal_linears(prepacked, linear, dtype)
    assert prepacked.state_dict().keys() == linear.state_dict().keys()
    assert prepacked.weight.data_ptr() == linear.weight.data_ptr()
    assert (prepacked.in_features, prepacked.out_features) == (11, 23)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prepacked_linear_can_be_copied_and_pickled(dtype: torch.dtype) -> None:
    linear = random_linear(dtype, bias=True)
    prepacked = PrepackedLinear(linear.weight, linear.bias)
    for other in (copy.deepcopy(prepacked), pickle.loads(pickle.dumps(prepacked))):
        assert_equal_linears(other, linear, dtype)


@pytest.mark.parametrize("kind", [PrepackedLinear, QuantizedLinear])
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_prepacked_feed_forward_network_equals_the_one_it_was_made_from(
    dtype: torch.dtype, kind: type[PrepackedLinear]
) -> None:
    torch.manual_seed(13)
    plain = FeedForward(11, 23).to(dtype).eval()
    nn.init.normal_(plain.w_1.bias)
    stack = nn.Sequential(copy.deepcopy(plain))
    prepack_linears(stack, kind)
    (prepacked,) = stack
    assert type(prepacked.w_1) is type(prepacked.w_2) is kind
    assert prepacked.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 5, 11).to(dtype)
    tolerance = TOLERANCE[dtype] if kind is PrepackedLinear else 0.05
    for module in (prepacked, copy.deepcopy(prepacked), pickle.loads(pickle.dumps(prepacked))):
        with torch.no_grad():
            assert_close(module(x), plain(x), rtol=tolerance, atol=2 * tolerance)


def most_off(weight: Tensor, x: Tensor) -> Tensor:
    """How far a product of rounded factors may be from that of weight (N, K) and x (M, K): (M, N).

    Both have 127 steps on either side of 0, weights for each output, activations for each row, and are off by half a
    step at most.
    """
    weight_step = weight.abs().amax(dim=1) / 127  # (N,)
    step = x.abs().amax(dim=1, keepdim=True) / 127  # (M, 1)
    of_weights = x.abs().sum(dim=1, keepdim=True) * weight_step / 2
    return step / 2 * weight.abs().sum(dim=1) + of_weights + step * weight_step / 4 * x.size(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("signs", ["both", "positive", "negative"])
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_quantized_linear_rounds_to_steps_of_weights_and_activations(
    dtype: torch.dtype, signs: str, bias: bool
) -> None:
    linear = random_linear(dtype, bias)
    quantized = QuantizedLinear(linear.weight, linear.bias)
    x = torch.randn(7, 11).to(dtype)
    x = {"both": x, "positive": x.abs(), "negative": -x.abs()}[signs]
    y = quantized(x)
    exact = copy.deepcopy(linear).double()(x.double())
    assert y.dtype == dtype
    assert (
        (y - exact).abs() <= most_off(linear.weight.double(), x.double()) + TOLERANCE[dtype] * (1 + exact.abs())
    ).all()
    for other in (copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
        assert torch.equal(other(x), y)
    assert quantized(x[None]).shape == (1, 7, 23)
    assert quantized(x[:0]).shape == (0, 23) and quantized(x[None, :0]).shape == (1, 0, 23)


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_quantized_linear_is_exact_where_all_factors_are_steps(dtype: torch.dtype) -> None:
    # 127 is the largest number of steps, so that all of these whole numbers are one.
    weight = torch.tensor([[127, 0, -3], [5, -127, 2], [0, 0, 0]], dtype=dtype)
    x = torch.tensor([[-127, 0, 1], [2, 0, 0]], dtype=dtype)
    quantized = QuantizedLinear(weight, torch.tensor([0, 0, 7], dtype=dtype))
    expected = torch.tensor([[-127 * 127 - 3, -5 * 127 + 2, 7], [254, 10, 7]])
    assert_close(quantized(x), expected.to(dtype), rtol=TOLERANCE[dtype] / 100, atol=1e-3)
    assert_close(quantized(0 * x), torch.tensor([[0, 0, 7]] * 2, dtype=dtype))


@pytest.mark.parametrize("kind", [PrepackedLinear, QuantizedLinear])
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_prepacked_linear_refuses_to_be_trained(dtype: torch.dtype, kind: type[PrepackedLinear]) -> None:
    linear = random_linear(dtype, bias=True)
    prepacked = kind(linear.weight, linear.bias)
    x = torch.randn(2, 11).to(dtype)
    expected = prepacked(x)
    assert not expected.requires_grad
    with pytest.raises(RuntimeError, match="prepacked for inference cannot be trained; use load_model"):
        prepacked(x.clone().requires_grad_())
    prepacked.weight.requires_grad_()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        prepacked(x)
    prepacked.weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match="cannot be trained"), torch.no_grad():
        torch.func.jvp(prepacked, (x,), (x,))
    prepacked.train()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        prepacked(x)
    with torch.no_grad():
        assert torch.equal(prepacked(x), expected)


@pytest.mark.parametrize("kind", [PrepackedLinear, QuantizedLinear])
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_prepacked_linear_refuses_other_weights_and_dtypes(dtype: torch.dtype, kind: type[PrepackedLinear]) -> None:
    linear = random_linear(dtype, bias=True)
    prepacked = kind(linear.weight, linear.bias)
    with pytest.raises(RuntimeError, match="cannot load other weights"):
        prepacked.load_state_dict(linear.state_dict())
    for convert in (prepacked.double, prepacked.half, lambda: prepacked.to("meta")):
        with pytest.raises(RuntimeError, match="cannot be moved or converted"):
            convert()
    assert prepacked.to(dtype) is prepacked.cpu() is prepacked
    assert_equal_linears(prepacked, copy.deepcopy(prepacked), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_another_activation_than_relu_stays_outside_of_the_product(dtype: torch.dtype) -> None:
    torch.manual_seed(13)
    plain = FeedForward(11, 23, activation=F.gelu).to(dtype).eval()
    stack = nn.Sequential(copy.deepcopy(plain))
    prepack_linears(stack)
    x = torch.randn(2, 5, 11).to(dtype)
    with torch.no_grad():
        assert_close(stack(x), plain(x), rtol=TOLERANCE[dtype], atol=2 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_quantized_row_has_the_same_bits_in_any_batch(dtype: torch.dtype) -> None:
    torch.manual_seed(17)
    linear = random_linear(dtype, bias=True)
    quantized = QuantizedLinear(linear.weight, linear.bias)
    x = (torch.randn(7, 11) * torch.logspace(-3, 3, 7)[:, None]).to(dtype)
    y = quantized(x)
    assert torch.equal(torch.cat([quantized(row[None]) for row in x]), y)
    assert torch.equal(quantized(x.flip(0)), y.flip(0))


@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stays_none_when_quantized_and_spoils_no_other_row(dtype: torch.dtype, wrong: float) -> None:
    linear = random_linear(dtype, bias=True)
    quantized = QuantizedLinear(linear.weight, linear.bias)
    x = torch.randn(3, 11).to(dtype)
    x[1, 2] = wrong
    y = quantized(x)
    assert not y[1].isfinite().any()
    assert torch.equal(y[::2], quantized(x[::2]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prepacked_model_gives_the_same_logits(dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    sizes = {"d_model": 22, "num_layers": 3, "num_heads": 2, "d_ff": 29, "d_k": 7, "d_v": 5}
    model = build_model(19, ModelConfig(**sizes, attention_bias=True)).to(dtype).eval()
    model.requires_grad_(False)
    weights = copy.deepcopy(model.state_dict())
    src, tgt = torch.randint(1, 19, (3, 11)), torch.randint(1, 19, (3, 5))

    def logits() -> Tensor:
        with torch.no_grad():
            return model(src, tgt)

    expected = logits()
    prepack_linears(model)
    # Per layer 4 projections of the attention and 2 of the feed-forward network; in the decoder 4 more.
    assert sum(isinstance(module, PrepackedLinear) for module in model.modules()) == 3 * (6 + 10)
    assert not any(type(module) is nn.Linear for module in model.modules())
    packed = model.state_dict()
    assert packed.keys() == weights.keys() and all(torch.equal(packed[name], weights[name]) for name in weights)
    assert_close(copy.deepcopy(model)(src, tgt), pickle.loads(pickle.dumps(model))(src, tgt), rtol=0, atol=0)
    assert_close(logits(), expected, rtol=TOLERANCE[dtype], atol=5 * TOLERANCE[dtype])


def test_other_devices_dtypes_and_builds_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not can_prepack(torch.zeros(1, device="meta"))
    assert not can_prepack(torch.zeros(1, dtype=torch.float64))
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not can_prepack(torch.zeros(1))
    monkeypatch.setattr(
        torch.ops, "mkldnn", SimpleNamespace(_linear_pointwise=None, _is_mkldnn_bf16_supported=lambda: False)
    )
    assert can_prepack(torch.zeros(1))
    assert not can_prepack(torch.zeros(1, dtype=torch.bfloat16))
    monkeypatch.setattr(torch.ops, "onednn", SimpleNamespace())
    assert not can_quantize(torch.zeros(1))


class Doubled(nn.Linear):
    """Another linear layer, such as one with an adapter."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_linear_layers_and_those_with_hooks_are_left_alone(dtype: torch.dtype) -> None:
    torch.manual_seed(13)
    plain = FeedForward(11, 23).to(dtype).eval()
    plain.w_1 = Doubled(11, 23).to(dtype)
    plain.w_2.register_forward_hook(lambda _, __, y: y + 1)
    given: Any = plain
    given.w_3 = nn.Linear(11, 23).to(dtype)
    given.w_3.forward = lambda x: x
    stack = nn.Sequential(copy.deepcopy(plain))
    prepack_linears(stack)
    assert not any(isinstance(module, PrepackedLinear) for module in stack.modules())
    x = torch.randn(2, 5, 11).to(dtype)
    with torch.no_grad():
        assert torch.equal(stack(x), plain(x))

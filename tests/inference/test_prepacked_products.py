"""Products with a frozen weight equal those of `nn.Linear`, whatever library computes them and however many rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from transformer.inference import prepacked_products
from transformer.inference.prepacked import can_prepack, can_quantize
from transformer.inference.prepacked_products import (
    Int8Product,
    OneDnnProduct,
    Product,
    SmallProduct,
    make_product,
)
from transformer.model import kernels

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
N, K = 23, 11
pytestmark = pytest.mark.skipif(not can_quantize(torch.zeros(1)), reason="torch has no kernel here")


def tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(N, K).to(dtype), torch.randn(N).to(dtype)


def assert_is_linear(product: Product, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
    tolerance = TOLERANCE[weight.dtype]
    for shape in ((0,), (1,), (7,), (3, 5), (17,), (13, 1), (2, 41)):
        x, residual = torch.randn(*shape, K).to(weight.dtype), torch.randn(*shape, N).to(weight.dtype)
        expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
        y = product(x)
        assert y.dtype == weight.dtype and y.shape == (*shape, N)
        assert_close(y.double(), expected.relu() if relu else expected, rtol=tolerance, atol=5 * tolerance)
        if not relu:
            before = residual.clone()
            assert_close(
                product.plus(x, residual).double(), expected + residual.double(), rtol=tolerance, atol=5 * tolerance
            )
            assert torch.equal(residual, before)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_product_of_onednn_is_a_linear_layer(dtype: torch.dtype, has_bias: bool, relu: bool) -> None:
    if not can_prepack(torch.zeros(1, dtype=dtype)):
        pytest.skip("torch has no kernel here")
    weight, bias = tensors(dtype)
    product = OneDnnProduct(weight, bias if has_bias else None, relu=relu)
    assert_is_linear(product, weight, bias if has_bias else None, relu)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_small_product_is_a_linear_layer_for_few_and_many_rows(
    has_bias: bool, relu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepacked_products, "_MKL_UP_TO_ROWS", 16)
    weight, bias = tensors(torch.float32)
    product = SmallProduct(weight, bias if has_bias else None, relu=relu)
    assert_is_linear(product, weight, bias if has_bias else None, relu)


def test_the_kernel_is_chosen_by_dtype_size_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _ = tensors(torch.float32)
    monkeypatch.setattr(kernels, "onednn_multiplies_float32", lambda: False)
    assert type(make_product(weight, quantize=True)) is Int8Product
    assert type(make_product(weight)) is SmallProduct
    assert type(make_product(torch.randn(257, 256))) is OneDnnProduct
    monkeypatch.setattr(kernels, "onednn_multiplies_float32", lambda: True)
    assert type(make_product(weight)) is OneDnnProduct


def test_the_residual_of_an_int8_product_is_added_after_it() -> None:
    weight, bias = tensors(torch.float32)
    product = Int8Product(weight, bias)
    x, residual = torch.randn(2, 5, K), torch.randn(2, 5, N)
    assert torch.equal(product.plus(x, residual), product(x) + residual)

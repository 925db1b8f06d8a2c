"""Prepared weights: the same model, only laid out otherwise."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.inference.prepared import PreparedLinear, can_prepare, prepare_linears
from transformer.model.transformer import Transformer

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
DTYPES = [
    pytest.param(
        dtype, marks=pytest.mark.skipif(not can_prepare(torch.zeros(1, dtype=dtype)), reason="torch has no kernel here")
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
def test_a_prepared_linear_equals_the_one_it_was_made_from(dtype: torch.dtype, bias: bool) -> None:
    linear = random_linear(dtype, bias)
    prepared = PreparedLinear(linear.weight, linear.bias)
    assert_equal_linears(prepared, linear, dtype)
    assert prepared.state_dict().keys() == linear.state_dict().keys()
    assert prepared.weight.data_ptr() == linear.weight.data_ptr()
    assert (prepared.in_features, prepared.out_features) == (11, 23)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prepared_linear_can_be_copied_and_pickled(dtype: torch.dtype) -> None:
    linear = random_linear(dtype, bias=True)
    prepared = PreparedLinear(linear.weight, linear.bias)
    for other in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert_equal_linears(other, linear, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prepared_model_gives_the_same_logits(dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    model = Transformer(19, 22, 3, 2, 29, d_k=7, d_v=5, attention_bias=True).to(dtype).eval()
    src, tgt = torch.randint(1, 19, (3, 11)), torch.randint(1, 19, (3, 5))
    names = list(model.state_dict())

    def logits() -> Tensor:
        with torch.no_grad():
            return model(src, tgt)

    expected = logits()
    prepare_linears(model)
    # Per layer 4 projections of the attention and 2 of the feed-forward network; in the decoder 4 more.
    assert sum(isinstance(module, PreparedLinear) for module in model.modules()) == 3 * (6 + 10)
    assert list(model.state_dict()) == names
    assert_close(logits(), expected, rtol=TOLERANCE[dtype], atol=5 * TOLERANCE[dtype])


def test_other_devices_dtypes_and_builds_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not can_prepare(torch.zeros(1, device="meta"))
    assert not can_prepare(torch.zeros(1, dtype=torch.float64))
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not can_prepare(torch.zeros(1))
    monkeypatch.setattr(
        torch.ops, "mkldnn", SimpleNamespace(_linear_pointwise=None, _is_mkldnn_bf16_supported=lambda: False)
    )
    assert can_prepare(torch.zeros(1))
    assert not can_prepare(torch.zeros(1, dtype=torch.bfloat16))

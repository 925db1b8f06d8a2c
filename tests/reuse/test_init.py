"""Initialisation on any device and in any dtype: meta, `to_empty`, `reset_parameters`, `load_state_dict`."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from transformer.model.alternatives.relative import RotaryAttention
from transformer.model.attention import DotProductAttention
from transformer.model.embeddings import SinusoidalPositions, sinusoidal_positions


def reset(module: nn.Module) -> None:
    """For nn.Module.apply, which visits children first: a parent's initialisation of them is the last."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


@pytest.fixture
def default_dtype() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


def test_no_module_has_buffers(variant, build, ids) -> None:
    model = build(variant)
    model(ids(2, 300), ids(2, 301))
    assert not list(model.buffers())
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


def test_reset_parameters_fills_every_number(variant, build, ids) -> None:
    model = build(variant)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(math.nan)
    model.apply(reset)
    assert all(tensor.isfinite().all() for tensor in (*model.parameters(), *model.buffers()))
    assert model(ids(2, 7), ids(2, 5)).isfinite().all()


def test_reset_parameters_draws_from_the_distribution_of_the_constructor(variant, build) -> None:
    sizes = {"d_model": 66, "d_ff": 97, "d_k": 34, "d_v": 37}
    fresh, model = build(variant, **sizes), build(variant, **sizes)
    model.apply(reset)
    for (name, a), b in zip(fresh.named_parameters(), model.parameters(), strict=True):
        if a.std() == 0 or a.numel() < 1000:  # too few to tell
            continue
        assert_close(a.std(), b.std(), rtol=0.1, atol=0, msg=name)


@pytest.mark.parametrize("assign", [False, True])
def test_a_model_from_meta_equals_the_one_that_it_loads(variant, build, ids, assign: bool) -> None:
    original = build(variant).eval()
    with torch.device("meta"):
        model = build(variant).eval()
    assert all(parameter.is_meta for parameter in model.parameters())
    if not assign:
        model.to_empty(device="cpu").apply(reset)
    model.load_state_dict(original.state_dict(), assign=assign)
    src, tgt = ids(2, 300), ids(2, 7)
    src[0, 3:] = 0
    assert torch.equal(model(src, tgt), original(src, tgt))


def test_models_are_built_on_the_device_that_torch_device_names(variant, build) -> None:
    with torch.device("meta"):
        model = build(variant)
        hidden, state = model.decode(torch.ones(2, 3, dtype=torch.long), model.encode(torch.ones(2, 5).long()))
    assert hidden.is_meta and state.past[0].keys.is_meta


@pytest.mark.usefixtures("default_dtype")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_are_built_in_the_default_dtype(variant, build, ids, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    model = build(variant)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for length in (7, 60):  # both sides of the lengths at which kernels change
        logits = model(ids(2, length), ids(2, length))
        logits.float().logsumexp(-1).sum().backward()
        assert logits.dtype == dtype and logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_works_forwards_and_backwards(variant, build, ids, dtype: torch.dtype) -> None:
    model = build(variant)
    for length in (7, 60):
        with torch.autocast("cpu", dtype):
            logits = model(ids(2, length), ids(2, length))
        logits.float().logsumexp(-1).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_positions_do_not_depend_on_the_dtypes_that_a_model_went_through(build, ids) -> None:
    model, src, tgt = build().eval(), ids(2, 7), ids(2, 5)
    expected = build().bfloat16().float().eval()(src, tgt)
    model.bfloat16()(src, tgt)
    assert torch.equal(model.float()(src, tgt), expected)


def test_positions_of_a_float64_model_are_float32_numbers() -> None:
    x = torch.zeros(1, 5003, 6, dtype=torch.float64)
    row = [f(5002 / 10000 ** (2 * i / 6)) for i in range(3) for f in (math.sin, math.cos)]
    expected = torch.tensor(row, dtype=torch.float64)
    table = SinusoidalPositions(6)(x)[0, -1]
    assert torch.equal(table, expected.float().double())
    assert_close(sinusoidal_positions(5003, 6, dtype=torch.float64)[-1], expected, rtol=0, atol=1e-12)
    rotary = RotaryAttention(DotProductAttention(), 6)
    q = torch.randn(1, 1, 1, 6, dtype=torch.float64)
    assert_close(rotary.queries(q, 5002).norm(), q.norm(), rtol=1e-7, atol=0)  # a rotation

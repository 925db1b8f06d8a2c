"""Copies of a model: deepcopy, pickle, safetensors, averages, and calls without real tensors in between."""

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch._subclasses import FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_is_equal_and_shares_nothing(variant, build, ids, way: str) -> None:
    model, src, tgt = build(variant).eval(), ids(2, 300), ids(2, 7)
    expected = model(src, tgt)
    if way == "deepcopy":
        other = copy.deepcopy(model)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        torch.save(model, file := io.BytesIO())
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert torch.equal(other(src, tgt), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(torch.randn_like(parameter))
    assert torch.equal(model(src, tgt), expected)
    assert not torch.equal(other(src, tgt), expected)


def test_safetensors_saves_every_number_once(variant, build, ids, tmp_path: Path) -> None:
    model, other, path = build(variant).eval(), build(variant).eval(), str(tmp_path / "model.safetensors")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.randn_like(parameter))
    save_model(model, path)
    assert load_model(other, path) == (set(), [])
    src, tgt = ids(2, 7), ids(2, 5)
    assert torch.equal(other(src, tgt), model(src, tgt))


@pytest.mark.parametrize("use_buffers", [False, True])
def test_a_moving_average_follows_past_300_positions(variant, build, ids, use_buffers: bool) -> None:
    model = build(variant)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=use_buffers)
    for length in (7, 300, 301):
        model(ids(2, length), ids(2, length))
        average.update_parameters(model)
    src, tgt = ids(2, 300), ids(2, 5)
    assert_close(average.eval()(src, tgt), model.eval()(src, tgt))


@pytest.mark.parametrize("variant", ["paper", "rotary"])
def test_a_call_with_fake_tensors_leaves_no_trace(variant, build, ids) -> None:
    src, tgt = ids(2, 600), ids(2, 601)
    with FakeTensorMode():
        model = build(variant)
        assert model(torch.ones(2, 600, dtype=torch.long), torch.ones(2, 601, dtype=torch.long)).shape == (2, 601, 53)
    assert build(variant)(src, tgt).isfinite().all()

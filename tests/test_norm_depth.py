"""scripts/norm_depth.py: the laws of Xiong et al. (2020) at initialisation, and its report at tiny sizes."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import norm_depth
import pytest
import torch

from transformer.errors import CheckpointError
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.attention import MultiHeadAttention
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Encoder

D = 64
TINY = (
    *("model.d_model=22", "model.num_heads=2", "model.d_ff=29", "data.builtin_size=211", "data.vocab_size=211"),
    *("train.tokens_per_update=307", "train.device=cpu"),
)


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, int], dict[str, Any]]:
    """Untrained models of several depths."""
    found = norm_depth.initial((3, 6, 12, 24), (1, 2), d_model=32, d_ff=64)
    return {(row["norm"], row["depth"]): row for row in found}


def test_with_post_norm_the_gradient_of_the_last_layer_does_not_depend_on_depth(
    rows: dict[tuple[str, int], dict[str, Any]],
) -> None:
    last = [rows["post", depth]["last"] for depth in (3, 6, 12, 24)]
    assert norm_depth.slope((3, 6, 12, 24), last) == pytest.approx(0, abs=0.25)  # theorem 1: O(d √ln d)
    assert max(last) < 2 * min(last)


def test_with_post_norm_the_gradients_of_lower_layers_vanish_with_depth(
    rows: dict[tuple[str, int], dict[str, Any]],
) -> None:
    ratios = [rows["post", depth]["last"] / rows["post", depth]["first"] for depth in (3, 6, 12, 24)]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 20
    assert all(rows["pre", depth]["last"] < rows["pre", depth]["first"] for depth in (3, 6, 12, 24))


def test_with_pre_norm_the_gradient_of_the_last_layer_falls_as_the_root_of_depth(
    rows: dict[tuple[str, int], dict[str, Any]],
) -> None:
    last = [rows["pre", depth]["last"] for depth in (3, 6, 12, 24)]
    assert norm_depth.slope((3, 6, 12, 24), last) == pytest.approx(-0.5, abs=0.2)  # theorem 1: O(d √(ln d / N))


@torch.no_grad()
def sizes(layer_class: type[Layer], depth: int) -> tuple[list[float], list[float]]:
    """‖x_l‖²/d behind each layer, and of the sum that its last norm is given or gives on; one head and d_ff = d."""
    torch.manual_seed(3)
    layers = [layer_class(MultiHeadAttention(D, 1), FeedForward(D, D), dropout=0.0) for _ in range(depth)]
    states: list[float] = []
    sums: list[float] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: states.append(float(output[0].square().mean())))
        layer.norm_2.register_forward_pre_hook(lambda _, inputs: sums.append(float(inputs[0].square().mean())))
    Encoder(layers)(torch.randn(11, 13, D))
    return states, sums


def test_with_pre_norm_the_stream_grows_as_the_root_of_depth() -> None:
    states, _ = sizes(PreNormLayer, 24)
    for layer, square in enumerate(states, start=1):
        assert 1 + layer / 2 <= 1.1 * square <= 1.1 * (1 + 3 * layer / 2), "lemma 2, in units of d"
    # Each layer adds as much as the one before: ‖x_l‖² is linear in l, and the norm grows as √l.
    assert statistics.correlation(range(24), states) > 0.99
    assert norm_depth.slope(range(8, 25), [math.sqrt(x) for x in states[7:]]) == pytest.approx(0.5, abs=0.1)


def test_with_post_norm_every_layer_is_given_three_halves() -> None:
    states, sums = sizes(Layer, 12)
    assert states == pytest.approx([1] * 12, abs=1e-3)
    assert statistics.fmean(sums) == pytest.approx(1.5, rel=0.1)  # lemma 2: ‖x‖² = 3d/2 before the last norm
    assert abs(statistics.linear_regression(range(12), sums).slope) < 0.05, "at every depth"


def test_the_exponent_of_a_power_law_is_found() -> None:
    assert norm_depth.slope((1, 2, 5, 7), [3 * x**-0.5 for x in (1, 2, 5, 7)]) == pytest.approx(-0.5)


def test_runs_are_trained_and_reported_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(norm_depth, "tune_process", lambda: None)
    rows = [*norm_depth.initial((2,), (1,))]
    monkeypatch.setattr(norm_depth, "initial", lambda: iter(rows))
    arguments = ["--out", str(tmp_path / "runs"), "--updates", "4", *TINY, "--depths", "1"]
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    assert norm_depth.main([cache, *arguments, "--json"]) == 0
    report = json.loads("{" + capsys.readouterr().out.partition("\n{")[2])
    assert report["initial"] == rows
    assert [(x["norm"], x["depth"], x["warmup"]) for x in report["trained"]] == [
        ("post", 1, 0),
        ("post", 1, 100),
        ("pre", 1, 0),
        ("pre", 1, 100),
    ]
    assert all([*row["nll"]] == ["2", "4"] for row in report["trained"])
    assert norm_depth.main([cache, *arguments]) == 0
    assert capsys.readouterr().out.endswith(norm_depth.markdown(report) + "\n")
    rates = [
        row["learning_rate"] for row in norm_depth.trained(tmp_path / "runs", 4, (1,), ["train.learning_rate=0.07"])
    ]
    assert rates == [0.07] * 4
    with pytest.raises(CheckpointError, match=r"post_1_0: is not trained to update 5: the same command goes on$"):
        list(norm_depth.trained(tmp_path / "runs", 5, (1,)))


def test_losses_stand_below_their_update() -> None:
    row = {"norm": "pre", "depth": 2, "warmup": 0}
    text = norm_depth.trained_table([{**row, "nll": {"5": 4.0, "10": 3.0, "20": 2.0}}, {**row, "nll": {"10": 1.0}}])
    assert text.splitlines()[2:] == [
        "| pre-norm | 2 | none | 4.00 | 3.00 | 2.00 |",
        "| pre-norm | 2 | none | | 1.00 | |",
    ]

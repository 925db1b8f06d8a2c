"""The estimate of training on GPUs: what scales with what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarking.estimate import Hardware, estimate
from benchmarking.flops import Work, forward_flops

from transformer.config import Config, ModelConfig, TrainConfig, load_config

V = 31
CONFIG = Config(
    model=ModelConfig(d_model=14, num_heads=2, d_ff=11, num_layers=3),
    train=TrainConfig(tokens_per_update=7 * 13 * 17, max_steps=1800),
)
HARDWARE = Hardware(flops=1e9, bytes_per_s=1e8, link_bytes_per_s=1e7, efficiency=0.5)


def run(hardware: Hardware = HARDWARE, gpus: int = 7, config: Config = CONFIG) -> dict[str, float]:
    report = estimate(config, hardware, gpus=gpus, vocab_size=V, sentence_length=13)
    return {**report, **report["ms"]}


def test_operations_are_those_of_forward_and_backward_over_the_whole_update() -> None:
    tokens = 7 * 13 * 17
    pairs = tokens * 13
    whole = Work(7 * 17, tokens, tokens, pairs, pairs, pairs)
    found = run()
    assert found["tflop_per_update"] == pytest.approx(3 * forward_flops(CONFIG.model, V, whole) / 1e12)
    # At half of the peak, on seven GPUs.
    assert found["matrix products"] == pytest.approx(1e3 * found["tflop_per_update"] * 1e12 / 7 / (0.5 * 1e9))


@pytest.mark.parametrize(
    ("name", "hours", "published", "counted"),
    [("base", 12, "3.3e+18", "9.5e+17"), ("big", 3.5 * 24, "2.3e+19", "9.7e+18")],
)
def test_table_2_multiplies_time_by_peak_and_the_operations_are_a_third_to_a_half_of_that(
    name: str, hours: float, published: str, counted: str
) -> None:
    # Footnote 5: eight P100 at 9.5 TFLOPS each.
    assert f"{hours * 3600 * 8 * 9.5e12:.1e}" == published
    config = load_config(Path(__file__).parents[2] / "configs" / f"{name}.yaml")
    report = estimate(config, HARDWARE, gpus=8, vocab_size=config.data.vocab_size, sentence_length=30)
    assert f"{report['tflop_per_update'] * 1e12 * config.train.max_steps:.1e}" == counted
    assert 0.28 < float(counted) / float(published) < 0.43


def test_one_gpu_exchanges_nothing_and_does_all() -> None:
    one, seven = run(gpus=1), run()
    assert one["gradient exchange"] == 0
    for name in ("matrix products", "activations", "logits"):
        assert one[name] == pytest.approx(7 * seven[name])
    assert one["optimizer"] == seven["optimizer"]


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("flops", {"matrix products"}),
        ("efficiency", {"matrix products"}),
        ("bytes_per_s", {"activations", "logits", "optimizer"}),
        ("link_bytes_per_s", {"gradient exchange"}),
    ],
)
def test_faster_hardware_speeds_up_its_part_only(field: str, names: set[str]) -> None:
    before = run()
    after = run(replace(HARDWARE, **{field: 2 * getattr(HARDWARE, field)}))
    for name in ("matrix products", "activations", "logits", "optimizer", "gradient exchange"):
        assert after[name] == pytest.approx(before[name] / (2 if name in names else 1))


def test_time_tokens_and_hours_belong_together() -> None:
    found = run()
    assert found["update_ms"] == pytest.approx(
        sum(estimate(CONFIG, HARDWARE, gpus=7, vocab_size=V, sentence_length=13)["ms"].values())
    )
    assert found["tokens_per_s"] * found["update_ms"] == pytest.approx(7 * 13 * 17 * 1e3)
    assert found["hours"] == pytest.approx(found["update_ms"] / 1e3 / 2)  # 1,800 updates are half an hour of seconds
    assert 0 < found["share_of_peak"] < 0.5

"""Peak throughput: its arithmetic, and that rates are measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from benchmarking import peak_flops
from benchmarking.flops import Product
from benchmarking.peak_flops import (
    Rates,
    calls_per_second,
    default_float32_matmul,
    measure_products,
    memory_bandwidth,
    peak_training_speed,
)

CPU = torch.device("cpu")


def test_peak_training_speed_is_that_of_all_products_in_sequence() -> None:
    products = [Product(3, 5, per_source=2, per_target=7), Product(3, 11, per_source=0, per_target=1)]
    rates = {(3, 5): Rates(10.0, 20.0, 40.0), (3, 11): Rates(11.0, 11.0, 22.0)}
    # Operations per target token, at half a source token for each: 2 * 3 * 5 * (2 / 2 + 7) and 2 * 3 * 11.
    seconds = 240 * (1 / 10 + 1 / 20 + 1 / 40) + 66 * (1 / 11 + 1 / 11 + 1 / 22)
    assert peak_training_speed(products, rates, source_per_target=0.5) == pytest.approx(1 / seconds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_shape_is_measured_in_its_three_roles(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def one_call(call: object, device: torch.device, seconds: float) -> float:  # noqa: ARG001
        result = call()  # type: ignore[operator]
        assert result.dtype == dtype
        shapes.append(tuple(result.shape))
        return 0.5

    monkeypatch.setattr(peak_flops, "calls_per_second", one_call)
    rates = measure_products([Product(3, 5, 1, 1), Product(7, 2, 1, 0)], 11, dtype, CPU)
    assert shapes == [(11, 5), (11, 3), (5, 3), (11, 2), (11, 7), (2, 7)]
    assert rates == {(3, 5): Rates(*[11 * 3 * 5] * 3), (7, 2): Rates(*[11 * 7 * 2] * 3)}


def test_calls_are_counted_between_two_clock_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def call() -> None:
        nonlocal now
        now += 0.25

    monkeypatch.setattr(peak_flops.time, "perf_counter", lambda: now)
    assert calls_per_second(call, CPU, seconds=3.0) == 4.0


def test_bandwidth_is_positive() -> None:
    assert memory_bandwidth(CPU, num_bytes=4096, seconds=0.003) > 0


def test_the_matmul_setting_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SimpleNamespace(fp32_precision="bf16")
    # raising: torch has it since 2.9.
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", settings, raising=False)
    with pytest.raises(ZeroDivisionError), default_float32_matmul():
        assert settings.fp32_precision == "none"
        raise ZeroDivisionError
    assert settings.fp32_precision == "bf16"

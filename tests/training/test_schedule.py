"""Equation 3, by hand and at the paper's settings."""

from __future__ import annotations

import itertools

import pytest

from transformer.training.schedule import noam_lr


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        # d_model = 16, warmup 4: 1/4 · min(step^-1/2, step / 8).
        (1, 1 / 32),
        (2, 1 / 16),
        (3, 3 / 32),
        (4, 1 / 8),
        (9, 1 / 12),
        (16, 1 / 16),
        (100, 1 / 40),
    ],
)
def test_small_numbers_worked_out_by_hand(step: int, expected: float) -> None:
    assert noam_lr(step, d_model=16, warmup_steps=4) == pytest.approx(expected, rel=1e-12)


def test_the_first_the_peak_and_half_the_peak_at_four_times_the_warm_up() -> None:
    peak = noam_lr(4000)
    assert noam_lr(1) == pytest.approx(peak / 4000, rel=1e-12)
    assert noam_lr(16000) == pytest.approx(peak / 2, rel=1e-12)


@pytest.mark.parametrize(("d_model", "printed"), [(512, "6.988e-04"), (1024, "4.941e-04")])
def test_the_peaks_of_base_and_big(d_model: int, printed: str) -> None:
    peak = noam_lr(4000, d_model=d_model, warmup_steps=4000)
    assert f"{peak:.3e}" == printed
    assert peak == pytest.approx((d_model * 4000) ** -0.5, rel=1e-12)


def test_the_defaults_are_those_of_the_base_model() -> None:
    assert noam_lr(137) == noam_lr(137, d_model=512, warmup_steps=4000)


@pytest.mark.parametrize("warmup_steps", [1, 2, 13, 4000])
def test_it_rises_by_equal_steps_to_the_peak_and_falls_after_without_a_jump(warmup_steps: int) -> None:
    rates = [noam_lr(step, d_model=22, warmup_steps=warmup_steps) for step in range(1, 3 * warmup_steps + 2)]
    rise = rates[0]
    for step, (before, after) in enumerate(itertools.pairwise(rates), start=1):
        if step < warmup_steps:
            assert after - before == pytest.approx(rise, rel=1e-6)
        else:
            # The slope of step^-1/2 is at most half of what the rise was.
            assert 0 < before - after <= rise / 2
    assert max(rates) == rates[warmup_steps - 1]


@pytest.mark.parametrize("step", [0, -1])
def test_updates_count_from_one(step: int) -> None:
    with pytest.raises(ValueError, match=f"step={step}: updates count from 1"):
        noam_lr(step)

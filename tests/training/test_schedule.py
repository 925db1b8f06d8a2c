"""Equation 3, by hand and at the paper's settings; the other schedules, by hand and as in other libraries."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.config import Config, TrainConfig, load_config
from transformer.errors import ConfigError
from transformer.training.schedule import described, learning_rate, noam_lr
from transformer.training.trainer import Trainer

OTHERS = ("inverse_sqrt", "cosine", "linear", "constant")


def settings(**values: Any) -> TrainConfig:
    """Warm-up of 5 updates to 0.8, decay until update 17."""
    return TrainConfig(**{"learning_rate": 0.8, "warmup_steps": 5, "max_steps": 17, **values})


def rates(of: TrainConfig, num_steps: int = 23) -> list[float]:
    return [learning_rate(step, of, 22) for step in range(1, num_steps + 1)]


# Equation 3.


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


def test_lambda_lr_counts_from_zero_so_the_step_is_one_more() -> None:
    """As the docstring of noam_lr shows."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: noam_lr(s + 1, 22, 5))
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [noam_lr(step, 22, 5) for step in range(1, 12)]


# The others.


@pytest.mark.parametrize(
    ("schedule", "by_step"),
    [
        ("inverse_sqrt", {1: 0.16, 3: 0.48, 5: 0.8, 20: 0.4, 45: 0.8 / 3}),
        ("cosine", {1: 0.16, 5: 0.8, 8: 0.1 + 0.7 * (1 + 0.5**0.5) / 2, 11: 0.45, 17: 0.1, 18: 0.1, 1000: 0.1}),
        ("linear", {1: 0.16, 5: 0.8, 8: 0.8 - 0.7 / 4, 11: 0.45, 17: 0.1, 18: 0.1, 1000: 0.1}),
        ("constant", {1: 0.16, 5: 0.8, 6: 0.8, 1000: 0.8}),
    ],
)
def test_rates_worked_out_by_hand(schedule: str, by_step: dict[int, float]) -> None:
    of = settings(schedule=schedule, **({"min_learning_rate": 0.1} if schedule in ("cosine", "linear") else {}))
    assert {step: learning_rate(step, of, 512) for step in by_step} == pytest.approx(by_step, rel=1e-12)


@pytest.mark.parametrize("schedule", OTHERS)
def test_rates_depend_on_no_size_of_the_model_and_not_on_the_factor_of_equation_3(schedule: str) -> None:
    of = settings(schedule=schedule)
    assert learning_rate(7, of, 13) == learning_rate(7, of, 1024)
    assert rates(dataclasses.replace(of, lr_factor=3.0)) == rates(of)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_decay_steps_take_the_place_of_max_steps(schedule: str) -> None:
    assert rates(settings(schedule=schedule, max_steps=99, decay_steps=17)) == rates(settings(schedule=schedule))
    assert rates(settings(schedule=schedule, max_steps=99)) != rates(settings(schedule=schedule))


@pytest.mark.parametrize("schedule", OTHERS)
def test_a_warm_up_of_one_step_is_none(schedule: str) -> None:
    assert rates(settings(schedule=schedule, warmup_steps=1))[0] == 0.8


@pytest.mark.parametrize("schedule", OTHERS)
def test_a_run_that_ends_within_its_warm_up_only_rises(schedule: str) -> None:
    ends = {"decay_steps": 17} if schedule in ("cosine", "linear") else {}
    of = settings(schedule=schedule, max_steps=3, **ends)
    assert rates(of, 3) == pytest.approx([0.16, 0.32, 0.48])


@pytest.mark.parametrize("schedule", ["noam", *OTHERS])
def test_steps_count_from_one_in_every_schedule(schedule: str) -> None:
    of = TrainConfig() if schedule == "noam" else settings(schedule=schedule)
    with pytest.raises(ValueError, match=r"^step=0: updates count from 1$"):
        learning_rate(0, of, 22)


def test_inverse_sqrt_with_the_peak_of_equation_3_is_equation_3() -> None:
    of = settings(schedule="inverse_sqrt", learning_rate=noam_lr(5, 22, 5))
    assert rates(of) == pytest.approx([noam_lr(step, 22, 5) for step in range(1, 24)], rel=1e-12)


def scheduled(schedule: Any, optimizer: torch.optim.Optimizer, num_steps: int) -> list[float]:
    """The rates after 1, 2, ... steps of torch's schedule, which counts from 0."""
    found = []
    for _ in range(num_steps):
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_decays_are_those_of_torch(schedule: str) -> None:
    lr_scheduler = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.8)
    decay: Any
    if schedule == "cosine":
        decay = lr_scheduler.CosineAnnealingLR(optimizer, T_max=12, eta_min=0.1)
    else:
        decay = lr_scheduler.LinearLR(optimizer, 1.0, 0.1 / 0.8, total_iters=12)
    found = rates(settings(schedule=schedule, min_learning_rate=0.1), 17)
    assert found[5:] == pytest.approx(scheduled(decay, optimizer, 12), rel=1e-9)


@pytest.mark.parametrize(
    ("schedule", "name", "sizes"),
    [
        ("inverse_sqrt", "get_inverse_sqrt_schedule", {"num_warmup_steps": 5, "timescale": 5}),
        ("cosine", "get_cosine_schedule_with_warmup", {"num_warmup_steps": 5, "num_training_steps": 17}),
        ("linear", "get_linear_schedule_with_warmup", {"num_warmup_steps": 5, "num_training_steps": 17}),
        ("constant", "get_constant_schedule_with_warmup", {"num_warmup_steps": 5}),
    ],
)
def test_rates_are_those_of_transformers_one_step_earlier(schedule: str, name: str, sizes: dict[str, int]) -> None:
    """Its first update has a rate of 0, here it has the first of the warm-up."""
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.8)
    other = getattr(transformers, name)(optimizer, **sizes)
    assert rates(settings(schedule=schedule), 17) == pytest.approx(scheduled(other, optimizer, 17), rel=1e-9)


# The configuration.


@pytest.mark.parametrize("schedule", OTHERS)
def test_a_schedule_with_a_peak_of_its_own_needs_it(schedule: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^train\.schedule={schedule} needs train\.learning_rate, its highest; only "
    ):
        TrainConfig(schedule=schedule)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (
            {"learning_rate": 1e-4},
            r"train\.learning_rate=0\.0001 is not used by train\.schedule=noam \(equation 3\): give train\.lr_factor",
        ),
        (
            {"schedule": "cosine", "learning_rate": 1e-4, "min_learning_rate": 1e-3},
            r"train\.min_learning_rate=0\.001 is more than train\.learning_rate=0\.0001",
        ),
        (
            {"schedule": "linear", "learning_rate": 1e-4, "decay_steps": 4000},
            r"train\.decay_steps=4000 must be more than train\.warmup_steps=4000",
        ),
        (
            {"schedule": "cosine", "learning_rate": 1e-4, "max_steps": 4000},
            r"train\.max_steps=4000 must be more than train\.warmup_steps=4000, .*=cosine; train\.decay_steps sets",
        ),
        (
            {"decay_steps": 7000},
            r"train\.decay_steps=7000 is not used by train\.schedule=noam, only by cosine and linear: leave it out or",
        ),
        (
            {"schedule": "constant", "learning_rate": 1e-4, "min_learning_rate": 1e-5},
            r"train\.min_learning_rate=1e-05 is not used by train\.schedule=constant",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{error}"):
        TrainConfig(**values)


def test_the_summary_names_the_peak_the_end_and_a_factor_that_is_not_used() -> None:
    assert described(TrainConfig(), 512) == "peak learning rate: 6.988e-04 at step 4000"
    assert described(settings(schedule="constant"), 512) == "peak learning rate: 8.000e-01 at step 5, then constant"
    of = settings(schedule="cosine", lr_factor=2.0, min_learning_rate=0.1)
    assert described(of, 512) == (
        "peak learning rate: 8.000e-01 at step 5, then cosine to 1.000e-01 at step 17; "
        "train.lr_factor=2.0 is for noam only"
    )


# Training.


def of_run(config: Config, *overrides: str) -> Config:
    path = Path(config.run_dir).with_name("scheduled.yaml")
    path.write_text(config.to_yaml())
    values = ("train.schedule=cosine", "train.learning_rate=0.01", "train.max_steps=5", "train.warmup_steps=2")
    return load_config(path, [*values, *overrides])


def test_training_uses_the_schedule(tiny_config: Config) -> None:
    trainer = Trainer.from_config(of_run(tiny_config, "train.min_learning_rate=0.001"))
    trainer.fit()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([0.001])
    assert "then cosine to 1.000e-03 at step 5" in trainer.summary()


def test_a_run_does_not_go_on_with_another_end_of_its_schedule(tiny_config: Config) -> None:
    trainer = Trainer.from_config(of_run(tiny_config))
    trainer.fit(lambda: "stop" if trainer.progress.step == 3 else None)
    error = (
        r"\(train\.max_steps: 5 there, 7 here, where train\.schedule=cosine ends; train\.decay_steps=5 keeps the "
        r"schedule of the run\)"
    )
    with pytest.raises(ConfigError, match=error):
        Trainer.from_config(of_run(tiny_config, "train.max_steps=7"))
    with pytest.raises(ConfigError, match=r"\(train\.decay_steps: 5 there, 7 here\)"):
        Trainer.from_config(of_run(tiny_config, "train.decay_steps=7"))
    again = Trainer.from_config(of_run(tiny_config, "train.max_steps=7", "train.decay_steps=5"))
    again.fit()
    assert (again.progress.step, again.learning_rate(7)) == (7, 0.0)
    Trainer.from_config(of_run(tiny_config, "train.max_steps=9", "train.decay_steps=5")).fit()


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt"])
def test_schedules_without_an_end_go_on_for_any_number_of_steps(tiny_config: Config, schedule: str) -> None:
    Trainer.from_config(of_run(tiny_config, f"train.schedule={schedule}", "train.max_steps=2")).fit()
    trainer = Trainer.from_config(of_run(tiny_config, f"train.schedule={schedule}", "train.max_steps=3"))
    assert trainer.fit() == "train.max_steps=3 reached"

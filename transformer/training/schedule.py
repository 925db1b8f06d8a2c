"""Learning rates by update: equation 3 (section 5.3), and schedules with a peak of one's own.

All but equation 3 rise linearly to `train.learning_rate` during `train.warmup_steps` updates; with one, the first
update has the full rate. Updates count from 1.
"""

from __future__ import annotations

import math

from transformer.config import TrainConfig


def noam_lr(step: int, d_model: int = 512, warmup_steps: int = 4000) -> float:
    """d_model^-0.5 · min(step^-0.5, step · warmup_steps^-1.5): equation 3.

    Linear warm-up, then inverse square root decay, with the peak (d_model · warmup_steps)^-0.5 at `warmup_steps`.
    `step` counts updates from 1; ValueError below that. `LambdaLR` counts from 0:

        LambdaLR(Adam(model.parameters(), lr=1.0), lambda s: noam_lr(s + 1, d_model, warmup_steps))
    """
    _check_step(step)
    return float(d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5))


def inverse_sqrt_lr(step: int, settings: TrainConfig) -> float:
    """After warm-up, the peak times (warmup_steps / step)^0.5: equation 3 with a peak that is given."""
    return _warmed_up(step, settings) * min(1.0, math.sqrt(settings.warmup_steps / step))


def cosine_lr(step: int, settings: TrainConfig) -> float:
    """After warm-up, half a cosine down to `min_learning_rate` (Loshchilov and Hutter 2017, without restarts)."""
    return _decayed(step, settings, (1 + math.cos(math.pi * _decay(step, settings))) / 2)


def linear_lr(step: int, settings: TrainConfig) -> float:
    """After warm-up, a straight line down to `min_learning_rate`."""
    return _decayed(step, settings, 1 - _decay(step, settings))


def constant_lr(step: int, settings: TrainConfig) -> float:
    """After warm-up, the peak."""
    return _warmed_up(step, settings)


_SCHEDULES = {"inverse_sqrt": inverse_sqrt_lr, "cosine": cosine_lr, "linear": linear_lr, "constant": constant_lr}


def learning_rate(step: int, settings: TrainConfig, d_model: int) -> float:
    """The learning rate of an update by `train.schedule`. ValueError for a step below 1."""
    if settings.schedule == "noam":
        return settings.lr_factor * noam_lr(step, d_model, settings.warmup_steps)
    _check_step(step)
    return _SCHEDULES[settings.schedule](step, settings)


def described(settings: TrainConfig, d_model: int) -> str:
    """The schedule in a line for the user: its peak, and where it ends."""
    step = settings.warmup_steps
    line = f"peak learning rate: {learning_rate(step, settings, d_model):.3e} at step {step}"
    if settings.schedule == "noam":
        return line
    end = ""
    if settings.decay_end is not None:
        end = f" to {settings.min_learning_rate:.3e} at step {settings.decay_end}"
    ignored = "" if settings.lr_factor == 1.0 else f"; train.lr_factor={settings.lr_factor} is for noam only"
    return f"{line}, then {settings.schedule}{end}{ignored}"


def _check_step(step: int) -> None:
    if step < 1:
        raise ValueError(f"step={step}: updates count from 1")


def _warmed_up(step: int, settings: TrainConfig) -> float:
    assert settings.learning_rate is not None, "TrainConfig requires it"
    return settings.learning_rate * min(1.0, step / settings.warmup_steps)


def _decay(step: int, settings: TrainConfig) -> float:
    """How much of the decay is over, from 0 to 1."""
    assert settings.decay_end is not None
    first, last = settings.warmup_steps, settings.decay_end
    return 0.0 if step <= first else min(1.0, (step - first) / max(1, last - first))


def _decayed(step: int, settings: TrainConfig, rest: float) -> float:
    """Between the peak and `min_learning_rate`, by the rest of the decay from 1 to 0."""
    peak, lowest = _warmed_up(step, settings), settings.min_learning_rate
    return peak if step <= settings.warmup_steps else lowest + (peak - lowest) * rest

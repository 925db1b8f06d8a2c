"""The learning rate (section 5.3, equation 3)."""

from __future__ import annotations


def noam_lr(step: int, d_model: int = 512, warmup_steps: int = 4000) -> float:
    """d_model^-0.5 · min(step^-0.5, step · warmup_steps^-1.5): linear warm-up, then inverse square root decay.

    `step` counts updates from 1; ValueError below that. The peak, at `warmup_steps`, is (d_model · warmup_steps)^-0.5.
    """
    if step < 1:
        raise ValueError(f"step={step}: updates count from 1")
    return float(d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5))

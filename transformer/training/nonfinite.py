"""Losses and gradients that are not finite: skipped updates are counted, too many of them end training."""

import math
from collections.abc import Callable

from transformer.errors import TrainingError
from transformer.training.metrics import MetricsLog
from transformer.training.train_step import NonfiniteGuard
from transformer.training.training_state import Progress

_ADVICE = (
    "lower train.lr_factor or train.learning_rate, raise train.warmup_steps or set train.clip_norm, with --change or "
    "in a new run_dir"
)


def check_finite(step: int, learning_rate: float, *losses: float) -> None:
    """TrainingError unless all losses of a step are finite."""
    if not all(map(math.isfinite, losses)):
        raise TrainingError(f"step {step}: the loss is not finite (learning rate {learning_rate:.2e}); {_ADVICE}")


def check_skipped(
    guard: NonfiniteGuard,
    progress: Progress,
    limit: int,
    learning_rate: Callable[[int], float],
    log: MetricsLog,
) -> None:
    """Count and log the updates that were skipped since the last call. TrainingError if more than `limit` were."""
    for update in guard.skipped_updates():
        progress.num_nonfinite += 1
        fault = f"{update}: non-finite gradient at a learning rate of {learning_rate(update.step):.2e}"
        if progress.num_nonfinite > limit:
            raise TrainingError(
                f"{fault}; the last checkpoint is intact: {_ADVICE}; or skip such updates: --skip-nonfinite N"
            )
        log.log("nonfinite", update.step, epoch=update.epoch, update=update.number, count=progress.num_nonfinite)
        log.print(f"{fault}; update skipped ({progress.num_nonfinite} of train.skip_nonfinite={limit})")

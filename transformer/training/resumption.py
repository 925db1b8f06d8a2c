"""Resuming a run: progress, best checkpoint and configuration are made to agree."""

import math
from pathlib import Path

from torch.optim import Optimizer

from transformer.config import Config, load_config
from transformer.files import remove_atomic
from transformer.model.transformer import Transformer
from transformer.training.averaging import MovingAverage
from transformer.training.changes import apply_changes
from transformer.training.checkpoint import resume
from transformer.training.data import RunData
from transformer.training.initialization import initialize
from transformer.training.metrics import read_metrics
from transformer.training.rng import RNGState
from transformer.training.run_directory import (
    adopt_config,
    checkpoint_name,
    checkpoints,
    prune,
    regular_steps,
    step_of,
)
from transformer.training.run_keys import moved_places
from transformer.training.training_state import Progress


def resume_run(
    config: Config, model: Transformer, optimizer: Optimizer, data: RunData, average: MovingAverage | None = None
) -> tuple[Progress, list[RNGState]]:
    """Load the last checkpoint of a claimed run, if any; returns progress and RNG states of the workers.

    CheckpointError as of `resume`.
    """
    run = Path(config.run_dir)
    moved = moved_places(load_config(run / "config.yaml", saved=True), config)
    progress, worker_states = resume(run, model, optimizer, data.fingerprints, moved, average)
    adopt_config(config)
    if not progress.step:
        print("".join(f"{line}\n" for line in initialize(config, model, data.tokenizer)), end="")
        if average is not None:
            average.start_at(model)
    if progress.step:
        before = load_config(run / "checkpoints" / checkpoint_name(progress.step) / "config.yaml", saved=True)
        for line in (*apply_changes(progress, data.train, before, config), restore_best(progress, run, before, config)):
            if line is not None:
                print(line)
    # The last save may have been killed before pruning, and there may be no other.
    prune(run / "checkpoints", config.train.keep_checkpoints, regular_steps(config.train))
    return progress, worker_states


def restore_best(progress: Progress, run: Path, before: Config, now: Config) -> str | None:
    """Make progress and the best checkpoint agree on resumption; returns a line for the user, if any.

    Args:
        before: the configuration of the checkpoint from which the run resumes.
        now: that of this start, which may compare by another measure.
    """
    if progress.validated_step < 0:
        _complete(progress, run)
    for path in checkpoints(run / "best"):
        # Of a validation that was not saved: it is repeated.
        if step_of(path) > progress.validated_step:
            remove_atomic(path)
    prune(run / "best", 1)
    if not checkpoints(run / "best"):
        progress.best_nll = progress.best_bleu = progress.best_chrf = None
    return _adopt_measure(progress, run, before, now)


def _complete(progress: Progress, run: Path) -> None:
    """Fill in what the checkpoints of earlier versions lack, from the logged validations."""
    best = [step_of(path) for path in checkpoints(run / "best") if step_of(path) <= progress.step]
    logged = {
        record["step"]: record
        for record in read_metrics(run)
        if record["kind"] == "validation" and record["step"] <= progress.step
    }
    progress.validated_step = max([0, *logged, *best])
    bleu = logged.get(best[-1], {}).get("bleu") if best else None
    progress.best_bleu = None if bleu is None or not math.isfinite(bleu) else float(bleu)


def _adopt_measure(progress: Progress, run: Path, before: Config, now: Config) -> str | None:
    """Compare by another measure than before: the best stays the best until a later one is better by it."""
    best_by = now.train.best_by
    tokenizers = [config.data.bleu_tokenizer for config in (before, now)]
    is_other_bleu = tokenizers[0] != tokenizers[1]
    if is_other_bleu:
        progress.best_bleu = None
    if before.train.best_by != best_by:
        change = f"train.best_by: {before.train.best_by} before, {best_by} now"
    elif is_other_bleu and best_by == "bleu":
        change = f"data.bleu_tokenizer: {tokenizers[0]} before, {tokenizers[1]} now"
    else:
        return None
    progress.num_bad_validations = 0
    value = progress.best(best_by)
    if value is None:
        return f"{change}; the next validation becomes the best"
    step = step_of(checkpoints(run / "best")[-1])
    score = f"validation {now.train.best_measure} {value:.3f}"
    return f"{change}; step {step} ({score}) stays the best until a later one is better"

"""Beginning where the last checkpoint of a run ended."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from transformer.config import Config
from transformer.errors import CheckpointError
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import (
    Progress,
    RandomState,
    load_training,
    load_weights,
    other_random_states,
    set_random_state,
)
from transformer.training.distributed import World, rank_seed
from transformer.training.integrity import verify
from transformer.training.run import checkpoints, step_of


def resume(
    config: Config, master: Transformer, optimizer: torch.optim.Optimizer, fingerprint: str
) -> tuple[Progress, list[RandomState]]:
    """Load a run's last checkpoint, if there is one, into model, optimizer and random numbers.

    Returns also the random numbers of the other processes that there were.

    CheckpointError if it is damaged, of another model, or of training data with another fingerprint.
    """
    run = Path(config.run_dir)
    found = checkpoints(run / "checkpoints")
    step = step_of(found[-1]) if found else 0
    # What was best after updates that will now be done again will be found again.
    for path in checkpoints(run / "best"):
        if step_of(path) > step:
            shutil.rmtree(path)
    if not found:
        return Progress(fingerprints={"train": fingerprint}), []
    verify(found[-1])
    load_weights(master, found[-1])
    progress = load_training(found[-1], optimizer, list(master.state_dict()))
    if progress.fingerprints.get("train") != fingerprint:
        raise CheckpointError(
            f"{found[-1]}: was trained on other data than {config.data.corpus} holds now; restore the data or "
            "choose another run_dir"
        )
    return progress, other_random_states(found[-1])


def begin_beside(progress: Progress, states: Sequence[RandomState], seed: int, world: World) -> None:
    """As another process than the first: with other random numbers, and without sums that the first one has."""
    if world.rank <= len(states):
        set_random_state(states[world.rank - 1])
    else:
        torch.manual_seed(rank_seed(seed, progress.step, world.rank))
    progress.window_loss = progress.window_nll = 0.0
    progress.window_tokens = 0

"""Beginning where the last checkpoint of a run ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from transformer.config import Config
from transformer.errors import CheckpointError
from transformer.files import remove_whole
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import (
    RandomState,
    load_training,
    load_weights,
    other_random_states,
    set_random_state,
)
from transformer.training.distributed import World, rank_seed
from transformer.training.integrity import verify
from transformer.training.names import step_of
from transformer.training.progress import Progress
from transformer.training.run import checkpoints, prune, regular_steps


def resume(
    config: Config, master: Transformer, optimizer: torch.optim.Optimizer, fingerprints: Mapping[str, str]
) -> tuple[Progress, list[RandomState]]:
    """Load a run's last checkpoint, if there is one, into model, optimizer and random numbers.

    Returns also the random numbers of the other processes that there were.

    CheckpointError if it is damaged, of another model, or of `train` or `validation` data with other fingerprints.
    """
    run = Path(config.run_dir)
    found = checkpoints(run / "checkpoints")
    step = step_of(found[-1]) if found else 0
    # What was best after updates that will now be done again will be found again.
    for path in checkpoints(run / "best"):
        if step_of(path) > step:
            remove_whole(path)
    if not found:
        return Progress(fingerprints=dict(fingerprints)), []
    last = found[-1]
    verify(last)
    # The last save may have been killed before it did so, and there may be no other.
    prune(run / "checkpoints", config.train.keep_checkpoints, regular_steps(config.train))
    load_weights(master, last)
    progress = load_training(last, optimizer, list(master.state_dict()))
    if progress.step != step or progress.num_nonfinite > step:
        raise CheckpointError(f"{last}: holds the state after step {progress.step}, which is not its name")
    # The first versions did not save that of the validation data.
    before = {"validation": fingerprints["validation"], **progress.fingerprints}
    for split, done in (("train", "trained"), ("validation", "validated")):
        if before.get(split) != fingerprints[split]:
            raise CheckpointError(
                f"{last}: was {done} on other data than {config.data.corpus} holds now; restore the data or choose "
                "another run_dir"
            )
    progress.fingerprints = dict(fingerprints)
    return progress, other_random_states(last)


def begin_beside(progress: Progress, states: Sequence[RandomState], seed: int, world: World) -> None:
    """As another process than the first: with other random numbers, and without sums that the first one has."""
    if world.rank <= len(states):
        set_random_state(states[world.rank - 1])
    else:
        torch.manual_seed(rank_seed(seed, progress.step, world.rank))
    progress.window_loss = progress.window_nll = 0.0
    progress.window_tokens = 0

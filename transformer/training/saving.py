"""What surrounds the writing of a checkpoint into a run in training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from transformer.errors import CheckpointError
from transformer.files import remove_atomic
from transformer.training.run_directory import checkpoint_name


@contextlib.contextmanager
def new_checkpoint(run: Path, parent: Path, step: int) -> Iterator[Path]:
    """The directory in `parent` for the checkpoint after `step` updates.

    It is to be written inside of the block.

    CheckpointError if the run directory is gone, and for an OSError of the block.
    """
    if not (run / "config.yaml").is_file():
        # Its disk may have been unmounted: the same path would now be on another disk.
        raise CheckpointError(f"{run}: the run directory is gone; nothing is saved")
    if (averaged := run / "averaged").is_dir():
        # It averages earlier checkpoints and would take precedence over better ones from now on.
        remove_atomic(averaged)
    directory = parent / checkpoint_name(step)
    try:
        yield directory
    except OSError as error:
        raise CheckpointError(
            f"{directory}: cannot be written ({error.strerror or error}); earlier checkpoints are intact: rerun "
            "the same command to resume from the last one"
        ) from None

"""The checkpoints of a run in training: what they hold is copied, and written while training goes on.

On CUDA, a checkpoint costs training its copies into pinned memory, which are queued on the device; checksums, flushing
and renaming are a thread's. Elsewhere the loop writes it: on a CPU the thread would take its time from training, and
the copies as much memory as weights and moments.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from transformer.config import Config
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError
from transformer.files import remove_atomic
from transformer.progress import say
from transformer.training.background import Background
from transformer.training.checkpoint import save_checkpoint
from transformer.training.run_directory import checkpoint_name, prune, regular_steps
from transformer.training.training_state import Progress, SavedState, TrainingState, saved_state


def writes_in_background(device: torch.device) -> bool:
    """Whether training on a device goes on while its checkpoints are written."""
    return device.type == "cuda"


class RunSaver:
    """Writes the best checkpoints of a run and the last ones, from which it resumes.

    Those of one step at most are being written while training goes on: the best one first, which is the best only once
    the last one is there. An error of writing is raised by the next call; then, `saved` is None.

    Attributes:
        saved: the last step with a checkpoint to resume from, and the last validated step by then.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, device: torch.device, progress: Progress) -> None:
        """Begin with a progress that is saved."""
        self._config, self._tokenizer, self._run = config, tokenizer, Path(config.run_dir)
        self._background = Background(threaded=writes_in_background(device))
        self._step = progress.step
        self._copies: weakref.ref[HostCopies] | None = None  # of the weights, while they are being written
        self.saved: tuple[int, int] | None
        self.mark_saved(progress)

    def mark_saved(self, progress: Progress) -> None:
        """There is a checkpoint of this progress, or will be one."""
        self.saved = (progress.step, progress.validated_step)

    def write(
        self, parent: Path, weights: Mapping[str, Tensor], progress: Progress, state: TrainingState | None = None
    ) -> None:
        """Write a checkpoint into `parent`; one with a state, to resume from, removes what it replaces.

        CheckpointError as of `new_checkpoint`, for this one or an earlier one.
        """
        step = progress.step
        with self._failing():
            if step != self._step:
                self._background.wait()
                self._step, self._copies = step, None
            if not self._background.threaded:
                self._write(parent, step, weights, state)
                return
            # If the best one of this step is still being written, its copies are those of the last one too.
            copies = (self._copies and self._copies()) or HostCopies(weights)
            self._copies = weakref.ref(copies)
            saved = None if state is None else CopiedState(saved_state(state, list(weights)))

            def write() -> None:
                self._write(parent, step, copies.wait(), None if saved is None else saved.wait())

            self._background.submit(write)

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written; does not wait."""
        with self._failing():
            self._background.check()

    def wait(self) -> None:
        """Wait until all checkpoints are written. CheckpointError likewise."""
        with self._failing():
            self._background.wait()

    def __enter__(self) -> RunSaver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Leave no write behind, whatever has ended training; a failed one is told of."""
        try:
            self.wait()
        except CheckpointError as failure:
            if error is None:
                raise
            say(f"warning: {failure}")

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.saved = None  # as far as is known, so that `fit` will save if it is called again
            raise

    def _write(
        self, parent: Path, step: int, weights: Mapping[str, Tensor], state: TrainingState | SavedState | None
    ) -> None:
        with new_checkpoint(self._run, parent, step) as directory:
            save_checkpoint(directory, self._config, self._tokenizer, dict(weights), state)
        if state is not None:
            prune(parent, self._config.train.keep_checkpoints, regular_steps(self._config.train))
            # Only now: a kill before the checkpoint was written makes the earlier best one the best again.
            prune(self._run / "best", 1)


class HostCopies:
    """Copies in host memory of tensors as they are now.

    Those from CUDA are queued: after what has been computed so far, and before what may change the tensors. Nothing
    waits for them but `wait`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._copies = {name: _copied(tensor.detach()) for name, tensor in tensors.items()}
        self._are_made: torch.cuda.Event | None = None
        if any(tensor.is_cuda for tensor in tensors.values()):
            self._are_made = torch.cuda.Event(blocking=True)
            self._are_made.record()

    def wait(self) -> dict[str, Tensor]:
        """The copies, once they are made."""
        if self._are_made is not None:
            self._are_made.synchronize()
        return self._copies


class CopiedState:
    """A copy of a training state as it is now."""

    def __init__(self, state: SavedState) -> None:
        self._progress, self._tensors = copy.deepcopy(state.progress), HostCopies(state.tensors)

    def wait(self) -> SavedState:
        """The copy, once it is made."""
        return SavedState(self._tensors.wait(), self._progress)


def _copied(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor.clone()
    try:
        made = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    except RuntimeError:  # the system pins no more
        return tensor.cpu()
    return made.copy_(tensor, non_blocking=True)


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

"""The state of training besides the weights: progress, Adam moments and RNG states.

training.json            `Progress`
optimizer.safetensors    moments by name of the trained parameters, RNG states of all ranks; if model.safetensors has
                         averaged weights (`train.ema_decay`), also the weights that training goes on with
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transformer.config import TrainConfig
from transformer.errors import CheckpointError
from transformer.files import is_special_file
from transformer.training.integrity import check_finite, check_like, load_tensors, save_tensors
from transformer.training.loss_scale import is_valid_scale
from transformer.training.rng import RNGState, get_rng_state, set_rng_state

# Fields of `Progress` whose key in training.json differs: format 1 keeps its first names.
KEYS_IN_FILE = {
    "num_bad_validations": "num_worse",
    "running_loss": "window_loss",
    "running_nll": "window_nll",
    "running_tokens": "window_tokens",
    "running_s": "window_s",
}
# Keys that the first versions did not write.
_OPTIONAL_KEYS = {"num_nonfinite", "num_split", "best_bleu", "validated_step"}
# Keys that are written only where they differ from the default, so that other checkpoints stay as they were.
_SPARSE_KEYS = {"best_chrf", "skipped_src_tokens", "skipped_tgt_tokens", "num_overflows", "loss_scale", "num_good"}
_LARGEST_INT = 2**63 - 1


@dataclass
class Progress:
    """Position of a training run, saved with every checkpoint."""

    step: int = 0
    epoch: int = 0  # with `update`, the position in the data
    update: int = 0
    elapsed_s: float = 0.0
    best_nll: float | None = None  # of the best checkpoint, as is the next
    best_bleu: float | None = None  # None: unknown
    best_chrf: float | None = None  # likewise
    num_bad_validations: int = 0  # since the best one
    running_loss: float = 0.0  # this and the next three: sums since the last log line
    running_nll: float = 0.0
    running_tokens: int = 0
    running_s: float = 0.0
    fingerprints: dict[str, str] = field(default_factory=dict)  # of the data
    num_nonfinite: int = 0  # updates skipped because of non-finite gradients
    num_overflows: int = 0  # updates skipped because the loss scale of float16 was too large
    loss_scale: float = 0.0  # 0: none; and next, updates without overflow since it last changed
    num_good: int = 0
    num_split: int = 0  # how often batches were halved for lack of memory
    skipped_src_tokens: int = 0  # of epochs that were left, as batches changed; and of the target
    skipped_tgt_tokens: int = 0
    validated_step: int = 0  # the last one that was validated; -1: not known, as the first versions did not save it

    @property
    def num_updates(self) -> int:
        """Steps of the optimizer: updates that were not skipped."""
        return self.step - self.num_nonfinite - self.num_overflows

    def best(self, best_by: str) -> float | None:
        """The score of the best checkpoint by a value of `train.best_by`; None if it is not known."""
        return {"loss": self.best_nll, "bleu": self.best_bleu, "chrf": self.best_chrf}[best_by]


def reason_to_stop(settings: TrainConfig, progress: Progress) -> str | None:
    """Why training is at its end, if it is."""
    if progress.step >= settings.max_steps:
        return f"train.max_steps={settings.max_steps} reached"
    if settings.max_hours is not None and progress.elapsed_s >= settings.max_hours * 3600:
        return f"train.max_hours={settings.max_hours} reached"
    if settings.patience is not None and progress.num_bad_validations >= settings.patience:
        return f"no better validation {settings.best_measure} in train.patience={settings.patience} validations"
    return None


def read_progress(path: Path) -> Progress:
    """Read training.json. CheckpointError."""
    fields = {KEYS_IN_FILE.get(field.name, field.name): field.name for field in dataclasses.fields(Progress)}
    try:
        if is_special_file(path):
            raise ValueError("not a regular file")
        saved = json.loads(path.read_text(encoding="utf-8"))
        if (
            not isinstance(saved, dict)
            or not fields.keys() - _OPTIONAL_KEYS - _SPARSE_KEYS <= saved.keys() <= fields.keys()
        ):
            raise ValueError("unknown or missing keys")
        for key, value in saved.items():
            if not _is_valid(fields[key], value):
                raise ValueError(f"{key} cannot be {str(value)[:100]!r}")
        return Progress(**{"validated_step": -1} | {fields[key]: value for key, value in saved.items()})
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def _is_valid(name: str, value: Any) -> bool:
    if name == "fingerprints":
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if name in ("best_nll", "best_bleu", "best_chrf") and value is None:
        return True
    if name == "loss_scale" and isinstance(value, float) and not is_valid_scale(value):
        return False
    if type(getattr(Progress, name, None)) is int:
        return type(value) is int and 0 <= value <= _LARGEST_INT
    return type(value) is float and math.isfinite(value)


class TrainingState(NamedTuple):
    """Everything that a checkpoint holds besides the weights, to resume exactly."""

    optimizer: Optimizer
    progress: Progress
    worker_states: Sequence[RNGState] = ()  # of the ranks from 1 on
    raw_weights: Mapping[str, Tensor] | None = None  # those of training, if the checkpoint's are a moving average


class SavedState(NamedTuple):
    """A training state as it is written."""

    tensors: Mapping[str, Tensor]  # of optimizer.safetensors
    progress: Progress


def saved_state(state: TrainingState, names: Sequence[str]) -> SavedState:
    """Name the tensors of a training state, and add this process's RNG state; nothing is copied."""
    tensors = {f"rng.{kind}": rng for kind, rng in get_rng_state().items()}
    for rank, worker_state in enumerate(state.worker_states, start=1):
        tensors |= {f"rng.{kind}.{rank}": rng for kind, rng in worker_state.items()}
    for name, parameter in zip(names, state.optimizer.param_groups[0]["params"], strict=True):
        for moment in ("exp_avg", "exp_avg_sq") if parameter.requires_grad else ():
            tensors[f"{moment}.{name}"] = state.optimizer.state[parameter][moment]
    tensors |= {f"raw.{name}": weight for name, weight in (state.raw_weights or {}).items()}
    return SavedState(tensors, state.progress)


def save_state(directory: Path, state: SavedState) -> None:
    """Write a training state."""
    save_tensors(directory / "optimizer.safetensors", dict(state.tensors))
    saved = {KEYS_IN_FILE.get(name, name): value for name, value in dataclasses.asdict(state.progress).items()}
    saved = {key: value for key, value in saved.items() if key not in _SPARSE_KEYS or value != getattr(Progress, key)}
    (directory / "training.json").write_text(json.dumps(saved, indent=1), "utf-8")


def load_state(
    directory: Path, optimizer: Optimizer, names: Sequence[str], frozen: Collection[str] = ()
) -> tuple[Progress, list[RNGState]]:
    """Restore moments and RNG state; returns progress and worker states. CheckpointError.

    Parameters that were `frozen` until then, and are trained now, begin with moments of zero.
    """
    progress = read_progress(directory / "training.json")
    path = directory / "optimizer.safetensors"
    tensors = load_tensors(path, names)
    for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
        if not parameter.requires_grad:
            continue
        moments = {}
        for moment in ("exp_avg", "exp_avg_sq"):
            key = f"{moment}.{name}"
            if name in frozen and key not in tensors:
                tensors[key] = torch.zeros_like(parameter, device="cpu")
            # The fused kernel accesses as many elements as the weight has, whatever the size of the moment.
            check_like(path, tensors, key, parameter)
            check_finite(path, key, tensors[key], lowest=0.0 if moment == "exp_avg_sq" else None)
            moments[moment] = tensors[key].to(parameter.device)
        num_updates = float(progress.num_updates)
        optimizer.state[parameter] = {"step": torch.tensor(num_updates, device=parameter.device), **moments}
    ranks = itertools.takewhile(lambda rank: f"rng.cpu.{rank}" in tensors, itertools.count(1))
    worker_states = [_rng_state_in(path, tensors, f".{rank}") for rank in ranks]
    set_rng_state(_rng_state_in(path, tensors, ""))
    return progress, worker_states


def load_raw_weights(directory: Path, model: nn.Module) -> dict[str, Tensor]:
    """The weights of training in a checkpoint whose own are their moving average. CheckpointError."""
    path, weights = directory / "optimizer.safetensors", {}
    tensors = load_tensors(path)
    for name, like in model.state_dict().items():
        check_like(path, tensors, f"raw.{name}", like)
        check_finite(path, f"raw.{name}", tensors[f"raw.{name}"])
        weights[name] = tensors[f"raw.{name}"]
    return weights


def _rng_state_in(path: Path, tensors: dict[str, Tensor], suffix: str) -> RNGState:
    """The RNG state of one rank in the tensors of a file."""
    state = {}
    for kind, like in get_rng_state().items():
        key = f"rng.{kind}{suffix}"
        if kind == "cpu" or key in tensors:  # a run saved without a GPU may resume with one
            check_like(path, tensors, key, like)
            state[kind] = tensors[key]
    try:
        torch.Generator().set_state(state["cpu"])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: rng.cpu{suffix}: {error}") from None
    return state


def rank_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a rank that joins a run after `step` updates."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


def init_worker(progress: Progress, states: Sequence[RNGState], seed: int, rank: int) -> None:
    """Set up a rank other than 0: its own RNG state, zero running sums."""
    if rank <= len(states):
        set_rng_state(states[rank - 1])
    else:
        torch.manual_seed(rank_seed(seed, progress.step, rank))
    progress.running_loss = progress.running_nll = 0.0
    progress.running_tokens = 0

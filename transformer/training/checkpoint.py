"""Checkpoints: directories of text, JSON and safetensors, without a pickle anywhere.

config.yaml, tokenizer.model, model.safetensors          enough to translate
optimizer.safetensors, training.json                     and to go on training as if never stopped
SHA256SUMS                                               of the other files
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transformer.config import Config, load_config
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError
from transformer.files import fsync, is_no_file
from transformer.model.transformer import Transformer
from transformer.training.integrity import verify, write_sums
from transformer.training.progress import Progress, read_progress, write_progress

_FORMAT = 1
# What safetensors raises; RuntimeError is torch's, as where too many files are open.
_UNREADABLE = (SafetensorError, OSError, RuntimeError)

# Of torch's random numbers, by kind of device.
RandomState = dict[str, Tensor]


def build_model(config: Config, vocab_size: int) -> Transformer:
    """The untrained model that a configuration describes."""
    return Transformer(vocab_size, **dataclasses.asdict(config.model))


def save_checkpoint(
    directory: Path,
    config: Config,
    tokenizer: Tokenizer,
    weights: dict[str, Tensor],
    training: tuple[torch.optim.Optimizer, Progress] | None = None,
    others: Sequence[RandomState] = (),
) -> None:
    """Write a checkpoint that is there whole or not at all, and replaces what was there.

    Args:
        directory: its final name.
        weights: the model's float32 state dict.
        training: what resuming needs besides; without it the checkpoint can only translate.
        others: the random numbers of the other processes that train, from rank 1 on.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind and what was there is intact.
    """
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        (temporary / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        (temporary / "tokenizer.model").write_bytes(tokenizer.model)
        _save_tensors(temporary / "model.safetensors", weights)
        if training is not None:
            optimizer, progress = training
            tensors = _optimizer_tensors(optimizer, list(weights))
            for rank, state in enumerate(others, start=1):
                tensors |= {f"rng.{kind}.{rank}": numbers for kind, numbers in state.items()}
            _save_tensors(temporary / "optimizer.safetensors", tensors)
            write_progress(temporary / "training.json", progress)
        write_sums(temporary)
        for path in (*temporary.iterdir(), temporary):
            fsync(path)
        _put_in_place(temporary, directory)
        fsync(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, directory: Path) -> None:
    """Give a finished directory its name. What had the name stays until then, if need be as `.NAME.old`."""
    old = directory.with_name(f".{directory.name}.old")
    try:
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)
            directory.rename(old)
        temporary.rename(directory)
    except BaseException:  # Ctrl-C too
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)  # even if it was an earlier write, then killed, that had renamed it


def load_checkpoint(directory: str | Path) -> tuple[Config, Tokenizer, Transformer]:
    """Rebuild the model of a checkpoint, in float32 on the CPU, in training mode.

    CheckpointError if a file is missing or damaged, the format is another version's, or the parts do not fit together.
    ConfigError, DataError: the configuration or the tokenizer is damaged.
    """
    directory = Path(directory)
    verify(directory)
    for name in ("config.yaml", "tokenizer.model", "model.safetensors"):
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory}: not a checkpoint: it has no {name}")
    # First: what another format's configuration says may not be understood here.
    _check_format(directory / "model.safetensors")
    path = directory / "config.yaml"
    try:
        config = load_config(path, allow_base=False)
    except ConfigError as error:  # about a value, it names only the key
        raise ConfigError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    tokenizer = Tokenizer.load(directory / "tokenizer.model")
    with torch.device("meta"):
        outline = build_model(config, len(tokenizer))
    # Before it is built: a configuration can ask for more memory than there is, weights that are there cannot.
    _check_fit(outline, _shapes(directory / "model.safetensors"), directory / "model.safetensors")
    model = build_model(config, len(tokenizer))
    load_weights(model, directory)
    return config, tokenizer, model


def load_weights(model: Transformer, directory: Path) -> None:
    """Load a checkpoint's weights into a model of the same shape; CheckpointError if they do not fit."""
    path = directory / "model.safetensors"
    weights = _load_weights(path)
    _check_fit(model, {name: tuple(tensor.shape) for name, tensor in weights.items()}, path)
    model.load_state_dict(weights)


def _check_fit(model: Transformer, shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """CheckpointError unless these are the names and shapes of the model's weights."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if missing := sorted(expected.keys() ^ shapes.keys()):
        raise CheckpointError(f"{path}: its weights are not this model's; first difference: {missing[0]}")
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise CheckpointError(
                f"{path}: {name} is {shape}, the configuration and tokenizer make it {expected[name]}: weights of "
                "another vocabulary or size"
            )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors in a file, by name; reads no tensor."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def load_training(directory: Path, optimizer: torch.optim.Optimizer, parameter_names: Sequence[str]) -> Progress:
    """Restore the optimizer and torch's random numbers; returns how far training had come.

    CheckpointError if a file is missing or damaged, or holds what cannot be gone on from.
    """
    progress = read_progress(directory / "training.json")
    path = directory / "optimizer.safetensors"
    tensors = _load_tensors(path)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, parameter in zip(parameter_names, parameters, strict=True):
        moments = {}
        for moment in ("exp_avg", "exp_avg_sq"):
            key = f"{moment}.{name}"
            # The optimizer's kernel reads and writes as many numbers as the weight has, whatever is there.
            _check_tensor(path, tensors, key, parameter)
            _check_finite(path, key, tensors[key], lowest=0.0 if moment == "exp_avg_sq" else None)
            moments[moment] = tensors[key].to(parameter.device)
        num_updates = float(progress.step - progress.num_nonfinite)
        optimizer.state[parameter] = {"step": torch.tensor(num_updates, device=parameter.device), **moments}
    set_random_state(_random_state_in(path, tensors, ""))
    return progress


def other_random_states(directory: Path) -> list[RandomState]:
    """What `save_checkpoint` was given as `others`."""
    from safetensors import safe_open

    path = directory / "optimizer.safetensors"
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("rng.")]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
    ranks = itertools.takewhile(lambda rank: f"rng.cpu.{rank}" in tensors, itertools.count(1))
    return [_random_state_in(path, tensors, f".{rank}") for rank in ranks]


def _random_state_in(path: Path, tensors: dict[str, Tensor], suffix: str) -> RandomState:
    """The random numbers of one process in the tensors of a file."""
    state = {}
    for kind, now in random_state().items():
        key = f"rng.{kind}{suffix}"
        if kind == "cpu" or key in tensors:  # what was saved without a GPU goes on with one
            _check_tensor(path, tensors, key, now)
            state[kind] = tensors[key]
    try:
        torch.Generator().set_state(state["cpu"])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: rng.cpu{suffix}: {error}") from None
    return state


def _check_finite(path: Path, name: str, tensor: Tensor, lowest: float | None = None) -> None:
    """CheckpointError unless a tensor of a file is of numbers with which one can go on."""
    if not tensor.is_floating_point() or not tensor.isfinite().all():
        raise CheckpointError(f"{path}: {name} holds what are no finite numbers")
    if lowest is not None and tensor.numel() and tensor.min() < lowest:
        raise CheckpointError(f"{path}: {name} holds numbers below {lowest}")


def _check_tensor(path: Path, tensors: dict[str, Tensor], name: str, like: Tensor) -> None:
    """CheckpointError unless a file has a tensor of that shape and type."""
    if name not in tensors:
        raise CheckpointError(f"{path}: lacks {name!r}")
    found = tensors[name]
    if (found.shape, found.dtype) != (like.shape, like.dtype):
        raise CheckpointError(
            f"{path}: {name} is {tuple(found.shape)} of {found.dtype}, not {tuple(like.shape)} of {like.dtype}"
        )


def random_state() -> RandomState:
    """The state of torch's random numbers in this process."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: RandomState) -> None:
    """Go on with the random numbers of a state."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def average_checkpoints(directories: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the weights of several checkpoints (section 6.1); of one, exactly its weights."""
    total: dict[str, Tensor] = {}
    for directory in directories:
        verify(directory)
        weights = _load_weights(directory / "model.safetensors")
        if total and (
            total.keys() != weights.keys() or any(total[name].shape != weights[name].shape for name in weights)
        ):
            raise CheckpointError(f"{directory}: cannot be averaged with {directories[0]}: the weights differ in shape")
        # float64: the sum of float32 weights is then exact enough that the mean of equal weights is that weight.
        total = {name: total[name] + w.double() if total else w.double() for name, w in weights.items()}
    return {name: (weight / len(directories)).float() for name, weight in total.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    tensors = {f"rng.{kind}": numbers for kind, numbers in random_state().items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, parameter in zip(names, parameters, strict=True):
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    return tensors


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": str(_FORMAT)})
        # Safetensors lets nobody else read it, whatever the umask.
        shutil.copymode(path.with_name("config.yaml"), path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None


def _load_weights(path: Path) -> dict[str, Tensor]:
    weights = _load_tensors(path)
    for name, weight in weights.items():
        _check_finite(path, name, weight)
    return weights


def _load_tensors(path: Path) -> dict[str, Tensor]:
    _check_format(path)
    try:
        return load_file(path)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def _check_format(path: Path) -> None:
    from safetensors import safe_open

    if is_no_file(path):
        raise CheckpointError(f"{path}: cannot be read: it is no file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if metadata.get("format") != str(_FORMAT):
        raise CheckpointError(
            f"{path}: checkpoint format {metadata.get('format')!r}; this version reads format {_FORMAT}"
        )

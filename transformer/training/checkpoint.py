"""Checkpoints: directories of text, JSON and safetensors, without a pickle anywhere.

config.yaml, tokenizer.model, model.safetensors    enough to translate
source_tokenizer.model                             besides, if the vocabularies are separate
optimizer.safetensors, training.json               besides, to resume training exactly
SHA256SUMS                                         checksums of the other files
"""

import dataclasses
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from transformer.config import Config, ModelConfig, load_config
from transformer.data.tokenizer import SOURCE_FILE, TARGET_FILE, Tokenizer
from transformer.data.vocabulary_tokenizer import load_tokenizer
from transformer.errors import CheckpointError
from transformer.files import fsync, remove_atomic
from transformer.hub import check_links, fetch_model, is_model_id
from transformer.interop.foreign import converted
from transformer.interop.local_files import is_foreign
from transformer.interop.marian_model import UNKNOWN_DATA
from transformer.model.transformer import Transformer
from transformer.training import integrity
from transformer.training.averaging import MovingAverage
from transformer.training.description import Sizes, check_described, outline, shapes_of
from transformer.training.freezing import frozen_names
from transformer.training.rng import RNGState
from transformer.training.run_directory import CHECKSUMS, checkpoints, find_checkpoint, saved_config, step_of
from transformer.training.training_state import (
    Progress,
    SavedState,
    TrainingState,
    load_raw_weights,
    load_state,
    save_state,
    saved_state,
)


def save_checkpoint(
    directory: str | Path,
    config: Config,
    tokenizer: Tokenizer | None,
    weights: dict[str, Tensor],
    state: TrainingState | SavedState | None = None,
    *,
    averaged_steps: Sequence[int] = (),
) -> None:
    """Write a checkpoint atomically, replacing an existing one.

    Without `tokenizer` it cannot translate, without `state` not resume; an average names its steps. OSError leaves an
    existing checkpoint intact.
    """
    directory = Path(directory)
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        (temporary / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        if tokenizer is not None:
            (temporary / TARGET_FILE).write_bytes(tokenizer.model)
            if tokenizer.is_separate:
                (temporary / SOURCE_FILE).write_bytes(tokenizer.source.model)
        integrity.save_tensors(temporary / "model.safetensors", weights, averaged_steps)
        if state is not None:
            save_state(temporary, saved_state(state, list(weights)) if isinstance(state, TrainingState) else state)
        integrity.write_checksums(temporary)
        for path in (*temporary.iterdir(), temporary):
            fsync(path)
        _replace(directory, temporary)
        fsync(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(directory: Path, temporary: Path) -> None:
    """Rename `temporary` to `directory`; a kill in between leaves `.NAME.old`."""
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
    shutil.rmtree(old, ignore_errors=True)  # also one left by an earlier, killed write


def load_checkpoint(directory: str | Path) -> tuple[Config, Tokenizer, Transformer]:
    """Rebuild a checkpoint's model in float32, on the CPU, in training mode.

    CheckpointError if a file is missing or damaged, of another format version, or does not fit the others; ConfigError
    or DataError if the configuration or the tokenizer is damaged.
    """
    directory = Path(directory)
    config = _read_config(directory, "config.yaml", TARGET_FILE, "model.safetensors")
    is_separate = config.data.separate_vocabularies
    if is_separate != (directory / SOURCE_FILE).is_file():
        fault = "is missing" if is_separate else "does not belong to it"
        raise CheckpointError(
            f"{directory}: {SOURCE_FILE} {fault}: config.yaml has data.separate_vocabularies={str(is_separate).lower()}"
        )
    tokenizer = load_tokenizer(directory, is_separate=is_separate)
    return config, tokenizer, _load(directory, tokenizer.sizes, config)


def locate_checkpoint(path: str | Path) -> tuple[Path, str]:
    """The checkpoint of a run, checkpoint directory, hub id or model from elsewhere, and its name.

    Of a run, the averaged checkpoint is preferred, then the best, then the last. A model from elsewhere is converted to
    one in a cache (transformer.interop.foreign). CheckpointError if there is none, or a file is a link to elsewhere.
    """
    directory, name = fetch_model(str(path)) if is_model_id(path) else (Path(path), None)
    if is_foreign(directory):
        return converted(directory, save_checkpoint), name or str(path)
    directory = find_checkpoint(path) if name is None else directory
    check_links(directory)
    return directory, name or str(directory)


def load_model(path: str | Path) -> Transformer:
    """Load the trainable model of a run, checkpoint, `save_model` directory or hub id.

    In float32, on the CPU, in training mode, with its `config`. Errors as of `load_checkpoint`.
    """
    directory, _ = locate_checkpoint(path)
    config = _read_config(directory, "config.yaml", "model.safetensors")
    shapes = integrity.read_shapes(directory / "model.safetensors", _NAMES)
    return _load(directory, _rows(shapes, is_separate=config.data.separate_vocabularies), config)


def save_model(
    model: Transformer,
    directory: str | Path,
    config: ModelConfig | Config | None = None,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write weights and configuration, as `load_model` reads them; with a tokenizer, as `Translator.load` does.

    `config` is by default that of `build_model` or `load_model`. Sections `data` and `search`, from which `Translator`
    has languages and defaults, are those of a whole `Config`, or of the checkpoint from which the model was loaded;
    without either, languages and corpus are unknown. ConfigError if the model is limited to fewer than 2 positions.
    ValueError if the configuration is missing or does not describe the model, weights are not finite, or the directory
    holds something else than a model. OSError.
    """
    whole: Config = config if isinstance(config, Config) else getattr(model, _LOADED_WITH, Config(data=UNKNOWN_DATA))
    config = config.model if isinstance(config, Config) else config or getattr(model, "config", None)
    if config is None:
        raise ValueError("the model does not know its configuration: give config=ModelConfig(...)")
    directory, weights = Path(directory), model.state_dict()
    if directory.exists() and not {path.name for path in directory.iterdir()} <= {*integrity.FILES, CHECKSUMS}:
        raise ValueError(f"{directory}: holds other files than a model's, which would be replaced")
    shapes = shapes_of(model)
    if tokenizer is None:
        target_size, source_size = _rows(shapes, is_separate=True)
        is_separate = whole.data.separate_vocabularies or source_size not in (None, target_size)
    else:
        is_separate = tokenizer.is_separate
    check_described(model, _rows(shapes, is_separate=is_separate), config)
    limit = max(2, model.max_length or whole.data.max_length)
    data = dataclasses.replace(
        whole.data,
        max_length=min(whole.data.max_length, limit),
        separate_vocabularies=is_separate,
        source_vocab_size=whole.data.source_vocab_size if is_separate else None,
    )
    save_checkpoint(directory, Config(model=config, data=data, search=whole.search), tokenizer, weights)


# An attribute of loaded models: `save_model` keeps their languages and search.
_LOADED_WITH = "loaded_with"
# Of the weights with a row per target token, the first that a model has.
_NAMES = ("embedding.target_weight", "embedding.weight")


def _read_config(directory: Path, *required: str) -> Config:
    integrity.verify(directory)
    for name in required:
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory}: not a checkpoint: {name} is missing")
    # Before the configuration, which this version may not understand if it is of another format.
    integrity.read_shapes(directory / "model.safetensors")
    return saved_config(directory)


def _rows(shapes: Mapping[str, tuple[int, ...]], *, is_separate: bool) -> Sizes:
    """The sizes of the vocabularies by the shapes of weights."""
    target_size, source_size = (shapes[name][0] if name in shapes else None for name in _NAMES)
    return target_size or source_size or 1, source_size if is_separate and target_size else None


def _load(directory: Path, sizes: Sizes, config: Config) -> Transformer:
    # No memory before the shapes fit: a damaged configuration may describe a model larger than it, the file cannot.
    model = outline(sizes, config.model)
    load_weights(model, directory, assign=True)
    setattr(model, _LOADED_WITH, config)
    return model


def load_weights(model: Transformer, directory: Path, *, assign: bool = False) -> None:
    """Load a checkpoint's weights into a model, or `assign` them to it. CheckpointError if they do not fit."""
    names = model.state_dict().keys()
    _check_fit(model, integrity.read_shapes(directory / "model.safetensors", names), directory / "model.safetensors")
    model.load_state_dict(_read_weights(directory, names), assign=assign)


def _read_weights(directory: Path, names: Collection[str]) -> dict[str, Tensor]:
    path = directory / "model.safetensors"
    weights = integrity.load_tensors(path, names)
    for name, weight in weights.items():
        integrity.check_finite(path, name, weight)
    # Copied: what safetensors returns is backed by the file.
    return {name: weight.to(torch.float32, copy=True) for name, weight in weights.items()}


def _check_fit(model: Transformer, shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if differing := sorted(expected.keys() ^ shapes.keys()):
        raise CheckpointError(f"{path}: the weights do not match the model; first difference: {differing[0]}")
    for name, shape in shapes.items():
        if shape != expected[name]:
            required = f"but the configuration and tokenizer require {expected[name]}"
            raise CheckpointError(f"{path}: {name} has shape {shape}, {required}: vocabulary or model size differs")


def resume(
    run: Path,
    model: Transformer,
    optimizer: Optimizer,
    fingerprints: Mapping[str, str],
    moved: Sequence[str] = (),
    average: MovingAverage | None = None,
) -> tuple[Progress, list[RNGState]]:
    """Load a run's last checkpoint, if any, into model, optimizer, moving average and RNG.

    Returns the progress and the RNG states of the workers. CheckpointError if it is damaged, of another model, or of
    data with other `train` or `validation` fingerprints; its message names the keys by which the data have `moved`.
    """
    found = checkpoints(run / "checkpoints")
    step = step_of(found[-1]) if found else 0
    # Updates after the last checkpoint are repeated, and so is the best one among them.
    for path in checkpoints(run / "best"):
        if step_of(path) > step:
            remove_atomic(path)
    if not found:
        return Progress(fingerprints=dict(fingerprints)), []
    last = found[-1]
    integrity.verify(last)
    load_weights(model, last)
    names = list(model.state_dict())
    before = load_config(last / "config.yaml", saved=True).train
    progress, worker_states = load_state(last, optimizer, names, frozen_names(names, before.freeze))
    if before.ema_decay is not None:
        raw = load_raw_weights(last, model)
        if average is None:
            model.load_state_dict(raw)
        else:
            average.exchange(model, raw)
    elif average is not None:
        average.start_at(model)
    if progress.step != step or progress.validated_step > step or progress.num_updates < 0:
        raise CheckpointError(f"{last}: contains the state after step {progress.step}, not after that of its name")
    # The first versions did not save the fingerprint of the validation data.
    saved = ({} if moved else {"validation": fingerprints["validation"]}) | progress.fingerprints
    for split in ("train", "validation"):
        if saved.get(split) != fingerprints[split]:
            raise CheckpointError(f"{last}: {_changed_data(split, moved)}")
    progress.fingerprints = dict(fingerprints)
    return progress, worker_states


def _changed_data(split: str, moved: Sequence[str]) -> str:
    if not moved:
        return f"the {split} data have changed since; restore them or choose another run_dir"
    return (
        f"the run has other {split} data ({'; '.join(moved)}): files may move, but every byte counts, so a .gz file is "
        "not its text; restore these values or choose another run_dir (by default runs/ and the name of the file, so "
        "files of one name share it)"
    )


def average_checkpoints(directories: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the weights of several checkpoints (section 6.1)."""
    total: dict[str, Tensor] = {}
    path, names = directories[-1] / "config.yaml", list[str]()
    if path.is_file():  # under the names of today, even if some are of format 1
        names += outline((8, None), load_config(path, saved=True).model).state_dict()
    for directory in directories:
        integrity.verify(directory)
        weights = _read_weights(directory, names)
        if total and {name: w.shape for name, w in total.items()} != {name: w.shape for name, w in weights.items()}:
            raise CheckpointError(f"{directory}: cannot be averaged with {directories[0]}: the weights differ in shape")
        # Float64 sums of float32 weights are exact enough that the mean of equal weights is that weight.
        total = {name: total[name] + w.double() if total else w.double() for name, w in weights.items()}
    return {name: (weight / len(directories)).float() for name, weight in total.items()}

"""The run directory: one per configuration.

config.yaml  tokenizer.model  metrics.jsonl  tensorboard/  starts.jsonl
checkpoints/step-00001000/   the last ones          best/step-00000800/   the lowest validation loss
averaged/                    written by scripts/average.py, removed when training goes on
.lock                        held by the process that trains
"""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from filelock import FileLock

from transformer.config import Config, TrainConfig, load_config
from transformer.errors import CheckpointError, ConfigError
from transformer.files import remove_whole, try_lock, write_whole
from transformer.training.integrity import SUMS
from transformer.training.names import numbered, step_of

# Keys that may differ when a run is resumed: they say when to look, save and stop and where to compute, not what.
FREE_KEYS = {
    "run_dir",
    "data.cache_dir",
    "data.revision",  # other data would be noticed by their fingerprint
    "data.test_split",
    "train.skip_nonfinite",
    "train.max_steps",
    "train.max_hours",
    "train.patience",
    "train.log_steps",
    "train.validate_steps",
    "train.validation_bleu",
    "train.save_steps",
    "train.save_minutes",
    "train.keep_checkpoints",
    "train.device",
    "train.num_threads",
    "search.beam",
    "search.alpha",
    "search.max_extra",
    "search.max_source_length",
}


def claim_run(config: Config) -> FileLock:
    """Create the run directory, or check that it belongs to this configuration, and keep other processes out.

    A run that has not saved anything yet, such as one that stopped at a wrong file name, may still change.

    Returns:
        The lock: other processes may claim the run when it is forgotten.

    Raises:
        ConfigError: the directory belongs to a run with other values of keys that shape the result; all are named.
        CheckpointError: a run that has been saved has lost the directory of its checkpoints.
        InUseError: another process has claimed it.
        OSError: it cannot be written.
    """
    run = Path(config.run_dir)
    path = run / "config.yaml"
    # The hidden ones are of a start that was killed.
    if run.is_dir() and not path.is_file() and {file.name for file in run.iterdir()} - {".lock", ".config.yaml.tmp"}:
        raise ConfigError(f"run_dir={run}: the directory is not empty and holds no run; choose another")
    run.mkdir(parents=True, exist_ok=True)
    lock = lock_run(run)
    has_checkpoints = bool(checkpoints(run / "checkpoints"))
    if checkpoints(run / "best") and not has_checkpoints and not _is_before_first_save(run):
        raise CheckpointError(
            f"{run}: has a best checkpoint, but those in {run / 'checkpoints'} are gone, from where it would go on; "
            "put them back, or choose another run_dir"
        )
    if path.is_file():
        differing = _differing_keys(load_config(path, allow_base=False), config)
        if differing and (has_checkpoints or checkpoints(run / "best")):
            raise ConfigError(
                f"{run} belongs to another configuration ({'; '.join(differing)}); "
                "choose another run_dir or set these back"
            )
        if not has_checkpoints:  # perhaps of another corpus: the same one's is in the cache
            (run / "tokenizer.model").unlink(missing_ok=True)
    for remains in (*run.glob("*/.step-*"), *run.glob(".averaged.*")):  # of a write or a removal that was killed
        place = remains.with_name(remains.name.removeprefix(".").removesuffix(".old"))
        if remains.suffix == ".old" and not place.exists():
            remains.rename(place)
        else:
            shutil.rmtree(remains)
    write_whole(path, config.to_yaml())
    (run / "checkpoints").mkdir(exist_ok=True)
    return lock


def _is_before_first_save(run: Path) -> bool:
    """Whether a run without checkpoints may be one that was killed before it had saved any.

    What there is then, in `checkpoints`, is at most what is left of a write, and nothing can have been averaged.
    """
    directory = run / "checkpoints"
    return directory.is_dir() and not any(directory.glob("[!.]*")) and not (run / "averaged").exists()


def lock_run(run: Path) -> FileLock:
    """Keep other processes from writing a run that is there, until the lock is forgotten. InUseError, OSError."""
    return try_lock(run / ".lock", f"run_dir={run}")


def _differing_keys(old: Config, new: Config) -> list[str]:
    """The keys, with both values, in which `new` is another experiment than `old`."""
    before, now = old.flat(), new.flat()
    return [
        f"{key}: {yaml_value(before[key])} there, {yaml_value(now[key])} here"
        for key in now
        if key not in FREE_KEYS and before[key] != now[key]
    ]


def yaml_value(value: object) -> str:
    """A value as it would be written after `key=`."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `run/checkpoints` or `run/best`, oldest first."""
    return [path for path in numbered(directory) if _is_checkpoint(path)]


def _is_checkpoint(path: Path) -> bool:
    """Whether this is or was a checkpoint: one that has lost its weights is named, not passed over."""
    return (path / "model.safetensors").is_file() or (path / SUMS).is_file()


def regular_steps(settings: TrainConfig) -> int:
    """Checkpoints at multiples of this are written however often a run is stopped in between."""
    return settings.save_steps if settings.save_steps and settings.save_minutes is None else 1


def prune(directory: Path, keep: int, every: int = 1) -> None:
    """Delete all but the last checkpoint and, of those at multiples of `every` steps, the `keep - 1` before it.

    What is kept then does not depend on where a run was stopped in between.
    """
    earlier = checkpoints(directory)[:-1]
    regular = [path for path in earlier if step_of(path) % every == 0]
    kept = regular[max(0, len(regular) - keep + 1) :]
    for path in earlier:
        if path not in kept:
            remove_whole(path)


def last_checkpoints(run: Path, number: int) -> list[Path]:
    """The last `number` checkpoints of a run, oldest first. CheckpointError if it has fewer."""
    found = checkpoints(run / "checkpoints")
    if not 1 <= number <= len(found):
        raise CheckpointError(f"{run} holds {len(found)} checkpoints; {number} cannot be averaged")
    return found[-number:]


def find_checkpoint(run: str | Path) -> Path:
    """The checkpoint to translate with: the path itself, or of a run its average, else its best, else its last.

    CheckpointError if there is none.
    """
    run = Path(run)
    trained = reversed([*checkpoints(run / "checkpoints"), *checkpoints(run / "best")])
    # `.averaged.old` is the average where replacing it was killed between two renames.
    for path in (run, run / "averaged", run / ".averaged.old", *trained):
        if _is_checkpoint(path):
            return path
    if not run.exists():
        raise CheckpointError(f"{run}: no such run or checkpoint directory")
    raise CheckpointError(f"{run}: holds no checkpoint; train first, or name a directory with model.safetensors")

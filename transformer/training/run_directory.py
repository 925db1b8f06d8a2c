"""The run directory: one per configuration.

config.yaml  tokenizer.model  metrics.jsonl  tensorboard/
source_tokenizer.model       if the vocabularies are separate
starts.jsonl                 one line per start: command, versions, revision and data
initialization.json          the weights that it began with, if they were trained ones
checkpoints/step-00001000/   the last ones          best/step-00000800/   the best validation
averaged/                    written by `transformer average`, removed with the next checkpoint
.lock                        held by the training process
"""

import dataclasses
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from transformer.config import FORMER_VALUES, Config, TrainConfig, load_config
from transformer.errors import CheckpointError, ConfigError
from transformer.files import remove_atomic, try_lock, write_atomic
from transformer.progress import say
from transformer.training.run_keys import (
    CHANGEABLE_KEYS,
    FREE_KEYS,
    PLACE_KEYS,
    changed_values,
    differing_keys,
    moved_places,
    other_end,
)

if TYPE_CHECKING:
    import torch

CHECKSUMS = "SHA256SUMS"
INITIALIZATION = "initialization.json"
RUN_DIRECTORIES = ("checkpoints", "best", "averaged", "tensorboard")
_PACKAGES = ("torch", "numpy", "sentencepiece", "datasets", "sacrebleu", "safetensors")  # may change results
_DISTRIBUTION = "attention-is-all-you-need"


def claim_run(config: Config, *, change: bool = False) -> FileLock:
    """Create or check the run directory; returns a lock against other processes.

    If the place of the data differs, or with `change` one of the `CHANGEABLE_KEYS`, `config.yaml` stays as it is until
    `adopt_config`. ConfigError if the directory belongs to a run with other values of keys that shape the result;
    CheckpointError if the run has lost its checkpoints; InUseError if another process has claimed it; OSError.
    """
    run = Path(config.run_dir)
    path = run / "config.yaml"
    # A killed start leaves the hidden files.
    if run.is_dir() and not path.is_file() and {file.name for file in run.iterdir()} - {".lock", ".config.yaml.tmp"}:
        raise ConfigError(f"run_dir={run}: the directory is not empty and contains no run; choose another")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"run_dir={run}: is a file; choose another") from None
    lock = lock_run(run)
    saved = run / "checkpoints"
    has_checkpoints = bool(checkpoints(saved))
    # A run killed in its first save may have a best checkpoint, at most a partial one here, and no average.
    is_new = saved.is_dir() and not any(saved.glob("[!.]*")) and not (run / "averaged").exists()
    if checkpoints(run / "best") and not has_checkpoints and not is_new:
        raise CheckpointError(
            f"{run}: contains a best checkpoint, but those in {saved}, needed to resume, are gone; "
            "restore them or choose another run_dir"
        )
    is_pending = False
    if path.is_file():
        before = load_config(path, saved=True)
        is_elsewhere = has_checkpoints and bool(moved_places(before, config))
        ignored = {*FREE_KEYS, *(PLACE_KEYS if is_elsewhere else ())}
        changed = has_checkpoints and bool(changed_values(before, config, CHANGEABLE_KEYS))
        # Until its first checkpoint, a run may change: it may have failed on a wrong file name.
        if has_checkpoints or checkpoints(run / "best"):
            _check_same(before, config, ignored, change=change, has_checkpoints=has_checkpoints)
        is_pending = is_elsewhere or changed
        if not has_checkpoints:  # it may be of another corpus; the cache has the tokenizer of the same one
            for name in ("tokenizer.model", "source_tokenizer.model"):
                (run / name).unlink(missing_ok=True)
    _clean_up(run)
    if not is_pending:
        write_atomic(path, config.to_yaml())
    saved.mkdir(exist_ok=True)
    return lock


def _check_same(before: Config, now: Config, ignored: set[str], *, change: bool, has_checkpoints: bool) -> None:
    """ConfigError if keys differ that are not `ignored`, nor allowed to change."""
    differing = differing_keys(before, now, ignored) + other_end(before.train, now.train)
    others = differing_keys(before, now, ignored | CHANGEABLE_KEYS)
    if not differing or (change and has_checkpoints and not others):
        return
    advice = ""
    if has_checkpoints and not others:
        advice = "; --change goes on with the new ones"
    elif change:
        advice = f"; --change cannot change {', '.join(other.partition(':')[0] for other in others)}"
    raise ConfigError(
        f"{now.run_dir} belongs to another configuration ({'; '.join(differing)}); choose another run_dir (by default "
        f"runs/ and the name of the file, so files of one name share it) or restore these values{advice}"
    )


def former_values(config: Config, *, change: bool = False) -> dict[str, str]:
    """Those of `FORMER_VALUES` that a run keeps, with which an earlier version began it; says so.

    It keeps them where the configuration has the defaults of today, given on purpose or not. With `change`, keys that
    may change are not kept.
    """
    run = Path(config.run_dir)
    if not (run / "config.yaml").is_file() or not checkpoints(run / "checkpoints"):
        return {}
    saved, values, defaults = saved_config(run).flat(), config.flat(), Config().flat()
    kept = {}
    for key, former in FORMER_VALUES.items():
        may_change = key in CHANGEABLE_KEYS
        if saved[key] == former and values[key] == defaults[key] and not (change and may_change):
            kept[key] = former
            hint = "; --change goes on with the default" if may_change else ""
            say(f"{key}={former}, with which this run began; the default is {defaults[key]} now{hint}")
    return kept


def with_values(config: Config, values: Mapping[str, str]) -> Config:
    """The configuration with other values of some keys, such as `train.batching`."""
    for key, value in values.items():
        section, _, name = key.partition(".")
        changed = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: changed})
    return config


def adopt_config(config: Config) -> None:
    """Write the configuration of a claimed run, once its data are known to be those of the run. OSError."""
    path, text = Path(config.run_dir) / "config.yaml", config.to_yaml()
    if path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)


def _clean_up(run: Path) -> None:
    """Finish the writes and removals of killed processes."""
    for leftover in (*run.glob("*/.step-*"), *run.glob(".averaged.*")):
        target = leftover.with_name(leftover.name.removeprefix(".").removesuffix(".old"))
        if leftover.suffix == ".old" and not target.exists():
            leftover.rename(target)
        else:
            shutil.rmtree(leftover)


def saved_config(directory: Path) -> Config:
    """The configuration of a run or a checkpoint. ConfigError that names its file."""
    path = directory / "config.yaml"
    try:
        return load_config(path, saved=True)
    except ConfigError as error:  # names the file only if the YAML is at fault, not for a value
        raise ConfigError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def is_run(directory: Path) -> bool:
    """Whether a directory is a run, even one that has just begun or has lost files. OSError."""
    if (directory / "config.yaml").exists():
        is_model = (directory / "model.safetensors").exists()
        return not is_model and any((directory / name).exists() for name in (".lock", "checkpoints", "metrics.jsonl"))
    if (directory / ".lock").exists() and len([*directory.iterdir()]) == 1:
        return True
    return bool(checkpoints(directory / "checkpoints"))


def lock_run(run: Path) -> FileLock:
    """Lock an existing run against other writers. InUseError, OSError."""
    return try_lock(run / ".lock", f"run_dir={run}")


def checkpoint_name(step: int) -> str:
    """The directory name of the checkpoint after `step` updates: `step-00001000`."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; -1 for other names, such as `step-00001000.bak`."""
    match = re.fullmatch(r"step-(\d{8,})", path.name, re.ASCII)
    return int(match[1]) if match else -1


def _numbered(directory: Path) -> list[Path]:
    return sorted((path for path in directory.glob("step-*") if step_of(path) >= 0), key=step_of)


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `run/checkpoints` or `run/best`, oldest first."""
    return [path for path in _numbered(directory) if _is_checkpoint(path)]


def older_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints before this one, newest first; for an average, all."""
    step = step_of(directory)
    found = _numbered(directory.parent if step >= 0 else directory.parent / "checkpoints")
    older = [path for path in found if step < 0 or step_of(path) < step]
    return [path for path in reversed(older) if (path / "model.safetensors").is_file()]


def _is_checkpoint(path: Path) -> bool:
    # A checkpoint that has lost its weights is an error to report, not one to ignore.
    return (path / "model.safetensors").is_file() or (path / CHECKSUMS).is_file()


def regular_steps(settings: TrainConfig) -> int:
    """Checkpoints at multiples of this are written regardless of interruptions."""
    return settings.save_steps if settings.save_steps and settings.save_minutes is None else 1


def prune(directory: Path, keep: int, every: int = 1) -> None:
    """Keep the last checkpoint and `keep - 1` earlier multiples of `every`."""
    # So interruptions do not affect which checkpoints are kept.
    earlier = checkpoints(directory)[:-1]
    regular = [path for path in earlier if step_of(path) % every == 0]
    kept = regular[max(0, len(regular) - keep + 1) :]
    for path in earlier:
        if path not in kept:
            remove_atomic(path)


def last_checkpoints(run: Path, number: int) -> list[Path]:
    """The last `number` checkpoints of a run, oldest first. CheckpointError if fewer."""
    found = checkpoints(run / "checkpoints")
    if not 1 <= number <= len(found):
        if not run.is_dir():
            raise CheckpointError(f"{run}: no such run directory")
        raise CheckpointError(f"{run} contains {len(found)} checkpoints; {number} cannot be averaged")
    return found[-number:]


def find_checkpoint(run: str | Path) -> Path:
    """A checkpoint itself; of a run its average, best or last one; of a directory of checkpoints the last.

    CheckpointError if there is none.
    """
    run = Path(run)
    trained = reversed([*checkpoints(run), *checkpoints(run / "checkpoints"), *checkpoints(run / "best")])
    # `.averaged.old` is the average if its replacement was killed between two renames.
    for path in (run, run / "averaged", run / ".averaged.old", *trained):
        if _is_checkpoint(path):
            return path
    if not run.exists():
        raise CheckpointError(f"{run}: no such run or checkpoint directory")
    raise CheckpointError(f"{run}: {_why_no_checkpoint(run)}")


def _why_no_checkpoint(run: Path) -> str:
    """What a directory is that has no checkpoint: an export for other engines, or a run without one."""
    try:
        kind = json.loads((run / "export.json").read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "contains no checkpoint; train first, or name a directory with model.safetensors"
    if kind == "ct2":
        return "is a model for CTranslate2; only `transformer translate` reads it, with --engine ctranslate2"
    return f"is an export for other programs (--to {kind}), which its README.md describes; name the run, or --to own"


def record_start(run: Path, step: int, device: "torch.device", data: Mapping[str, str], pairs: int) -> None:
    """Append to `starts.jsonl` how a run was started after `step` updates. OSError."""
    import torch  # takes a second, and commands that only read runs do not need it

    path = run / "starts.jsonl"
    before = path.read_bytes() if path.is_file() else b""
    start = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "step": step,
        "command": sys.orig_argv,
        "revision": _revision(),
        "versions": _versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "data": dict(data),
        "pairs": pairs,
    }
    if step == 0 and (run / INITIALIZATION).is_file():
        start["init_from"] = json.loads((run / INITIALIZATION).read_text(encoding="utf-8"))
    start |= _changed_since(run, step)
    write_atomic(path, before + json.dumps(start).encode() + b"\n")


def _changed_since(run: Path, step: int) -> dict[str, Any]:
    """The values that differ from those of the checkpoint after `step` updates, if any."""
    path = run / "checkpoints" / checkpoint_name(step) / "config.yaml"
    if not path.is_file():
        return {}
    saved, now = load_config(path, saved=True), load_config(run / "config.yaml", saved=True)
    changed = changed_values(saved, now, now.flat().keys() - {"run_dir"})
    return {"changed": changed} if changed else {}


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in (*_PACKAGES, _DISTRIBUTION):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # not installed, as `datasets` where no hub is read, or the code's folder
            versions[name] = None
    return versions


def _revision() -> str | None:
    """The git commit of this code, with `-dirty`; None outside a working copy."""
    git = ("git", "-C", str(Path(__file__).parents[1]))
    try:
        tracked = subprocess.run((*git, "ls-files", "--error-unmatch", "__init__.py"), capture_output=True)
        if tracked.returncode:
            return None
        describe = (*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        done = subprocess.run(describe, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

"""What a run has reached, read from its directory, which may be damaged or in use."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.config import load_config
from transformer.errors import CheckpointError, UserError, one_line
from transformer.files import is_locked
from transformer.training.integrity import read_shapes
from transformer.training.metrics import bleu_tokenizer, read_metrics
from transformer.training.run_directory import RUN_DIRECTORIES, checkpoints, is_run, step_of
from transformer.training.training_state import read_progress, reason_to_stop


@dataclass
class Overview:
    """State, progress and scores of a run; None is unknown."""

    run: str
    state: str = "stopped"  # or running, finished, no checkpoint, damaged
    step: int | None = None
    max_steps: int | None = None
    best_step: int | None = None  # of the best checkpoint, and its validation
    best_nll: float | None = None
    best_ppl: float | None = None
    best_bleu: float | None = None
    highest_bleu: float | None = None  # of all validations
    highest_bleu_step: int | None = None
    best_chrf: float | None = None  # likewise
    highest_chrf: float | None = None
    highest_chrf_step: int | None = None
    parameters: int | None = None
    pairs: int | None = None  # of training
    elapsed_s: float | None = None
    active_at: float | None = None  # when it last wrote, in seconds since the epoch
    fault: str | None = None


def find_runs(directory: Path) -> Iterator[Path]:
    """The run directories at or below a directory, in order. CheckpointError if there is no such directory.

    A directory that cannot be read is among them, since it may be one.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: {'not a' if directory.exists() else 'no such'} directory")
    yield from _find_runs(directory, set())


def _find_runs(directory: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(directory)
    if real in seen:  # links may form a circle
        return
    seen.add(real)
    try:
        names = sorted(path.name for path in directory.iterdir())
        is_here = is_run(directory)
        below = [name for name in names if name[0] != "." and not (is_here and name in RUN_DIRECTORIES)]
        subdirectories = [directory / name for name in below if (directory / name).is_dir()]
    except OSError:
        yield directory
        return
    if is_here:
        yield directory
    if "model.safetensors" not in names:
        for path in subdirectories:
            yield from _find_runs(path, seen)


def overview(run: Path) -> Overview:
    """What a run has reached; a `fault` says why it is damaged. Reads no weights and changes nothing."""
    for _ in range(2):  # a checkpoint may be replaced while it is read
        found = Overview(str(run))
        try:
            _read_directory(run, found)
            return found
        except UserError as error:
            fault = str(error)
        except OSError as error:
            fault = one_line(f"{error.filename or run}: {error.strerror or error}")
    found.state, found.fault = "damaged", fault.replace(f"{run}{os.sep}", "")
    return found


def _read_directory(run: Path, found: Overview) -> None:
    list(run.iterdir())  # an unreadable directory would look like one without files
    is_running = is_locked(run / ".lock")
    saved = checkpoints(run / "checkpoints")
    written = [run / name for name in ("metrics.jsonl", "starts.jsonl", "config.yaml")]
    found.active_at = max((path.stat().st_mtime for path in written if path.is_file()), default=None)
    _read_metrics(run, found)
    if not (run / "config.yaml").exists() and not saved:  # it has just begun, or has been killed at once
        found.state = "running" if is_running else "no checkpoint"
        return
    path = run / "config.yaml"
    try:
        settings = load_config(path, saved=True).train
    except UserError as error:  # which names the file only if the YAML is at fault
        raise CheckpointError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    found.max_steps, found.pairs = settings.max_steps, _num_pairs(run)
    if saved:
        progress = read_progress(saved[-1] / "training.json")
        found.parameters = sum(math.prod(shape) for shape in read_shapes(saved[-1] / "model.safetensors").values())
        if not is_running:  # updates after the last checkpoint will be repeated
            found.step, found.elapsed_s = progress.step, progress.elapsed_s
            found.state = "stopped" if reason_to_stop(settings, progress) is None else "finished"
    elif not is_running:
        found.state = "no checkpoint"
    if is_running:
        found.state = "running"


def _read_metrics(run: Path, found: Overview) -> None:
    """Progress and scores by metrics.jsonl."""
    records = read_metrics(run)
    if records:
        found.step, found.elapsed_s = records[-1]["step"], records[-1].get("elapsed_s")
    validations = [record for record in records if record["kind"] == "validation"]
    scored = [record for record in validations if math.isfinite(record.get("bleu", math.nan))]
    if scored:
        tokenizer = bleu_tokenizer(scored[-1])  # scores by another cannot be compared
        scored = [record for record in scored if bleu_tokenizer(record) == tokenizer]
        highest = max(scored, key=lambda record: (record["bleu"], record["step"]))
        found.highest_bleu, found.highest_bleu_step = highest["bleu"], highest["step"]
    scored = [record for record in validations if math.isfinite(record.get("chrf", math.nan))]
    if scored:
        highest = max(scored, key=lambda record: (record["chrf"], record["step"]))
        found.highest_chrf, found.highest_chrf_step = highest["chrf"], highest["step"]
    kept = checkpoints(run / "best")
    found.best_step = step_of(kept[-1]) if kept else None
    if found.best_step is None and validations:
        found.best_step = min(validations, key=_nll)["step"]
    for record in validations:
        if record["step"] == found.best_step:
            found.best_nll, found.best_ppl = record.get("nll"), record.get("ppl")
            found.best_bleu, found.best_chrf = record.get("bleu"), record.get("chrf")


def _nll(validation: dict[str, Any]) -> float:
    nll: float = validation.get("nll", math.inf)
    return math.inf if math.isnan(nll) else nll


def _num_pairs(run: Path) -> int | None:
    """The number of training pairs of the last start that recorded it."""
    path = run / "starts.jsonl"
    for line in reversed(path.read_bytes().splitlines() if path.is_file() else []):
        try:
            pairs = json.loads(line)["pairs"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if type(pairs) is int:
            return pairs
    return None

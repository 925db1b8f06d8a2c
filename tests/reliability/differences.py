"""Differences between directories that should be equal, and leftovers in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from transformer.errors import CheckpointError
from transformer.training.integrity import verify

# Times, which differ between any two runs.
CLOCK_VALUES = {"elapsed_s", "window_s", "tokens_per_s", "seconds", "sentences_per_s"}


def files(directory: Path) -> list[str]:
    """Names of all files and directories below, except TensorBoard's."""
    found = sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
    return [name for name in found if "tensorboard" not in name]


def leftovers(root: Path) -> list[str]:
    """Temporary files of killed writes: hidden names, except the lock of the run."""
    return [name for name in files(root) if Path(name).name.startswith(".") and name != "run/.lock"]


def names(directory: Path) -> list[str]:
    """Names of the checkpoints in `run/checkpoints` or `run/best`, intact or not."""
    return sorted(path.name for path in directory.glob("step-*"))


def step_of(name: str) -> int:
    return int(name.removeprefix("step-"))


def last_step(root: Path) -> int:
    """The step of the last saved checkpoint."""
    return max(map(step_of, names(root / "run" / "checkpoints")), default=0)


def broken(root: Path) -> list[str]:
    """Checkpoints under their final name that are incomplete or corrupt."""
    wanted = {"best": ["model.safetensors"], "checkpoints": ["model.safetensors", "optimizer.safetensors"]}
    others = {"best": ["config.yaml", "tokenizer.model", "SHA256SUMS"]}
    others["checkpoints"] = [*others["best"], "training.json"]
    faults = []
    for parent in wanted:
        for checkpoint in (root / "run" / parent).glob("step-*"):
            try:
                verify(checkpoint)
                for name in wanted[parent]:
                    load_file(checkpoint / name)
                is_whole = all((checkpoint / name).stat().st_size for name in others[parent])
            except (OSError, SafetensorError, CheckpointError):
                is_whole = False
            if not is_whole:
                faults.append(f"{parent}/{checkpoint.name} is not whole")
    return faults


def without_clock(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in CLOCK_VALUES}


def metrics(run: Path) -> list[dict[str, Any]]:
    return [without_clock(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def differing_tensors(here: Path, there: Path) -> list[str]:
    """Names of the tensors that are not bitwise equal in two files."""
    ours, theirs = load_file(here), load_file(there)
    return sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours
        or name not in theirs
        or ours[name].dtype != theirs[name].dtype
        or not np.array_equal(ours[name], theirs[name], equal_nan=True)
    )


def differing_checkpoints(here: Path, there: Path) -> list[str]:
    """Differences between two checkpoint directories."""
    faults = []
    if files(here) != files(there):
        faults.append(f"{here.name} holds {files(here)}, not {files(there)}")
    for path in sorted(there.glob("*.safetensors")):
        if (here / path.name).is_file() and (found := differing_tensors(here / path.name, path)):
            faults.append(f"{here.name}/{path.name}: {len(found)} tensors differ, such as {found[0]}")
    if (there / "training.json").is_file():
        progress, expected = (without_clock(json.loads((x / "training.json").read_text())) for x in (here, there))
        if progress != expected:
            faults.append(f"{here.name}/training.json: {progress}, not {expected}")
    return faults


def differing_runs(root: Path, expected: Path) -> list[str]:
    """Differences between a run that was killed and one that was not."""
    run, whole = root / "run", expected / "run"
    faults = []
    for parent in ("checkpoints", "best"):
        found, wanted = names(run / parent), names(whole / parent)
        if found != wanted:
            faults.append(f"{parent} holds {', '.join(found)}, not {', '.join(wanted)}")
        for name in set(found) & set(wanted):
            faults += differing_checkpoints(run / parent / name, whole / parent / name)
    if metrics(run) != metrics(whole):
        faults.append("metrics.jsonl differs")
    for name in ("cache", "run"):
        top = [{path.name for path in (x / name).iterdir() if path.name != ".lock"} for x in (root, expected)]
        if top[0] != top[1]:
            faults.append(f"{name} holds {sorted(top[0])}, not {sorted(top[1])}")
    return faults

"""Checkpoints are read only if they are what was written: SHA-256 sums, as `sha256sum --check SHA256SUMS` reads them.

Checkpoints of the first versions have no sums and are taken as they are.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from transformer.errors import CheckpointError
from transformer.training.names import is_numbered, numbered, step_of

SUMS = "SHA256SUMS"
_FILES = {"config.yaml", "tokenizer.model", "model.safetensors", "optimizer.safetensors", "training.json"}


def write_sums(directory: Path) -> None:
    """Write the sums of all files of a directory beside them."""
    lines = [f"{_sha256(path)}  {path.name}\n" for path in sorted(directory.iterdir())]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def verify(directory: Path) -> None:
    """CheckpointError if a file of a checkpoint is damaged, missing or another's; it names an older one that is not."""
    fault = _fault(directory)
    if fault is None:
        return
    whole = next((path for path in _older(directory) if _fault(path) is None), None)
    offer = "there is no older one that is whole"
    if whole is not None:
        offer = f"{whole} is whole: name it instead, or remove {directory} and the same command takes an older one"
    raise CheckpointError(f"{fault}; {offer}")


def _fault(directory: Path) -> str | None:
    """What is wrong with a checkpoint."""
    path = directory / SUMS
    try:
        if not os.path.lexists(path):
            return None
        if not path.is_file():  # a pipe may never end
            return f"{path}: is no file"
        sums = [line.split("  ", maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines()]
        named = {name: digest for digest, name in sums}
        if foreign := sorted(named.keys() - _FILES):
            return f"{path}: names {foreign[0]!r}, which is no file of a checkpoint"
        unknown = sorted({file.name for file in directory.iterdir()} & _FILES - named.keys())
        if unknown:
            return f"{directory / unknown[0]}: does not belong to this checkpoint ({SUMS} does not name it)"
        for name, digest in named.items():
            if not (directory / name).is_file():
                return f"{directory / name}: is missing"
            if _sha256(directory / name) != digest:
                return f"{directory / name}: is damaged or another checkpoint's (its SHA-256 is not that in {SUMS})"
    except ValueError:
        return f"{path}: is damaged"
    except OSError as error:
        return f"{error.filename or directory}: cannot be read: {error.strerror or error}"
    return None


def _older(directory: Path) -> list[Path]:
    """Other checkpoints of a run, the newest first; of an averaged one, all of them."""
    if is_numbered(directory):
        found = [path for path in numbered(directory.parent) if step_of(path) < step_of(directory)]
    else:
        found = numbered(directory.parent / "checkpoints")
    return [path for path in reversed(found) if (path / "model.safetensors").is_file()]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

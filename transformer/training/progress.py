"""Where a training run stands, and what a file must hold to say so."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformer.errors import CheckpointError
from transformer.files import is_no_file

# Of `Progress`, since the first version of its file.
_ADDED_KEYS = {"num_nonfinite", "num_split"}
_LARGEST_INT = 2**63 - 1


@dataclass
class Progress:
    """Where a training run stands: saved with every checkpoint, restored on resumption.

    `epoch` and `update` name the next update in the data. The `window_` sums run since the last log line.
    `num_nonfinite` updates were skipped because of a gradient that was not finite, `num_split` were done in smaller
    batches because they did not fit into memory.
    """

    step: int = 0
    epoch: int = 0
    update: int = 0
    elapsed_s: float = 0.0
    best_nll: float | None = None
    num_worse: int = 0
    window_loss: float = 0.0
    window_nll: float = 0.0
    window_tokens: int = 0
    window_s: float = 0.0
    fingerprints: dict[str, str] = field(default_factory=dict)
    num_nonfinite: int = 0
    num_split: int = 0


def write_progress(path: Path, progress: Progress) -> None:
    """Write it as JSON. OSError."""
    path.write_text(json.dumps(dataclasses.asdict(progress), indent=1), "utf-8")


def read_progress(path: Path) -> Progress:
    """Read what `write_progress` wrote. CheckpointError if a file holds anything else."""
    try:
        if is_no_file(path):
            raise ValueError("it is no file")
        saved = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(Progress)}
        if not isinstance(saved, dict) or not known - _ADDED_KEYS <= saved.keys() <= known:
            raise ValueError("its keys are not those of this version")
        for name, value in saved.items():
            if not _is_possible(name, value):
                raise ValueError(f"{name} cannot be {str(value)[:100]!r}")
        return Progress(**saved)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def _is_possible(name: str, value: Any) -> bool:
    if name == "fingerprints":
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if name == "best_nll" and value is None:
        return True
    if type(getattr(Progress, name, None)) is int:
        return type(value) is int and 0 <= value <= _LARGEST_INT
    return type(value) is float and math.isfinite(value)

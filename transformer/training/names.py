"""Names of a run's checkpoints: `step-00001000` after 1,000 updates."""

from __future__ import annotations

import re
from pathlib import Path


def checkpoint_name(step: int) -> str:
    """The directory name of the checkpoint after `step` updates."""
    return f"step-{step:08d}"


def is_numbered(path: Path) -> bool:
    """Whether this is such a name, and not one that somebody has made of it, as of a copy."""
    return re.fullmatch(r"step-\d{8,}", path.name, re.ASCII) is not None


def step_of(checkpoint: Path) -> int:
    """The number of updates in the name of a checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))


def numbered(directory: Path) -> list[Path]:
    """What has such a name in a directory, by number."""
    return sorted(filter(is_numbered, directory.glob("step-*")), key=step_of)

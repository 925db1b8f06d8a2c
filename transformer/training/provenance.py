"""Where a run's numbers come from: for each start, the command, the versions, the revision and the data."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

import transformer
from transformer.files import write_whole

NAME = "starts.jsonl"
# Whose versions can change what comes out.
_PACKAGES = ("torch", "numpy", "sentencepiece", "datasets", "sacrebleu", "safetensors")


def record_start(run: Path, step: int, device: torch.device, data: Mapping[str, str]) -> None:
    """Add a line to a run's `starts.jsonl`.

    Args:
        step: how many updates the run has had.
        data: fingerprints by name.

    OSError if it cannot be written.
    """
    path = run / NAME
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    start = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "step": step,
        "command": sys.orig_argv,
        "revision": _revision(),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "data": dict(data),
    }
    write_whole(path, f"{before}{json.dumps(start, ensure_ascii=False)}\n")


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}


def _revision() -> str | None:
    """The commit of this code, `-dirty` if files differ from it; None if it is no working copy, or there is no git."""
    source = Path(transformer.__file__).parent
    command = ("git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        tracked = subprocess.run((*command[:3], "ls-files", "--error-unmatch", "__init__.py"), capture_output=True)
        if tracked.returncode:
            return None
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

"""Files that are there whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, under a temporary name and then give it its own; replaces what was there.

    For one writer at a time: the temporary name is always the same, so that a killed write leaves at most one file.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def remove_whole(directory: Path) -> None:
    """Delete a directory, which first loses its name: killed midway, this leaves `.NAME.removed` and no half of it."""
    removed = directory.with_name(f".{directory.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    directory.rename(removed)
    shutil.rmtree(removed)

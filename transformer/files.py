"""Files that are there whole or not at all, and locks that end with the process that holds them."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from transformer.errors import InUseError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, under a temporary name and then give it its own; replaces what was there.

    It is on the disk when this returns. For one writer at a time: the temporary name is always the same, so that a
    killed write leaves at most one file. OSError leaves what was there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        fsync(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Return when a file's content, or a directory's entries, are on the disk."""
    if os.name == "nt":
        return  # there, directories cannot be opened, nor files flushed that are open for reading only
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(path: Path, what: str) -> FileLock:
    """Lock what a file stands for, until the lock is forgotten or the process has ended, however it ends.

    Within a process, whoever asks gets the same lock.

    Args:
        path: an empty file, created if need be, that stays.
        what: is locked, for the message.

    Raises:
        InUseError: another process holds it.
        OSError: the file cannot be written.
    """
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InUseError(f"{what}: another process is at it; wait until that ends or stop it") from None
    return lock

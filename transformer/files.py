"""Files that are there whole or not at all, and locks that end with the process that holds them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from transformer.errors import ConfigError, InUseError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, under a temporary name and then give it its own; replaces what was there.

    It is on the disk when this returns. For one writer at a time: the temporary name is always the same, so that a
    killed write leaves at most one file. OSError leaves what was there.
    """
    temporary = _temporary(path)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        fsync(temporary)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # such as of a directory that is not there
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None
    fsync(path.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def check_replaceable(path: Path) -> None:
    """Before the work: may a file be put in place under this name?

    Raises:
        ConfigError: what is there is a directory, a device such as /dev/null, a pipe or a link, which would be lost.
        OSError: the directory cannot be written.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise ConfigError(f"{path}: is not a regular file, and a finished one would take its place")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # has no name that another process could meet
        with contextlib.suppress(FileNotFoundError):
            _temporary(path).lstat()  # raises if the name is too long
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def is_no_file(path: Path) -> bool:
    """Whether something is there that is no file, such as a pipe, which may never end."""
    return path.exists() and not path.is_file()


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


def remove_whole(directory: Path) -> None:
    """Delete a directory, which first loses its name: killed midway, this leaves `.NAME.removed` and no half of it."""
    removed = directory.with_name(f".{directory.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    directory.rename(removed)
    shutil.rmtree(removed)

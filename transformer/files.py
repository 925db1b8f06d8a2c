"""Atomic file writes and process-lifetime locks."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from transformer.errors import ConfigError, InUseError


def expand_home(path: str) -> str:
    """Replace a leading `~` by the home directory. ValueError if it is not known."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        if Path(path).parts[0] != "~":
            return path  # a file of this name, not a user's home
        raise ValueError("begins with ~, and no home directory is known: write the directory out") from None


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file to a temporary name, fsync and rename; text as UTF-8.

    For one writer at a time: the temporary name is fixed, so that a killed write leaves at most one file. After an
    OSError the previous content is intact.
    """
    temporary = _temporary(path)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        fsync(temporary)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the directory may not exist
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None
    fsync(path.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def check_replaceable(path: Path) -> None:
    """Check, before a long computation, that a file can be written here.

    Raises:
        ConfigError: a directory, device (such as /dev/null), pipe or link is there, which the write would replace.
        OSError: the directory is not writable.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise ConfigError(f"{path}: is not a regular file, and the output would replace it")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # unnamed, so it collides with no other process's file
        with contextlib.suppress(FileNotFoundError):
            _temporary(path).lstat()  # raises if the name is too long
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def check_not_input(output: Path, inputs: Iterable[Path]) -> None:
    """ConfigError if an output is the same file as an input, be it by another path or a link."""
    try:
        status = output.stat()
    except OSError:
        return  # nothing can be lost
    for path in inputs:
        with contextlib.suppress(OSError):
            if os.path.samestat(status, path.stat()):
                raise ConfigError(f"{output}: is the same file as the input {path}; choose another name for the output")


def is_special_file(path: Path) -> bool:
    """Whether a path is a directory, device or pipe, which may block."""
    return path.exists() and not path.is_file()


def fsync(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to disk."""
    if os.name == "nt":
        return  # Windows cannot open directories, nor flush files that are open for reading only
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(path: Path, what: str) -> FileLock:
    """Acquire a lock until its object is deleted or the process ends.

    Within a process, every call returns the same lock. The lock file is created if necessary and never removed.
    InUseError, which names `what` is locked, if another process holds it; OSError if the file cannot be written.
    """
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InUseError(f"{what}: in use by another process; wait until it ends or stop it") from None
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock file, which is not created; False where the system cannot tell."""
    try:
        import fcntl

        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (ImportError, OSError):  # Windows; no such file, or not readable
        return False
    try:
        # Shared, so that two processes that look do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def remove_atomic(directory: Path) -> None:
    """Rename a directory to `.NAME.removed`, then delete it.

    A process killed in between leaves no half-deleted directory under the original name.
    """
    removed = directory.with_name(f".{directory.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    directory.rename(removed)
    shutil.rmtree(removed)

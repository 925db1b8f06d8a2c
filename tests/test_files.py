"""Atomic writes, removals and locks."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from transformer import files
from transformer.errors import ConfigError, InUseError
from transformer.files import check_replaceable, expand_home, is_locked, remove_atomic, try_lock, write_atomic


@pytest.mark.parametrize("content", ["Zwei Hündchen\n", b"\x00\xff"])
def test_writing_replaces_the_previous_content(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file"
    path.write_text("something longer that was there")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode("utf-8") if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_previous_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:  # noqa: ARG001
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    write_atomic(path, "first")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_file_system_leaves_the_previous_content_and_no_temporary_file(tmp_path: Path) -> None:
    """RLIMIT_FSIZE simulates a full disk: the write fails midway."""
    path = tmp_path / "file"
    write_atomic(path, "first")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_flushed_before_the_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    path = tmp_path / "file"
    monkeypatch.setattr(files, "fsync", lambda flushed: seen.append((flushed.name, path.exists())))
    write_atomic(path, "first")
    assert seen == [(".file.tmp", False), (tmp_path.name, True)]


def test_a_file_may_be_made_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    check_replaceable(path)
    assert list(tmp_path.iterdir()) == []
    path.write_text("first")
    check_replaceable(path)
    assert path.read_text() == "first"


@pytest.mark.parametrize("kind", ["directory", "pipe", "link", "broken link", "device"])
def test_a_special_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "output"
    (tmp_path / "file").touch()
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path(os.devnull)
    else:
        path.symlink_to(tmp_path / ("file" if kind == "link" else "absent"))
    with pytest.raises(ConfigError, match=rf"{path}: is not a regular file, and the output would replace it$"):
        check_replaceable(path)


def test_checking_does_not_disturb_a_concurrent_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process checks during a write."""
    path = tmp_path / "file"
    monkeypatch.setattr(files, "fsync", lambda _: check_replaceable(path))
    write_atomic(path, "text")
    assert path.read_text() == "text"


def test_a_name_that_is_too_long_for_a_temporary_one_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        check_replaceable(tmp_path / ("x" * 251))


def test_an_unwritable_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for use in (check_replaceable, lambda path: write_atomic(path, "text")):
        with pytest.raises(NotADirectoryError, match=r"Not a directory: '\S*/file/below'$"):
            use(tmp_path / "file" / "below")


def test_a_lock_is_held_until_its_object_is_deleted(tmp_path: Path) -> None:
    """There is one lock per opened file, so that this test's own is like another process's."""
    path = tmp_path / "lock"
    with path.open("a") as other:
        lock = try_lock(path, "this")
        assert try_lock(path, "this") is lock, "the process itself may ask again"
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        del lock
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(
            InUseError, match=r"^the file x=1: in use by another process; wait until it ends or stop it$"
        ):
            try_lock(path, "the file x=1")
    try_lock(path, "the file x=1")


def test_a_lock_that_is_held_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    lock = try_lock(path, "this")
    assert is_locked(path)
    assert is_locked(path), "looking does not release it"
    del lock
    assert not is_locked(path)
    with path.open("rb") as other:  # another process that looks at the same time
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert not is_locked(path)


def test_a_lock_file_that_cannot_be_locked_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, operation: int) -> None:  # noqa: ARG001
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "lock").touch()
    monkeypatch.setattr(fcntl, "flock", fail)
    assert not is_locked(tmp_path / "lock")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert not is_locked(tmp_path / "lock"), "Windows"


@pytest.mark.slow
def test_a_lock_is_held_until_the_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = f"""
import pathlib
from transformer.files import try_lock
try_lock(pathlib.Path({str(path)!r}), "the file x=1")
"""

    def other() -> str:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        return done.stderr.splitlines()[-1] if done.stderr else ""

    assert other() == ""
    lock = try_lock(path, "this")
    assert try_lock(path, "this") is lock, "the process itself may ask again"
    assert other() == (
        "transformer.errors.InUseError: the file x=1: in use by another process; wait until it ends or stop it"
    )
    del lock
    assert other() == ""


def make_directory(path: Path) -> Path:
    path.mkdir()
    for name in ("a", "b"):
        (path / name).write_text(name)
    return path


def test_removing_a_directory_also_removes_leftovers_of_an_earlier_removal(tmp_path: Path) -> None:
    make_directory(tmp_path / ".some.removed")
    remove_atomic(make_directory(tmp_path / "some"))
    assert list(tmp_path.iterdir()) == []


def test_a_killed_removal_leaves_nothing_under_the_original_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        (path / "a").unlink()
        raise KeyboardInterrupt

    some = make_directory(tmp_path / "some")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: ignore_errors or killed(path))
    with pytest.raises(KeyboardInterrupt):
        remove_atomic(some)
    assert [path.name for path in tmp_path.iterdir()] == [".some.removed"]


def test_a_leading_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/mine")
    paths = {
        "~": "/home/mine",
        "~/my/{split}.{lang}": "/home/mine/my/{split}.{lang}",
        "~root/x": f"{pwd.getpwnam('root').pw_dir.rstrip('/')}/x",
        "~no-such-user/x": "~no-such-user/x",
        "my~/~": "my~/~",
        "./~": "./~",
        "": "",
    }
    assert {path: expand_home(path) for path in paths} == paths


@pytest.mark.parametrize("path", ["~", "~/x"])
def test_a_tilde_without_a_home_directory_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def expanduser(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", expanduser)
    with pytest.raises(ValueError, match=r"^begins with ~, and no home directory is known: write the directory out$"):
        expand_home(path)

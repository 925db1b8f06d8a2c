"""Writing a file whole, and locks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from transformer import files
from transformer.files import try_lock, write_whole


@pytest.mark.parametrize("content", ["Zwei Hündchen\n", b"\x00\xff"])
def test_what_is_written_replaces_what_was_there(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file"
    path.write_text("something longer that was there")
    write_whole(path, content)
    assert path.read_bytes() == (content.encode("utf-8") if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:  # noqa: ARG001
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    write_whole(path, "first")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_file_system_leaves_what_was_there_and_no_half(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the system itself refuses, in the middle of the write."""
    path = tmp_path / "file"
    write_whole(path, "first")
    program = f"""
import pathlib, resource
from transformer import files
from transformer.files import try_lock, write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_whole(pathlib.Path({str(path)!r}), "x" * 100_000)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 27] File too large")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_written_is_flushed_before_it_is_named_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    path = tmp_path / "file"
    monkeypatch.setattr(files, "fsync", lambda flushed: seen.append((flushed.name, path.exists())))
    write_whole(path, "first")
    assert seen == [(".file.tmp", False), (tmp_path.name, True)]


def test_a_lock_is_one_processes_until_it_has_ended_or_forgotten_it(tmp_path: Path) -> None:
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
        "transformer.errors.InUseError: the file x=1: another process is at it; wait until that ends or stop it"
    )
    del lock
    assert other() == ""

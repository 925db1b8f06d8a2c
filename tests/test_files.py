"""Writing a file whole."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from transformer.files import remove_whole, write_whole


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


def make_directory(path: Path) -> Path:
    path.mkdir()
    for name in ("a", "b"):
        (path / name).write_text(name)
    return path


def test_a_directory_is_removed_and_with_it_what_an_earlier_removal_left(tmp_path: Path) -> None:
    make_directory(tmp_path / ".some.removed")
    remove_whole(make_directory(tmp_path / "some"))
    assert list(tmp_path.iterdir()) == []


def test_no_half_of_a_removed_directory_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path) -> None:
        (path / "a").unlink()
        raise KeyboardInterrupt

    some = make_directory(tmp_path / "some")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: ignore_errors or killed(path))
    with pytest.raises(KeyboardInterrupt):
        remove_whole(some)
    assert [path.name for path in tmp_path.iterdir()] == [".some.removed"]

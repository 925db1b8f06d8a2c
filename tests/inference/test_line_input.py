"""Where lines come from, and how they are chunked."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from transformer.errors import DataError
from transformer.inference.line_input import LineInput, file_input, texts_input


def test_texts_are_lines() -> None:
    source = texts_input(["a", "", "b\nc"])
    assert list(source.read()) == ["a", "", "b\nc"]
    assert (source.pace, source.path) == ("memory", None)


def test_one_string_is_not_a_list_of_texts() -> None:
    with pytest.raises(TypeError, match=r"^texts must be a list of sentences, not one string$"):
        texts_input("abc")


def test_a_file_can_be_read_twice(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n\nb")
    source = file_input(str(tmp_path / "in"))
    assert source.pace == "file"
    assert [list(source.read()) for _ in range(2)] == [["a", "", "b"]] * 2


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("A cat is sleeping.", True),
        ("Hallo", True),
        ("Hallo.", True),
        ("a cat " * 101, True),
        ("x" * 300, True),
        ("in.txt", False),
        ("data/in", False),
        ("in/", False),
    ],
)
def test_a_text_in_the_place_of_a_file_is_hinted_at(
    file: str, hint: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        file_input(file)
    assert str(error.value) == f"{file}: no such file{'; did you mean --text?' if hint else ''}"


def test_a_broken_link_and_a_null_byte_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to(tmp_path / "absent")
    for file in (str(tmp_path / "link.txt"), f"{tmp_path}/a\0b.txt", f"{tmp_path}/link.txt/x.txt"):
        with pytest.raises(DataError, match=r"no such file$"):
            file_input(file)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r": is a directory; give a file with a sentence per line$"):
        file_input(str(tmp_path))


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_has_several_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb")))
    source = file_input(name)
    assert (source.name, source.pace, source.path) == ("standard input", "memory", None)
    assert list(source.read()) == ["a", "b"]


def test_a_program_may_put_text_in_the_place_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("ä\r\n\nb\u2028c"))
    source = file_input("-")
    assert (list(source.read()), source.pace, source.path) == (["ä", "", "b\u2028c"], "memory", None)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n\ud800"))
    with pytest.raises(DataError, match=r"^standard input, line 2: not UTF-8 \(byte 1 of the line\)$"):
        list(file_input("-").read())


def test_a_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match=r"^standard input is closed; give a file$"):
        file_input("-")


@pytest.mark.parametrize(
    ("kind", "pace"), [("file", "memory"), ("pipe", "arriving"), ("socket", "arriving"), ("null", "arriving")]
)
def test_the_pace_follows_from_what_standard_input_is(
    kind: str, pace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"a\nb\nlast"
    if kind == "socket":
        socket = pytest.importorskip("socket")
        ours, theirs = socket.socketpair()
        theirs.sendall(data)
        theirs.close()
        descriptor = ours.detach()
    elif kind == "pipe":
        descriptor, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
    else:
        (tmp_path / "in").write_bytes(data)
        descriptor = os.open(os.devnull if kind == "null" else tmp_path / "in", os.O_RDONLY)
    with os.fdopen(descriptor) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = file_input("-")
        assert source.pace == pace
        found = [line for chunk in source.chunks(source.read(), 2, 1 << 20) for line in chunk]
        assert found == ([] if kind == "null" else ["a", "b", "last"])


def test_what_a_person_types_comes_line_by_line_and_all_else_in_chunks() -> None:
    for pace, sizes in (("typing", [1] * 5), ("file", [3, 2]), ("memory", [3, 2])):
        source = LineInput("x", lambda: iter("abcde"), pace)  # type: ignore[arg-type]
        assert [len(chunk) for chunk in source.chunks(source.read(), 3, 1 << 20)] == sizes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_still_arriving(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert file_input(str(tmp_path / "fifo")).pace == "arriving"

"""Compressed files: what was written is read, or an error names the file; a checked file is what was fingerprinted."""

from __future__ import annotations

import io
import lzma
import os
import random
import sys
import types
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pytest
from mutators import PACK

from transformer.data import compression
from transformer.data.compression import CheckedFile, inner_suffix, open_binary
from transformer.data.text_files import aligned_lines, checked_files, read_lines
from transformer.errors import DataError

SUFFIXES = ["", *PACK]
# Text that hardly compresses, larger than every buffer.
RAW = "".join(f"{random.Random(7).random()} größer {i}\n" for i in range(20_011)).encode()


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(PACK.get(path.suffix, bytes)(raw))
    return path


def read(path: Path | CheckedFile) -> bytes:
    with open_binary(path) as stream:
        return stream.read()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_gives_the_bytes_that_were_written(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", RAW)
    assert read(path) == RAW
    _, (checked,) = checked_files(path)
    assert read(checked) == RAW
    assert list(read_lines(checked)) == RAW.decode().splitlines()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_concatenated_files_are_read_one_after_another(tmp_path: Path, suffix: str) -> None:
    parts = [write(tmp_path / f"{i}{suffix}", raw).read_bytes() for i, raw in enumerate((RAW, b"", b"a\nb", RAW))]
    path = tmp_path / f"all{suffix}"
    path.write_bytes(b"".join(parts))
    assert read(path) == RAW + b"a\nb" + RAW


def test_padding_between_and_after_the_streams_of_an_xz_file_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.xz"
    path.write_bytes(lzma.compress(b"a\n") + bytes(1 << 18) + lzma.compress(b"b\n") + bytes(8))
    assert read(path) == b"a\nb\n"


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_truncated_anywhere_is_an_error_that_names_it(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", b"one\ntwo\nthree\n")
    raw = path.read_bytes()
    for size in range(1, len(raw)):
        for before in (b"", raw):
            path.write_bytes(before + raw[:size])
            with pytest.raises(DataError, match=rf"^{path}: cannot be read: .+"):
                read(path)


@pytest.mark.parametrize("suffix", PACK)
def test_bytes_after_the_last_stream_are_an_error(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", b"one\n")
    path.write_bytes(path.read_bytes() + b"two\n")
    with pytest.raises(DataError, match=rf"^{path}: cannot be read: "):
        read(path)


@pytest.mark.parametrize("suffix", PACK)
def test_plain_text_with_the_suffix_of_a_compression_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no compressed text\n")
    with pytest.raises(DataError, match=rf"^{path}: cannot be read: "):
        read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", bytes(64 << 20))
    _, (checked,) = checked_files(path)
    with open_binary(checked) as stream:
        before = pyarrow.total_allocated_bytes()
        while stream.read(1 << 16):
            assert pyarrow.total_allocated_bytes() - before < 8 << 20


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_of_the_reader_passes_unchanged(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", b"fine\n\xff\n")
    with pytest.raises(DataError, match=rf"^{path}, line 2: not UTF-8 \(byte 1 of the line\)$"):
        list(read_lines(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_changes_after_it_was_fingerprinted_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", b"one\ntwo\n")
    stat = path.stat()
    _, (checked,) = checked_files(path)
    write(path, b"one\ntwO\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # even at the same time stamp
    lines = read_lines(checked)
    assert next(lines) == "one"
    with pytest.raises(DataError, match=rf"^{path}: changed after it was first read; start again when it no longer "):
        list(lines)


def test_text_that_is_added_after_the_fingerprint_is_an_error(tmp_path: Path) -> None:
    sides = [write(tmp_path / f"a.{lang}", b"one\n") for lang in ("en", "de")]
    _, files = checked_files(*sides)
    for side in sides:
        write(side, b"one\ntwo\n")
    with pytest.raises(DataError, match="changed after it was first read"):
        list(aligned_lines(*files))


def test_a_module_that_this_python_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> Any:
        raise ImportError(name)

    path = write(tmp_path / "a.xz", b"one\n")
    monkeypatch.setattr(compression.importlib, "import_module", import_module)
    with pytest.raises(DataError, match=r"^\.xz files need the module lzma, which this Python was built without$"):
        read(path)


def test_the_zstd_module_of_python_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ZstdError(Exception):
        pass

    class ZstdFile(io.BytesIO):
        def __init__(self, packed: BinaryIO) -> None:
            super().__init__(bytes(byte ^ 1 for byte in packed.read()))
            if self.getvalue() == b"damaged":
                raise ZstdError("no frame")

    module = types.SimpleNamespace(ZstdError=ZstdError, ZstdFile=ZstdFile)
    monkeypatch.setitem(sys.modules, "compression.zstd", module)
    monkeypatch.setitem(sys.modules, "compression", types.ModuleType("compression"))
    path = tmp_path / "a.zst"
    path.write_bytes(bytes(byte ^ 1 for byte in RAW))
    assert read(path) == RAW
    path.write_bytes(bytes(byte ^ 1 for byte in b"damaged"))
    with pytest.raises(DataError, match=rf"^{path}: cannot be read: no frame$"):
        read(path)


def test_the_suffix_below_the_compression_is_found() -> None:
    names = {"a.csv": ".csv", "a.csv.gz": ".csv", "a.b.tsv.zst": ".tsv", "a.xz": "", "a": "", "a.gz.csv": ".csv"}
    assert {name: inner_suffix(name) for name in names} == names


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_compressed_file_of_no_bytes_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"^{path}: cannot be read: 0 bytes are not a compressed file$"):
        read(path)
    (tmp_path / "a").write_bytes(b"")
    assert read(tmp_path / "a") == b""
    assert read(write(path, b"")) == b""


def test_a_file_can_be_confirmed_without_a_use_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(RAW)
    _, (file,) = checked_files(path)
    file.read_again()
    path.write_bytes(RAW + b"x")
    with pytest.raises(DataError, match=rf"^{path}: changed after it was first read"):
        file.read_again()
    path.unlink()
    with pytest.raises(DataError, match=rf"^{path}: cannot be read: No such file or directory$"):
        file.read_again()

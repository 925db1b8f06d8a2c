"""Zip containers: within limits, without links, and written as they were."""

from __future__ import annotations

import contextlib
import io
import re
import stat
import warnings
import zipfile

import pytest
from word_documents import archive, parts

from transformer.documents import archive as module
from transformer.documents.archive import Archive
from transformer.errors import DataError


def test_parts_come_back_in_order_with_their_compression() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as container:
        container.writestr("b.xml", "b" * 999, zipfile.ZIP_DEFLATED)
        container.writestr("ä/", "")
        container.writestr("a.png", b"a", zipfile.ZIP_STORED)
    found = Archive(stream.getvalue()).written({"b.xml": b"c"})
    assert parts(found) == {"b.xml": b"c", "ä/": b"", "a.png": b"a"}
    with zipfile.ZipFile(io.BytesIO(found)) as container:
        assert [info.compress_type for info in container.infolist()] == [8, 0, 0]


def with_info(**attributes: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as container:
        info = zipfile.ZipInfo("x")
        for name, value in attributes.items():
            setattr(info, name, value)
        container.writestr(info, "/etc/passwd")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no zip container, or damaged: "),
        (b"no zip", "is no zip container, or damaged: "),
        (archive({"x": "y" * 999})[:-30], "is no zip container, or damaged: "),
        (archive({"x": "y" * 999}).replace(b"x", b"z", 1), "is no zip container, or damaged: "),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1...", "is a .doc, or has a password: save it as .docx without one"),
        (archive({"../x": "y"}), "its part '../x' leads out of the container"),
        (archive({"a/../../x": "y"}), "leads out of the container"),
        (archive({"/etc/x": "y"}), "its part '/etc/x' leads out of the container"),
        (archive({"..\\x": "y"}), "leads out of the container"),
        (archive({"C:x": "y"}), "leads out of the container"),
        (archive({"a": "", "A": ""}), "has the part 'A' twice"),
        (with_info(external_attr=(stat.S_IFLNK | 0o777) << 16), "its part 'x' is a link"),
    ],
)
def test_what_is_damaged_or_hostile_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^(.*){re.escape(message)}"):
        Archive(data)


def test_an_encrypted_part_is_an_error() -> None:
    data = bytearray(archive({"x": "y"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(DataError, match=r"^its part 'x' is encrypted$"):
        Archive(bytes(data))


def test_a_name_twice_is_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as container:
            container.writestr("x", "1")
            container.writestr("x", "2")
    with pytest.raises(DataError, match=r"^has the part 'x' twice$"):
        Archive(stream.getvalue())


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 999)
    with pytest.raises(DataError, match=r"^unpacks to 1000 bytes, more than 999$"):
        Archive(archive({"a": "x" * 500, "b": "y" * 500}))


def test_many_parts_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PARTS", 2)
    with pytest.raises(DataError, match=r"^has 3 parts, more than 2$"):
        Archive(archive({"a": "", "b": "", "c": ""}))


def test_a_part_that_lies_about_its_size_is_an_error() -> None:
    data = archive({"x": b"\0" * 999})
    smaller = data.replace((999).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    with pytest.raises(DataError):
        Archive(smaller)
    larger = data.replace((999).to_bytes(4, "little"), (1999).to_bytes(4, "little"))
    with pytest.raises(DataError):
        Archive(larger)


@pytest.mark.parametrize("place", range(0, 120, 3))
def test_no_damaged_byte_is_another_error(place: int) -> None:
    data = bytearray(archive({"word/document.xml": "text" * 99}))
    for value in (0, 0xFF, data[place % len(data)] ^ 0x55):
        changed = bytearray(data)
        changed[place % len(data)] = value
        with contextlib.suppress(DataError):
            Archive(bytes(changed))

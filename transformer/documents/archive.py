"""Zip containers from anywhere: read into memory within limits, and written again.

Nothing is unpacked to disk, and no name in a container is taken for a path.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping

from transformer.errors import DataError

_MOST_PARTS = 10_000
_MOST_BYTES = 256 << 20  # of all parts, unpacked
_OLD_WORD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # .doc, and .docx with a password
_LEAVES_CONTAINER = re.compile(r"\A[/\\]|\A[A-Za-z]:|(?:\A|[/\\])\.\.(?:[/\\]|\Z)|\0")
_IS_LINK, _KIND = 0o120000, 0o170000  # in the mode of a Unix file
_ENCRYPTED = 1
# What zipfile raises for damaged files, those of its callees included.
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError),
    *(struct.error, OverflowError, IndexError, KeyError),
)


class Archive:
    """The parts of a container.

    Attributes:
        parts: content by name, in order.

    Raises:
        DataError: it is damaged or encrypted, is larger than the limits, has a name twice, a link, or a name that
            leads out of it.
    """

    def __init__(self, data: bytes) -> None:
        if data.startswith(_OLD_WORD):
            raise DataError("is a .doc, or has a password: save it as .docx without one")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as container:
                self._infos = container.infolist()
                _check(self._infos)
                self.parts = {info.filename: _read(container, info) for info in self._infos}
        except DataError:
            raise
        except _DAMAGES as error:
            raise DataError(f"is no zip container, or damaged: {error}") from None

    def written(self, changed: Mapping[str, bytes]) -> bytes:
        """The container with other content for some parts."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as container:
            for info in self._infos:
                copy = zipfile.ZipInfo(info.filename, info.date_time)
                copy.compress_type = (
                    zipfile.ZIP_STORED if info.compress_type == zipfile.ZIP_STORED else zipfile.ZIP_DEFLATED
                )
                copy.external_attr, copy.create_system = info.external_attr, info.create_system
                container.writestr(copy, changed.get(info.filename, self.parts[info.filename]))
        return stream.getvalue()


def _check(infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > _MOST_PARTS:
        raise DataError(f"has {len(infos)} parts, more than {_MOST_PARTS}")
    if (size := sum(info.file_size for info in infos)) > _MOST_BYTES:
        raise DataError(f"unpacks to {size} bytes, more than {_MOST_BYTES}")
    names: set[str] = set()
    for info in infos:
        name = info.filename
        if _LEAVES_CONTAINER.search(name) or _LEAVES_CONTAINER.search(info.orig_filename):
            raise DataError(f"its part {name!r} leads out of the container")
        if (info.external_attr >> 16) & _KIND == _IS_LINK:
            raise DataError(f"its part {name!r} is a link")
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"its part {name!r} is encrypted")
        if name.lower() in names:
            raise DataError(f"has the part {name!r} twice")
        names.add(name.lower())


def _read(container: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A part, of which no more is read than its size says. DataError if there is more."""
    with container.open(info) as part:
        content = part.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise DataError(f"its part {info.filename!r} has another size than it says")
    return content

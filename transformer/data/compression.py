"""Files that are plain or compressed (.gz, .xz, .zst), and checked against the content that was fingerprinted."""

import contextlib
import gzip
import importlib
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from transformer.errors import DataError

COMPRESSION_SUFFIXES = (".gz", ".xz", ".zst")
_BUFFER_SIZE = 1 << 17


@dataclass(frozen=True)
class CheckedFile:
    """A file with size and CRC-32, which every reading confirms."""

    path: Path
    size: int
    crc: int

    def check(self, size: int, crc: int) -> None:
        """DataError if the bytes that a reading found are others."""
        if (size, crc) != (self.size, self.crc):
            raise DataError(f"{self.path}: changed after it was first read; start again when it no longer changes")

    def read_again(self, stream: BinaryIO | None = None) -> None:
        """Read the file, or an open one from its beginning. DataError if it has changed."""
        if stream is None:
            try:
                with self.path.open("rb") as opened:
                    self.read_again(opened)
            except OSError as error:
                raise DataError(f"{self.path}: cannot be read: {error.strerror}") from None
            return
        size = crc = 0
        stream.seek(0)
        while block := stream.read(_BUFFER_SIZE):
            size, crc = size + len(block), zlib.crc32(block, crc)
        self.check(size, crc)


def inner_suffix(path: str | Path) -> str:
    """The suffix below that of the compression: `.csv` of `train.csv.gz`."""
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1] in COMPRESSION_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextlib.contextmanager
def open_binary(file: Path | CheckedFile) -> Iterator[BinaryIO]:
    """Open a file and decompress it as its suffix says.

    DataError, after all has been read, if a checked file has changed; for errors of reading, damaged or truncated
    streams and bytes after the last stream.
    """
    path = file.path if isinstance(file, CheckedFile) else file
    damages: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, *_damages(path.suffix))
    try:
        with path.open("rb", buffering=0) as unchecked:
            raw = cast(io.RawIOBase, unchecked)
            counting = _Counting(raw) if isinstance(file, CheckedFile) else None
            buffered: io.BufferedReader = io.BufferedReader(counting or raw, _BUFFER_SIZE)
            if path.suffix in COMPRESSION_SUFFIXES and not buffered.peek(1):  # which some decompressors take for a file
                raise EOFError("0 bytes are not a compressed file")
            with _decompressed(buffered, path.suffix) as stream:
                yield stream
                if counting is not None and isinstance(file, CheckedFile):
                    while counting.read(_BUFFER_SIZE):  # what follows the end of the compressed data
                        pass
                    file.check(counting.size, counting.crc)
    except DataError:
        raise
    except damages as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


class _Counting(io.RawIOBase):
    """A raw file that computes size and CRC-32 of its bytes."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self.size, self.crc = raw, 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        number = self._raw.readinto(buffer) or 0
        self.crc = zlib.crc32(memoryview(buffer)[:number], self.crc)
        self.size += number
        return number


def _damages(suffix: str) -> tuple[type[Exception], ...]:
    """The errors of a decompressor that tell of damaged data."""
    if suffix == ".xz":
        return (_lzma().LZMAError,)
    if suffix == ".zst":
        zstd = _zstd()
        return (ValueError,) if zstd is None else (zstd.ZstdError,)  # pyarrow raises OSError too
    return ()


def _decompressed(raw: io.BufferedReader, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=raw)), _BUFFER_SIZE)
    if suffix == ".xz":
        return io.BufferedReader(_XzStreams(raw), _BUFFER_SIZE)
    if suffix == ".zst":
        if (zstd := _zstd()) is not None:
            return io.BufferedReader(zstd.ZstdFile(raw), _BUFFER_SIZE)
        import pyarrow

        packed = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")
        return io.BufferedReader(_ArrowStream(packed), _BUFFER_SIZE)
    return raw


def _lzma() -> Any:
    try:
        return importlib.import_module("lzma")
    except ImportError:
        raise DataError(".xz files need the module lzma, which this Python was built without") from None


def _zstd() -> Any:
    """The module of Python 3.14 and later, or None: then pyarrow decompresses."""
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return None


class _XzStreams(io.RawIOBase):
    """The streams of an .xz file. Unlike `lzma.open`, it never ignores what follows one of them."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed, self._new = packed, cast(Callable[[], Any], _lzma().LZMADecompressor)
        self._stream = self._new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        while True:
            block = b""
            if self._stream.eof:
                block = self._after_stream()
                if not block:
                    return 0
            elif self._stream.needs_input:
                block = self._packed.read(_BUFFER_SIZE)
                if not block:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            if found := self._stream.decompress(block, size):
                buffer[: len(found)] = found
                return len(found)

    def _after_stream(self) -> bytes:
        """The beginning of the next stream, if any, after padding with zeros."""
        block = self._stream.unused_data.lstrip(b"\0")
        while not block:
            more = self._packed.read(_BUFFER_SIZE)
            if not more:
                return b""
            block = more.lstrip(b"\0")
        self._stream = self._new()
        return cast(bytes, block)


class _ArrowStream(io.RawIOBase):
    """A stream of pyarrow as a raw file."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._stream.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

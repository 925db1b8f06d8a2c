"""Text files: lines, plain or compressed, and which files belong to a split."""

import codecs
import functools
import hashlib
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from transformer.data.compression import CheckedFile, open_binary
from transformer.data.shards import check_shards
from transformer.errors import DataError

SYNONYMS = {"validation": ("valid", "val", "dev")}  # other names of a split, tried in order
# Bytes; longer lines are not text. Normalisation expands some characters to 18, tokenizing one needs up to 360 bytes.
MAX_LINE = 1 << 22


def read_lines(path: Path | CheckedFile) -> Iterator[str]:
    """Read the lines of a UTF-8 file, plain or compressed, without line ends. DataError as in `decode_lines`."""
    with open_binary(path) as file:
        yield from decode_lines(file, str(path.path if isinstance(path, CheckedFile) else path))


def decode_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Decode the UTF-8 lines of a binary stream called `name`, without line ends.

    Only a line feed ends a line: splitting at U+2028 and the like, as text streams may, would misalign two sides.
    DataError for a line that is not UTF-8 or has more than 4 MiB.
    """
    for line in lines_with_ends(stream, name):
        yield line.removesuffix("\n").removesuffix("\r")


def lines_with_ends(stream: BinaryIO, name: str) -> Iterator[str]:
    """Decode UTF-8 lines with their ends, without a byte order mark. DataError as in `decode_lines`."""
    for number, line in enumerate(iter(functools.partial(stream.readline, MAX_LINE + 1), b""), start=1):
        if len(line) > MAX_LINE:
            hint = "does each line end with a line feed?" if b"\r" in line else "is it text?"
            raise DataError(f"{name}, line {number}: longer than {MAX_LINE} bytes: {hint}")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            if number == 1 and is_utf16(line):
                raise DataError(f"{name}: is UTF-16; save it as UTF-8") from None
            raise DataError(f"{name}, line {number}: not UTF-8 (byte {error.start + 1} of the line)") from None
        yield text.removeprefix("\ufeff") if number == 1 else text


def is_utf16(beginning: bytes) -> bool:
    """Whether a file begins with the byte order mark of UTF-16."""
    return beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def aligned_lines(src: Path | CheckedFile, tgt: Path | CheckedFile) -> Iterator[tuple[str, str]]:
    """Iterate once over the pairs of two line-aligned files, which may be pipes.

    DataError if they differ in length, with both counts, or for a line that is not UTF-8.
    """
    num_src = num_tgt = 0
    for source, target in itertools.zip_longest(read_lines(src), read_lines(tgt)):
        num_src += source is not None
        num_tgt += target is not None
        if num_src == num_tgt:
            yield source, target
    if num_src != num_tgt:
        names = [file.path if isinstance(file, CheckedFile) else file for file in (src, tgt)]
        raise DataError(f"the two sides differ in length: {names[0]} has {num_src} lines, {names[1]} has {num_tgt}")


def checked_files(*paths: Path) -> tuple[str, list[CheckedFile]]:
    """SHA-256 of the files' content, and the files with their checksums.

    A reading of these confirms that they are the same. DataError if one cannot be read.
    """
    digest = hashlib.sha256()
    files = []
    for path in paths:
        size = crc = 0
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    crc = zlib.crc32(block, crc)
                    size += len(block)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        digest.update(b"end of file")
        files.append(CheckedFile(path, size, crc))
    return digest.hexdigest(), files


def find_files(pattern: str, split: str, langs: Sequence[str] = ("",)) -> list[Path]:
    """Find the file of a split for each language.

    {split} is the name, a synonym or the only name with this prefix. DataError if there is no such file or several.
    """
    patterns = [pattern.replace("{lang}", lang) for lang in langs]
    names = (split, *SYNONYMS.get(split, ()))
    tried = [[Path(one.replace("{split}", name)) for one in patterns] for name in names]
    for paths in tried:
        if all(path.is_file() for path in paths):
            return paths
    longer = sorted(set.intersection(*(_names_with_prefix(one, split) for one in patterns)))
    if len(longer) == 1:
        paths = [Path(one.replace("{split}", longer[0])) for one in patterns]
        check_shards(paths[:1], f"data.corpus={pattern}", "join them, or name this one in data.*_split or --split")
        return paths
    if longer:
        raise DataError(
            f"data.corpus={pattern}: split {split!r} could be any of {', '.join(longer)}; "
            "name one in data.*_split or --split"
        )
    missing = ", ".join(str(path) for path in dict.fromkeys(itertools.chain(*tried)) if not path.is_file())
    raise DataError(f"data.corpus={pattern}: no such file: {missing}")


def text_pattern(directory: Path, langs: Sequence[str]) -> str | None:
    """The pattern of text files in a directory, such as `my/{split}.{lang}`; None if a language has no file."""
    names = {path.name for path in directory.iterdir() if path.is_file()}
    for name in sorted(names):
        split, *parts = name.split(".")
        by_lang = [".".join([split, *(lang if part == langs[0] else part for part in parts)]) for lang in langs]
        if split and langs[0] in parts and names.issuperset(by_lang):
            return str(directory / ".".join(["{split}", *("{lang}" if part == langs[0] else part for part in parts)]))
    return None


def _names_with_prefix(pattern: str, prefix: str) -> set[str]:
    """Existing values of {split} with this prefix, if {split} occurs once, in the file name."""
    path = Path(pattern)
    before, found, after = path.name.partition("{split}")
    if not found or "{split}" in after or not path.parent.is_dir():
        return set()
    start = f"{before}{prefix}"
    return {
        file.name[len(before) : len(file.name) - len(after)]
        for file in path.parent.iterdir()
        if file.name.startswith(start) and file.name.endswith(after) and len(file.name) >= len(start) + len(after)
        if file.is_file()
    }

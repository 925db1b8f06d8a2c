"""Tables of sentence pairs: csv, tsv, jsonl and json, plain or compressed, and parquet.

A cell is the text that stands there: nothing is guessed, converted or filled in. Rows are streamed, so memory does not
grow with the file, and nothing is written anywhere.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from transformer.data.columns import check_columns, is_header
from transformer.data.compression import COMPRESSION_SUFFIXES, CheckedFile, inner_suffix, open_binary
from transformer.data.json_rows import json_pairs
from transformer.data.parquet import parquet_pairs
from transformer.data.text_files import MAX_LINE, lines_with_ends
from transformer.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".json", ".parquet")

_STRICT = csv.reader((), strict=True).dialect  # made once, which saves half of the time of a line
_INDENTED_QUOTE = re.compile(r'[ \t]+"')
_NO_LINE_FEEDS = "; each line must end with a line feed, not with a carriage return alone"
Record = tuple[int, list[str]]  # number of its first line, and its fields


def is_table(path: str | Path) -> bool:
    """Whether a file with this name is read as a table."""
    return inner_suffix(path) in TABLE_SUFFIXES


def check_table(path: Path, src_lang: str, tgt_lang: str) -> None:
    """DataError unless columns and first row of a table are valid."""
    if not is_table(path):
        raise DataError(
            f"{path}: without {{lang}} in data.corpus the file must be one of {', '.join(TABLE_SUFFIXES)}, "
            f"which {', '.join(COMPRESSION_SUFFIXES)} may follow"
        )
    next(table_pairs(path, src_lang, tgt_lang), None)


def swapped_tables(paths: Sequence[Path], src_lang: str, tgt_lang: str) -> str:
    """Which tables have the target first, as their names say and not their content.

    Empty if none has: it follows the content in a fingerprint. DataError if one cannot be read.
    """
    numbers = [str(i) for i, path in enumerate(paths) if _is_swapped(path, src_lang, tgt_lang)]
    return f" target first: {' '.join(numbers)}" if numbers else ""


def table_pairs(file: Path | CheckedFile, src_lang: str, tgt_lang: str) -> Iterator[tuple[str, str]]:
    """Iterate over the pairs of a table.

    DataError names file and row if a column or a field is missing or too much, a value is not text, or the file is
    malformed or has changed.
    """
    path = file.path if isinstance(file, CheckedFile) else file
    name, suffix = str(path), inner_suffix(path)
    if suffix == ".parquet":
        if path.suffix != suffix:
            raise DataError(f"{path}: parquet is compressed inside: unpack the {path.suffix[1:]} file")
        yield from parquet_pairs(file, src_lang, tgt_lang)
        return
    with open_binary(file) as stream:
        if suffix in (".json", ".jsonl"):
            yield from json_pairs(stream, name, src_lang, tgt_lang)
        elif suffix == ".csv":
            yield from _csv_pairs(stream, name, src_lang, tgt_lang)
        else:
            yield from _tsv_pairs(stream, path, src_lang, tgt_lang)


def _csv_pairs(stream: BinaryIO, name: str, src_lang: str, tgt_lang: str) -> Iterator[tuple[str, str]]:
    records = _csv_records(stream, name)
    _, header = next(records, (0, None))
    if header is None:
        raise DataError(f"{name}: is empty; the first line must name the columns")
    src, tgt = _columns(header, name, src_lang, tgt_lang)
    return _pairs(records, name, len(header), src, tgt, "the header has {}; a field with a comma needs quotes")


def _tsv_pairs(stream: BinaryIO, path: Path, src_lang: str, tgt_lang: str) -> Iterator[tuple[str, str]]:
    """The pairs of a tab-separated file, in which quotes are text."""
    name = str(path)
    records = _tsv_records(stream, name)
    _, first = next(records, (0, None))
    if first is None:
        return
    if is_header(first, src_lang, tgt_lang):
        src, tgt = _columns(first, name, src_lang, tgt_lang, "; if that is a pair, put a line with the names before it")
        yield from _pairs(records, name, len(first), src, tgt, "the header has {}")
        return
    if len(first) != 2:
        hint = _NO_LINE_FEEDS if "\r" in "".join(first) else ""
        raise DataError(
            f"{name}: {len(first)} columns and no header: keep two, or put a line before them that names the columns, "
            f"{src_lang!r} and {tgt_lang!r} among them{hint}"
        )
    src, tgt = _order(path.name, src_lang, tgt_lang)
    yield first[src], first[tgt]
    yield from _pairs(records, name, 2, src, tgt, "the lines before have {}")


def _tsv_records(stream: BinaryIO, name: str) -> Iterator[Record]:
    return (
        (number, line.removesuffix("\n").removesuffix("\r").split("\t"))
        for number, line in enumerate(lines_with_ends(stream, name), start=1)
        if line not in ("\n", "\r\n")
    )


def _is_swapped(path: Path, src_lang: str, tgt_lang: str) -> bool:
    if inner_suffix(path) not in (".tsv", ".tab") or _order(path.name, src_lang, tgt_lang) == (0, 1):
        return False
    with open_binary(path) as stream:
        _, first = next(_tsv_records(stream, str(path)), (0, []))
    return not is_header(first, src_lang, tgt_lang)


def _pairs(
    records: Iterator[Record], name: str, width: int, src: int, tgt: int, expected: str
) -> Iterator[tuple[str, str]]:
    for number, fields in records:
        if len(fields) != width:
            found = f"{len(fields)} field{'s' * (len(fields) != 1)}"
            raise DataError(f"{name}, line {number}: {found}, but {expected.format(width)}")
        yield fields[src], fields[tgt]


def _columns(header: Sequence[str], name: str, src_lang: str, tgt_lang: str, hint: str = "") -> list[int]:
    """The positions of both languages in a header."""
    langs = (src_lang, tgt_lang)
    check_columns(name, header, langs, hint=_hint(header, langs) or hint)
    return [header.index(src_lang), header.index(tgt_lang)]


def _hint(header: Sequence[str], langs: Sequence[str]) -> str:
    """How a header that lacks a column can be mended."""
    line = ",".join(header)
    if "\r" in line:
        return _NO_LINE_FEEDS
    if line.startswith("sep="):
        return "; remove this line, and separate the fields by commas"
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in line:
            return f"; the fields are separated by {word}, and must be by commas"
    if {lang.lower() for lang in langs} <= {field.strip().lower() for field in header}:
        return "; case and spaces count: rename the columns"
    return ""


def _order(file_name: str, src_lang: str, tgt_lang: str) -> tuple[int, int]:
    """Source and target column of a file without a header.

    As its name says (`train.de-en.tsv`), else source first.
    """
    src, tgt = re.escape(src_lang), re.escape(tgt_lang)
    is_named = {
        order: re.search(rf"(?<![^\W\d_]){order[0]}[-_]{order[1]}(?![^\W\d_])", file_name, re.IGNORECASE) is not None
        for order in ((src, tgt), (tgt, src))
    }
    return (1, 0) if is_named[tgt, src] and not is_named[src, tgt] else (0, 1)


def _csv_records(stream: BinaryIO, name: str) -> Iterator[Record]:
    """Split csv as RFC 4180 defines it, without its blank lines.

    The `csv` module alone limits fields to 128 KiB, for the whole process, and reads on to the end of the file after a
    quote that is not closed.
    """
    lines = lines_with_ends(stream, name)
    number = 0
    for line in lines:
        number += 1
        if '"' in line:
            num_lines = 1
            try:
                fields = next(csv.reader((line,), _STRICT))
                # The first test is fast; the reader cannot tell the text ` "a"` in quotes from a misplaced quote.
                is_split = (' "' not in line and '\t"' not in line) or not any(map(_INDENTED_QUOTE.match, fields))
            except csv.Error:  # the record goes on, has a field of more than 128 KiB, or is malformed
                is_split = False
            if not is_split:
                fields, num_lines = _quoted_record(line, lines, f"{name}, line {number}")
            yield number, fields
            number += num_lines - 1
        elif text := line.removesuffix("\n").removesuffix("\r"):
            yield number, text.split(",")


def _quoted_record(line: str, lines: Iterator[str], place: str) -> tuple[list[str], int]:
    """The fields of a record, and the number of its lines."""
    fields: list[str] = []
    num_lines, begin, size = 1, 0, 0
    while True:
        if not line.startswith('"', begin):
            end = line.find(",", begin)
            if _INDENTED_QUOTE.match(line, begin):
                raise DataError(
                    f"{place}: a space stands before an opening quote: remove it, or quote the whole field and double "
                    "the quotes in it"
                )
            if end < 0:
                fields.append(line[begin:].removesuffix("\n").removesuffix("\r"))
                return fields, num_lines
            fields.append(line[begin:end])
            begin = end + 1
            continue
        field, line, end, further = _quoted_field(line, begin + 1, lines, place)
        fields.append(field)
        num_lines += further
        size += len(field)
        if size > MAX_LINE:
            raise DataError(f"{place}: a record of more than {MAX_LINE} characters: is a quote not closed?")
        begin = end + 2
        if not line.startswith(",", end + 1):
            if line[end + 1 :] in ("", "\n", "\r\n", "\r"):
                return fields, num_lines
            raise DataError(f"{place}: text follows a closing quote; a quote inside a field must be doubled")


def _quoted_field(line: str, begin: int, lines: Iterator[str], place: str) -> tuple[str, str, int, int]:
    """A field in quotes, its last line, the end in it, and further lines.

    `begin` is the place after the opening quote, the end that of the closing one.
    """
    parts: list[str] = []
    size = num_further = 0
    search = begin
    while True:
        end = line.find('"', search)
        if end < 0:
            parts.append(line[begin:])
            size += len(line)
            following = next(lines, None)
            if following is None:
                raise DataError(f"{place}: a quote is not closed")
            if size > MAX_LINE:
                raise DataError(f"{place}: a field of more than {MAX_LINE} characters: is a quote not closed?")
            line, begin, search = following, 0, 0
            num_further += 1
        elif line.startswith('"', end + 1):
            search = end + 2
        else:
            parts.append(line[begin:end])
            return "".join(parts).replace('""', '"'), line, end, num_further

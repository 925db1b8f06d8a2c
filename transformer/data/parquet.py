"""Sentence pairs of parquet files, read by pyarrow, which `datasets` brings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer.data.columns import ROWS_PER_READ, check_columns
from transformer.data.compression import CheckedFile
from transformer.errors import DataError


def parquet_pairs(file: Path | CheckedFile, src_lang: str, tgt_lang: str) -> Iterator[tuple[str, str]]:
    """The pairs of two text columns, or of a struct column `translation`.

    DataError for a missing column, one that does not hold text, a null, and a file that is damaged or has changed.
    """
    import pyarrow.parquet

    langs = (src_lang, tgt_lang)
    path = file.path if isinstance(file, CheckedFile) else file
    try:
        with path.open("rb") as stream:
            if isinstance(file, CheckedFile):
                file.read_again(stream)
                stream.seek(0)
            # Neither reads ahead nor whole columns, so memory is that of a row group.
            table = pyarrow.parquet.ParquetFile(stream, buffer_size=1 << 16, pre_buffer=False)
            columns = _columns(table.schema_arrow, str(path), langs)
            row = 1
            for batch in table.iter_batches(ROWS_PER_READ, columns=columns, use_threads=False):
                yield from _texts(batch, f"{path}, row", row, langs)
                row += batch.num_rows
            if isinstance(file, CheckedFile):  # row groups were read meanwhile
                file.read_again(stream)
    except DataError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: cannot be read as parquet: {reason}") from None


def _columns(schema: Any, name: str, langs: tuple[str, str]) -> list[str]:
    """The columns to read. DataError if they are missing or do not hold text."""
    import pyarrow

    types = {column.name: column.type for column in schema}
    columns, where = list(dict.fromkeys(langs)), ""
    if "translation" in types and not set(langs) <= types.keys():
        columns, where = ["translation"], "translation."
        if not pyarrow.types.is_struct(types["translation"]):
            raise DataError(
                f"{name}: the column 'translation' must have a text per language, holds {types['translation']}"
            )
        schema = list(types["translation"])
        types = {field.name: field.type for field in schema}
    names = [field.name for field in schema]
    check_columns(name, names, langs, instead=" in 'translation'" if where else " or 'translation'")
    for lang in langs:
        if not _is_text(types[lang]):
            raise DataError(f"{name}: the column {where + lang!r} must hold text, holds {types[lang]}")
    return columns


def _is_text(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return str(kind) in ("string", "large_string", "string_view")


def _texts(batch: Any, place: str, first_row: int, langs: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for row, found in enumerate(_rows(batch, place, first_row), start=first_row):
        pair = found if langs[0] in found else found["translation"] or {}
        source, target = pair.get(langs[0]), pair.get(langs[1])
        if source is None or target is None:
            raise DataError(f"{place} {row}: {langs[0]!r} and {langs[1]!r} must be text, got null")
        yield source, target


def _rows(batch: Any, place: str, first_row: int) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except UnicodeDecodeError:  # pyarrow decodes when a value is used
        for i in range(batch.num_rows):
            try:
                batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError:
                raise DataError(f"{place} {first_row + i}: not UTF-8") from None
        raise

"""Parquet tables: text columns as they are, and anything else refused by name."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transformer.config import DataConfig
from transformer.data import parquet
from transformer.data.corpus import Corpus, load_split
from transformer.errors import DataError

PAIRS = [("A dog.", "Ein Hund."), ("Two cats.", "Zwei Katzen."), ("Größe", "größer als ß"), ("", "007")]
SIDES = {"en": [en for en, _ in PAIRS], "de": [de for _, de in PAIRS]}


def load(path: Path, **options: Any) -> Corpus:
    return load_split(DataConfig(corpus=str(path), **options), "train")


def write(path: Path, columns: Any) -> Path:
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
    return path


TEXT_TYPES = [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_columns_of_text_give_their_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType, rows: int
) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_READ", rows)
    columns = {"id": list(range(4)), **{lang: pa.array(side).cast(kind) for lang, side in SIDES.items()}}
    corpus = load(write(tmp_path / "a.parquet", columns))
    assert list(corpus) == list(corpus) == PAIRS


def test_a_column_of_translations_gives_its_pairs_in_either_direction(tmp_path: Path) -> None:
    rows = [{"de": de, "en": en} for en, de in PAIRS]
    path = write(tmp_path / "a.parquet", {"translation": rows, "id": list(range(4))})
    assert list(load(path)) == PAIRS
    assert list(load(path, src_lang="de", tgt_lang="en")) == [(de, en) for en, de in PAIRS]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"en": ["a"], "de": [3]}, r"a\.parquet: the column 'de' must hold text, holds int64$"),
        ({"en": [b"a"], "de": ["b"]}, "the column 'en' must hold text, holds binary$"),
        ({"en": [["a"]], "de": ["b"]}, "the column 'en' must hold text, holds list<"),
        ({"translation": [{"en": "a", "de": 2.5}]}, r"the column 'translation\.de' must hold text, holds double$"),
        ({"translation": ["c"]}, "the column 'translation' must have a text per language, holds string$"),
        ({"en": ["a"], "fr": ["b"]}, r"needs columns 'en' and 'de' or 'translation', has \['en', 'fr'\]$"),
        (
            {"translation": [{"en": "a", "fr": "b"}]},
            r"needs columns 'en' and 'de' in 'translation', has \['en', 'fr'\]$",
        ),
        (pa.Table.from_arrays([["a"], ["b"], ["c"]], ["en", "de", "de"]), "2 columns are called 'de': rename all but"),
    ],
)
def test_a_column_that_is_missing_or_no_text_is_an_error(tmp_path: Path, columns: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "a.parquet", columns))


@pytest.mark.parametrize(
    "columns",
    [
        {"en": ["a", "b", None], "de": ["a", "b", "c"]},
        {"en": ["a", "b", "c"], "de": ["a", "b", None]},
        {"translation": [{"en": "a", "de": "b"}, {"en": "c", "de": "d"}, {"en": "e", "de": None}]},
        {"translation": [{"en": "a", "de": "b"}, {"en": "c", "de": "d"}, None]},
    ],
)
def test_a_null_is_an_error_that_names_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[Any]]
) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_READ", 2)
    reader = iter(load(write(tmp_path / "a.parquet", columns)))
    assert len([next(reader), next(reader)]) == 2
    with pytest.raises(DataError, match=r"a\.parquet, row 3: 'en' and 'de' must be text, got null$"):
        next(reader)


def test_text_that_is_not_utf8_is_an_error_that_names_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_READ", 3)
    side = pa.array([b"fine", b"fine", b"fine", b"fine", b"\xff"]).view(pa.string())
    path = write(tmp_path / "a.parquet", {"en": side, "de": side})
    with pytest.raises(DataError, match=r"a\.parquet, row 5: not UTF-8$"):
        list(load(path))


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + bytes(99) + b"PAR1"])
def test_what_is_no_parquet_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read as parquet: ") as caught:
        list(load(tmp_path / "a.parquet"))
    assert "\n" not in str(caught.value)


def test_a_compressed_parquet_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet.gz", SIDES)
    with pytest.raises(DataError, match=r"a\.parquet\.gz: parquet is compressed inside: "):
        load(tmp_path / "a.parquet.gz")


def test_a_table_replaced_after_it_was_fingerprinted_is_an_error(tmp_path: Path) -> None:
    corpus = load(write(tmp_path / "a.parquet", {"en": ["a"], "de": ["b"]}))
    write(tmp_path / "a.parquet", {"en": ["a"], "de": ["c"]})
    with pytest.raises(DataError, match=r"a\.parquet: changed after it was first read"):
        list(corpus)


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    def peak(num_rows: int) -> int:
        side = [f"sentence {i}" for i in range(num_rows)]
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"en": side, "de": side}), path, row_group_size=1009)
        del side
        corpus, held, most = load(path), pa.total_allocated_bytes(), 0
        tracemalloc.start()
        for number, _ in enumerate(corpus):
            if number % 29 == 0:
                most = max(most, pa.total_allocated_bytes() - held)
        most += tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(30_011) < 1.2 * peak(10_007)


def test_a_change_while_row_groups_are_read_is_an_error(tmp_path: Path) -> None:
    side = [f"sentence {i:05}" for i in range(2003)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"en": side, "de": side}), path, row_group_size=1009, compression="none", use_dictionary=False
    )
    reader = iter(load(path))
    assert next(reader) == ("sentence 00000", "sentence 00000")
    raw = path.read_bytes()
    with path.open("r+b") as file:
        file.write(raw.replace(b"sentence 01777", b"SENTENCE 01777"))
    found: list[tuple[str, str]] = []
    with pytest.raises(DataError, match=r"a\.parquet: changed after it was first read"):
        found.extend(reader)  # which keeps what comes before the error
    assert found[1776][0] == "SENTENCE 01777"

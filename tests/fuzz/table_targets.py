"""Readers of tables as targets of the fuzzer: malformed tables, and valid ones that other programs wrote."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterable
from pathlib import Path

import mutators
import pyarrow
import pyarrow.parquet
import yaml
from harness import InvariantError

from transformer.config import DataConfig
from transformer.data.corpus import load_split
from transformer.data.repository import Repository

_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".json")
Row = dict[str, str]


def read_table(rng: random.Random, directory: Path) -> None:
    """A table that loads has the same pairs of text each time."""
    suffix = rng.choice(_SUFFIXES)
    data = _table(rng, suffix)
    if rng.random() < 0.3:
        data = mutators.mutate(rng, data)
    packing = rng.choice(list(mutators.PACK)) if rng.random() < 0.2 else ""
    if packing:
        data = mutators.PACK[packing](data)
        data = mutators.mutate(rng, data) if rng.random() < 0.3 else data
    (directory / f"train{suffix}{packing}").write_bytes(data)
    corpus = load_split(DataConfig(corpus=f"{directory}/{{split}}{suffix}{packing}"), "train")
    _check_text(corpus)
    if list(corpus) != list(corpus):
        raise InvariantError("the second reading differs")


def read_repository(rng: random.Random, directory: Path) -> None:
    """A repository reads files below its directory only, each once per split."""
    names = (
        "train.csv",
        "data/test.csv",
        "dev/x.jsonl",
        "data/train-00000-of-00001.csv",
        "eval-train.csv",
        "x.parquet",
    )
    for name in rng.sample(names, rng.choice((1, 1, 2, 3))):
        path = directory / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_table(rng, path.suffix) if path.suffix != ".parquet" else mutators.text_file(rng))
    (directory / "outside.csv").write_text("en,de\nouter,äußerer\n", encoding="utf-8")
    root = directory / "repository"
    if rng.random() < 0.5:
        (root / "README.md").write_bytes(_card(rng))
    subset = rng.choice((None, None, "a", "b", "default"))
    for split, paths in Repository(root, subset).splits.items():
        if len(set(paths)) != len(paths) or not all(path.is_relative_to(root) for path in paths):
            raise InvariantError(f"{split} has {paths}")
    split = rng.choice(("train", "train", "test", "validation", "train[:1]", "train[50%:]+test", "x[", "+"))
    _check_text(load_split(DataConfig(corpus=str(root), subset=subset, cache_dir=f"{directory}/cache"), split))


def read_parquet(rng: random.Random, directory: Path) -> None:
    """A parquet file that loads has pairs of text."""
    rows = _rows(rng)
    kind = rng.random()
    columns: dict[str, object] = {lang: [row[lang] for row in rows] for lang in ("en", "de")}
    if kind < 0.3:
        columns = {"translation": rows or [{"en": "a", "de": "b"}]}
    elif kind < 0.4:
        columns["de"] = rng.choice(([1] * len(rows), [None] * len(rows), [b"\xff"] * len(rows)))
    path = directory / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    if rng.random() < 0.7:
        path.write_bytes(mutators.mutate(rng, path.read_bytes()) if rng.random() < 0.9 else mutators.text_file(rng))
    _check_text(load_split(DataConfig(corpus=str(path)), "train"))


def read_written_table(rng: random.Random, directory: Path) -> None:
    """A table that Python wrote gives what Python reads from it."""
    suffix = rng.choice(_SUFFIXES)
    rows = _rows(rng)
    if suffix in (".tsv", ".tab"):
        rows = [{key: " ".join(value.split()) for key, value in row.items()} for row in rows]
    raw = _written_json(rng, rows) if "json" in suffix else _written_fields(rng, rows, suffix)
    read = _read_json(raw) if "json" in suffix else _read_fields(raw, suffix)
    packing = rng.choice(("", "", *mutators.PACK))
    (directory / f"a{suffix}{packing}").write_bytes(mutators.PACK.get(packing, bytes)(raw))
    found = list(load_split(DataConfig(corpus=f"{directory}/a{suffix}{packing}"), "train"))
    if found != [(row["en"], row["de"]) for row in rows]:
        raise InvariantError(f"{suffix}: the pairs are not those that were written")
    if read is not None and found != read:
        raise InvariantError(f"{suffix}: the pairs are not those that Python reads")


def _rows(rng: random.Random) -> list[Row]:
    """Rows of any text, with quotes, separators and line breaks."""
    rows = []
    for _ in range(rng.choice((0, 1, 2, 5, 17))):
        row = {}
        for key in ("en", "de"):
            parts = [mutators.text(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
            value = rng.choice(("\n", "\r\n", '"', '""', ",", ', "', "\t")).join(parts)
            row[key] = value.encode(errors="replace").decode()
        if rng.random() < 0.001:
            row["en"] *= 200_000 // (len(row["en"]) + 1)
        rows.append(row)
    return rows


def _written_fields(rng: random.Random, rows: list[Row], suffix: str) -> bytes:
    file = io.StringIO(newline="")
    names = rng.sample(["en", "de", "id", "a b"], 4)
    end = rng.choice(("\n", "\r\n"))
    if suffix == ".csv":
        # The csv module writes a carriage return without quotes, which then end the row that it reads.
        is_minimal = rng.random() < 0.6 and not any("\r" in cell for row in rows for cell in row.values())
        dialect = "excel" if is_minimal else "unix"  # which quotes everything
        writer = csv.DictWriter(file, names, restval="7, 3", dialect=dialect, lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)
    else:
        lines = [names, *([row.get(name, '7"') for name in names] for row in rows)]
        file.write("".join("\t".join(line) + end for line in lines))
    content = file.getvalue()
    return (rng.choice(("", "\ufeff")) + (content if rng.random() < 0.8 else content.removesuffix(end))).encode()


def _read_fields(raw: bytes, suffix: str) -> list[tuple[str, str]] | None:
    file = io.StringIO(raw.decode("utf-8-sig"), newline="")
    try:
        if suffix == ".csv":
            reader = csv.DictReader(file)
        else:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["en"], row["de"]) for row in reader]
    except csv.Error:  # a field of more than 128 KiB
        return None


def _written_json(rng: random.Random, rows: list[Row]) -> bytes:
    indent = rng.choice((None, None, 0, 3))
    values: list[object] = [{"id": number, "x": [{}, None], **row} for number, row in enumerate(rows)]
    if rng.random() < 0.3:
        values = [{"translation": row} for row in rows]
    is_ascii = rng.random() < 0.5
    if rng.random() < 0.4:
        return json.dumps(values, ensure_ascii=is_ascii, indent=indent).encode()
    end = rng.choice(("\n", "\r\n", "\n\n", " "))
    return "".join(json.dumps(value, ensure_ascii=is_ascii, indent=indent) + end for value in values).encode()


def _read_json(raw: bytes) -> list[tuple[str, str]]:
    text, decoder, values = raw.decode(), json.JSONDecoder(), []
    while text := text.lstrip(" \r\n"):
        value, end = decoder.raw_decode(text)
        text = text[end:]
        values += value if isinstance(value, list) else [value]
    rows = [value.get("translation", value) for value in values]
    return [(row["en"], row["de"]) for row in rows]


def _table(rng: random.Random, suffix: str) -> bytes:
    """A table with some malformed rows."""
    rows = [[row["en"], row["de"]] for row in _rows(rng)[:5]]
    if suffix == ".csv":
        header = rng.choice(("en,de", "de,x,en", '"en","de"', "en,de,de", "en;de", "en"))
        lines = [",".join(rng.choice((f'"{cell}"', cell)) for cell in row) for row in rows]
        return "\n".join([header, *lines]).encode()
    if suffix in (".tsv", ".tab"):
        header = rng.choice(("en\tde", "de\tx\ten", "en\tfr", "A sentence.\tEin Satz.", ""))
        return "\n".join([header, *("\t".join(row) for row in rows)]).encode()
    values: list[object] = []
    for row in rows:
        cells = [mutators.json_value(rng) if rng.random() < 0.2 else text for text in row]
        pair = dict(zip(("en", "de"), cells, strict=True))
        values.append({"translation": pair} if rng.random() < 0.3 else pair)
    if rng.random() < 0.3:
        return json.dumps(values, indent=rng.choice((None, 1))).encode()
    return "\n".join(json.dumps(value) for value in values).encode()


def _card(rng: random.Random) -> bytes:
    """A README.md whose header lists subsets, some of them malformed."""
    inside: tuple[object, ...] = ("*.csv", "**", "data/*", "train.csv", "dev/**/*", ["*.csv"])
    paths = (*inside, *inside, "../outside.csv", "/etc/passwd", "", "[", "a\0b", 3, None)
    configs: list[object] = []
    for name in rng.sample(["a", "b", "default", 3, None], rng.randrange(1, 3)):
        splits = rng.sample(["train", "test", "x", 1], 2)
        entries: list[object] = [{"split": split, "path": rng.choice(paths)} for split in splits]
        files = rng.choice((entries, entries, rng.choice(paths), [rng.choice(paths)], None, {"train": "x"}))
        config: dict[str, object] = {"config_name": name, "data_files": files}
        if rng.random() < 0.2:
            config[rng.choice(("default", "sep", "data_dir", "version"))] = rng.choice((True, "data", 3, None))
        configs.append(config)
    header = yaml.safe_dump({"license": "mit", "configs": configs if rng.random() < 0.95 else mutators.json_value(rng)})
    card = f"---\n{header}---\n# Text\n".encode()
    return mutators.mutate(rng, card) if rng.random() < 0.2 else card


def _check_text(pairs: Iterable[tuple[str, str]]) -> None:
    for pair in pairs:
        for side in pair:
            if type(side) is not str:
                raise InvariantError("not text")
            side.encode()

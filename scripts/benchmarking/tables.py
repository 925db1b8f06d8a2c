"""Reading tables: CPU time and memory of our readers and of `datasets`, on the same generated files.

CPU time, of all threads, depends less on busy neighbours than wall time. Each measurement has a process of its own.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarking.data import in_subprocess
from benchmarking.report import Report
from transformer.data.builtin import builtin_pairs
from transformer.data.tables import table_pairs

FORMATS = {"csv": "csv", "jsonl": "json"}  # and what `datasets` calls them
_DISTINCT = 20_000
_ROWS_PER_READ = 1000


def benchmark_tables(directory: Path, *, rows: int, repeat: int = 3, log: Callable[[str], None] = print) -> Report:
    """Read tables of `rows` rows, and of a tenth of that, by both readers.

    Args:
        directory: an empty directory with room for about 600 bytes a row.
        rows: at least 10.
        repeat: readings per measurement, of which the fastest counts.
        log: receives a line per measurement.
    """
    readers: dict[str, Callable[..., dict[str, Any]]] = {"ours": _read_ours, "datasets": _read_datasets}
    found: list[dict[str, Any]] = []
    for size, name in itertools.product((rows // 10, rows), FORMATS):
        path = directory / f"{size}.{name}"
        write_table(path, size)
        for reader, read in readers.items():
            runs = [in_subprocess(read, str(path), str(directory / f"cache{i}")) for i in range(repeat)]
            best = min(runs, key=lambda run: run["cpu_seconds"])
            if {run["characters"] for run in runs} != {_num_characters(size)}:
                raise RuntimeError(f"{path}: {reader} read another text")  # not a fault of the user
            found.append(
                {
                    "format": name,
                    "reader": reader,
                    "rows": size,
                    "cpu_seconds": best["cpu_seconds"],
                    "rows_per_cpu_s": size / best["cpu_seconds"],
                    "peak_memory_mib": max(run["peak_bytes"] for run in runs) / 2**20,
                }
            )
            log(f"{size:,} rows of {name} by {reader}: {best['cpu_seconds']:.2f} CPU s")
    return {**_summary(found, rows), "readings": found}


def _summary(found: list[dict[str, Any]], rows: int) -> Report:
    by_key = {(row["format"], row["reader"], row["rows"]): row for row in found}
    ratios, growth = {}, {}
    for name in FORMATS:
        ours, other = (by_key[name, reader, rows]["cpu_seconds"] for reader in ("ours", "datasets"))
        ratios[name] = ours / other
        less, more = (by_key[name, "ours", size]["peak_memory_mib"] for size in (rows // 10, rows))
        growth[name] = (more - less) * 2**20 / (rows - rows // 10)
    return {"rows": rows, "cpu_seconds_ours_to_datasets": ratios, "memory_bytes_per_further_row_of_ours": growth}


def write_table(path: Path, rows: int) -> None:
    """Write a table of repeated builtin pairs by Python's csv or json."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.writer(file)
            writer.writerow(["en", "de"])
            writer.writerows(_pairs(rows))
        else:
            file.writelines(json.dumps({"en": source, "de": target}) + "\n" for source, target in _pairs(rows))


def _pairs(rows: int) -> Iterator[tuple[str, str]]:
    return itertools.islice(itertools.cycle(_distinct_pairs(min(rows, _DISTINCT))), rows)


@functools.cache
def _distinct_pairs(number: int) -> list[tuple[str, str]]:
    return list(builtin_pairs("train", number))


@functools.cache
def _num_characters(rows: int) -> int:
    return sum(len(source) + len(target) for source, target in _pairs(rows))


def _read_ours(path: str, cache: str) -> dict[str, Any]:  # noqa: ARG001 (it has none)
    began = time.process_time()
    characters = sum(len(source) + len(target) for source, target in table_pairs(Path(path), "en", "de"))
    return {"cpu_seconds": time.process_time() - began, "characters": characters}


def _read_datasets(path: str, cache: str) -> dict[str, Any]:
    """Convert a table by `datasets`, in an empty cache, and read that."""
    import datasets

    datasets.disable_progress_bars()
    kind = FORMATS[Path(path).suffix[1:]]
    options = {"keep_default_na": False, "na_filter": False} if kind == "csv" else {}
    began = time.process_time()
    rows = datasets.load_dataset(kind, data_files=path, split="train", cache_dir=cache, **options)
    characters = 0
    for batch in rows.iter(_ROWS_PER_READ):
        characters += sum(map(len, batch["en"])) + sum(map(len, batch["de"]))
    return {"cpu_seconds": time.process_time() - began, "characters": characters}

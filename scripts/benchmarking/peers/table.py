"""The tables and sentences of docs/PERFORMANCE.md from the JSON of `benchmark.py peers`."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

PRECISIONS = {"bf16": "bfloat16", "fp32": "float32", "int8": "int8"}
_MISSING = "–"
# Not toolkits: this program, and a loop that anybody would write.
_THIS, _PLAIN, _CTRANSLATE2 = "this", "plain", "ctranslate2"

Row = Mapping[str, Any]
Column = tuple[str, int | None]  # size, and beam in decoding
Table = tuple[list[str], list[list[str]]]  # header and rows


def machine(kept: Mapping[str, Any]) -> str:
    """A sentence on what the figures were measured with."""
    processor = kept["processor"]
    model = ", ".join(f"{name} {processor[name]}" for name in ("family", "model") if name in processor)
    date = datetime.date.fromisoformat(kept["date"])
    return (
        f"Processor: {processor['name']}{f' ({model})' if model else ''}, {kept['cpus']} CPUs, instructions "
        f"{processor.get('instructions', 'unknown')}; torch {kept['torch']}; {date.day} {date:%B %Y}, commit "
        f"{kept['commit']}. Medians of {kept['rounds']} rounds, with their range.\n"
    )


def training(kept: Mapping[str, Any]) -> Table:
    """Tokens per second and peak memory by toolkit and precision."""
    rows = _rows(kept, "train")
    columns = _columns(rows)
    names = [size for size, _ in columns]
    header = ["", *(f"{name}, tokens/s" for name in names), f"peak memory, {' / '.join(names)}, GiB"]
    body = []
    for title, cells in _by_title(rows):
        found = [cells.get(column) for column in columns]
        memory = " / ".join(_MISSING if row is None else f"{row['peak_memory_gib']:.1f}" for row in found)
        body.append([title, *map(figure, found), memory])
    return header, body


def decoding(kept: Mapping[str, Any]) -> Table:
    """Sentences per CPU second by toolkit and precision."""
    rows = _rows(kept, "decode")
    columns = _columns(rows)
    header = ["", *(f"{size}, {'greedy' if beam == 1 else f'beam {beam}'}" for size, beam in columns)]
    return header, [[title, *(figure(cells.get(column)) for column in columns)] for title, cells in _by_title(rows)]


def figure(row: Row | None) -> str:
    """The median, with its range if there were several runs."""
    if row is None:
        return _MISSING
    digits = 0 if row["median"] >= 100 else 1
    median, *ends = (f"{row[name]:,.{digits}f}" for name in ("median", "lowest", "highest"))
    return median if row["lowest"] == row["highest"] else f"{median} ({' to '.join(ends)})"


def training_ratios(kept: Mapping[str, Any]) -> Iterator[str]:
    """A line for each size: how many times as fast this is."""
    rows = _rows(kept, "train")
    for size, beam in _columns(rows):
        of_size = [row for row in rows if row["size"] == size]
        parts = []
        for precision in ("bf16", "fp32"):
            ours = _find(of_size, _THIS, precision)
            toolkits = [row for row in of_size if row["peer"] not in (_THIS, _PLAIN)]
            others = [_fastest(toolkits if precision == "bf16" else _of(toolkits, precision))]
            others += [_find(of_size, _PLAIN, precision)]
            parts += _compared(precision, ours, others)
        if parts:
            yield f"- {_name(size, beam)}: {'; '.join(parts)}.\n"


def decoding_ratios(kept: Mapping[str, Any]) -> Iterator[str]:
    """A line for each size and beam: how many times as fast this is."""
    rows = _rows(kept, "decode")
    for size, beam in _columns(rows):
        here = [row for row in rows if (row["size"], row["beam"]) == (size, beam)]
        parts = []
        for precision in ("bf16", "fp32", "int8"):
            ours = _find(here, _THIS, precision)
            # CTranslate2 has no bfloat16 on a CPU; its float32 stands against ours.
            like = _find(here, _CTRANSLATE2, "fp32" if precision == "bf16" else precision)
            torch_toolkits = [row for row in here if row["peer"] not in (_THIS, _CTRANSLATE2)]
            others = [_fastest(torch_toolkits) if precision != "int8" else None, like]
            parts += _compared(precision, ours, others)
        if parts:
            yield f"- {_name(size, beam)}: {'; '.join(parts)}.\n"


def _compared(precision: str, ours: Row | None, others: Iterable[Row | None]) -> list[str]:
    """Such as "in float32 1.3 times fairseq 0.12.2 in float32"."""
    if ours is None:
        return []
    found = [f"{times(ours, other)} {_titled(other)}" for other in others if other is not None]
    return [f"in {PRECISIONS[precision]} {', '.join(found)}"] if found else []


def times(ours: Row, other: Row) -> str:
    """The ratio of medians, and the extremes of two runs."""
    ratio = ours["median"] / other["median"]
    low, high = ours["lowest"] / other["highest"], ours["highest"] / other["lowest"]
    return f"{ratio:.2f} times" if low == high else f"{ratio:.2f} times ({low:.2f} to {high:.2f})"


def _rows(kept: Mapping[str, Any], what: str) -> list[Row]:
    return [row for row in kept["rows"] if row["what"] == what]


def _columns(rows: Sequence[Row]) -> list[Column]:
    """Sizes and beams in the order in which they were measured."""
    return list(dict.fromkeys((row["size"], row["beam"]) for row in rows))


def _by_title(rows: Sequence[Row]) -> list[tuple[str, dict[Column, Row]]]:
    """The rows of each toolkit and precision by column."""
    found: dict[str, dict[Column, Row]] = {}
    for row in rows:
        found.setdefault(f"{row['title']}, {PRECISIONS[row['precision']]}", {})[row["size"], row["beam"]] = row
    return list(found.items())


def _of(rows: Sequence[Row], precision: str) -> list[Row]:
    return [row for row in rows if row["precision"] == precision]


def _find(rows: Sequence[Row], peer: str, precision: str) -> Row | None:
    return next((row for row in _of(rows, precision) if row["peer"] == peer), None)


def _fastest(rows: Sequence[Row]) -> Row | None:
    return max(rows, key=lambda row: float(row["median"]), default=None)


def _titled(row: Row) -> str:
    return f"{row['title']} in {PRECISIONS[row['precision']]}"


def _name(size: str, beam: int | None) -> str:
    return size if beam is None else f"{size}, {'greedy' if beam == 1 else f'beam {beam}'}"

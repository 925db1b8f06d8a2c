"""Shards: files such as `train-00000-of-00003.csv`, which make up a split together."""

import re
from collections.abc import Iterable
from pathlib import Path

from transformer.errors import DataError

_SHARD = re.compile(r"(.*?)(\d+)-of-(\d+)(?!\d)", re.DOTALL)


def check_shards(files: Iterable[Path], place: str, mend: str) -> None:
    """DataError unless each set of shards is there once and complete, numbered from 0 or from 1.

    Files of other names may stand beside them.

    Args:
        files: those of a split.
        place: what the error begins with.
        mend: what it ends with.
    """
    sets: dict[Path, list[tuple[int, int, Path]]] = {}
    for path in files:
        if match := _SHARD.match(path.name):
            sets.setdefault(path.parent / match[1], []).append((int(match[2]), int(match[3]), path))
    for shards in sets.values():
        if problem := _problem(sorted(shards)):
            raise DataError(f"{place}: {problem}; {mend}")


def _problem(shards: list[tuple[int, int, Path]]) -> str | None:
    """What is wrong with a set, by number, if anything."""
    (_, total, path), numbers = shards[0], {number for number, _, _ in shards}
    for _, other_total, other in shards:
        if other_total != total:
            return f"{path} is of {total} shards, {other} of {other_total}"
    start = 1 if 0 not in numbers and total in numbers else 0
    missing = next((number for number in range(start, start + total) if number not in numbers), None)
    if missing is not None:
        return f"{path} is one of {total} shards, of which number {missing} is missing"
    if len(shards) != total:
        return f"{path} is one of {total} shards, of which there are {len(shards)}"
    return None

"""Measurements that are made in parts, as all together take over an hour."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarking.report import Report, rounded
from transformer.errors import ConfigError

# What must be the same for figures to stand in one table.
_SAME = ("commit", "torch", "processor", "cpus", "rounds", "corpus", "batch")
_KEY = ("what", "size", "beam", "peer", "precision")


def joined(new: Report, path: Path) -> Report:
    """Add the rows of an earlier report that this one lacks.

    Args:
        new: the report.
        path: the JSON of an earlier one.

    Raises:
        ConfigError: the file is not such a report, or of another machine, commit, corpus or number of rounds.
    """
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        rows, left_out = list(earlier["rows"]), list(earlier["left_out"])
        keys = [tuple(row[name] for name in _KEY) for row in rows]
    except OSError as error:
        raise ConfigError(f"--keep {path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"--keep {path}: not the JSON of benchmark.py peers") from None
    for name in _SAME:
        if earlier.get(name) != rounded(new[name]):
            raise ConfigError(f"--keep {path}: its {name} is {earlier.get(name)}, not {rounded(new[name])}")
    measured = {tuple(row[name] for name in _KEY) for row in new["rows"]}
    kept = [row for row, key in zip(rows, keys, strict=True) if key not in measured]
    return {**new, "rows": [*kept, *new["rows"]], "left_out": [*left_out, *new["left_out"]]}

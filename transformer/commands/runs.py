"""List the runs below directories as a table: transformer runs [DIR ...] [--sort bleu] [--json]

best, nll and ppl are of the best checkpoint, bleu and chrf are the highest of all validations. The state is running (a
process holds the run), finished (its limit is reached), stopped (its command resumes it), no checkpoint, or damaged.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from transformer.errors import one_line
from transformer.progress import duration, short
from transformer.training.overview import Overview, find_runs, overview

_HEADER = ("run", "state", "step", "best", "nll", "ppl", "bleu", "chrf", "parameters", "pairs", "time", "last written")
_TEXT_COLUMNS = 2  # aligned to the left; numbers are to the right
_LARGE = 1e15
_ORDERS: dict[str, Callable[[Overview], float]] = {
    "name": lambda _run: 0.0,  # as found
    "nll": lambda run: math.inf if run.best_nll is None else run.best_nll,
    "bleu": lambda run: math.inf if run.highest_bleu is None else -run.highest_bleu,
    "chrf": lambda run: math.inf if run.highest_chrf is None else -run.highest_chrf,
    "time": lambda run: -(run.active_at or 0.0),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", metavar="DIR", nargs="*", default=["runs"], help="default: runs")
    parser.add_argument("--sort", choices=tuple(_ORDERS), default="name", help="best or newest first (default: name)")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    arguments = parser.parse_args(argv)
    paths = dict.fromkeys(run for directory in arguments.directories for run in find_runs(Path(directory)))
    found = sorted(map(overview, paths), key=_ORDERS[arguments.sort])
    if arguments.json:
        print(json.dumps([_finite(run) for run in found], ensure_ascii=False, indent=1, allow_nan=False))
    elif found:
        print(_table(found))
    else:
        print(f"no runs in {' '.join(arguments.directories)}", file=sys.stderr)
    return 0


def _finite(run: Overview) -> dict[str, object]:
    """As JSON: numbers that are not finite are null, the time is ISO 8601."""
    values = dataclasses.asdict(run)
    if run.active_at is not None:
        values["active_at"] = datetime.fromtimestamp(run.active_at, timezone.utc).isoformat(timespec="seconds")
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in values.items()}


def _table(runs: Sequence[Overview]) -> str:
    """Aligned columns; what is damaged stands behind them."""
    rows = [_HEADER, *map(_row, runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row, fault in zip(rows, [None, *(run.fault for run in runs)], strict=True):
        aligned = (
            cell.ljust(width) if column < _TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(f"{'  '.join(aligned)}  {fault or ''}".rstrip())
    return "\n".join(lines)


def _row(run: Overview) -> tuple[str, ...]:
    def number(value: float | None, form: Callable[[float], str]) -> str:
        if value is None:
            return ""
        return form(value) if abs(value) < _LARGE else f"{value:.0e}"  # also if it is not finite

    step = "" if run.step is None else f"{run.step}/{run.max_steps or '?'}"
    written = None if run.active_at is None else datetime.fromtimestamp(run.active_at)
    return (
        one_line(run.run),
        run.state,
        step,
        number(run.best_step, str),
        number(run.best_nll, "{:.3f}".format),
        number(run.best_ppl, short),
        number(run.highest_bleu, "{:.2f}".format),
        number(run.highest_chrf, "{:.2f}".format),
        number(run.parameters, "{:,}".format),
        number(run.pairs, "{:,}".format),
        number(run.elapsed_s, duration),
        f"{written:%Y-%m-%d %H:%M}" if written else "",
    )

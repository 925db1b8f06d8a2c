"""Show how a run has learned, as a table or drawn: python scripts/plot.py RUN [RUN ...] [--out FILE]

A run's metrics.jsonl becomes a Markdown table of its validations; with --out, runs are drawn together. In place of
runs, the positional encodings (section 3.5) or learning rates (equation 3) can be drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformer.errors import CheckpointError, ConfigError
from transformer.inspection.canvas import save
from transformer.inspection.curves import draw_learning_rates, draw_positions, draw_training
from transformer.training.metrics import read_metrics

_SHOWN = {"elapsed_s", "nll", "ppl"}
_MOST = 1_000_000_000
# Of the table of positions: more are no more to see, and matplotlib takes some hundred bytes for each.
_MOST_DRAWN = 10_000_000


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.positions is not None:
        save(draw_positions(*arguments.positions), arguments.out)
    elif arguments.schedule is not None:
        save(draw_learning_rates(arguments.schedule), arguments.out)
    elif arguments.out is not None:
        runs = {str(path): read_metrics(path) for path in arguments.runs}
        for name, records in runs.items():
            if not records:
                raise CheckpointError(f"{name}: nothing is recorded in metrics.jsonl")
        save(draw_training(runs), arguments.out)
    else:
        for path in arguments.runs:
            if len(arguments.runs) > 1:
                print(f"\n{path}\n")
            _print_table(path, arguments.every)
    return 0


def _print_table(path: Path, every: int) -> None:
    validations = [
        record for record in read_metrics(path) if record["kind"] == "validation" and record.keys() >= _SHOWN
    ]
    if not validations:
        raise CheckpointError(f"{path}: no validation is recorded in metrics.jsonl")
    shown = validations[every - 1 :: every]
    if shown[-1:] != validations[-1:]:
        shown.append(validations[-1])
    print("| step | minutes | validation NLL | perplexity | greedy BLEU |")
    print("|---:|---:|---:|---:|---:|")
    for record in shown:
        bleu = f"{record['bleu']:.1f}" if "bleu" in record else ""
        minutes = record["elapsed_s"] / 60
        print(f"| {record['step']} | {minutes:.0f} | {record['nll']:.3f} | {record['ppl']:.2f} | {bleu} |")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="*", help="a run directory")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="print every N-th validation and the last")
    parser.add_argument("--positions", type=int, nargs=2, metavar=("LENGTH", "D_MODEL"), help="draw PE(pos, i)")
    parser.add_argument(
        "--schedule",
        type=int,
        nargs=2,
        action="append",
        metavar=("D_MODEL", "WARMUP_STEPS"),
        help="draw its learning rate; may be given again",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=".png, .svg or .pdf; needs matplotlib")
    arguments = parser.parse_args(argv)
    if sum(map(bool, (arguments.runs, arguments.positions, arguments.schedule))) != 1:
        raise ConfigError("give either runs, or --positions, or --schedule")
    if not arguments.runs and arguments.out is None:
        raise ConfigError("--positions and --schedule need --out FILE")
    sizes = [("--every", [arguments.every]), ("--positions", arguments.positions or [])]
    for name, values in (*sizes, *(("--schedule", values) for values in arguments.schedule or [])):
        if min(values, default=1) < 1:
            raise ConfigError(f"{name} {' '.join(map(str, values))} must be at least 1")
        if max(values, default=1) > _MOST:
            raise ConfigError(f"{name} {' '.join(map(str, values))} must be at most {_MOST:,}")
    length, d_model = arguments.positions or (1, 1)
    if length * d_model > _MOST_DRAWN:
        raise ConfigError(f"--positions {length} {d_model}: more than {_MOST_DRAWN:,} values cannot be drawn")
    return arguments

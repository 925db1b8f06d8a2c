"""Print the learning curve of a run, from its metrics.jsonl, as a Markdown table: python scripts/plot.py RUN"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from transformer.cli import run
from transformer.errors import CheckpointError, ConfigError
from transformer.training.metrics import read_metrics


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run directory")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="print every N-th validation and the last")
    arguments = parser.parse_args(argv)
    if arguments.every < 1:
        raise ConfigError(f"--every {arguments.every} must be at least 1")
    validations = [record for record in read_metrics(arguments.run) if record["kind"] == "validation"]
    if not validations:
        raise CheckpointError(f"{arguments.run}: no validation is recorded in metrics.jsonl")
    shown = validations[arguments.every - 1 :: arguments.every]
    if shown[-1:] != validations[-1:]:
        shown.append(validations[-1])
    print("| step | minutes | validation NLL | perplexity | greedy BLEU |")
    print("|---:|---:|---:|---:|---:|")
    for record in shown:
        bleu = f"{record['bleu']:.1f}" if "bleu" in record else ""
        minutes = record["elapsed_s"] / 60
        print(f"| {record['step']} | {minutes:.0f} | {record['nll']:.3f} | {record['ppl']:.2f} | {bleu} |")
    return 0


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

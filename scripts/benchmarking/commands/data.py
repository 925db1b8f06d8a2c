"""benchmark.py data: data preparation, and start-up of training."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarking.arguments import add_config, at_least
from benchmarking.command import Subparsers, add_command, log
from benchmarking.data import benchmark_data
from benchmarking.report import Report
from transformer.config import load_config


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "data preparation, stage by stage, and start-up time of training"
    command = add_command(commands, "data", data, help)
    add_config(command)
    command.add_argument(
        "--pairs", type=at_least(10), default=4_500_000, metavar="N", help="sentence pairs (default: 4,500,000)"
    )
    command.add_argument(
        "--distinct", type=at_least(1), default=500_000, metavar="N", help="distinct pairs, which are then repeated"
    )
    command.add_argument("--extra", metavar="PATTERN", help="more pairs to repeat: files with {split} and {lang}")
    command.add_argument("--directory", type=Path, metavar="DIR", help="for temporary files, 250 bytes a pair")
    command.add_argument("--updates", type=at_least(2), default=20, metavar="N", help="updates to train (default: 20)")


def data(arguments: argparse.Namespace) -> Report:
    """Time every stage of data preparation."""
    config = load_config(arguments.config, arguments.overrides)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.directory) as directory:
        return benchmark_data(
            config,
            Path(directory),
            pairs=arguments.pairs,
            distinct=arguments.distinct,
            extra=arguments.extra,
            updates=arguments.updates,
            log=log,
        )

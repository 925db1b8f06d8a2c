"""benchmark.py tables: the readers of csv and jsonl."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarking.arguments import at_least
from benchmarking.command import Subparsers, add_command, log
from benchmarking.report import Report
from benchmarking.tables import benchmark_tables


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "CPU time and memory of reading csv and jsonl, and of `datasets`"
    command = add_command(commands, "tables", tables, help)
    command.add_argument(
        "--rows", type=at_least(10), default=1_000_000, metavar="N", help="rows of a table (default: 1,000,000)"
    )
    command.add_argument("--repeat", type=at_least(1), default=3, metavar="N", help="readings; the fastest counts")
    command.add_argument("--directory", type=Path, metavar="DIR", help="for temporary files, 600 bytes a row")


def tables(arguments: argparse.Namespace) -> Report:
    """Time both readers of both formats."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.directory) as directory:
        return benchmark_tables(Path(directory), rows=arguments.rows, repeat=arguments.repeat, log=log)

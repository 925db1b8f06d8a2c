"""benchmark.py compare: two commands, run alternately."""

from __future__ import annotations

import argparse

from benchmarking.arguments import at_least
from benchmarking.command import Subparsers, add_command, log
from benchmarking.compare import Metric, json_metric, regex_metric, wall_time
from benchmarking.compare import compare as compare_commands
from benchmarking.report import Report


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "run two shell commands alternately; the ratio B / A of each pair"
    command = add_command(commands, "compare", compare, help, on_this_machine=False)
    command.add_argument("a", metavar="A", help='such as "python scripts/benchmark.py train CONFIG --json"')
    command.add_argument("b", metavar="B", help='such as "cd ../changed && python scripts/benchmark.py ..."')
    command.add_argument("--runs", type=at_least(1), default=5, metavar="N", help="runs of each (default: 5)")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--metric", metavar="KEY", help="key in the JSON printed last, such as tokens_per_s")
    source.add_argument("--regex", metavar="PATTERN", help="group 1 is the number; default: wall time")


def compare(arguments: argparse.Namespace) -> Report:
    """Run both commands alternately."""
    metric: Metric = wall_time
    if arguments.metric is not None:
        metric = json_metric(arguments.metric)
    elif arguments.regex is not None:
        metric = regex_metric(arguments.regex)
    return compare_commands(arguments.a, arguments.b, runs=arguments.runs, metric=metric, log=log)

"""Subcommands of scripts/benchmark.py: each is a module of benchmarking/commands with a function `add`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch

from benchmarking.arguments import at_least
from benchmarking.report import Report

Measure = Callable[[argparse.Namespace], Report]
Subparsers = argparse._SubParsersAction  # the type of what ArgumentParser.add_subparsers returns


def add_command(
    commands: Subparsers[argparse.ArgumentParser],
    name: str,
    measure: Measure,
    help: str,
    *,
    on_this_machine: bool = True,
) -> argparse.ArgumentParser:
    """Add a subcommand, which prints what `measure` returns.

    Args:
        commands: the subcommands so far.
        name: the name on the command line.
        measure: computes the report from the parsed arguments.
        help: one line.
        on_this_machine: add --threads, and report torch, threads and device.
    """
    command = commands.add_parser(name, help=help, description=help)
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    command.set_defaults(measure=_with_machine(measure) if on_this_machine else measure)
    if on_this_machine:
        command.add_argument("--threads", type=at_least(1), metavar="N", help="of the CPU; by default torch's choice")
    return command


def log(line: str) -> None:
    """Print a line of progress, which is no part of the report."""
    print(line, file=sys.stderr, flush=True)


def _with_machine(measure: Measure) -> Measure:
    """Measure with the requested number of threads, and report the machine."""

    def measured(arguments: argparse.Namespace) -> Report:
        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        return {**_machine(), **measure(arguments)}

    return measured


def _machine() -> Report:
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else torch.backends.cpu.get_cpu_capability(),
    }

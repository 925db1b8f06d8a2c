"""benchmark.py table1: the layers of Table 1."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarking import table1 as table_1
from benchmarking.arguments import add_device, at_least, odd, positive
from benchmarking.command import Subparsers, add_command
from benchmarking.report import Report
from transformer.errors import ConfigError
from transformer.training.device import resolve_device


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "the layers of Table 1: cost, sequential operations, path lengths"
    command = add_command(commands, "table1", table1, help)
    for name, default, convert, what in (
        ("n", 256, at_least(1), "length"),
        ("d", 256, at_least(1), "size of the representation"),
        ("r", 31, odd, "neighbourhood of restricted self-attention, odd"),
        ("k", 3, at_least(2), "kernel size of a convolution"),
        ("batch", 4, at_least(1), "sequences"),
    ):
        help = f"{what} (default: {default})"
        command.add_argument(f"--{name}", type=convert, default=default, metavar="N", help=help)
    for name, values, convert, what in (
        ("lengths", [64, 128, 256, 512, 1024], at_least(1), "values of n to time"),
        ("widths", [64, 128, 256, 512, 1024], at_least(1), "values of d to time"),
        ("windows", [7, 15, 31, 63], odd, "values of r and k to time"),
    ):
        help = f"{what} (default: {' '.join(map(str, values))})"
        command.add_argument(f"--{name}", type=convert, nargs="+", default=values, metavar="N", help=help)
    command.add_argument("--seconds", type=positive, default=0.2, metavar="S", help="per point (default: 0.2)")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw it, as .png, .svg or .pdf; needs matplotlib")
    add_device(command)


def table1(arguments: argparse.Namespace) -> Report:
    """Time the layers at several sizes. ConfigError for fewer than two values of a letter."""
    sizes = table_1.Sizes(arguments.n, arguments.d, arguments.r, arguments.k)
    curves = {}
    for letters, values in (("n", arguments.lengths), ("d", arguments.widths), ("rk", arguments.windows)):
        if len(set(values)) < 2:
            raise ConfigError(f"{letters}={values[0]} alone: an exponent needs two sizes or more")
        curves[letters] = table_1.scale_layers(
            sizes,
            letters,
            sorted(set(values)),
            batch=arguments.batch,
            device=resolve_device(arguments.device),
            seconds=arguments.seconds,
        )
    if arguments.plot is not None:
        table_1.plot(curves, arguments.plot)
    return {**vars(sizes), **table_1.table1_report(table_1.count(sizes.r, sizes.k), curves)}

"""benchmark.py loss: the loss with its output projection."""

from __future__ import annotations

import argparse

from benchmarking.arguments import add_device, at_least
from benchmarking.command import Subparsers, add_command
from benchmarking.loss import benchmark_loss
from benchmarking.peak_flops import PRECISIONS
from benchmarking.report import Report
from transformer.training.device import resolve_device


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = add_command(commands, "loss", loss, "the loss with its output projection, beside torch's")
    for name, sizes, what in (
        ("vocab-sizes", [8000, 37000], "sizes of the vocabulary"),
        ("widths", [256, 512], "values of d_model"),
        ("tokens", [1024, 4096], "target tokens"),
    ):
        help = f"{what} (default: {' '.join(map(str, sizes))})"
        command.add_argument(f"--{name}", type=at_least(1), nargs="+", default=sizes, metavar="N", help=help)
    command.add_argument(
        "--precision", action="append", choices=("bf16", "fp32"), help="by default both; may be repeated"
    )
    command.add_argument("--repeat", type=at_least(1), default=3, metavar="N", help="repetitions; the median counts")
    add_device(command)


def loss(arguments: argparse.Namespace) -> Report:
    """Time the loss at all sizes."""
    dtypes = [PRECISIONS[name] for name in arguments.precision or ("bf16", "fp32")]
    device = resolve_device(arguments.device)
    return benchmark_loss(arguments.vocab_sizes, arguments.widths, arguments.tokens, dtypes, device, arguments.repeat)

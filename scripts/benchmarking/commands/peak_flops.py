"""benchmark.py peak-flops: the matrix products of a model alone."""

from __future__ import annotations

import argparse

from benchmarking.arguments import add_config, add_device, positive
from benchmarking.command import Subparsers, add_command
from benchmarking.peak_flops import PRECISIONS, benchmark_peak_flops
from benchmarking.report import Report
from transformer.config import load_config
from transformer.training.device import resolve_device


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "peak throughput of a model's matrix products, and memory bandwidth"
    command = add_command(commands, "peak-flops", peak_flops, help)
    add_config(command)
    command.add_argument(
        "--precision", action="append", choices=tuple(PRECISIONS), help="by default all; may be repeated"
    )
    command.add_argument("--seconds", type=positive, default=0.5, metavar="S", help="per matrix product (default: 0.5)")
    add_device(command)


def peak_flops(arguments: argparse.Namespace) -> Report:
    """Time every shape of product of the model."""
    config = load_config(arguments.config, arguments.overrides)
    rows = config.train.padded_tokens
    precisions = arguments.precision or list(PRECISIONS)
    device = resolve_device(arguments.device)
    return benchmark_peak_flops(config.model, config.data.vocab_size, rows, device, precisions, arguments.seconds)

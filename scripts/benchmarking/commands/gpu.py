"""benchmark.py gpu: what to measure first on a GPU."""

from __future__ import annotations

import argparse

from benchmarking.arguments import add_config, add_device
from benchmarking.command import Subparsers, add_command
from benchmarking.gpu import benchmark_gpu
from benchmarking.report import Report
from transformer.config import load_config
from transformer.training.device import resolve_device


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = add_command(commands, "gpu", gpu, "what to measure first on a GPU, on random batches (docs/GPU.md)")
    add_config(command)
    command.add_argument("--tiny", action="store_true", help="sizes for a CPU, to try the program")
    add_device(command)


def gpu(arguments: argparse.Namespace) -> Report:
    """Measure on random batches."""
    config = load_config(arguments.config, arguments.overrides)
    return benchmark_gpu(config, resolve_device(arguments.device), tiny=arguments.tiny)

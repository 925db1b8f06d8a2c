"""benchmark.py estimate: training time on GPUs."""

from __future__ import annotations

import argparse

from benchmarking.arguments import add_config, at_least, positive
from benchmarking.command import Subparsers, add_command
from benchmarking.estimate import Hardware
from benchmarking.estimate import estimate as estimate_training
from benchmarking.report import Report
from transformer.config import load_config


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "training time on GPUs, estimated from counted operations and bytes"
    command = add_command(commands, "estimate", estimate, help, on_this_machine=False)
    add_config(command)
    command.add_argument(
        "--gpus", type=at_least(1), default=8, metavar="N", help="GPUs that share an update (default: 8)"
    )
    command.add_argument(
        "--sentence-length", type=at_least(1), default=30, metavar="N", help="tokens per sentence (default: 30)"
    )
    for name, default, what in (
        ("--tflops", 989.0, "10^12 bfloat16 operations per second of a GPU"),
        ("--gb-per-s", 3350.0, "10^9 bytes per second of its memory"),
        ("--link-gb-per-s", 450.0, "10^9 bytes per second to the others"),
        ("--efficiency", 0.5, "fraction of the operations per second that matrix products reach"),
    ):
        command.add_argument(name, type=positive, default=default, metavar="X", help=f"{what} (default: {default:g})")


def estimate(arguments: argparse.Namespace) -> Report:
    """Estimate the training time of a configuration."""
    config = load_config(arguments.config, arguments.overrides)
    hardware = Hardware(
        arguments.tflops * 1e12, arguments.gb_per_s * 1e9, arguments.link_gb_per_s * 1e9, arguments.efficiency
    )
    return estimate_training(
        config,
        hardware,
        gpus=arguments.gpus,
        vocab_size=config.data.vocab_size,
        sentence_length=arguments.sentence_length,
    )

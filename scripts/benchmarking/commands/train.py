"""benchmark.py train: training updates."""

from __future__ import annotations

import argparse
import tempfile

from benchmarking.arguments import add_config, add_peak_seconds, at_least
from benchmarking.command import Subparsers, add_command
from benchmarking.report import Report, describe_model, dtype_name
from benchmarking.training import benchmark_training
from transformer.config import load_config
from transformer.training.trainer import Trainer


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = add_command(commands, "train", train, "training updates: speed, memory, and time by phase")
    add_config(command)
    command.add_argument("--updates", type=at_least(1), default=30, metavar="N", help="updates to time (default: 30)")
    command.add_argument("--warmup", type=at_least(0), default=5, metavar="N", help="updates before that (default: 5)")
    add_peak_seconds(command)


def train(arguments: argparse.Namespace) -> Report:
    """Time updates of a new run in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        config = load_config(arguments.config, [*arguments.overrides, f"run_dir={directory}/run"])
        trainer = Trainer.from_config(config)
        measured = benchmark_training(
            trainer, updates=arguments.updates, warmup=arguments.warmup, peak_s=arguments.peak_seconds
        )
        return {
            "corpus": config.data.corpus,
            **describe_model(config.model, trainer.weights.master),
            "precision": dtype_name(trainer.dtype),
            "max_tokens": trainer.packer.max_tokens if trainer.packer else config.train.padded_tokens,
            **measured,
        }

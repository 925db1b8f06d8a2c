"""benchmark.py marian: one Marian model by three engines."""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path

import torch

from benchmarking.arguments import at_least
from benchmarking.command import Subparsers, add_command, log
from benchmarking.marian import benchmark_marian
from benchmarking.marian_models import NUM_PIECES, SIZES, write_models
from benchmarking.processor import commit, processor
from benchmarking.report import Report
from transformer.machine import num_cpus


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "a model of OPUS-MT's sizes by this program, Hugging Face's generate and CTranslate2"
    command = add_command(commands, "marian", marian, help, on_this_machine=False)
    command.add_argument("--beam", type=at_least(1), action="append", metavar="N", help="may be repeated (default: 4)")
    for name, default, what in (
        ("rounds", 3, "runs of each"),
        ("sentences", 128, "sentences to translate"),
        ("batch", 64, "sentences at a time"),
        ("length", 20, "tokens of every output, </s> included"),
        ("threads", 1, "of the CPU"),
    ):
        command.add_argument(
            f"--{name}", type=at_least(1), default=default, metavar="N", help=f"{what} (default: {default})"
        )
    command.add_argument("--directory", type=Path, metavar="DIR", help="for temporary files, 1 GB")


def marian(arguments: argparse.Namespace) -> Report:
    """Write the model for each engine, and measure all of them."""
    options = {name: getattr(arguments, name) for name in ("rounds", "sentences", "batch", "length", "threads")}
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.directory) as directory:
        log("writing the model for each engine")
        write_models(Path(directory))
        measured = benchmark_marian(Path(directory), beams=arguments.beam or [4], log=log, **options)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "torch": torch.__version__,
        "processor": processor(),
        "cpus": num_cpus(),
        "model": f"d_model {SIZES.d_model}, {SIZES.num_heads} heads, d_ff {SIZES.d_ff}, {SIZES.num_layers} layers",
        "vocab_size": NUM_PIECES,
        **options,
        **measured,
    }

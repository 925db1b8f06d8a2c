"""benchmark.py scaling: cost against size."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarking.arguments import add_config, at_least, positive
from benchmarking.command import Subparsers, add_command
from benchmarking.report import Report
from benchmarking.scaling import (
    plot,
    scale_batch,
    scale_beam,
    scale_d_model,
    scale_length,
    scale_threads,
    scaling_report,
)
from transformer.config import load_config
from transformer.errors import ConfigError
from transformer.machine import num_cpus

_SIZES = {
    "length": [16, 32, 64, 128, 256, 512],
    "batch": [4, 8, 16, 32, 64, 128],
    "d_model": [64, 128, 256, 512, 1024],
    "beam": [1, 2, 4, 8, 16],
}


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "cost against size: measured exponents beside those of Table 1"
    command = add_command(commands, "scaling", scaling, help)
    command.add_argument("against", choices=(*_SIZES, "threads"), type=_current_size, help="what to vary")
    add_config(command)
    command.add_argument("--sizes", type=at_least(1), nargs="+", metavar="N", help="by default powers of two")
    command.add_argument("--batch", type=at_least(1), default=16, metavar="N", help="sentences (default: 16)")
    command.add_argument(
        "--length", type=at_least(1), default=32, metavar="N", help="tokens per sentence (default: 32)"
    )
    command.add_argument("--seconds", type=positive, default=0.5, metavar="S", help="per point (default: 0.5)")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw it, as .png, .svg or .pdf; needs matplotlib")


def scaling(arguments: argparse.Namespace) -> Report:
    """Time several sizes, and fit exponents. ConfigError for fewer than two sizes."""
    config = load_config(arguments.config, arguments.overrides)
    against, batch, length, seconds = arguments.against, arguments.batch, arguments.length, arguments.seconds
    sizes = sorted(set(arguments.sizes or _default_sizes(against)))
    if len(sizes) < 2:
        raise ConfigError(f"--sizes {sizes[0]}: an exponent needs two sizes or more")
    if against == "length":
        curves = scale_length(config, sizes, batch, seconds)
    elif against == "batch":
        curves = scale_batch(config, sizes, length, seconds)
    elif against == "d_model":
        curves = scale_d_model(config, sizes, batch, length, seconds)
    elif against == "beam":
        curves = scale_beam(config, sizes, batch, length)
    else:
        curves = scale_threads(config, sizes, batch, length, seconds)
    if arguments.plot is not None:
        plot(curves, against, arguments.plot)
    return {"against": against, **scaling_report(curves)}


def _default_sizes(against: str) -> list[int]:
    if against == "threads":
        return [1 << i for i in range(num_cpus().bit_length())]
    return _SIZES[against]


def _current_size(name: str) -> str:
    return "d_model" if name == "width" else name  # its former name

"""Types of arguments, and the options that several subcommands of scripts/benchmark.py have."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_config(command: argparse.ArgumentParser) -> None:
    """CONFIG and its overrides."""
    command.add_argument("config", metavar="CONFIG", help="a YAML file such as configs/benchmark_small.yaml")
    command.add_argument("overrides", metavar="section.key=value", nargs="*", help="such as train.precision=fp32")


def add_device(command: argparse.ArgumentParser) -> None:
    """--device."""
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def add_peak_seconds(command: argparse.ArgumentParser) -> None:
    """--peak-seconds."""
    command.add_argument(
        "--peak-seconds",
        type=not_negative,
        default=0.3,
        metavar="S",
        help="per matrix product, to measure peak throughput (default: 0.3; 0: do not)",
    )


def positive(text: str) -> float:
    """A finite number of more than 0."""
    if (value := not_negative(text)) == 0:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0")
    return value


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a finite number of at least 0")
    return value


positive.__name__ = not_negative.__name__ = "number"  # their name in argparse messages


def at_least(low: int) -> Callable[[str], int]:
    """A whole number of at least `low`."""

    def convert(text: str) -> int:
        if (value := int(text)) < low:
            raise argparse.ArgumentTypeError(f"{value} must be at least {low}")
        return value

    convert.__name__ = "whole number"  # its name in argparse messages
    return convert


def odd(text: str) -> int:
    """An odd number of at least 3."""
    if (value := int(text)) < 3 or value % 2 == 0:
        raise argparse.ArgumentTypeError(f"{value} must be odd and at least 3")
    return value

"""The options of the examples."""

from __future__ import annotations

import argparse

import torch


def read_options(description: str | None, argv: list[str] | None, **defaults: int) -> argparse.Namespace:
    """Read whole numbers from the command line, a `seed` among them, and seed torch.

    Args:
        description: of the program, for `--help`.
        argv: the arguments; None for those of the process.
        defaults: of every other option; `d_model=128` is `--d-model`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**defaults, "seed": 1}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, metavar="N", help=f"{default}")
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    return options

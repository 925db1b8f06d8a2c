"""The options of the examples, and how a program ends that cannot do what it was asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch

from transformer import UserError

FROM_ZERO = {"updates", "seed"}  # all other numbers are at least 1


def read_options(description: str | None, argv: list[str] | None, **defaults: int) -> argparse.Namespace:
    """Read whole numbers from the command line, a `seed` among them, and seed torch.

    A number below 1 ends the program, of `updates` and `seed` one below 0; so does a `d_model` that is not a multiple
    of `num_heads`.

    Args:
        description: of the program, for `--help`.
        argv: the arguments; None for those of the process.
        defaults: of every other option; `d_model=128` is `--d-model`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**defaults, "seed": 1}.items():
        kind = at_least(0 if name in FROM_ZERO else 1)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, metavar="N", help=f"{default}")
    options = parser.parse_args(argv)
    if {"d_model", "num_heads"} <= {*defaults} and options.d_model % options.num_heads:
        parser.error(f"--d-model {options.d_model} is not a multiple of --num-heads {options.num_heads}")
    torch.manual_seed(options.seed)
    return options


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option: a whole number from `least` on."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return whole_number


def demand(holds: bool, message: str) -> None:
    """Raise UserError with a message unless something holds that options must fulfil together."""
    if not holds:
        raise UserError(message)


def run(main: Callable[[], None]) -> None:
    """Run a program: what its user can mend is one line and exit status 2, not a traceback."""
    try:
        main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

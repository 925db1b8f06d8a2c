"""The options of an example: whole numbers, of which the defaults are the full run."""

from __future__ import annotations

import argparse


def arguments(argv: list[str] | None, description: str | None, **defaults: int) -> argparse.Namespace:
    """Parse `--name VALUE` for each default; `description` is what `--help` prints, as it is."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    for name, default in defaults.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=default, metavar="N", help=f"{default} by default")
    return parser.parse_args(argv)

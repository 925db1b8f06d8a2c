"""Run a command of the installed package: `python -m transformer.commands train CONFIG` is scripts/train.py's."""

import importlib
import sys

from transformer.cli import run
from transformer.errors import ConfigError


def _main() -> int:
    names = ("train", "evaluate", "translate", "average", "parse", "attend", "plot")
    name, *argv = sys.argv[1:] or [""]
    if name not in names:
        raise ConfigError(f"{name!r} is not one of the commands {', '.join(names)}")
    return importlib.import_module(f"transformer.commands.{name}").main(argv)


run(_main)

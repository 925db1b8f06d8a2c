"""Measure the speed of this program on this machine: python scripts/benchmark.py COMMAND ...

Speeds count non-padding tokens, </s> included. Compare only numbers measured on the same machine at the same time; on a
noisy machine, use `compare`, which runs two commands alternately.
"""

from __future__ import annotations

import transformer.commands  # noqa: F401 (first, as it prepares the process for torch)

# isort: split
import argparse
import signal
import sys
from collections.abc import Sequence

from benchmarking.command import Measure, log
from benchmarking.commands import (
    compare,
    data,
    decode,
    estimate,
    gpu,
    loss,
    marian,
    peak_flops,
    peers,
    scaling,
    table1,
    tables,
    train,
)
from benchmarking.report import as_json, as_text

from transformer.cli import run
from transformer.commands.outputs import check_output
from transformer.training.device import tune_process

COMMANDS = (train, decode, peak_flops, loss, gpu, estimate, data, tables, scaling, table1, peers, marian, compare)

# Former names of commands and options, which are still accepted.
_RENAMED = {"ceiling": "peak-flops", "growth": "scaling", "--ceiling-seconds": "--peak-seconds"}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if (figure := getattr(arguments, "plot", None)) is not None:
        check_output(figure)
    tune_process(inference=arguments.command == "decode")
    measure: Measure = arguments.measure
    report = {"benchmark": arguments.command, **measure(arguments)}
    print(as_json(report) if arguments.json else as_text(report))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add(commands)
    arguments, rest = parser.parse_known_args(_with_current_names(sys.argv[1:] if argv is None else argv))
    # argparse collects adjacent positionals only; overrides may also follow options.
    is_override = [hasattr(arguments, "overrides") and "=" in word and not word.startswith("-") for word in rest]
    if not all(is_override):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _with_current_names(argv: Sequence[str]) -> list[str]:
    """Replace former names of commands and options, and say so on stderr."""
    words = []
    for i, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name in _RENAMED and (i == 0 or name.startswith("--")):
            log(f"{name} is now {_RENAMED[name]}")
            name = _RENAMED[name]
        words.append(f"{name}{equals}{value}")
    return words


if __name__ == "__main__":
    # Exit as after an error: remove temporary directories and end child processes.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    run(lambda: main(sys.argv[1:]))

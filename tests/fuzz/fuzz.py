"""Feed hostile input to everything that reads from outside: python tests/fuzz/fuzz.py [--cases N] [--only TARGET]

Each case must end with a result or an expected error of one line. What else happens is printed as a fault, with the
number of the case: `--only TARGET --first NUMBER --cases 1` and the same seed try it again. Exits with 1 after faults.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness import Tally, fuzz
from targets import Targets

from transformer.cli import run
from transformer.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, metavar="N", help="of all targets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the cases (default: %(default)s)")
    parser.add_argument("--only", metavar="TARGET", action="append", help="leave out the others; may be given again")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="of the cases (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.cases < 1 or arguments.first < 0:
        raise ConfigError("--cases must be at least 1 and --first at least 0")
    # Nothing is asked of the network: it would be slow, and somebody else's.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        os.environ["HF_HOME"] = f"{directory}/hub"
        return _fuzz(arguments, Path(directory))


def _fuzz(arguments: argparse.Namespace, directory: Path) -> int:
    targets = Targets(directory / "files").all()
    chosen = arguments.only or list(targets)
    for name in chosen:
        if name not in targets:
            raise ConfigError(f"--only {name} is none of {', '.join(targets)}")
    print("| target | cases | ok | one-line error | worst s | faults | s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    tallies = []
    for name in chosen:
        target = targets[name]
        number = max(1, arguments.cases * target.share // 1000)
        numbers = range(arguments.first, arguments.first + number)
        began = time.monotonic()
        tally = fuzz(name, target.case, numbers, seed=arguments.seed, limit_s=target.limit_s, memory=target.memory)
        _print_row(name, tally, time.monotonic() - began)
        tallies.append(tally)
    faults = [fault for tally in tallies for fault in tally.faults]
    print(f"\n{sum(tally.cases for tally in tallies):,} cases, {len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


def _print_row(name: str, tally: Tally, seconds: float) -> None:
    counts = f"{tally.cases:,} | {tally.ok:,} | {tally.errors:,}"
    print(f"| {name} | {counts} | {tally.worst_s:.2f} | {len(tally.faults)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

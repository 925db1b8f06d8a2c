"""Fuzz everything that reads untrusted input: python tests/fuzz/fuzz.py [--cases N] [--only TARGET]

Each case must end with a result or a one-line error. Anything else is printed as a fault with the number of the case,
which `--only TARGET --first NUMBER --cases 1` and the same seed reproduce. Exits with status 1 if there were faults.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness import Stats, fuzz

from transformer.cli import run
from transformer.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, metavar="N", help="over all targets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the cases (default: %(default)s)")
    parser.add_argument("--only", metavar="TARGET", action="append", help="fuzz this target only; may be repeated")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="first case (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.cases < 1 or arguments.first < 0:
        raise ConfigError("--cases must be at least 1 and --first at least 0")
    # No network access: it would be slow and would load other people's servers.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        os.environ |= {"HF_HOME": f"{directory}/hub", "XDG_CACHE_HOME": f"{directory}/cached"}
        return _fuzz(arguments, Path(directory))


def _fuzz(arguments: argparse.Namespace, directory: Path) -> int:
    sys.path.append(str(Path(__file__).parents[2] / "scripts"))  # for what benchmark.py and table3.py import
    from targets import Targets

    targets = Targets(directory / "files").all()
    chosen = arguments.only or list(targets)
    for name in chosen:
        if name not in targets:
            raise ConfigError(f"--only {name} is not one of {', '.join(targets)}")
    print("| target | cases | ok | one-line error | worst s | faults | s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    all_stats = []
    for name in chosen:
        target = targets[name]
        number = max(1, arguments.cases * target.share // 1000)
        numbers = range(arguments.first, arguments.first + number)
        began = time.monotonic()
        stats = fuzz(name, target.case, numbers, seed=arguments.seed, limit_s=target.limit_s, memory=target.memory)
        _print_row(name, stats, time.monotonic() - began)
        all_stats.append(stats)
    faults = [fault for stats in all_stats for fault in stats.faults]
    print(f"\n{sum(stats.cases for stats in all_stats):,} cases, {len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


def _print_row(name: str, stats: Stats, seconds: float) -> None:
    counts = f"{stats.cases:,} | {stats.ok:,} | {stats.errors:,}"
    print(f"| {name} | {counts} | {stats.worst_s:.2f} | {len(stats.faults)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

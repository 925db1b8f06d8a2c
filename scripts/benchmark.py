"""Measure how fast this program is on this machine: python scripts/benchmark.py COMMAND ...

Speeds count real tokens, </s> included and padding not. Compare figures of the same machine at the same time only; to
judge a change on a noisy one, let `compare` run both sides alternately.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence

import torch

from transformer.benchmark.report import Report, as_json, as_text
from transformer.benchmark.training import benchmark_training, describe
from transformer.cli import run
from transformer.config import load_config
from transformer.training.allocator import keep_freed_memory
from transformer.training.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    keep_freed_memory()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    measure: Callable[[argparse.Namespace], Report] = arguments.measure
    report = {"benchmark": arguments.command, **_machine(), **measure(arguments)}
    print(as_json(report) if arguments.json else as_text(report))
    return 0


def train(arguments: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        config = load_config(arguments.config, [*arguments.overrides, f"run_dir={directory}/run"])
        trainer = Trainer(config)
        measured = benchmark_training(
            trainer, updates=arguments.updates, warmup=arguments.warmup, ceiling_s=arguments.ceiling_seconds
        )
        return {**describe(config, trainer), **measured}


def _machine() -> Report:
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else torch.backends.cpu.get_cpu_capability(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, measure: Callable[[argparse.Namespace], Report], help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("--threads", type=_positive, metavar="N", help="of the CPU; by default torch's choice")
        command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        command.set_defaults(measure=measure)
        return command

    command = add("train", train, "updates of a real trainer: speed, memory, and where the time goes")
    _add_config(command)
    command.add_argument("--updates", type=_positive, default=30, metavar="N", help="to time (default: 30)")
    command.add_argument("--warmup", type=_count, default=5, metavar="N", help="updates before those (default: 5)")
    _add_ceiling_seconds(command)
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="a YAML file such as configs/benchmark_small.yaml")
    command.add_argument("overrides", metavar="section.key=value", nargs="*", help="such as train.precision=fp32")


def _add_ceiling_seconds(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ceiling-seconds",
        type=float,
        default=0.3,
        metavar="S",
        help="to measure each matrix product by itself (default: 0.3; 0: leave the ceiling out)",
    )


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{value} must be at least 0")
    return value


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

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
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from benchmarking import table1 as table_1
from benchmarking.compare import Metric, json_metric, regex_metric, wall_time
from benchmarking.compare import compare as compare_commands
from benchmarking.data import benchmark_data
from benchmarking.decoding import benchmark_decoding, load_translator
from benchmarking.estimate import Hardware
from benchmarking.estimate import estimate as estimate_training
from benchmarking.peak_flops import PRECISIONS, benchmark_peak_flops
from benchmarking.report import Report, as_json, as_text, describe_model, dtype_name
from benchmarking.scaling import (
    plot,
    scale_batch,
    scale_beam,
    scale_d_model,
    scale_length,
    scale_threads,
    scaling_report,
)
from benchmarking.tables import benchmark_tables
from benchmarking.training import benchmark_training

from transformer.cli import run
from transformer.commands.outputs import check_output
from transformer.config import load_config
from transformer.data.corpus import load_split, read_lines
from transformer.errors import ConfigError
from transformer.machine import num_cpus
from transformer.training.device import resolve_device, tune_process
from transformer.training.trainer import Trainer

_SCALING_SIZES = {
    "length": [16, 32, 64, 128, 256, 512],
    "batch": [4, 8, 16, 32, 64, 128],
    "d_model": [64, 128, 256, 512, 1024],
    "beam": [1, 2, 4, 8, 16],
}

# Former names of commands and options, which are still accepted.
_RENAMED = {"ceiling": "peak-flops", "growth": "scaling", "--ceiling-seconds": "--peak-seconds"}

Measure = Callable[[argparse.Namespace], Report]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if (figure := getattr(arguments, "plot", None)) is not None:
        check_output(figure)
    tune_process()
    measure: Measure = arguments.measure
    report = {"benchmark": arguments.command, **measure(arguments)}
    print(as_json(report) if arguments.json else as_text(report))
    return 0


def train(arguments: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        config = load_config(arguments.config, [*arguments.overrides, f"run_dir={directory}/run"])
        trainer = Trainer.from_config(config)
        measured = benchmark_training(
            trainer, updates=arguments.updates, warmup=arguments.warmup, peak_s=arguments.peak_seconds
        )
        return {
            "corpus": config.data.corpus,
            **describe_model(config.model, trainer.weights.master),
            "precision": dtype_name(trainer.dtype),
            "max_tokens": config.train.max_tokens,
            **measured,
        }


def decode(arguments: argparse.Namespace) -> Report:
    if arguments.length is None and not arguments.model.is_dir():
        raise ConfigError(
            f"{arguments.model}: the outputs of an untrained model have random lengths; give --length, or a run"
        )
    config, translator = load_translator(
        arguments.model, arguments.overrides, device=arguments.device, precision=arguments.precision
    )
    if arguments.src is not None:
        texts = list(read_lines(arguments.src))
    else:
        texts = [source for source, _ in load_split(config.data, config.data.test_split)]
    is_int8 = arguments.precision == "int8"
    precision = "int8" if is_int8 else dtype_name(translator.model.embedding.weight.dtype)
    measured = benchmark_decoding(
        translator,
        config.model,
        texts[: arguments.sentences],
        length=arguments.length,
        beam=arguments.beam,
        batch_sentences=arguments.batch,
        batch_tokens=arguments.batch_tokens,
        repeat=arguments.repeat,
        # Peak throughput is measured for floating-point products only.
        peak_s=0 if is_int8 else arguments.peak_seconds,
    )
    return {**describe_model(config.model, translator.model), "precision": precision, **measured}


def peak_flops(arguments: argparse.Namespace) -> Report:
    config = load_config(arguments.config, arguments.overrides)
    rows = config.train.max_tokens
    precisions = arguments.precision or list(PRECISIONS)
    device = resolve_device(arguments.device)
    return benchmark_peak_flops(config.model, config.data.vocab_size, rows, device, precisions, arguments.seconds)


def estimate(arguments: argparse.Namespace) -> Report:
    config = load_config(arguments.config, arguments.overrides)
    hardware = Hardware(
        arguments.tflops * 1e12, arguments.gb_per_s * 1e9, arguments.link_gb_per_s * 1e9, arguments.efficiency
    )
    return estimate_training(
        config,
        hardware,
        gpus=arguments.gpus,
        vocab_size=config.data.vocab_size,
        sentence_length=arguments.sentence_length,
    )


def data(arguments: argparse.Namespace) -> Report:
    config = load_config(arguments.config, arguments.overrides)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.directory) as directory:
        return benchmark_data(
            config,
            Path(directory),
            pairs=arguments.pairs,
            distinct=arguments.distinct,
            extra=arguments.extra,
            updates=arguments.updates,
            log=_log,
        )


def tables(arguments: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.directory) as directory:
        return benchmark_tables(Path(directory), rows=arguments.rows, repeat=arguments.repeat, log=_log)


def scaling(arguments: argparse.Namespace) -> Report:
    config = load_config(arguments.config, arguments.overrides)
    against, batch, length, seconds = arguments.against, arguments.batch, arguments.length, arguments.seconds
    sizes = sorted(set(arguments.sizes or _scaling_sizes(against)))
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


def _scaling_sizes(against: str) -> list[int]:
    if against == "threads":
        return [1 << i for i in range(num_cpus().bit_length())]
    return _SCALING_SIZES[against]


def table1(arguments: argparse.Namespace) -> Report:
    sizes = table_1.Sizes(arguments.n, arguments.d, arguments.r, arguments.k)
    curves = {}
    for letters, values in (("n", arguments.lengths), ("d", arguments.widths), ("rk", arguments.windows)):
        if len(set(values)) < 2:
            raise ConfigError(f"{letters}={values[0]} alone: an exponent needs two sizes or more")
        curves[letters] = table_1.scale_layers(
            sizes,
            letters,
            sorted(set(values)),
            batch=arguments.batch,
            device=resolve_device(arguments.device),
            seconds=arguments.seconds,
        )
    if arguments.plot is not None:
        table_1.plot(curves, arguments.plot)
    return {**vars(sizes), **table_1.table1_report(table_1.count(sizes.r, sizes.k), curves)}


def compare(arguments: argparse.Namespace) -> Report:
    metric: Metric = wall_time
    if arguments.metric is not None:
        metric = json_metric(arguments.metric)
    elif arguments.regex is not None:
        metric = regex_metric(arguments.regex)
    return compare_commands(arguments.a, arguments.b, runs=arguments.runs, metric=metric, log=_log)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _on_this_machine(measure: Measure) -> Measure:
    """Measure with the requested number of threads, and report the machine."""

    def measured(arguments: argparse.Namespace) -> Report:
        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        return {**_machine(), **measure(arguments)}

    return measured


def _machine() -> Report:
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else torch.backends.cpu.get_cpu_capability(),
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
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
            _log(f"{name} is now {_RENAMED[name]}")
            name = _RENAMED[name]
        words.append(f"{name}{equals}{value}")
    return words


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, measure: Measure, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        command.set_defaults(measure=measure)
        return command

    def add_on_this_machine(name: str, measure: Measure, help: str) -> argparse.ArgumentParser:
        command = add(name, _on_this_machine(measure), help)
        command.add_argument("--threads", type=_at_least(1), metavar="N", help="of the CPU; by default torch's choice")
        return command

    command = add_on_this_machine("train", train, "training updates: speed, memory, and time by phase")
    _add_config(command)
    command.add_argument("--updates", type=_at_least(1), default=30, metavar="N", help="updates to time (default: 30)")
    command.add_argument("--warmup", type=_at_least(0), default=5, metavar="N", help="updates before that (default: 5)")
    _add_peak_seconds(command)

    command = add_on_this_machine("decode", decode, "translation from text to text, by a trained or an untrained model")
    command.add_argument("model", metavar="MODEL", type=Path, help="a run directory; or a YAML file, with --length")
    command.add_argument("overrides", metavar="section.key=value", nargs="*", help="of a YAML file")
    command.add_argument("--src", type=Path, help="translate this file, a sentence per line; by default the test split")
    command.add_argument("--sentences", type=_at_least(1), metavar="N", help="only the first N")
    command.add_argument("--length", type=_at_least(1), metavar="N", help="length of every output, </s> included")
    command.add_argument(
        "--beam", type=_at_least(1), metavar="N", help="beam size, 1 is greedy; default: the configuration's"
    )
    size = command.add_mutually_exclusive_group()
    size.add_argument("--batch", type=_at_least(1), metavar="N", help="sentences at a time")
    size.add_argument("--batch-tokens", type=_at_least(1), metavar="N", help="padded source pieces at a time")
    command.add_argument(
        "--repeat", type=_at_least(1), default=3, metavar="N", help="repetitions; speeds are the median"
    )
    _add_device(command)
    command.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    _add_peak_seconds(command)

    command = add_on_this_machine(
        "peak-flops", peak_flops, "peak throughput of a model's matrix products, and memory bandwidth"
    )
    _add_config(command)
    command.add_argument(
        "--precision", action="append", choices=tuple(PRECISIONS), help="by default all; may be repeated"
    )
    command.add_argument(
        "--seconds", type=_positive, default=0.5, metavar="S", help="per matrix product (default: 0.5)"
    )
    _add_device(command)

    command = add("estimate", estimate, "training time on GPUs, estimated from counted operations and bytes")
    _add_config(command)
    command.add_argument(
        "--gpus", type=_at_least(1), default=8, metavar="N", help="GPUs that share an update (default: 8)"
    )
    command.add_argument(
        "--sentence-length", type=_at_least(1), default=30, metavar="N", help="tokens per sentence (default: 30)"
    )
    for name, default, what in (
        ("--tflops", 989.0, "10^12 bfloat16 operations per second of a GPU"),
        ("--gb-per-s", 3350.0, "10^9 bytes per second of its memory"),
        ("--link-gb-per-s", 450.0, "10^9 bytes per second to the others"),
        ("--efficiency", 0.5, "fraction of the operations per second that matrix products reach"),
    ):
        command.add_argument(name, type=_positive, default=default, metavar="X", help=f"{what} (default: {default:g})")

    command = add_on_this_machine("data", data, "data preparation, stage by stage, and start-up time of training")
    _add_config(command)
    command.add_argument(
        "--pairs", type=_at_least(10), default=4_500_000, metavar="N", help="sentence pairs (default: 4,500,000)"
    )
    command.add_argument(
        "--distinct", type=_at_least(1), default=500_000, metavar="N", help="distinct pairs, which are then repeated"
    )
    command.add_argument("--extra", metavar="PATTERN", help="more pairs to repeat: files with {split} and {lang}")
    command.add_argument("--directory", type=Path, metavar="DIR", help="for temporary files, 250 bytes a pair")
    command.add_argument("--updates", type=_at_least(2), default=20, metavar="N", help="updates to train (default: 20)")

    command = add_on_this_machine("tables", tables, "CPU time and memory of reading csv and jsonl, and of `datasets`")
    command.add_argument(
        "--rows", type=_at_least(10), default=1_000_000, metavar="N", help="rows of a table (default: 1,000,000)"
    )
    command.add_argument("--repeat", type=_at_least(1), default=3, metavar="N", help="readings; the fastest counts")
    command.add_argument("--directory", type=Path, metavar="DIR", help="for temporary files, 600 bytes a row")

    command = add_on_this_machine("scaling", scaling, "cost against size: measured exponents beside those of Table 1")
    against = (*_SCALING_SIZES, "threads")
    command.add_argument("against", choices=against, type=_current_size, help="what to vary")
    _add_config(command)
    command.add_argument("--sizes", type=_at_least(1), nargs="+", metavar="N", help="by default powers of two")
    command.add_argument("--batch", type=_at_least(1), default=16, metavar="N", help="sentences (default: 16)")
    command.add_argument(
        "--length", type=_at_least(1), default=32, metavar="N", help="tokens per sentence (default: 32)"
    )
    command.add_argument("--seconds", type=_positive, default=0.5, metavar="S", help="per point (default: 0.5)")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw it, as .png, .svg or .pdf; needs matplotlib")

    command = add_on_this_machine("table1", table1, "the layers of Table 1: cost, sequential operations, path lengths")
    for name, default, convert, what in (
        ("n", 256, _at_least(1), "length"),
        ("d", 256, _at_least(1), "size of the representation"),
        ("r", 31, _odd, "neighbourhood of restricted self-attention, odd"),
        ("k", 3, _at_least(2), "kernel size of a convolution"),
        ("batch", 4, _at_least(1), "sequences"),
    ):
        help = f"{what} (default: {default})"
        command.add_argument(f"--{name}", type=convert, default=default, metavar="N", help=help)
    for name, values, convert, what in (
        ("lengths", [64, 128, 256, 512, 1024], _at_least(1), "values of n to time"),
        ("widths", [64, 128, 256, 512, 1024], _at_least(1), "values of d to time"),
        ("windows", [7, 15, 31, 63], _odd, "values of r and k to time"),
    ):
        help = f"{what} (default: {' '.join(map(str, values))})"
        command.add_argument(f"--{name}", type=convert, nargs="+", default=values, metavar="N", help=help)
    command.add_argument("--seconds", type=_positive, default=0.2, metavar="S", help="per point (default: 0.2)")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw it, as .png, .svg or .pdf; needs matplotlib")
    _add_device(command)

    command = add("compare", compare, "run two shell commands alternately; the ratio B / A of each pair")
    command.add_argument("a", metavar="A", help='such as "python scripts/benchmark.py train CONFIG --json"')
    command.add_argument("b", metavar="B", help='such as "cd ../changed && python scripts/benchmark.py ..."')
    command.add_argument("--runs", type=_at_least(1), default=5, metavar="N", help="runs of each (default: 5)")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--metric", metavar="KEY", help="key in the JSON printed last, such as tokens_per_s")
    source.add_argument("--regex", metavar="PATTERN", help="group 1 is the number; default: wall time")
    return parser


def _current_size(name: str) -> str:
    return "d_model" if name == "width" else name  # its former name


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="a YAML file such as configs/benchmark_small.yaml")
    command.add_argument("overrides", metavar="section.key=value", nargs="*", help="such as train.precision=fp32")


def _add_peak_seconds(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--peak-seconds",
        type=_not_negative,
        default=0.3,
        metavar="S",
        help="per matrix product, to measure peak throughput (default: 0.3; 0: do not)",
    )


def _positive(text: str) -> float:
    if (value := _not_negative(text)) == 0:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0")
    return value


def _not_negative(text: str) -> float:
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a finite number of at least 0")
    return value


_positive.__name__ = _not_negative.__name__ = "number"  # their name in argparse messages


def _at_least(low: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if (value := int(text)) < low:
            raise argparse.ArgumentTypeError(f"{value} must be at least {low}")
        return value

    convert.__name__ = "whole number"  # its name in argparse messages
    return convert


def _odd(text: str) -> int:
    if (value := int(text)) < 3 or value % 2 == 0:
        raise argparse.ArgumentTypeError(f"{value} must be odd and at least 3")
    return value


if __name__ == "__main__":
    # Exit as after an error: remove temporary directories and end child processes.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    run(lambda: main(sys.argv[1:]))

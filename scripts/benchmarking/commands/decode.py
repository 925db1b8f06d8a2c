"""benchmark.py decode: translation from text to text."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarking.arguments import add_device, add_peak_seconds, at_least
from benchmarking.command import Subparsers, add_command
from benchmarking.decoding import benchmark_decoding, load_translator
from benchmarking.report import Report, describe_model, dtype_name
from transformer.data.corpus import load_split, read_lines
from transformer.errors import ConfigError


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "translation from text to text, by a trained or an untrained model"
    command = add_command(commands, "decode", decode, help)
    command.add_argument("model", metavar="MODEL", type=Path, help="a run directory; or a YAML file, with --length")
    command.add_argument("overrides", metavar="section.key=value", nargs="*", help="of a YAML file")
    command.add_argument("--src", type=Path, help="translate this file, a sentence per line; by default the test split")
    command.add_argument("--sentences", type=at_least(1), metavar="N", help="only the first N")
    command.add_argument("--length", type=at_least(1), metavar="N", help="length of every output, </s> included")
    command.add_argument(
        "--beam", type=at_least(1), metavar="N", help="beam size, 1 is greedy; default: the configuration's"
    )
    size = command.add_mutually_exclusive_group()
    size.add_argument("--batch", type=at_least(1), metavar="N", help="sentences at a time")
    size.add_argument("--batch-tokens", type=at_least(1), metavar="N", help="padded source pieces at a time")
    command.add_argument(
        "--repeat", type=at_least(1), default=3, metavar="N", help="repetitions; speeds are the median"
    )
    add_device(command)
    command.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    add_peak_seconds(command)


def decode(arguments: argparse.Namespace) -> Report:
    """Time translations of a file, or of the test split."""
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

"""The options of `transformer compare`, and which of them go together."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformer.commands.scored_texts import (
    add_metric_options,
    add_text_options,
    add_translation_options,
    check_translation_options,
    given_texts,
)
from transformer.commands.search_options import SEARCH_DEFAULTS
from transformer.errors import ConfigError
from transformer.hub import is_model_id
from transformer.inference.significance import NUM_RESAMPLES, NUM_TRIALS
from transformer.inspection.report import NUM_EXAMPLES
from transformer.interop.local_files import is_foreign

_TRANSLATION = {**SEARCH_DEFAULTS, "device": "auto", "precision": "auto"}
_SAMPLES = {"bootstrap": NUM_RESAMPLES, "randomization": NUM_TRIALS}
_MAX_SAMPLES, _MAX_EXAMPLES = 1_000_000, 1000


def is_run(given: str) -> bool:
    """Whether a system is a run, a checkpoint, a hub id or a model from elsewhere, not the file of a translation."""
    return Path(given).is_dir() or is_model_id(given) or is_foreign(given)


def parse(argv: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Parse and check the command line of `transformer compare`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    system = "a translation, a sentence per line, or a run, a checkpoint or a hub id, which translates first"
    parser.add_argument("systems", metavar="SYSTEM", nargs="+", help=f"{system}; the first is the baseline")
    add_text_options(parser, action="append")
    parser.add_argument("--name", action="append", help="what to call a system; once for each, in their order")
    parser.add_argument(
        "--lang", help="target language, such as zh, where no system is a run: chooses BLEU's tokenizer"
    )
    add_metric_options(parser)
    parser.add_argument("--test", choices=tuple(_SAMPLES), default="bootstrap", help="by default bootstrap")
    parser.add_argument("--samples", type=int, metavar="N", help="resamples (by default 1,000) or trials (10,000)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with scores, lengths and sentences")
    parser.add_argument(
        "--examples", type=int, metavar="N", help="with --html: gains and losses to show of each system, by default 50"
    )
    parser.add_argument("--length-step", type=int, metavar="N", help="with --html: lengths per bucket")
    add_translation_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    _check(arguments)
    arguments.samples = arguments.samples or _SAMPLES[arguments.test]
    arguments.examples = arguments.examples or NUM_EXAMPLES
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    """ConfigError for options that do not go together or are out of range."""
    number = len(arguments.systems)
    if number < 2:
        raise ConfigError(f"{arguments.systems[0]} alone cannot be compared: give a baseline and another system")
    if arguments.name is not None and (len(arguments.name) != number or len({*arguments.name}) != number):
        raise ConfigError(f"--name {' '.join(arguments.name)}: give {number} different names, one for each system")
    has_run = any(map(is_run, arguments.systems))
    given = given_texts(arguments)
    if given and arguments.ref and given != ["--src"]:
        raise ConfigError(f"{given[0]} and --ref exclude each other")
    if arguments.src is not None and not arguments.ref:
        raise ConfigError("--src and --ref go together")
    if arguments.ensemble:
        raise ConfigError(
            f"--ensemble {arguments.ensemble[0]} would translate with every system: let translate --ensemble write the "
            "ensemble's translation to a file, and compare that"
        )
    if has_run:
        if arguments.ref and arguments.src is None:
            run = next(filter(is_run, arguments.systems))
            reason = "" if Path(run).exists() else ", as there is no such file"
            raise ConfigError(f"--src and --ref go together where a run translates: {run} is taken for one{reason}")
        if arguments.lang is not None:
            raise ConfigError("--lang is for translations without RUN, whose data.tgt_lang it would contradict")
    else:
        if not arguments.ref:
            raise ConfigError("translations need their references: --ref FILE, or a RUN among the systems")
        check_translation_options(arguments, _TRANSLATION, "files only")
    for option in ("examples", "length_step"):
        if getattr(arguments, option) is not None and arguments.html is None:
            raise ConfigError(f"--{option.replace('_', '-')} goes with --html")
    for option, most in (("samples", _MAX_SAMPLES), ("examples", _MAX_EXAMPLES), ("length_step", _MAX_SAMPLES)):
        value = getattr(arguments, option)
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"--{option.replace('_', '-')} {value} must be at least 1 and at most {most:,}")

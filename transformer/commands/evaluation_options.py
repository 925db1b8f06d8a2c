"""The options of `transformer evaluate`, and which of them go together."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformer.commands.error_analysis import add_analysis_options, check_analysis_options
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
from transformer.interop.local_files import is_foreign

# Options of the translation, which --hyp replaces, with their defaults.
_TRANSLATION = {
    **SEARCH_DEFAULTS,
    "output": None,
    "also": [],
    "device": "auto",
    "precision": "auto",
}


def parse(argv: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Parse and check the command line of `transformer evaluate`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    run = "a run or checkpoint directory, or a hub id as owner/name@revision"
    parser.add_argument("run", metavar="RUN", nargs="?", help=run)
    add_text_options(parser, nargs="+", action="extend")
    parser.add_argument(
        "--also",
        metavar="RUN|CORPUS",
        nargs="+",
        action="extend",
        default=[],
        help="also score the test split of another run, or of a corpus as in data.corpus: what was forgotten",
    )
    parser.add_argument("--hyp", type=Path, metavar="FILE", help="score this translation instead of the model's")
    parser.add_argument("--lang", help="target language of --hyp without RUN, such as zh: chooses BLEU's tokenizer")
    add_metric_options(parser)
    parser.add_argument(
        "--compound-split", action="store_true", help="also print BLEU as the paper's authors counted it"
    )
    add_analysis_options(parser)
    add_translation_options(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the translations to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    _check(arguments)
    return arguments


def _is_run(path: Path) -> bool:
    return path.is_dir() or is_model_id(path) or is_foreign(path)


def _check(arguments: argparse.Namespace) -> None:
    """ConfigError for options that do not go together."""
    if arguments.run is None and (runs := [path for path in arguments.ref if _is_run(path)]):
        # `--ref FILE RUN`: no directory is a reference.
        arguments.run = str(runs[0])
        arguments.ref.remove(runs[0])
    given = given_texts(arguments)
    if arguments.hyp is None:
        if arguments.run is None:
            raise ConfigError("give RUN, which translates, or --hyp FILE, an existing translation")
        if (arguments.src is None) != (not arguments.ref):
            raise ConfigError("--src and --ref go together")
    else:
        if given and arguments.ref and given != ["--src"]:
            raise ConfigError(f"{given[0]} and --ref exclude each other")
        if not arguments.ref and (arguments.run is None or arguments.src is not None):
            raise ConfigError("--hyp needs its references: --ref FILE, or RUN for those of its corpus")
        check_translation_options(arguments, _TRANSLATION, "--hyp")
    if arguments.lang is not None and arguments.run is not None:
        raise ConfigError("--lang is for --hyp without RUN, whose data.tgt_lang it would contradict")
    check_analysis_options(arguments)

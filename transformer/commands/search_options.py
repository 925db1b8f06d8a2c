"""The options by which commands translate: beam search, limits, and several sentences in a line."""

import argparse
import sys

from transformer.config import SearchConfig, override
from transformer.inference.sources import TOO_LONG, InputNotes
from transformer.inference.translator import Translator

# What the options mean that are not given.
SEARCH_DEFAULTS = {
    "beam": None,
    "alpha": None,
    "max_length_offset": None,
    "max_source_length": None,
    "too_long": "error",
    "split_sentences": False,
}


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `apply_search_options` reads."""
    parser.add_argument("--beam", type=int, help="hypotheses per sentence; 1 is greedy search")
    parser.add_argument("--alpha", type=float, help="exponent of the length penalty")
    parser.add_argument(
        "--max-length-offset", type=int, metavar="N", help="a translation may be N pieces longer than its source"
    )
    parser.add_argument("--max-source-length", type=int, metavar="N", help="the most pieces of a line, </s> included")
    parser.add_argument(
        "--too-long", choices=TOO_LONG, default="error", help="cut longer lines, or translate their parts and join them"
    )
    parser.add_argument(
        "--split-sentences", action="store_true", help="translate the sentences of a line one by one; needs sentencex"
    )


def chosen_search(arguments: argparse.Namespace, search: SearchConfig) -> SearchConfig:
    """The settings of a run, replaced where options are given. ConfigError if one is out of range."""
    return override(
        search,
        beam=arguments.beam,
        alpha=arguments.alpha,
        max_length_offset=arguments.max_length_offset,
        max_source_length=arguments.max_source_length,
    )


def apply_search_options(arguments: argparse.Namespace, translator: Translator) -> None:
    """Let the translator do as the options say.

    ConfigError if one is out of range, DataError if sentences are to be split and `sentencex` is not installed.
    """
    translator.search = chosen_search(arguments, translator.search)
    translator.too_long, translator.split_sentences = arguments.too_long, arguments.split_sentences
    translator.source_reader().read([""])  # so that a missing package is an error now, not with the first line


def print_notes(notes: InputNotes) -> None:
    """Print on standard error what a user should know of the input."""
    for message in notes.messages():
        print(message, file=sys.stderr)

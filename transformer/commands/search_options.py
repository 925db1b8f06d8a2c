"""The options by which commands translate: models, search, samples, and several sentences in a line."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from transformer.config import SearchConfig, override
from transformer.errors import ConfigError
from transformer.inference.ctranslate2_engine import CTranslate2Translator
from transformer.inference.ensemble import Ensemble
from transformer.inference.penalties import PENALTIES
from transformer.inference.prepacked import precision_of
from transformer.inference.sampling import Sampling
from transformer.inference.sources import TOO_LONG, InputNotes
from transformer.inference.translator import Translator

# What the options mean that are not given.
SEARCH_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(field.name for field in dataclasses.fields(SearchConfig)),
    "too_long": "error",
    "split_sentences": False,
    "ensemble": [],
    "tag": None,
    "target_language": None,
}
_SAMPLING = [field.name for field in dataclasses.fields(Sampling)]


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `apply_search_options` and `load_translator` read."""
    parser.add_argument(
        "--ensemble",
        metavar="RUN",
        nargs="+",
        action="extend",
        default=[],
        help="translate with these models too, by the mean of all probabilities; they need the vocabulary of RUN",
    )
    search = parser.add_argument_group("search", "by default as the section search of the run's configuration says")
    search.add_argument("--beam", type=int, metavar="N", help="hypotheses per sentence; 1 is greedy search")
    search.add_argument("--alpha", type=float, help="exponent of the length penalty")
    search.add_argument("--length-penalty", choices=PENALTIES, help="((5 + |Y|) / 6)^alpha, |Y|^alpha, or none")
    search.add_argument(
        "--max-length-offset", type=int, metavar="N", help="a translation may be N pieces longer than its source"
    )
    search.add_argument("--max-length", type=int, metavar="N", help="a translation has at most N pieces with </s>")
    search.add_argument("--min-length", type=int, metavar="N", help="a translation has at least N pieces with </s>")
    search.add_argument(
        "--no-repeat-ngram",
        type=int,
        metavar="N",
        help="no N pieces follow each other twice in a translation; 0: any may",
    )
    search.add_argument(
        "--allow-unknown",
        action=argparse.BooleanOptionalAction,
        help="whether a translation may have unknown pieces, which are shown as ⁇",
    )
    lines = parser.add_argument_group("lines of the input")
    lines.add_argument("--max-source-length", type=int, metavar="N", help="the most pieces of a line, </s> included")
    lines.add_argument(
        "--too-long", choices=TOO_LONG, default="error", help="cut longer lines, or translate their parts and join them"
    )
    lines.add_argument(
        "--split-sentences", action="store_true", help="translate the sentences of a line one by one; needs sentencex"
    )
    add_tag_options(parser)


def add_tag_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `choose_tag` reads."""
    parser.add_argument("--tag", help="the tag before each line, such as '<2de>', if the model has tags; '' is none")
    parser.add_argument(
        "--target-language", metavar="CODE", help="what a multilingual model is to translate into, such as deu"
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `chosen_sampling` reads."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--sample", action="store_true", help="draw translations from the model instead of searching for the best"
    )
    group.add_argument("--temperature", type=float, metavar="T", help="divides the logits; default: 1")
    group.add_argument("--top-k", type=int, metavar="K", help="draw from the K most probable pieces; default: 0, all")
    group.add_argument(
        "--top-p", type=float, metavar="P", help="draw from the fewest pieces with this probability; default: 1, all"
    )
    group.add_argument("--seed", type=int, metavar="N", help="of the samples; default: 1")


def chosen_sampling(arguments: argparse.Namespace) -> Sampling | None:
    """How to sample, or None for a search. ConfigError for options that do not go together or are out of range."""
    given = {name: value for name in _SAMPLING if (value := getattr(arguments, name)) is not None}
    if not arguments.sample:
        if given:
            raise ConfigError(f"--{next(iter(given)).replace('_', '-')} is of samples: give --sample too")
        return None
    if arguments.beam is not None and arguments.beam != 1:
        raise ConfigError(f"--beam {arguments.beam} and --sample exclude each other; --nbest is the number of samples")
    return Sampling(**given)


def chosen_search(arguments: argparse.Namespace, search: SearchConfig) -> SearchConfig:
    """The settings of a run, replaced where options are given.

    ConfigError if one is out of range or would have no effect.
    """
    chosen = override(search, **{field.name: getattr(arguments, field.name) for field in dataclasses.fields(search)})
    check_alpha(arguments.alpha, chosen)
    return chosen


def check_alpha(alpha: float | None, search: SearchConfig) -> None:
    """ConfigError for a given exponent that would have no effect."""
    if alpha is not None and search.length_penalty == "none":
        raise ConfigError(f"--alpha {alpha} has no effect: length_penalty is none")


def load_translator(arguments: argparse.Namespace, run: str | Path) -> Translator:
    """The model of a run, or with `--ensemble` all of them; errors as of `Translator.load` and `Ensemble`."""
    options = {"device": arguments.device, "precision": arguments.precision}
    if not arguments.ensemble:
        return Translator.load(run, **options)
    for path in map(Path, arguments.ensemble):
        if path.is_file():
            raise ConfigError(f"--ensemble {path}: is a file, not a run; put FILE before --ensemble")
    return Ensemble.load([run, *arguments.ensemble], **options)


def origins(translator: Translator) -> list[str]:
    """The checkpoint of each model, as of `Translator.origin`."""
    return [str(member.origin) for member in translator.members]


def apply_search_options(arguments: argparse.Namespace, translator: Translator) -> None:
    """Let the translator do as the options say.

    ConfigError if one is out of range, or as of `choose_tag`; DataError if sentences are to be split and `sentencex` is
    not installed.
    """
    translator.search = chosen_search(arguments, translator.search)
    translator.too_long, translator.split_sentences = arguments.too_long, arguments.split_sentences
    choose_tag(arguments, translator)
    translator.source_reader().read([""])  # so that a missing package is an error now, not with the first line


def choose_tag(arguments: argparse.Namespace, translator: Translator) -> None:
    """Let the translator put the tag before each line that is given, or asks for the language.

    ConfigError for both, and for a language that the model does not have.
    """
    if arguments.tag is not None and arguments.target_language is not None:
        raise ConfigError("--tag and --target-language exclude each other")
    if arguments.target_language is not None:
        translator.choose_language(arguments.target_language)
    elif arguments.tag is not None:
        translator.tag = arguments.tag or None


def describe_translation(translator: Translator) -> dict[str, object]:
    """How it translates, to name beside a score: beam, alpha, the tag of a model with tags, and all not by default.

    So is every precision but float32: `auto` differs between machines.
    """
    search, default = translator.search, SearchConfig()
    names = [field.name for field in dataclasses.fields(search)]
    found = {
        name: value
        for name in names
        if (value := getattr(search, name)) != getattr(default, name) or name in ("beam", "alpha")
    }
    others: dict[str, object] = {"too_long": translator.too_long, "split_sentences": translator.split_sentences}
    found |= {name: value for name, value in others.items() if value != SEARCH_DEFAULTS[name]}
    found |= {"tag": translator.tag} if translator.tags else {}
    return found | precision_beside(translator)


def precision_beside(translator: Translator) -> dict[str, object]:
    """The precision, to name beside a result that was not computed in float32 alone."""
    if isinstance(translator, CTranslate2Translator):
        precision = translator.precision
    else:
        precision = precision_of(member.model for member in translator.members)
    return {} if precision == "float32" else {"precision": precision}


def in_words(made: dict[str, Any]) -> str:
    """What `describe_translation` found, on a line."""
    return ", ".join(
        f"{name} {'none' if made[name] is None else made[name]}"
        for name in (*SEARCH_DEFAULTS, "precision")
        if name in made
    )


def print_notes(notes: InputNotes, name: str | None = None) -> None:
    """Print on standard error what a user should know of the input, after its name where there are several."""
    for message in notes.messages():
        print(message if name is None else f"{name}: {message}", file=sys.stderr)

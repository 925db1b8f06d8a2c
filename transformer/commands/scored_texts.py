"""What commands score: options for texts and metrics, the texts, BLEU's tokenizer, and translations of the texts."""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformer.commands import search_options
from transformer.commands.selection import report_checkpoint
from transformer.config import DataConfig
from transformer.data.languages import UNKNOWN_LANGUAGE
from transformer.data.tags import language_of, tag_of_language
from transformer.errors import ConfigError, warn
from transformer.hub import is_model_id
from transformer.inference.arguments import DEVICES, PRECISIONS
from transformer.inference.bleu_tokenizer import TOKENIZERS, resolve_tokenizer, tokenizer_of
from transformer.inference.evaluation_set import EvaluationSet, check_distinct
from transformer.inference.scoring import METRICS
from transformer.inference.sources import InputNotes
from transformer.inference.translator import Translator
from transformer.interop.marian_model import UNKNOWN_CORPUS
from transformer.progress import no_stage, stage
from transformer.training.distributed import DistributedContext


def add_text_options(parser: argparse.ArgumentParser, **ref: Any) -> None:
    """Add the options for the texts; `ref` is how argparse takes --ref."""
    parser.add_argument("--split", help="of the run's corpus; by default its test split")
    parser.add_argument("--test-set", metavar="NAME", help="score on this sacreBLEU test set, such as wmt14/full")
    parser.add_argument("--src", type=Path, metavar="FILE", help="score on this file instead, a sentence per line")
    parser.add_argument(
        "--ref",
        type=Path,
        metavar="FILE",
        default=[],
        help="its reference translations, raw as given; several files are several references",
        **ref,
    )


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how texts are scored."""
    parser.add_argument(
        "--metrics", nargs="+", choices=METRICS, default=["bleu", "chrf"], help="by default bleu and chrf"
    )
    parser.add_argument(
        "--tokenize",
        choices=("auto", *TOKENIZERS),
        help="of BLEU; by default the run's data.bleu_tokenizer; auto: by language; none: tokenised text",
    )
    parser.add_argument("--lowercase", action="store_true", help="ignore case")


def add_translation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a run translates."""
    search_options.add_search_options(parser)
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)


def check_translation_options(arguments: argparse.Namespace, defaults: dict[str, Any], with_what: str) -> None:
    """ConfigError if an option of the translation is given where nothing is translated.

    Args:
        arguments: that were parsed.
        defaults: the options by name, with the values that they have if they are not given.
        with_what: why nothing is translated.
    """
    for name, default in defaults.items():
        if getattr(arguments, name) != default:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is of a translation by RUN; with {with_what} nothing is translated")


def given_texts(arguments: argparse.Namespace) -> list[str]:
    """Which of the options that name the texts are given; ConfigError for several."""
    given = [f"--{x}" for x in ("split", "test-set", "src") if getattr(arguments, x.replace("-", "_")) is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other")
    return given


def read_texts(arguments: argparse.Namespace, run: str | None, data: DataConfig | None) -> EvaluationSet:
    """The texts that the options name, by default the test split of a run, whose data section `data` is."""
    if arguments.ref:
        check_distinct(arguments.ref)
        return EvaluationSet.from_files(arguments.src, arguments.ref)
    assert run is not None and data is not None  # without RUN there is --ref
    if arguments.test_set is not None:
        target = scored_language(arguments, data) or data.tgt_lang
        return EvaluationSet.published(arguments.test_set, data.src_lang, target)
    if data.corpus == UNKNOWN_CORPUS:
        raise ConfigError(f"{run}: the corpus of an imported model is not known; give --test-set, or --src and --ref")
    if is_model_id(run) and data.corpus not in ("builtin", "treebank"):
        # Its author chose that name, which could be that of local files or of another download.
        raise ConfigError(
            f"{run}: a model from the hub is not scored on the corpus that it names ({data.corpus}); "
            "give --test-set, or --src and --ref"
        )
    return EvaluationSet.from_split(data, arguments.split or data.test_split)


def scored_language(arguments: argparse.Namespace, data: DataConfig | None) -> str | None:
    """The language of the translations: as given, as the tag of a multilingual model asks for, or of the run."""
    if data is None:
        return arguments.lang or None
    if arguments.target_language is not None:
        tag = tag_of_language(arguments.target_language, data.tags, data.tgt_lang)
        return data.tgt_lang if tag is None else language_of(tag)
    return language_of(arguments.tag) if arguments.tag in data.target_tags else data.tgt_lang


def choose_tokenizer(arguments: argparse.Namespace, data: DataConfig | None, lang: str | None) -> str:
    """BLEU's tokenizer: as given, of the run or by language. DataError if BLEU is asked for and it cannot be used."""
    tokenize: str = arguments.tokenize or ("auto" if data is None else data.bleu_tokenizer)
    if tokenize == "auto" and lang is None:
        warn("the language is not known without RUN or --lang: BLEU splits words as of English (13a)")
        return "13a"
    if tokenize == "auto" and lang == UNKNOWN_LANGUAGE:
        warn(
            "the model does not say which language it translates into: BLEU splits words as of English (13a); give "
            "--tokenize, or --languages to transformer import"
        )
        return "13a"
    if "bleu" in arguments.metrics:
        return resolve_tokenizer(tokenize, str(lang), warn)
    return tokenizer_of(str(lang)) if tokenize == "auto" else tokenize


def warn_of(signs: Iterable[str]) -> None:
    """Print each sign that a text is scored wrongly as a warning."""
    for sign in signs:
        warn(sign)


def load_translator(checkpoint: Path, arguments: argparse.Namespace, context: DistributedContext) -> Translator:
    """The translator of a checkpoint or ensemble, that does as the options say. UserError as of `Translator.load`."""
    translator: Translator = search_options.load_translator(arguments, checkpoint)
    search_options.apply_search_options(arguments, translator)
    translator.context = context
    if context.is_main:
        for given, origin in zip(arguments.ensemble, search_options.origins(translator)[1:], strict=True):
            report_checkpoint(given, origin)
    return translator


def translate_set(
    translator: Translator,
    texts: EvaluationSet,
    origin: str | None,
    what: str = "translating",
    *,
    name: str | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """The translations of all sources, and how they were made.

    Args:
        translator: from `load_translator`; all processes of its context call for it.
        texts: with sources.
        origin: of the model, for the report.
        what: is done, for the line of progress.
        name: before the notes on the sources, where several translations are made.
    """
    assert texts.sources is not None
    context, translator.notes = translator.context, InputNotes()
    began = time.perf_counter()
    with (stage if context.is_main else no_stage)(what, "sentences", len(texts.sources)) as translator.progress:
        hypotheses = translator.translate(texts.sources)
    seconds = time.perf_counter() - began
    if context.is_main:
        search_options.print_notes(translator.notes, name)
    return hypotheses, {
        "checkpoint": " + ".join([str(origin), *search_options.origins(translator)[1:]]),
        "corpus": texts.name,
        "sentences": len(hypotheses),
        "seconds": round(seconds, 3),
        "sentences_per_s": round(len(hypotheses) / seconds, 1),
        **search_options.describe_translation(translator),
    }

"""Score a trained model: transformer evaluate RUN [--split test | --test-set NAME | --src FILE --ref FILE ...]

Prints sacreBLEU's scores with their signatures. With --hyp FILE, an existing translation is scored instead, and RUN may
be left out: transformer evaluate --hyp FILE --ref FILE ... --lang de
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.commands.also import other_sets
from transformer.commands.outputs import check_output
from transformer.commands.search_options import (
    SEARCH_DEFAULTS,
    add_search_options,
    apply_search_options,
    chosen_search,
    describe_search,
    load_translator,
    origins,
    print_notes,
)
from transformer.commands.selection import report_checkpoint
from transformer.config import DataConfig, load_config
from transformer.errors import ConfigError, DataError, warn
from transformer.files import write_atomic
from transformer.hub import is_model_id
from transformer.inference.arguments import DEVICES, PRECISIONS
from transformer.inference.bleu import compound_split_score, moses_tokenizer
from transformer.inference.bleu_tokenizer import TOKENIZERS, resolve_tokenizer, tokenizer_of
from transformer.inference.evaluation_set import (
    EvaluationSet,
    check_distinct,
    check_lengths,
    read_hypotheses,
    signs_of_swapped_files,
)
from transformer.inference.scoring import METRICS, Scorer
from transformer.inference.sources import InputNotes
from transformer.inference.text_checks import (
    signs_of_copies,
    signs_of_nothing,
    signs_of_other_composition,
    signs_of_other_words,
    signs_of_pieces,
    signs_of_scores,
    signs_of_tokenisation,
)
from transformer.inference.translator import Translator
from transformer.progress import no_stage, stage
from transformer.training.checkpoint import locate_checkpoint
from transformer.training.device import tune_process
from transformer.training.distributed import DistributedContext, init_distributed

_TRANSLATED = """\
{checkpoint} on {corpus}: {sentences} sentences, {search}
translated in {seconds:.1f} s, {sentences_per_s} sentences/s"""
_GIVEN = "{hypotheses} on {corpus}: {sentences} sentences"
_COMPOUND_SPLIT = """\
tokenised, compound-split BLEU (as the paper's authors counted; not comparable with the last line): \
{compound_split_details}  {compound_split_signature}"""
# Options of the translation, which --hyp replaces, with their defaults.
_TRANSLATION: dict[str, Any] = {
    **SEARCH_DEFAULTS,
    "output": None,
    "also": [],
    "device": "auto",
    "precision": "auto",
}


@dataclass(frozen=True)
class _Task:
    """All that is needed to translate and score, read and checked."""

    checkpoint: Path | None  # with its origin, for messages; None without RUN
    origin: str | None
    texts: EvaluationSet
    hypotheses: list[str] | None  # of --hyp
    tokenize: str  # what `auto` meant
    lang: str | None
    output: Path | None
    others: Sequence[EvaluationSet] = ()  # of --also


def main(argv: Sequence[str] | None = None) -> int:
    with init_distributed() as context:
        return _evaluate(_parse(argv), context)


def _evaluate(arguments: argparse.Namespace, context: DistributedContext) -> int:
    tune_process()
    task = context.broadcast_from_main(lambda: _read(arguments))
    if task.origin is not None and context.is_main:
        report_checkpoint(arguments.run, task.origin)
    # Before the work, so that what scoring lacks is an error now.
    scorer = Scorer(task.tokenize, arguments.metrics, lowercase=arguments.lowercase) if context.is_main else None
    lines: list[str] = []
    # The set that is asked for last, so that its BLEU is the last line.
    tasks = [*(dataclasses.replace(task, texts=texts, output=None) for texts in task.others), task]
    *others, report = [_evaluate_one(one, scorer, arguments, context, lines) for one in tasks]
    if arguments.also:
        report["also"] = others
    if scorer is not None:
        print(json.dumps(report, ensure_ascii=False) if arguments.json else "\n".join(lines))
    return 0


def _evaluate_one(
    task: _Task, scorer: Scorer | None, arguments: argparse.Namespace, context: DistributedContext, lines: list[str]
) -> dict[str, Any]:
    """Translate and, on the main process, score one set; `lines` gets those for readers."""
    hypotheses = task.hypotheses
    report: dict[str, Any] = {
        "hypotheses": str(arguments.hyp),
        "corpus": task.texts.name,
        "sentences": len(task.texts),
    }
    if hypotheses is None:
        hypotheses, report = _translate(task, arguments, context)
    if scorer is None:
        return {}
    if task.output is not None:
        write_atomic(task.output, "".join(f"{line}\n" for line in hypotheses))
    _warn_of_hypotheses(hypotheses, task)
    search = ", ".join(f"{name} {report[name]}" for name in SEARCH_DEFAULTS if name in report)
    lines.append((_TRANSLATED if task.hypotheses is None else _GIVEN).format(**report, search=search))
    return report | _score(scorer, hypotheses, task, arguments, lines)


def _translate(
    task: _Task, arguments: argparse.Namespace, context: DistributedContext
) -> tuple[list[str], dict[str, Any]]:
    """The translations, and how they were made."""
    assert task.checkpoint is not None and task.texts.sources is not None
    translator: Translator = load_translator(arguments, task.checkpoint)
    apply_search_options(arguments, translator)
    others = origins(translator)[1:] if arguments.ensemble else []
    if context.is_main:
        for given, origin in zip(arguments.ensemble, others, strict=True):
            report_checkpoint(given, origin)
    translator.context, translator.notes = context, InputNotes()
    began = time.perf_counter()
    sources = task.texts.sources
    with (stage if context.is_main else no_stage)("translating", "sentences", len(sources)) as translator.progress:
        hypotheses = translator.translate(sources)
    seconds = time.perf_counter() - began
    if context.is_main:
        print_notes(translator.notes)
    return hypotheses, {
        "checkpoint": " + ".join([str(task.origin), *others]),
        "corpus": task.texts.name,
        "sentences": len(hypotheses),
        "seconds": round(seconds, 3),
        "sentences_per_s": round(len(hypotheses) / seconds, 1),
        **describe_search(translator.search),
    }


def _score(
    scorer: Scorer, hypotheses: list[str], task: _Task, arguments: argparse.Namespace, lines: list[str]
) -> dict[str, Any]:
    """All scores by name; `lines` gets those for readers, BLEU last."""
    found = scorer.score(hypotheses, task.texts.references)
    report: dict[str, Any] = {}
    for name, one in found.items():
        report |= {name: round(one.score, 2), f"{name}_signature": one.signature}
        if name == "bleu":
            report["bleu_details"] = one.details
            lines.append(one.details)
    if arguments.compound_split:
        references, moses = task.texts.references, moses_tokenizer(str(task.lang))
        split = compound_split_score(hypotheses, references, moses, lowercase=arguments.lowercase)
        report |= {f"compound_split_{name}": value for name, value in dataclasses.asdict(split).items()}
        report["compound_split_bleu"] = round(split.bleu, 2)
        lines.append(_COMPOUND_SPLIT.format(**report))
    for _, one in sorted(found.items(), key=lambda item: item[0] == "bleu"):
        lines.append(f"{one.name} = {one.score:.2f}  {one.signature}")
    return report


def _read(arguments: argparse.Namespace) -> _Task:
    """Read and check all that can be wrong before the work."""
    checkpoint = origin = data = hypotheses = None
    if arguments.run is not None:
        checkpoint, origin = locate_checkpoint(arguments.run)
        config = load_config(checkpoint / "config.yaml", saved=True)
        chosen_search(arguments, config.search)  # an error before the work
        data = config.data
    texts = _texts(arguments, data)
    if not len(texts):
        raise DataError(f"{texts.name}: there is nothing to score: the references are empty")
    if arguments.hyp is not None:
        hypotheses, has_returns = read_hypotheses(arguments.hyp)
        check_lengths({str(arguments.hyp): len(hypotheses), texts.names[0]: len(texts)})
        if has_returns:
            warn(f"{arguments.hyp} has lines that end in \\r\\n; the \\r is not scored")
    lang = arguments.lang or None if data is None else data.tgt_lang
    tokenize = _tokenizer(arguments, data, lang)
    if arguments.compound_split:
        _check_compound_split(tokenize, lang)
    if arguments.output is not None:
        files = [path for path in (arguments.src, *arguments.ref, *texts.files) if path is not None]
        check_output(arguments.output, files, None if is_model_id(arguments.run) else data)
    _warn_of_references(texts, tokenize, arguments, data)
    others = [] if data is None else other_sets(arguments.also, arguments.split, data, arguments.output)
    return _Task(checkpoint, origin, texts, hypotheses, tokenize, lang, arguments.output, others)


def _texts(arguments: argparse.Namespace, data: DataConfig | None) -> EvaluationSet:
    if arguments.ref:
        check_distinct(arguments.ref)
        return EvaluationSet.from_files(arguments.src, arguments.ref)
    assert data is not None  # --hyp without RUN has --ref
    if arguments.test_set is not None:
        return EvaluationSet.published(arguments.test_set, data.src_lang, data.tgt_lang)
    if is_model_id(arguments.run) and data.corpus not in ("builtin", "treebank"):
        # Its author chose that name, which could be that of local files or of another download.
        raise ConfigError(
            f"{arguments.run}: a model from the hub is not scored on the corpus that it names ({data.corpus}); "
            "give --test-set, or --src and --ref"
        )
    return EvaluationSet.from_split(data, arguments.split or data.test_split)


def _tokenizer(arguments: argparse.Namespace, data: DataConfig | None, lang: str | None) -> str:
    tokenize: str = arguments.tokenize or ("auto" if data is None else data.bleu_tokenizer)
    if tokenize == "auto" and lang is None:
        warn("the language is not known without RUN or --lang: BLEU splits words as of English (13a)")
        return "13a"
    if "bleu" in arguments.metrics:
        return resolve_tokenizer(tokenize, str(lang), warn)
    return tokenizer_of(str(lang)) if tokenize == "auto" else tokenize


def _check_compound_split(tokenize: str, lang: str | None) -> None:
    if tokenize == "none":
        raise ConfigError("--compound-split tokenises raw text; --tokenize none says that it is tokenised already")
    if lang is None:
        raise ConfigError("--compound-split tokenises by language: give RUN or --lang")
    moses_tokenizer(lang)


def _warn_of_references(
    texts: EvaluationSet, tokenize: str, arguments: argparse.Namespace, data: DataConfig | None
) -> None:
    signs = [] if data is None else signs_of_swapped_files(arguments.src, arguments.ref, data)
    sources = {} if texts.sources is None else {"the source": texts.sources}
    for name, lines in zip(texts.names, texts.references, strict=True):
        signs += [*signs_of_pieces(lines, name), *signs_of_copies(name, lines, sources)]
        num_missing = sum(1 for line in lines if not line.strip())
        if num_missing and len(texts.names) > 1:
            signs.append(
                f"{num_missing} of {len(lines)} lines of {name} are empty: missing references, unless all are empty"
            )
    for sign in (*signs, *signs_of_other_words(texts.references[0], tokenize, arguments.metrics)):
        warn(sign)


def _warn_of_hypotheses(hypotheses: list[str], task: _Task) -> None:
    name, texts = "the translation", task.texts
    signs = [
        *signs_of_nothing(hypotheses, name),
        *signs_of_pieces(hypotheses, name),
        *signs_of_tokenisation(hypotheses, name, task.tokenize),
        *signs_of_other_composition(hypotheses, texts.references[0], name),
    ]
    if task.hypotheses is not None:
        others = dict(zip(texts.names, texts.references, strict=True))
        others |= {} if texts.sources is None else {"the source": texts.sources}
        signs += [*signs_of_scores(hypotheses, name), *signs_of_copies(name, hypotheses, others)]
    for sign in signs:
        warn(sign)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run = "a run or checkpoint directory, or a hub id as owner/name@revision"
    parser.add_argument("run", metavar="RUN", nargs="?", help=run)
    parser.add_argument("--split", help="of the run's corpus; by default its test split")
    parser.add_argument("--test-set", metavar="NAME", help="score on this sacreBLEU test set, such as wmt14/full")
    parser.add_argument("--src", type=Path, metavar="FILE", help="score on this file instead, a sentence per line")
    parser.add_argument(
        "--ref",
        type=Path,
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="its reference translations, raw as given; several files are several references",
    )
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
    parser.add_argument(
        "--metrics", nargs="+", choices=METRICS, default=["bleu", "chrf"], help="by default bleu and chrf"
    )
    parser.add_argument(
        "--tokenize",
        choices=("auto", *TOKENIZERS),
        help="of BLEU; by default the run's data.bleu_tokenizer; auto: by language; none: tokenised text",
    )
    parser.add_argument("--lowercase", action="store_true", help="ignore case")
    parser.add_argument(
        "--compound-split", action="store_true", help="also print BLEU as the paper's authors counted it"
    )
    add_search_options(parser)
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the translations to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    _check(arguments)
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    """ConfigError for options that do not go together."""
    if arguments.run is None and (runs := [path for path in arguments.ref if path.is_dir() or is_model_id(path)]):
        # `--ref FILE RUN`: no directory is a reference.
        arguments.run = str(runs[0])
        arguments.ref.remove(runs[0])
    given = [f"--{x}" for x in ("split", "test-set", "src") if getattr(arguments, x.replace("-", "_")) is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other")
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
        for name, default in _TRANSLATION.items():
            if getattr(arguments, name) != default:
                raise ConfigError(
                    f"--{name.replace('_', '-')} is of a translation by RUN; with --hyp nothing is translated"
                )
    if arguments.lang is not None and arguments.run is not None:
        raise ConfigError("--lang is for --hyp without RUN, whose data.tgt_lang it would contradict")

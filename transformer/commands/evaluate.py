"""Score a trained model: transformer evaluate RUN [--split test | --test-set NAME | --src FILE --ref FILE ...]

Prints sacreBLEU's scores with their signatures. With --hyp FILE, an existing translation is scored instead, and RUN may
be left out: transformer evaluate --hyp FILE --ref FILE ... --lang de. With --by-length and --worst N, it also prints
where the translation is bad.
"""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.commands import evaluation_options
from transformer.commands.also import other_sets
from transformer.commands.error_analysis import analyse, write_page
from transformer.commands.outputs import check_output
from transformer.commands.scored_texts import (
    choose_tokenizer,
    load_translator,
    read_texts,
    scored_language,
    translate_set,
    warn_of,
)
from transformer.commands.search_options import chosen_search, in_words
from transformer.commands.selection import report_checkpoint
from transformer.config import DataConfig, load_config
from transformer.errors import ConfigError, DataError, warn
from transformer.files import write_atomic
from transformer.hub import is_model_id
from transformer.inference.bleu import compound_split_score, moses_tokenizer
from transformer.inference.evaluation_set import EvaluationSet, check_lengths, read_hypotheses
from transformer.inference.score_checks import signs_in_hypotheses, signs_in_references
from transformer.inference.scoring import Scorer
from transformer.inference.translator import Translator
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
        return _evaluate(evaluation_options.parse(argv, __doc__), context)


def _evaluate(arguments: argparse.Namespace, context: DistributedContext) -> int:
    tune_process(inference=True)
    task = context.broadcast_from_main(lambda: _read(arguments))
    if task.origin is not None and context.is_main:
        report_checkpoint(arguments.run, task.origin)
    # Before the work, so that what scoring lacks is an error now.
    scorer = Scorer(task.tokenize, arguments.metrics, lowercase=arguments.lowercase) if context.is_main else None
    translator = None
    if task.hypotheses is None:
        assert task.checkpoint is not None
        translator = load_translator(task.checkpoint, arguments, context)
    lines: list[str] = []
    without_files = argparse.Namespace(**vars(arguments) | {"plot": None, "html": None})
    others = [
        _evaluate_one(dataclasses.replace(task, texts=texts, output=None), translator, scorer, without_files, lines)
        for texts in task.others
    ]
    # Last, so that its BLEU is the last line.
    report = _evaluate_one(task, translator, scorer, arguments, lines)
    if arguments.also:
        report["also"] = others
    if scorer is not None:
        print(json.dumps(report, ensure_ascii=False) if arguments.json else "\n".join(lines))
    return 0


def _evaluate_one(
    task: _Task, translator: Translator | None, scorer: Scorer | None, arguments: argparse.Namespace, lines: list[str]
) -> dict[str, Any]:
    """Translate and, on the main process, score one set; `lines` gets those for readers."""
    name = task.texts.name if arguments.also else None
    if translator is None:
        assert task.hypotheses is not None
        hypotheses = task.hypotheses
        report = {"hypotheses": str(arguments.hyp), "corpus": task.texts.name, "sentences": len(task.texts)}
    else:
        hypotheses, report = translate_set(translator, task.texts, task.origin, name=name)
    if scorer is None:
        return {}
    if task.output is not None:
        write_atomic(task.output, "".join(f"{line}\n" for line in hypotheses))
    is_file = translator is None
    what = "the translation" if name is None else f"the translation of {name}"
    warn_of(signs_in_hypotheses(hypotheses, task.texts, task.tokenize, what, is_file=is_file))
    search = in_words(report)
    lines.append((_GIVEN if is_file else _TRANSLATED).format(**report, search=search))
    if arguments.html is not None:
        write_page(scorer, hypotheses, task.texts, arguments, str(arguments.hyp or task.origin), search)
    found, scored = _score_set(scorer, hypotheses, task.texts, task.lang, arguments)
    lines += scored
    return report | found


def _score_set(
    scorer: Scorer, hypotheses: list[str], texts: EvaluationSet, lang: str | None, arguments: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """All scores of one set by name, and as lines for readers, BLEU last."""
    found = scorer.score(hypotheses, texts.references)
    report, lines = analyse(scorer, hypotheses, texts, arguments)
    for name, one in found.items():
        report |= {name: round(one.score, 2), f"{name}_signature": one.signature}
        if name == "bleu":
            report["bleu_details"] = one.details
            lines.append(one.details)
    if arguments.compound_split:
        moses = moses_tokenizer(str(lang))
        split = compound_split_score(hypotheses, texts.references, moses, lowercase=arguments.lowercase)
        report |= {f"compound_split_{name}": value for name, value in dataclasses.asdict(split).items()}
        report["compound_split_bleu"] = round(split.bleu, 2)
        lines.append(_COMPOUND_SPLIT.format(**report))
    for _, one in sorted(found.items(), key=lambda item: item[0] == "bleu"):
        lines.append(f"{one.name} = {one.score:.2f}  {one.signature}")
    return report, lines


def _read(arguments: argparse.Namespace) -> _Task:
    """Read and check all that can be wrong before the work."""
    checkpoint = origin = data = hypotheses = None
    if arguments.run is not None:
        checkpoint, origin = locate_checkpoint(arguments.run)
        config = load_config(checkpoint / "config.yaml", saved=True)
        chosen_search(arguments, config.search)  # an error before the work
        data = config.data
    texts = read_texts(arguments, arguments.run, data)
    if not len(texts):
        raise DataError(f"{texts.name}: there is nothing to score: the references are empty")
    if arguments.hyp is not None:
        hypotheses, has_returns = read_hypotheses(arguments.hyp)
        check_lengths({str(arguments.hyp): len(hypotheses), texts.names[0]: len(texts)})
        if has_returns:
            warn(f"{arguments.hyp} has lines that end in \\r\\n; the \\r is not scored")
    lang = scored_language(arguments, data)
    tokenize = choose_tokenizer(arguments, data, lang)
    if arguments.compound_split:
        _check_compound_split(tokenize, lang)
    outputs = _check_outputs(arguments, texts, data)
    given = {"src": arguments.src, "refs": arguments.ref, "data": data}
    warn_of(signs_in_references(texts, tokenize, arguments.metrics, **given))
    others = [] if data is None else other_sets(arguments.also, arguments.split, data, outputs)
    return _Task(checkpoint, origin, texts, hypotheses, tokenize, lang, arguments.output, others)


def _check_outputs(arguments: argparse.Namespace, texts: EvaluationSet, data: DataConfig | None) -> list[Path]:
    """The files that will be written. ConfigError if one is read too, or is given twice."""
    files = [path for path in (arguments.src, *arguments.ref, arguments.hyp, *texts.files) if path is not None]
    options = {"--output": arguments.output, "--plot": arguments.plot, "--html": arguments.html}
    outputs = {option: path for option, path in options.items() if path is not None}
    is_of_hub = arguments.run is not None and is_model_id(arguments.run)  # its author has another corpus
    for path in outputs.values():
        check_output(path, files, None if is_of_hub else data)
    for (a, first), (b, second) in itertools.combinations(outputs.items(), 2):
        if first.resolve() == second.resolve():
            raise ConfigError(f"{a} and {b} are the same file, {first}")
    return [*outputs.values()]


def _check_compound_split(tokenize: str, lang: str | None) -> None:
    if tokenize == "none":
        raise ConfigError("--compound-split tokenises raw text; --tokenize none says that it is tokenised already")
    if lang is None:
        raise ConfigError("--compound-split tokenises by language: give RUN or --lang")
    moses_tokenizer(lang)

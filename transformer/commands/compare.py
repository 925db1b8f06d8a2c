"""Compare systems on one test set: transformer compare A.txt B.txt ... --ref FILE [--src FILE]

Scores translations, or the runs that make them (transformer compare RUN_A RUN_B), with confidence intervals, and says
by a paired significance test whether they differ from the first one, the baseline, by more than chance. --html FILE
writes a page with the sentences where they differ most.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformer.commands import comparison_options
from transformer.commands.error_analysis import lengths_of, printable, table
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
from transformer.data.tags import tag_of_language
from transformer.errors import ConfigError, DataError, warn
from transformer.files import write_atomic
from transformer.hub import is_model_id
from transformer.inference.comparison import count_wins
from transformer.inference.evaluation_set import EvaluationSet, check_lengths, read_hypotheses
from transformer.inference.score_checks import signs_in_hypotheses, signs_in_references
from transformer.inference.scoring import Scorer
from transformer.inference.sentence_scores import sentence_scores
from transformer.inference.significance import NUM_RESAMPLES, PairedScores, paired_bootstrap, paired_randomization, seed
from transformer.inference.suspicious import find_suspicious
from transformer.inspection.report import SIGNIFICANT, Report, ReportedSystem, page
from transformer.progress import stage
from transformer.training.checkpoint import locate_checkpoint
from transformer.training.device import tune_process
from transformer.training.distributed import DistributedContext, init_distributed

_FEW = 100  # sentences, of which resamples say little
_METHODS = {
    "bootstrap": "paired bootstrap resampling (Koehn 2004), {samples:,} resamples",
    "randomization": "paired approximate randomisation (Riezler and Maxwell 2005), {samples:,} trials; intervals of "
    f"{NUM_RESAMPLES:,} bootstrap resamples",
}


@dataclass(frozen=True)
class _System:
    """A translation, or a checkpoint that makes it."""

    name: str
    given: str
    hypotheses: list[str] | None = None
    checkpoint: Path | None = None
    origin: str | None = None
    data: DataConfig | None = None
    made: dict[str, Any] | None = None  # how it was translated

    def note(self) -> str:
        """How it was translated, in words."""
        if self.made is None:
            return ""
        return f"{self.made['checkpoint']}, {in_words(self.made)}"


@dataclass(frozen=True)
class _Task:
    """All that is needed to translate and compare, read and checked."""

    systems: list[_System]
    texts: EvaluationSet
    tokenize: str


def main(argv: Sequence[str] | None = None) -> int:
    with init_distributed() as context:
        return _compare(comparison_options.parse(argv, __doc__), context)


def _compare(arguments: argparse.Namespace, context: DistributedContext) -> int:
    tune_process(inference=True)
    task = context.broadcast_from_main(lambda: _read(arguments))
    systems = [
        system if system.checkpoint is None else _translated(system, task.texts, arguments, context)
        for system in task.systems
    ]
    if not context.is_main:
        return 0
    _warn_of_hypotheses(systems, task)
    outputs = {system.name: system.hypotheses or [] for system in systems}
    options: dict[str, Any] = {"tokenize": task.tokenize, "lowercase": arguments.lowercase}
    test = paired_bootstrap if arguments.test == "bootstrap" else paired_randomization
    references, samples = task.texts.references, arguments.samples
    found = test(outputs, references, metrics=arguments.metrics, num_samples=samples, stage=stage, **options)
    scores = {name: sentence_scores(lines, references, **options) for name, lines in outputs.items()}
    if arguments.html is not None:
        write_atomic(arguments.html, _page(systems, scores, found, task, arguments))
    if arguments.json:
        print(json.dumps(_as_json(systems, scores, found, task, arguments), ensure_ascii=False))
    else:
        print("\n".join(_as_text(systems, scores, found, task, arguments)))
    return 0


def _translated(
    system: _System, texts: EvaluationSet, arguments: argparse.Namespace, context: DistributedContext
) -> _System:
    assert system.checkpoint is not None and system.origin is not None
    if context.is_main:
        report_checkpoint(system.given, system.origin)
    translator = load_translator(system.checkpoint, arguments, context)
    hypotheses, made = translate_set(translator, texts, system.origin, name=system.name)
    return replace(system, hypotheses=hypotheses, made=made)


def _read(arguments: argparse.Namespace) -> _Task:
    """Read and check all that can be wrong before the work."""
    seed()
    systems = [
        _read_system(given, name, arguments) for given, name in zip(arguments.systems, _names(arguments), strict=True)
    ]
    first = next((system for system in systems if system.data is not None), None)
    data = None if first is None else first.data
    texts = read_texts(arguments, None if first is None else first.given, data)
    if not len(texts):
        raise DataError(f"{texts.name}: there is nothing to score: the references are empty")
    lengths = {system.given: len(system.hypotheses) for system in systems if system.hypotheses is not None}
    check_lengths({texts.names[0]: len(texts), **lengths})
    for system in systems:
        _check_languages(system, first)
    lang = scored_language(arguments, data)
    tokenize = choose_tokenizer(arguments, data, lang)
    Scorer(tokenize, arguments.metrics)  # what scoring lacks is an error now
    if arguments.html is not None:
        files = [arguments.src, *arguments.ref, *texts.files, *map(Path, lengths)]
        for corpus in {id(system.data): system for system in systems}.values():
            others = None if is_model_id(corpus.given) else corpus.data
            check_output(arguments.html, [path for path in files if path is not None], others)
    given: dict[str, Any] = {"src": arguments.src, "refs": arguments.ref, "data": data}
    warn_of(signs_in_references(texts, tokenize, arguments.metrics, **given))
    if len(texts) < _FEW:
        warn(f"{len(texts)} sentences are few: intervals and p-values of less than {_FEW} are rough")
    return _Task(systems, texts, tokenize)


def _names(arguments: argparse.Namespace) -> list[str]:
    """The names of the systems, all different. ConfigError for a file or run that is given twice."""
    given: list[str] = arguments.systems
    for number, system in enumerate(given):
        for earlier in given[:number]:
            is_same = Path(system).exists() and Path(earlier).exists() and Path(system).samefile(earlier)
            if is_same or system == earlier:
                raise ConfigError(f"{system} is the same system as {earlier}: give each once")
    return arguments.name or given


def _read_system(given: str, name: str, arguments: argparse.Namespace) -> _System:
    if not comparison_options.is_run(given):
        hypotheses, has_returns = read_hypotheses(Path(given))
        if has_returns:
            warn(f"{given} has lines that end in \\r\\n; the \\r is not scored")
        return _System(name, given, hypotheses)
    checkpoint, origin = locate_checkpoint(given)
    config = load_config(checkpoint / "config.yaml", saved=True)
    chosen_search(arguments, config.search)  # an error before the work
    if arguments.tag and arguments.tag not in config.data.tags:
        known = ", ".join(config.data.tags) or "none"
        raise ConfigError(f"--tag {arguments.tag}: is not one of the tags of {given}, which are: {known}")
    if arguments.target_language is not None:
        tag_of_language(arguments.target_language, config.data.tags, config.data.tgt_lang)  # likewise
    return _System(name, given, checkpoint=checkpoint, origin=origin, data=config.data)


def _check_languages(system: _System, first: _System | None) -> None:
    if system.data is None or first is None or first.data is None:
        return
    pairs = [f"{data.src_lang}-{data.tgt_lang}" for data in (system.data, first.data)]
    if pairs[0] != pairs[1]:
        warn(f"{system.given} translates {pairs[0]}, and {first.given} {pairs[1]}: the texts are in its languages")


def _warn_of_hypotheses(systems: Sequence[_System], task: _Task) -> None:
    for number, system in enumerate(systems):
        lines = system.hypotheses or []
        is_file = system.checkpoint is None
        warn_of(signs_in_hypotheses(lines, task.texts, task.tokenize, system.given, is_file=is_file))
        for earlier in systems[:number]:
            if lines == earlier.hypotheses:
                warn(f"{system.given} and {earlier.given} are equal in every line")


def _method(arguments: argparse.Namespace) -> str:
    return f"{_METHODS[arguments.test].format(samples=arguments.samples)}; seed {seed()}"


def _page(
    systems: Sequence[_System],
    scores: dict[str, list[float]],
    found: dict[str, PairedScores],
    task: _Task,
    arguments: argparse.Namespace,
) -> str:
    scorer, texts = Scorer(task.tokenize, arguments.metrics, lowercase=arguments.lowercase), task.texts
    reported, unit = [], ""
    for system in systems:
        hypotheses = system.hypotheses or []
        unit, buckets = lengths_of(texts, scorer, hypotheses, arguments.length_step)
        kinds = find_suspicious(hypotheses, texts.references, texts.sources)
        reported.append(ReportedSystem(system.name, hypotheses, scores[system.name], buckets, kinds, system.note()))
    return page(Report(texts, reported, found, unit, _method(arguments)), arguments.examples)


def _as_json(
    systems: Sequence[_System],
    scores: dict[str, list[float]],
    found: dict[str, PairedScores],
    task: _Task,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    rows = []
    for number, system in enumerate(systems):
        row: dict[str, Any] = {"name": system.name, **(system.made or {"hypotheses": system.given})}
        for metric, one in found.items():
            score = one.systems[number]
            row[metric] = {"score": score.score, "mean": score.mean, "ci": score.ci}
            if number:
                row[metric] |= {"difference": score.difference, "p": score.p}
        if number:
            row |= count_wins(scores[system.name], scores[systems[0].name])._asdict()
        rows.append(row)
    return {
        "corpus": task.texts.name,
        "sentences": len(task.texts),
        "references": len(task.texts.references),
        "test": arguments.test,
        "samples": arguments.samples,
        "seed": seed(),
        "signatures": {metric: one.signature for metric, one in found.items()},
        "baseline": systems[0].name,
        "systems": rows,
    }


def _as_text(
    systems: Sequence[_System],
    scores: dict[str, list[float]],
    found: dict[str, PairedScores],
    task: _Task,
    arguments: argparse.Namespace,
) -> list[str]:
    baseline = systems[0].name
    lines = [f"{printable(task.texts.name)}: {len(task.texts):,} sentences; baseline: {printable(baseline)}"]
    lines += [_method(arguments)]
    lines += [f"{printable(system.name)}: {printable(system.note())}" for system in systems if system.note()]
    for one in found.values():
        direction = " (less is better)" if one.is_error_rate else ""
        rows = [["system", "score", "mean ± 95 % CI", "difference", "p", ""]]
        for row in one.systems:
            mean = f"{row.mean:.2f} ± {row.ci:.2f}"
            is_baseline = row.difference is None or row.p is None
            tested = ["", "", ""] if is_baseline else [f"{row.difference:+.2f}", f"{row.p:.4f}", _star(row.p)]
            rows.append([printable(row.system), f"{row.score:.2f}", mean, *tested])
        lines += ["", f"{one.name}{direction}  {one.signature}", *table(rows)]
    rows = [["sentences by chrF2", "better", "equal", "worse"]]
    for system in systems[1:]:
        wins = count_wins(scores[system.name], scores[baseline])
        rows.append([printable(system.name), *(f"{number:,}" for number in wins)])
    lines += ["", *table(rows), "", f"* p < {SIGNIFICANT}"]
    return lines


def _star(p: float | None) -> str:
    return "*" if p is not None and p < SIGNIFICANT else ""

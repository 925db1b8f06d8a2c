"""Whether systems differ by more than chance: sacreBLEU's paired tests, with confidence intervals."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.significance import PairedTest

from transformer.errors import ConfigError, DataError
from transformer.inference.arguments import check_count
from transformer.inference.scoring import check_sides, make_metrics, mark_missing
from transformer.progress import Stage, no_stage

NUM_RESAMPLES, NUM_TRIALS = 1000, 10_000  # sacreBLEU's defaults
_SEED = "SACREBLEU_SEED"
_BYTES = 4 * 24 + 8  # of a sentence in a resample: statistics of chrF++, the most, and its index


@dataclass(frozen=True)
class SystemScore:
    """A system's score by one metric, and how it differs from the baseline's.

    Attributes:
        system: its name.
        score: of the corpus.
        mean, ci: of its bootstrap resamples: their mean, and half the width of their 95 % confidence interval.
        difference: from the baseline's score; None for the baseline itself, as `p`.
        p: the probability of such a difference, up or down, if the systems were equally good.
    """

    system: str
    score: float
    mean: float
    ci: float
    difference: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class PairedScores:
    """Scores of all systems by one metric, the baseline first, with sacreBLEU's name and signature."""

    name: str
    signature: str
    systems: list[SystemScore]

    @property
    def is_error_rate(self) -> bool:
        """Whether less is better."""
        return self.name == "TER"


def paired_bootstrap(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[str] = ("bleu", "chrf"),
    tokenize: str = "13a",
    lowercase: bool = False,
    num_samples: int = NUM_RESAMPLES,
    stage: Stage = no_stage,
) -> dict[str, PairedScores]:
    """Paired bootstrap resampling (Koehn 2004): scores by metric, in the order of `METRICS`.

    Scores, means, intervals and p are those of `sacrebleu REF -i BASELINE SYSTEM ... --paired-bs`, with one exception.
    sacreBLEU counts the resamples of a larger difference than the one observed, so that equal systems, and systems
    that differ in a single sentence, get its smallest p. Here p of equal scores is 1, and any p at least 2^(1 - d),
    with d the number of sentences of different statistics: no paired test can tell more from d sentences, since each
    may as well differ the other way round. From 14 on this changes nothing.

    Args:
        systems: translations by the name of the system, the baseline first.
        references: one or more, with equally many lines each; empty lines as of `Scorer.score`.
        metrics, tokenize, lowercase: as of `Scorer`.
        num_samples: resamples.
        stage: shows progress, such as `transformer.progress.stage`.

    Environment:
        SACREBLEU_SEED: the seed of the random numbers, by default 12345; `none` draws others each time.

    Raises:
        ConfigError: there are fewer than two systems, `num_samples` is less than 1, or the seed is no such number.
        DataError: as of `Scorer`, or the resamples need more memory than the machine has.
    """
    _check_number(systems)
    return _test("bs", systems, references, num_samples, make_metrics(tokenize, metrics, lowercase=lowercase), stage)


def paired_randomization(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[str] = ("bleu", "chrf"),
    tokenize: str = "13a",
    lowercase: bool = False,
    num_samples: int = NUM_TRIALS,
    stage: Stage = no_stage,
) -> dict[str, PairedScores]:
    """Paired approximate randomisation (Riezler and Maxwell 2005); otherwise as `paired_bootstrap`.

    p is that of `sacrebleu ... --paired-ar`, means and intervals are of 1,000 bootstrap resamples. `num_samples` is the
    number of trials.
    """
    _check_number(systems)
    return _test("ar", systems, references, num_samples, make_metrics(tokenize, metrics, lowercase=lowercase), stage)


def confidence_intervals(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[str] = ("bleu", "chrf"),
    tokenize: str = "13a",
    lowercase: bool = False,
    num_samples: int = NUM_RESAMPLES,
    system: str = "",
    stage: Stage = no_stage,
) -> dict[str, PairedScores]:
    """Scores of a single system with intervals by bootstrap resampling, as of `sacrebleu REF -i SYSTEM --confidence`.

    Arguments and errors as of `paired_bootstrap`; `system` is its name.
    """
    made = make_metrics(tokenize, metrics, lowercase=lowercase)
    return _test("bs", {system: hypotheses}, references, num_samples, made, stage)


def seed() -> str:
    """The seed of sacreBLEU's random numbers, or "none". ConfigError if it is neither a positive number nor none."""
    value = os.environ.get(_SEED, "12345").strip().lower()
    if value != "none" and not (value.isascii() and value.isdigit() and int(value) > 0):
        # With 0 it would draw from the system, although its signature says seed:0.
        raise ConfigError(f"{_SEED}={value!r} must be a positive whole number, or none for other numbers each time")
    return value


def _check_number(systems: Mapping[str, Sequence[str]]) -> None:
    if len(systems) < 2:
        raise ConfigError(f"{len(systems)} systems cannot be compared: give a baseline and at least one other")


def _test(
    kind: str,
    systems: Mapping[str, Sequence[str]],
    references: Sequence[Sequence[str]],
    num_samples: int,
    metrics: Mapping[str, Any],
    stage: Stage,
) -> dict[str, PairedScores]:
    check_count("num_samples", num_samples)
    seed()
    for hypotheses in systems.values():
        check_sides(hypotheses, references)
    _check_memory(len(references[0]), num_samples)
    resamples = num_samples if kind == "bs" else NUM_RESAMPLES
    num_scores = {"bs": 2 * num_samples, "ar": 2 * num_samples + resamples}[kind]  # of each system but the first
    total = len(metrics) * (resamples + num_scores * (len(systems) - 1))
    with stage("resampling", "scores", total) as advance:
        watched = {name: _Watched(metric, advance) for name, metric in metrics.items()}
        named = [(name, list(lines)) for name, lines in systems.items()]
        confidence = -1 if kind == "bs" else resamples
        test: Any = PairedTest  # whose types do not tell of missing references
        test = test(named, watched, mark_missing(references), kind, num_samples, n_ar_confidence=confidence)
        signatures, columns = test()
    results: dict[str, PairedScores] = {}
    for (name, metric), (label, column) in zip(watched.items(), list(columns.items())[1:], strict=True):
        rows = [_row(*row, column[0].score) for row in zip(systems, column, metric.num_different(), strict=True)]
        results[name] = PairedScores(label, str(signatures[label]), rows)
    return results


def _row(system: str, result: Any, num_different: int, baseline: float) -> SystemScore:
    if result.p_value is None:
        return SystemScore(system, float(result.score), float(result.mean), float(result.ci))
    difference = float(result.score) - baseline
    p = max(float(result.p_value), min(1.0, 2.0 ** (1 - num_different))) if difference else 1.0
    return SystemScore(system, float(result.score), float(result.mean), float(result.ci), difference, p)


class _Watched:
    """A metric of sacreBLEU that counts the resamples it scores, and keeps the statistics of each system."""

    def __init__(self, metric: Any, advance: Callable[[int], None]) -> None:
        self._metric, self._advance = metric, advance
        self._statistics: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metric, name)

    def _extract_corpus_statistics(self, hypotheses: Any, references: Any) -> Any:
        self._statistics.append(self._metric._extract_corpus_statistics(hypotheses, references))
        return self._statistics[-1]

    def _aggregate_and_compute(self, statistics: Any) -> Any:
        if len(statistics) == 1:  # of a trial, not of all sentences
            self._advance(1)
        return self._metric._aggregate_and_compute(statistics)

    def _compute_score_from_stats(self, statistics: Any) -> Any:
        self._advance(1)
        return self._metric._compute_score_from_stats(statistics)

    def num_different(self) -> list[int]:
        """For each system, in how many sentences its statistics are not the baseline's."""
        baseline = self._statistics[0]
        return [sum(map(_differ, baseline, other)) for other in self._statistics]


def _differ(a: Sequence[float], b: Sequence[float]) -> bool:
    return list(a) != list(b)


def _check_memory(num_sentences: int, num_samples: int) -> None:
    """DataError if sacreBLEU's resamples, which it makes all at once, do not fit into memory."""
    needed, there = num_sentences * num_samples * _BYTES, _memory()
    if needed > there:
        raise DataError(
            f"{num_samples:,} samples of {num_sentences:,} sentences need {needed / 1e9:,.0f} GB of memory, and the "
            f"machine has {there / 1e9:,.0f}: take fewer samples"
        )


def _memory() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # other systems
        return math.inf

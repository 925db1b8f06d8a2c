"""BLEU, chrF, chrF++ and TER by sacreBLEU, against any number of references."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

from transformer.errors import ConfigError, DataError
from transformer.inference.arguments import text_list
from transformer.inference.bleu_tokenizer import make_bleu

METRICS = ("bleu", "chrf", "chrf++", "ter")


@dataclass(frozen=True)
class MetricScore:
    """A corpus-level score with sacreBLEU's name and signature."""

    name: str  # BLEU, chrF2, chrF2++ or TER
    score: float  # from 0 to 100; TER may be more, and less is better
    signature: str
    details: str  # of BLEU: n-gram precisions, brevity penalty, lengths
    length_ratio: float | None = None  # of BLEU: words of the hypotheses over those of the closest references


class Scorer:
    """Computes metrics of detokenised text; made before the text, so that what is missing is found first.

    Args:
        tokenize: sacreBLEU's tokenizer for BLEU; "none" for text that is already tokenised.
        metrics: some of `METRICS`.
        lowercase: ignore case in BLEU and chrF; TER, as sacreBLEU computes it, always does.

    Raises:
        ConfigError: a metric is not one of `METRICS`, or there is none.
        DataError: the tokenizer is unknown or cannot be used.
    """

    def __init__(self, tokenize: str = "13a", metrics: Sequence[str] = ("bleu",), *, lowercase: bool = False) -> None:
        self.tokenize = tokenize
        self._metrics = make_metrics(tokenize, metrics, lowercase=lowercase)

    def score(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, MetricScore]:
        """Score hypotheses against one or more references; by metric, in the order of `METRICS`.

        Args:
            hypotheses: a line per sentence.
            references: equally many lines each. Of several, an empty line is a missing reference, unless all are empty.

        Raises:
            DataError: the sides differ in length, or there is nothing to score.
            TypeError: a side is one string, or a line of it is not text.
        """
        check_sides(hypotheses, references)
        streams = mark_missing(references)
        return {name: self._score(metric, list(hypotheses), streams) for name, metric in self._metrics.items()}

    def _score(self, metric: Any, hypotheses: list[str], references: list[list[str | None]]) -> MetricScore:
        found = metric.corpus_score(hypotheses, references)
        if tokenizer := getattr(metric, "tokenizer", None):
            _clear_cache(tokenizer)
        signature, details = str(metric.get_signature()), str(found.format(score_only=False))
        return MetricScore(found.name, found.score, signature, details, getattr(found, "ratio", None))


def make_metrics(tokenize: str, metrics: Sequence[str], *, lowercase: bool = False) -> dict[str, Any]:
    """sacreBLEU's metrics by name, in the order of `METRICS`. Arguments and errors as of `Scorer`."""
    metrics = metrics if isinstance(metrics, Sequence) else list(metrics)
    if isinstance(metrics, str) or not metrics or not {*metrics} <= {*METRICS}:
        raise ConfigError(f"metrics={metrics!r} must be a list of some of {', '.join(METRICS)}")
    # By default TER counts the words between spaces; its own rules for Chinese split the characters.
    is_chinese = tokenize == "zh"
    makers = {
        "bleu": lambda: make_bleu(tokenize, lowercase=lowercase),
        "chrf": lambda: CHRF(lowercase=lowercase),
        "chrf++": lambda: CHRF(word_order=2, lowercase=lowercase),
        "ter": lambda: TER(normalized=is_chinese, asian_support=is_chinese),
    }
    return {name: makers[name]() for name in METRICS if name in metrics}


def mark_missing(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Replace an empty line of one reference by None where another has text, as sacreBLEU takes missing references.

    An empty line that is left would be a reference of no words, which a hypothesis of few words comes closest to.
    """
    return [list(side) for side in zip(*map(_mark_missing, zip(*references, strict=True)), strict=True)]


def _mark_missing(row: Sequence[str]) -> list[str | None]:
    has_text = any(line.strip() for line in row)
    return [line if line.strip() or not has_text else None for line in row]


def check_sides(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Check that every reference has as many lines as the hypotheses, and at least one.

    DataError with both counts; TypeError for one string in the place of lines, and for a line that is not text.
    """
    text_list(hypotheses, "hypotheses")
    for one in references:
        text_list(one, "references")
        if len(hypotheses) != len(one):
            raise DataError(f"{len(hypotheses)} translations cannot be scored against {len(one)} references")
    if not len(hypotheses) or not len(references):
        raise DataError("there is nothing to score: the references are empty")


def _clear_cache(tokenizer: Any) -> None:
    """Clear sacreBLEU's cache of 65,536 lines: training would grow by it."""
    for kind in (type(tokenizer), TokenizerRegexp):
        if clear := getattr(kind.__call__, "cache_clear", None):
            clear()

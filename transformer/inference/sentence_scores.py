"""Scores of single sentences, by which the worst are found and systems are compared."""

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.chrf import CHRF

from transformer.errors import ConfigError
from transformer.inference.bleu_tokenizer import make_bleu
from transformer.inference.scoring import check_sides, mark_missing

SENTENCE_METRICS = {"chrf": "chrF2", "bleu": "BLEU"}  # with sacreBLEU's names
_PERFECT = 100.0


def sentence_scores(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    metric: str = "chrf",
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> list[float]:
    """The score of each sentence alone, from 0 to 100, by sacreBLEU.

    They rank sentences; their mean is not the score of the corpus. An empty translation of an empty reference scores
    100: sacreBLEU would say 0.

    Args:
        hypotheses: a line per sentence.
        references: one or more, with equally many lines each.
        metric: `chrf`, or `bleu` with effective order (n-grams longer than the sentence do not count).
        tokenize: of BLEU.
        lowercase: ignore case.

    Raises:
        ConfigError: the metric is another one.
        DataError: the sides differ in length, there is nothing to score, or the tokenizer cannot be used.
    """
    if metric not in SENTENCE_METRICS:
        raise ConfigError(f"metric={metric!r} must be one of {', '.join(SENTENCE_METRICS)}")
    check_sides(hypotheses, references)
    scorer: Any = CHRF(lowercase=lowercase)
    if metric == "bleu":
        scorer = make_bleu(tokenize, lowercase=lowercase)
        scorer.effective_order = True
    found = []
    for hypothesis, *row in zip(hypotheses, *mark_missing(references), strict=True):
        known = [line for line in row if line is not None]
        is_empty = not hypothesis.strip() and not any(map(str.strip, known))
        # Rounding may leave a perfect sentence more.
        found.append(_PERFECT if is_empty else min(scorer.sentence_score(hypothesis, known).score, _PERFECT))
    return found


def worst(scores: Sequence[float], number: int) -> list[int]:
    """The indices of the lowest scores, lowest first, equal ones in the order of the text."""
    return sorted(range(len(scores)), key=scores.__getitem__)[:number]

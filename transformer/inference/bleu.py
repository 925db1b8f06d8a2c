"""BLEU and chrF, by sacreBLEU, with the signatures that make them comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from transformer.errors import DataError

TOKENIZERS = tuple(sorted(BLEU.TOKENIZERS))


@dataclass(frozen=True)
class Score:
    """Corpus scores from 0 to 100 and how they were computed."""

    bleu: float
    bleu_signature: str
    bleu_details: str  # n-gram precisions, brevity penalty, lengths
    chrf: float
    chrf_signature: str


def score(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> Score:
    """Score translations against one reference each, both as text.

    Args:
        hypotheses, references: equally many lines.
        tokenize: sacreBLEU's tokenizer; "none" for references that are tokenised already.

    Raises:
        DataError: the sides differ in length, there is nothing to score, or the tokenizer is not installed.
    """
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} translations cannot be scored against {len(references)} references")
    if not references:
        raise DataError("there is nothing to score: the references are empty")
    try:
        bleu = BLEU(tokenize=tokenize, force=True)
    except (ImportError, RuntimeError, OSError) as error:
        raise DataError(f"the BLEU tokenizer {tokenize!r} cannot be used: {' '.join(str(error).split())}") from None
    chrf = CHRF()
    bleu_score = bleu.corpus_score(list(hypotheses), [list(references)])
    chrf_score = chrf.corpus_score(list(hypotheses), [list(references)])
    return Score(
        bleu=bleu_score.score,
        bleu_signature=str(bleu.get_signature()),
        bleu_details=str(bleu_score.format(score_only=False)),
        chrf=chrf_score.score,
        chrf_signature=str(chrf.get_signature()),
    )

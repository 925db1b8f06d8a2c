"""BLEU and chrF, by sacreBLEU, with the signatures that make them comparable; BLEU as the paper's authors had it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU, BLEUScore
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

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


@dataclass(frozen=True)
class CompoundSplitScore:
    """BLEU from 0 to 100 as the paper's authors computed it, and how. Not comparable with `Score.bleu`."""

    bleu: float
    signature: str
    details: str  # the same, n-gram precisions, brevity penalty, lengths


def score(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> Score:
    """Score translations against one reference each, both as text.

    Args:
        hypotheses, references: equally many lines.
        tokenize: sacreBLEU's tokenizer; "none" for references that are tokenised already.

    Raises:
        DataError: the sides differ in length, there is nothing to score, or the tokenizer is not installed.
    """
    _check_sides(hypotheses, references)
    try:
        bleu = BLEU(tokenize=tokenize, force=True)
    except (ImportError, RuntimeError, OSError) as error:
        raise DataError(f"the BLEU tokenizer {tokenize!r} cannot be used: {' '.join(str(error).split())}") from None
    chrf = CHRF()
    bleu_score = bleu.corpus_score(list(hypotheses), [list(references)])
    chrf_score = chrf.corpus_score(list(hypotheses), [list(references)])
    _forget_lines(bleu.tokenizer)
    return Score(
        bleu=bleu_score.score,
        bleu_signature=str(bleu.get_signature()),
        bleu_details=str(bleu_score.format(score_only=False)),
        chrf=chrf_score.score,
        chrf_signature=str(chrf.get_signature()),
    )


def _forget_lines(tokenizer: Any) -> None:
    """sacreBLEU keeps the last 65,536 lines for a tokenizer that is not asked again: training would grow with them."""
    for kind in (type(tokenizer), TokenizerRegexp):
        if clear := getattr(kind.__call__, "cache_clear", None):
            clear()


def moses_tokenizer(lang: str) -> Any:
    """Moses' tokenizer for a language code, which decides on abbreviations and apostrophes.

    DataError if sacremoses is not installed.
    """
    try:
        import sacremoses
    except ImportError:
        raise DataError("compound-split BLEU needs Moses' tokenizer: pip install sacremoses") from None
    return sacremoses.MosesTokenizer(lang=lang)


def compound_split_score(hypotheses: Sequence[str], references: Sequence[str], moses: Any) -> CompoundSplitScore:
    """Score raw text as the authors' script did, which made their BLEU comparable with earlier papers.

    Both sides go through Moses' tokenizer, escapes included, and `split_compounds`; then `multi_bleu` counts. The same
    translations score higher than with `score`: of a compound that is right, three words are.

    Args:
        hypotheses, references: equally many lines, not tokenised.
        moses: a tokenizer of `moses_tokenizer`.

    Raises:
        DataError: the sides differ in length, or there is nothing to score.
    """
    _check_sides(hypotheses, references)
    sides = (
        [split_compounds(moses.tokenize(line, return_str=True)) for line in side] for side in (hypotheses, references)
    )
    result = multi_bleu(*sides)
    return CompoundSplitScore(
        bleu=result.score,
        signature=f"nrefs:1|case:mixed|tok:moses-{moses.lang}|compounds:split|smooth:none",
        details=result.format(score_only=False).partition(" = ")[2],
    )


def split_compounds(tokenised: str) -> str:
    """Part what a hyphen joins: `rich-text format` becomes `rich ##AT##-##AT## text format`.

    A character can be the neighbour of one hyphen only: of `a-b-c` just the first is parted, as for published scores.
    """
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", tokenised)


def multi_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> BLEUScore:
    """What `multi-bleu.perl` prints: BLEU of words between white space, with case, 0 if an order has no match."""
    return BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(list(hypotheses), [list(references)])


def _check_sides(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} translations cannot be scored against {len(references)} references")
    if not references:
        raise DataError("there is nothing to score: the references are empty")

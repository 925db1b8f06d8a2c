"""BLEU and chrF by sacreBLEU, and the compound-split BLEU of the paper's authors."""

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
    """Corpus-level scores from 0 to 100, with sacreBLEU's signatures."""

    bleu: float
    bleu_signature: str
    bleu_details: str  # n-gram precisions, brevity penalty, lengths
    chrf: float
    chrf_signature: str


@dataclass(frozen=True)
class CompoundSplitScore:
    """Compound-split BLEU from 0 to 100. Not comparable with `Score.bleu`."""

    bleu: float
    signature: str
    details: str  # score, n-gram precisions, brevity penalty, lengths


def score(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> Score:
    """Corpus BLEU and chrF of detokenised text, one reference per line.

    Args:
        hypotheses, references: equally many lines.
        tokenize: sacreBLEU's tokenizer; "none" for references that are already tokenised.

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
    _clear_cache(bleu.tokenizer)
    return Score(
        bleu=bleu_score.score,
        bleu_signature=str(bleu.get_signature()),
        bleu_details=str(bleu_score.format(score_only=False)),
        chrf=chrf_score.score,
        chrf_signature=str(chrf.get_signature()),
    )


def _clear_cache(tokenizer: Any) -> None:
    """Clear sacreBLEU's cache of 65,536 lines: training would grow by it."""
    for kind in (type(tokenizer), TokenizerRegexp):
        if clear := getattr(kind.__call__, "cache_clear", None):
            clear()


def moses_tokenizer(lang: str) -> Any:
    """Moses' tokenizer, with the language's abbreviations and apostrophes. DataError without sacremoses."""
    try:
        import sacremoses
    except ImportError:
        raise DataError("compound-split BLEU needs Moses' tokenizer: pip install sacremoses") from None
    return sacremoses.MosesTokenizer(lang=lang)


def compound_split_score(hypotheses: Sequence[str], references: Sequence[str], moses: Any) -> CompoundSplitScore:
    """Compound-split BLEU of detokenised text, as the paper's authors computed it.

    Both sides go through Moses' tokenizer, escapes included, `split_compounds` and `multi_bleu`. This gives higher
    scores than `score`, because a correct compound counts as three correct words.

    Args:
        hypotheses, references: equally many lines, detokenised.
        moses: from `moses_tokenizer`.

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
    """Split at hyphens: `rich-text format` becomes `rich ##AT##-##AT## text format`.

    Matches do not overlap, so that `a-b-c` is split at the first hyphen only, as for published scores.
    """
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", tokenised)


def multi_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> BLEUScore:
    """BLEU as `multi-bleu.perl`: cased, split at white space. 0 if an n-gram order has no match: no smoothing."""
    return BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(list(hypotheses), [list(references)])


def _check_sides(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} translations cannot be scored against {len(references)} references")
    if not references:
        raise DataError("there is nothing to score: the references are empty")

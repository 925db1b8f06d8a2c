"""BLEU and chrF by sacreBLEU, and the compound-split BLEU of the paper's authors."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU, BLEUScore

from transformer.errors import DataError
from transformer.inference.scoring import Scorer, check_sides, mark_missing


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
    """Corpus BLEU and chrF of detokenised text, one reference per line; `Scorer` has more metrics and references.

    Args:
        hypotheses, references: equally many lines.
        tokenize: sacreBLEU's tokenizer; "none" for references that are already tokenised.

    Raises:
        DataError: the sides differ in length, there is nothing to score, or the tokenizer is not installed.
    """
    found = Scorer(tokenize, ("bleu", "chrf")).score(hypotheses, [references])
    bleu, chrf = found["bleu"], found["chrf"]
    return Score(bleu.score, bleu.signature, bleu.details, chrf.score, chrf.signature)


def moses_tokenizer(lang: str) -> Any:
    """Moses' tokenizer, with the language's abbreviations and apostrophes. DataError without sacremoses."""
    try:
        import sacremoses
    except ImportError:
        raise DataError("compound-split BLEU needs Moses' tokenizer: pip install sacremoses") from None
    return sacremoses.MosesTokenizer(lang=lang)


def compound_split_score(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], moses: Any, *, lowercase: bool = False
) -> CompoundSplitScore:
    """Compound-split BLEU of detokenised text, as the paper's authors computed it.

    Both sides go through Moses' tokenizer, escapes included, `split_compounds` and `multi_bleu`. This gives higher
    scores than `score`, because a correct compound counts as three correct words.

    Args:
        hypotheses: detokenised lines.
        references: one or more, with equally many lines each.
        moses: from `moses_tokenizer`.
        lowercase: ignore case.

    Raises:
        DataError: the sides differ in length, or there is nothing to score.
    """
    check_sides(hypotheses, references)
    split: Any  # None marks a missing reference only
    split, *split_references = (
        [None if line is None else split_compounds(moses.tokenize(line, return_str=True)) for line in side]
        for side in (hypotheses, *mark_missing(references))
    )
    result = multi_bleu(split, split_references, lowercase=lowercase)
    num_references = "var" if any(None in side for side in split_references) else len(references)
    case = "lc" if lowercase else "mixed"
    return CompoundSplitScore(
        bleu=result.score,
        signature=f"nrefs:{num_references}|case:{case}|tok:moses-{moses.lang}|compounds:split|smooth:none",
        details=result.format(score_only=False).partition(" = ")[2],
    )


def split_compounds(tokenised: str) -> str:
    """Split at hyphens: `rich-text format` becomes `rich ##AT##-##AT## text format`.

    Matches do not overlap, so that `a-b-c` is split at the first hyphen only, as for published scores.
    """
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", tokenised)


def multi_bleu(
    hypotheses: Sequence[str], references: Sequence[Sequence[str | None]], *, lowercase: bool = False
) -> BLEUScore:
    """BLEU as `multi-bleu.perl`: split at white space. 0 if an n-gram order has no match: no smoothing."""
    bleu = BLEU(tokenize="none", smooth_method="none", lowercase=lowercase, force=True)
    streams: Any = [list(one) for one in references]  # sacreBLEU's types do not tell of None
    return bleu.corpus_score(list(hypotheses), streams)

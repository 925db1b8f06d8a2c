"""Translations that look like failures of a model: empty, looping, copied, too long or too short."""

import re
from collections import Counter
from collections.abc import Sequence

from transformer.inference.scoring import check_sides
from transformer.inference.text_checks import needs_other_tokenizer

KINDS = {
    "empty": "no text, though the source or the reference has some",
    "short": "less than half as long as every reference",
    "long": "more than twice as long as every reference",
    "repetition": "words that are repeated, unlike in source and reference",
    "copy": "the source, unlike the reference",
    "untranslated": "at least half of the words are from the source and not in the reference",
}
_MIN_DIFFERENCE = 10  # characters: shorter phrases may well differ by a factor of 2
_NGRAM, _EXCESS = 4, 2  # Raunak et al. 2021: the top 4-gram occurs twice more often than in the source
_MIN_REPEATS = 3  # of up to four words in immediate succession
_MIN_WORDS = 4  # shorter sentences may be names


def find_suspicious(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str] | None = None
) -> list[list[str]]:
    """For each sentence the `KINDS` of suspicion, in their order; mostly none.

    Repetitions follow Raunak, Menezes and Junczys-Dowmunt (2021), who count the most frequent n-gram, and include a
    phrase of up to four words that stands three times in succession. What the reference repeats as well is no sign.

    Args:
        hypotheses: a line per sentence.
        references: one or more, with equally many lines each.
        sources: if they are known; without them, copies are not found.

    Raises:
        DataError: the sides differ in length, or there is nothing to look at.
    """
    check_sides(hypotheses, references if sources is None else [*references, sources])
    is_unspaced = needs_other_tokenizer(references[0])
    rows = zip(hypotheses, sources or [""] * len(hypotheses), zip(*references, strict=True), strict=True)
    return [_kinds(hypothesis, source, row, is_unspaced) for hypothesis, source, row in rows]


def _kinds(hypothesis: str, source: str, references: Sequence[str], is_unspaced: bool) -> list[str]:
    known = [line for line in references if line.strip()]
    if not hypothesis.strip():
        return ["empty"] if known or source.strip() else []
    found = []
    length, lengths = _num_characters(hypothesis), list(map(_num_characters, known))
    if known and 2 * length < min(lengths) and min(lengths) - length >= _MIN_DIFFERENCE:
        found.append("short")
    if known and length > 2 * max(lengths) and length - max(lengths) >= _MIN_DIFFERENCE:
        found.append("long")
    if _is_repetitive(hypothesis, [source, *known], is_unspaced):
        found.append("repetition")
    if _is_copy(hypothesis, source, known):
        found.append("copy")
    elif _is_untranslated(hypothesis, source, known):
        found.append("untranslated")
    return found


def _num_characters(text: str) -> int:
    return sum(map(len, text.split()))


def _is_repetitive(text: str, others: Sequence[str], is_unspaced: bool) -> bool:
    tokens, *rest = (
        list("".join(line.split())) if is_unspaced else line.casefold().split() for line in (text, *others)
    )
    most = max((_most_frequent(other) for other in rest), default=0)
    if _most_frequent(tokens) >= most + _EXCESS:
        return True
    least = _MIN_REPEATS + is_unspaced  # three equal digits or characters are no sign
    repeats = _most_repeats(tokens)
    return repeats >= least and repeats > max(map(_most_repeats, rest), default=0)


def _most_frequent(tokens: Sequence[str]) -> int:
    """How often the most frequent n-gram occurs."""
    ngrams = Counter(tuple(tokens[i : i + _NGRAM]) for i in range(len(tokens) - _NGRAM + 1))
    return max(ngrams.values(), default=0)


def _most_repeats(tokens: Sequence[str]) -> int:
    """How often a phrase of at most `_NGRAM` tokens stands in immediate succession, at most."""
    most = 1 if tokens else 0
    for size in range(1, _NGRAM + 1):
        run = 0  # positions at which a token is that of `size` before
        for i in range(size, len(tokens)):
            run = run + 1 if tokens[i] == tokens[i - size] else 0
            most = max(most, 1 + run // size)
    return most


def _is_copy(text: str, source: str, references: Sequence[str]) -> bool:
    same, *others = (" ".join(line.casefold().split()) for line in (source, *references))
    text = " ".join(text.casefold().split())
    return text == same and text not in others and any(map(str.isalpha, text))


def _is_untranslated(text: str, source: str, references: Sequence[str]) -> bool:
    words = _words(text)
    unlike_references = set(_words(source)).difference(*map(_words, references))
    kept = [word for word in words if word in unlike_references]
    return len(words) >= _MIN_WORDS and 2 * len(kept) >= len(words)


def _words(text: str) -> list[str]:
    """Words of letters, case ignored; numbers stay as they are in any language."""
    return re.findall(r"[^\W\d_]+", text.casefold())

"""Whether outputs can contain their phrases, told before the search."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from transformer.config import SearchConfig
from transformer.errors import DataError
from transformer.inference.automata import progress_of, states_after

Ids = Sequence[int]


def check_phrases(phrases: Sequence[Ids], prefix: Ids, limit: int, search: SearchConfig, number: int) -> None:
    """DataError if no output of a text can contain its phrases.

    Args:
        prefix: with which the output begins; what it has of the phrases counts.
        limit: the most pieces of the output.
        number: of the text, for the message.
    """
    num_pieces = sum(map(len, phrases))
    needed = max(num_pieces, len(prefix) + num_pieces - progress_of(phrases, prefix))
    if needed > limit:
        with_prefix = f", {needed} with the prefix" if needed > num_pieces else ""
        raise DataError(
            f"the constraints of sentence {number} have {num_pieces} pieces{with_prefix}, and its translation at most "
            f"{limit}; raise max_length_offset (--max-length-offset) or max_length (--max-length)"
        )
    if search.no_repeat_ngram and repeats_ngram(phrases, prefix, search.no_repeat_ngram):
        what = "a piece" if search.no_repeat_ngram == 1 else f"{search.no_repeat_ngram} pieces in a row"
        raise DataError(
            f"the constraints of sentence {number} contain {what} twice, which "
            f"no_repeat_ngram={search.no_repeat_ngram} (--no-repeat-ngram) forbids; raise it, or set it to 0"
        )


def repeats_ngram(phrases: Sequence[Ids], prefix: Ids, size: int) -> bool:
    """Whether outputs with these phrases must repeat n tokens after the prefix.

    Without a repetition, n tokens that two phrases share are the same place of the output. So one phrase lies over the
    other, and together they are a longer one.
    """
    texts = []
    for phrase, state in states_after(phrases, prefix).items():
        missing, begun = Counter(map(tuple, phrases))[phrase] - state // len(phrase), state % len(phrase)
        if missing > 1 and len(phrase) >= size:
            return True
        if missing and not begun:  # else a part may be in the prefix, where repetitions are allowed
            texts.append(phrase)
    known = set(_ngrams(prefix, size))
    while texts:
        text = texts.pop()
        found = list(_ngrams(text, size))
        if len(set(found)) < len(found) or known & set(found):
            return True
        for other in texts:
            if shared := set(found) & set(_ngrams(other, size)):
                merged = _laid_over(text, other, size, shared.pop())
                if merged is None:
                    return True
                texts.remove(other)
                texts.append(merged)
                break
    return False


def _ngrams(ids: Ids, size: int) -> Iterator[tuple[int, ...]]:
    return (tuple(ids[i : i + size]) for i in range(len(ids) - size + 1))


def _laid_over(one: Ids, other: Ids, size: int, shared: tuple[int, ...]) -> tuple[int, ...] | None:
    """Two phrases laid over each other where they share these tokens. None if they differ beside it."""
    offset = list(_ngrams(one, size)).index(shared) - list(_ngrams(other, size)).index(shared)
    if offset < 0:
        one, other, offset = other, one, -offset
    if any(x != y for x, y in zip(itertools.islice(one, offset, None), other, strict=False)):
        return None
    return (*one, *other[len(one) - offset :])

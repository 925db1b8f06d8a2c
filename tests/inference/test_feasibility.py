"""What is refused cannot be met: against all outputs of a small vocabulary."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from transformer.config import SearchConfig
from transformer.errors import DataError
from transformer.inference.automata import progress_of
from transformer.inference.feasibility import check_phrases, repeats_ngram

Ids = Sequence[int]


def contains(ids: Ids, phrases: Sequence[Ids]) -> bool:
    text, counts = "".join(map(str, ids)), Counter("".join(map(str, phrase)) for phrase in phrases)
    return all(text.count(phrase) >= count for phrase, count in counts.items())


def outputs(prefix: tuple[int, ...], size: int, length: int) -> Iterator[tuple[int, ...]]:
    """Of three tokens, all that begin with a prefix and have no n-gram after it that was there before."""
    yield prefix
    if len(prefix) < length:
        seen = {prefix[i : i + size] for i in range(len(prefix) - size + 1)}
        for token in range(3):
            if len(prefix) + 1 < size or (*prefix, token)[-size:] not in seen:
                yield from outputs((*prefix, token), size, length)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("with_prefix", [False, True])
def test_of_phrases_that_are_said_to_repeat_tokens_no_output_exists(size: int, with_prefix: bool) -> None:
    rng, num_refused, num_met = random.Random(size), 0, 0
    for _ in range(41):
        prefix = tuple(rng.randrange(3) for _ in range(rng.randrange(1, 5))) if with_prefix else ()
        phrases = [[rng.randrange(3) for _ in range(rng.randrange(1, 5))] for _ in range(rng.randrange(1, 4))]
        phrases += [phrases[0]] * (rng.random() < 0.3)
        if repeats_ngram(phrases, prefix, size):
            num_refused += 1
            assert not any(contains(ids, phrases) for ids in outputs(prefix, size, 9)), (prefix, phrases)
        else:
            num_met += any(contains(ids, phrases) for ids in outputs(prefix, size, 9))
    assert num_refused > 3 and num_met > 3


@pytest.mark.parametrize(
    ("phrases", "prefix", "size", "is_refused"),
    [
        ([[1, 2, 1, 2]], [], 2, True),
        ([[1, 2, 1, 2]], [], 3, False),
        ([[1, 2]] * 2, [], 2, True),
        ([[1, 2]] * 2, [], 3, False),
        ([[1, 2, 3], [4, 1, 2, 5]], [], 2, True),  # 1 2 is followed by 3, or by 5
        ([[1, 2, 3], [4, 1, 2]], [], 2, False),  # 4 1 2 3
        ([[1, 2], [2, 3], [3, 1, 2]], [], 2, False),  # 3 1 2 3
        ([[1, 2, 3], [4, 1, 2], [2, 3, 4, 1]], [], 2, True),  # 4 1 2 3 4 1
        ([[2, 3]], [2, 3], 2, False),  # it is there
        ([[2, 3, 4]], [2, 3], 2, False),  # it goes on
        ([[2, 3, 4]], [2, 3, 5], 2, True),  # it would begin again
        ([[2, 3]] * 2, [2, 3, 5], 2, True),
        ([[1, 1, 1]], [1, 1, 1, 1], 1, False),  # no rule holds for the prefix
    ],
)
def test_repetitions_that_phrases_require(
    phrases: list[list[int]], prefix: list[int], size: int, is_refused: bool
) -> None:
    for order in itertools.permutations(phrases):
        assert repeats_ngram(order, prefix, size) == is_refused


@pytest.mark.parametrize(
    ("phrases", "prefix", "limit"),
    [
        ([[1, 2], [3]], [], 3),
        ([[1, 2], [3]], [4, 4, 1], 5),
        ([[1, 2], [3]], [4, 1, 2, 3, 4], 5),
        ([[1, 2], [2]], [1, 2], 3),
    ],
)
def test_the_limit_is_for_the_prefix_and_what_it_has_not_of_the_phrases(
    phrases: list[list[int]], prefix: list[int], limit: int
) -> None:
    check_phrases(phrases, prefix, limit, SearchConfig(), 17)
    needed = max(sum(map(len, phrases)), len(prefix) + sum(map(len, phrases)) - progress_of(phrases, prefix))
    assert needed == limit
    with_prefix = rf", {needed} with the prefix" if needed > sum(map(len, phrases)) else ""
    message = (
        rf"^the constraints of sentence 17 have 3 pieces{with_prefix}, and its translation at most {limit - 1}; raise"
    )
    with pytest.raises(DataError, match=message):
        check_phrases(phrases, prefix, limit - 1, SearchConfig(), 17)


def test_a_rule_that_forbids_the_phrases_is_named() -> None:
    check_phrases([[1, 2, 1, 2]], [], 9, SearchConfig(no_repeat_ngram=3), 17)
    message = r"^the constraints of sentence 17 contain 2 pieces in a row twice, which no_repeat_ngram=2 \(--no-repeat"
    with pytest.raises(DataError, match=message):
        check_phrases([[1, 2, 1, 2]], [], 9, SearchConfig(no_repeat_ngram=2), 17)

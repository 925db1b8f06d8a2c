"""Systems sentence by sentence: who translates how many better, and where they differ most."""

from collections.abc import Sequence
from typing import NamedTuple

_TIE = 1e-9  # sums of the same numbers in another order


class Wins(NamedTuple):
    """In how many sentences a system scores higher than the baseline, the same, and lower."""

    better: int
    equal: int
    worse: int


def differences(scores: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """What a system's sentences score more than the baseline's; 0 for differences of rounding."""
    both = zip(scores, baseline, strict=True)
    return [0.0 if abs(score - other) < _TIE else score - other for score, other in both]


def count_wins(scores: Sequence[float], baseline: Sequence[float]) -> Wins:
    """Count wins, ties and losses against a baseline, by the scores of the sentences."""
    found = differences(scores, baseline)
    better, worse = sum(x > 0 for x in found), sum(x < 0 for x in found)
    return Wins(better, len(found) - better - worse, worse)


def most_different(scores: Sequence[float], baseline: Sequence[float], number: int) -> tuple[list[int], list[int]]:
    """The indices of the largest gains over a baseline, and losses.

    At most `number` of each, largest first.
    """
    found = differences(scores, baseline)
    gains, losses = (
        sorted((i for i, x in enumerate(found) if sign * x > 0), key=lambda i: -sign * found[i])[:number]
        for sign in (1, -1)
    )
    return gains, losses

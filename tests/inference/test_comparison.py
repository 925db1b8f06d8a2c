"""Wins, ties and losses add up, and the largest differences come first."""

from __future__ import annotations

from transformer.inference.comparison import count_wins, differences, most_different

BASELINE = [10.0, 20.0, 30.0, 40.0, 0.3]
SCORES = [15.0, 20.0, 10.0, 41.0, 0.1 + 0.2]


def test_sentences_are_won_lost_or_equal_up_to_rounding() -> None:
    assert SCORES[4] != BASELINE[4]
    assert differences(SCORES, BASELINE) == [5, 0, -20, 1, 0]
    assert count_wins(SCORES, BASELINE) == (2, 2, 1)
    assert count_wins(BASELINE, SCORES) == (1, 2, 2)


def test_the_largest_gains_and_losses_come_first() -> None:
    assert most_different(SCORES, BASELINE, 7) == ([0, 3], [2])
    assert most_different(SCORES, BASELINE, 1) == ([0], [2])
    assert most_different(BASELINE, SCORES, 7) == ([2], [0, 3])
    assert most_different(BASELINE, BASELINE, 7) == ([], [])

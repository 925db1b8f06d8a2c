"""A translation cut back into the lines, or the subtitles, that its source spans."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from transformer.documents.tokens import NONE, Token

_WEIGHT_OF_LENGTH = 0.25  # of a token that is too early or too late by length, against one on the wrong line


def break_lines(tokens: Sequence[Token], line_of: Sequence[int], shares: Sequence[float]) -> list[tuple[int, int]]:
    """The tokens [start, end) of each line, in order.

    The cuts that put the fewest tokens on another line than the tokens that they translate, and that leave each line
    about its share of the characters. No line is empty, unless there are fewer places to cut; then the last ones are.

    Args:
        line_of: the line of each source token, from 0.
        shares: of the characters of the source, up to the end of each line; the last is 1.
    """
    places = [0, *(i for i, token in enumerate(tokens) if token.may_break and i), len(tokens)]
    num_lines, num_parts = len(shares), len(places) - 1
    if num_parts <= num_lines:
        ends = [places[min(line, num_parts)] for line in range(1, num_lines + 1)]
    else:
        costs = [_costs(tokens, places, line_of, line, share) for line, share in enumerate(shares[:-1])]
        ends = [*(places[p] for p in _cheapest(costs)), len(tokens)]
    return list(itertools.pairwise([0, *ends]))


def _costs(
    tokens: Sequence[Token], places: Sequence[int], line_of: Sequence[int], line: int, share: float
) -> list[float]:
    """The cost of the cut after a line, at each place, up to a constant."""
    wrong = [0]  # tokens before a place that belong after the cut, less those that do not
    for token in tokens:
        wrong.append(wrong[-1] + (0 if token.link == NONE else 1 if line_of[token.link] > line else -1))
    sizes = [0, *itertools.accumulate(len(token.text) for token in tokens)]
    mean = sizes[-1] / len(tokens)
    return [wrong[p] + _WEIGHT_OF_LENGTH * abs(sizes[p] - share * sizes[-1]) / mean for p in places]


def _cheapest(costs: Sequence[Sequence[float]]) -> list[int]:
    """One place per cut, ascending and neither the first nor the last, with the least sum of costs."""
    last = len(costs[0]) - 1 if costs else 0
    totals: list[float] = [0.0, *[math.inf] * last] if costs else []  # of the cuts so far, the last one at each place
    came_from: list[list[int]] = []
    for cost in costs:
        reached, origins, least, origin = [math.inf], [0], math.inf, 0
        for place in range(1, last + 1):
            if totals[place - 1] < least:
                least, origin = totals[place - 1], place - 1
            reached.append(least + cost[place] if place < last else math.inf)
            origins.append(origin)
        totals = reached
        came_from.append(origins)
    chosen: list[int] = []
    place = min(range(len(totals)), key=totals.__getitem__, default=0)
    for origins in reversed(came_from):
        chosen.append(place)
        place = origins[place]
    return chosen[::-1]

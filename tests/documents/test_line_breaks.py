"""A translation cut into the lines of its source."""

from __future__ import annotations

import itertools
import random

import pytest

from transformer.documents.line_breaks import break_lines
from transformer.documents.tokens import NONE, Token


def tokens_of(words: str, links: list[int]) -> list[Token]:
    return [
        Token(word, i > 0, link, may_break=i > 0)
        for i, (word, link) in enumerate(zip(words.split(), links, strict=True))
    ]


def cut(tokens: list[Token], line_of: list[int], shares: list[float]) -> list[str]:
    return [" ".join(one.text for one in tokens[a:b]) for a, b in break_lines(tokens, line_of, shares)]


def test_a_word_goes_to_the_line_of_the_word_that_it_translates() -> None:
    tokens = tokens_of("a b c d e", [0, 1, 2, 3, 4])
    assert cut(tokens, [0, 1, 1, 1, 1], [0.2, 1.0]) == ["a", "b c d e"]
    assert cut(tokens, [0, 0, 0, 0, 1], [0.8, 1.0]) == ["a b c d", "e"]


def test_without_links_a_line_has_its_share() -> None:
    tokens = tokens_of("aa bb cc dd ee ff", [NONE] * 6)
    assert cut(tokens, [], [1 / 3, 2 / 3, 1.0]) == ["aa bb", "cc dd", "ee ff"]
    assert cut(tokens, [], [1 / 6, 1.0]) == ["aa", "bb cc dd ee ff"]


def test_no_line_is_empty_before_the_words_are_used_up() -> None:
    assert cut(tokens_of("a b c", [0, 0, 0]), [0, 1, 2], [0.9, 0.95, 1.0]) == ["a", "b", "c"]
    assert cut(tokens_of("a b", [0, 0]), [0, 1, 2], [0.1, 0.2, 1.0]) == ["a", "b", ""]
    assert cut([], [0, 1], [0.5, 1.0]) == ["", ""]


def test_a_line_does_not_end_within_a_word() -> None:
    tokens = [Token("ab", False, 0), Token("c", False, 1), Token("d", True, 1, may_break=True)]
    assert break_lines(tokens, [0, 1], [0.5, 1.0]) == [(0, 2), (2, 3)]


@pytest.mark.parametrize("seed", range(7))
def test_the_cuts_are_the_best_of_all(seed: int) -> None:
    draw = random.Random(seed)
    num_lines, line_of = 3, sorted(draw.choices(range(3), k=5))
    tokens = [Token("x" * draw.randint(1, 5), True, draw.randrange(-1, 5), may_break=True) for _ in range(7)]
    sizes = [0, *itertools.accumulate(len(token.text) for token in tokens)]
    shares = [0.2, 0.7, 1.0]

    def cost(cuts: tuple[int, ...]) -> float:
        total = 0.0
        for line, place in enumerate(cuts):
            for i, token in enumerate(tokens):
                if token.link != NONE:
                    total += (line_of[token.link] > line) == (i < place)
            total += 0.25 * abs(sizes[place] - shares[line] * sizes[-1]) / (sizes[-1] / len(tokens))
        return total

    best = min(map(cost, itertools.combinations(range(1, len(tokens)), num_lines - 1)))
    found = break_lines(tokens, line_of, shares)
    assert cost(tuple(end for _, end in found[:-1])) == pytest.approx(best)

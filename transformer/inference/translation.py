"""A translation with its scores, and the translations of a text from those of its parts."""

from __future__ import annotations

import functools
import hashlib
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Translation:
    """One translation of a sentence; `score` is log P over the length penalty, in nats.

    Attributes:
        ids: of its pieces, </s> included; those of parts that were translated apart follow each other. None where
            nothing was searched, as for a copied text.
        token_log_probs: log P of each of them in nats, if asked for; their sum is `log_prob`.
    """

    text: str
    score: float
    log_prob: float
    ids: tuple[int, ...] = field(default=(), repr=False, compare=False)
    token_log_probs: tuple[float, ...] = field(default=(), repr=False, compare=False)


def join_best(parts: Sequence[Sequence[Translation]], nbest: int, space: str) -> list[Translation]:
    """The `nbest` best distinct combinations of a translation of each part, joined by `space`."""
    if len(parts) == 1:
        return list(parts[0])
    combinations = [_Combination.of(x) for x in parts[0]]
    for part in parts[1:]:
        pairs = sorted(itertools.product(combinations, part), key=lambda pair: -pair[0].score - pair[1].score)
        best: dict[bytes, _Combination] = {}
        for before, translation in pairs:
            one = before.then(translation, space)
            best.setdefault(one.text.digest(), one)
            if len(best) == nbest:
                break
        combinations = list(best.values())
    return [_join(one.chosen(), space) for one in combinations]


def join_samples(parts: Sequence[Sequence[Translation]], num_samples: int, space: str) -> list[Translation]:
    """The first samples of all parts joined, then the second ones, and so on.

    A part that was not searched stands in each.
    """
    number = num_samples if len(parts[0]) == 1 else len(parts[0])
    return [_join([part[i % len(part)] for part in parts], space) for i in range(number)]


class _Combination(NamedTuple):
    """A translation of each part so far. Only the last is kept, and a hash of the text, so that joining is linear."""

    score: float
    text: Any  # its hash
    is_empty: bool  # the text
    last: Translation
    before: _Combination | None

    @classmethod
    def of(cls, first: Translation) -> _Combination:
        return cls(first.score, hashlib.sha256(_bytes(first.text)), not first.text, first, None)

    def then(self, other: Translation, space: str) -> _Combination:
        text = self.text.copy()
        text.update(_bytes(other.text if self.is_empty or not other.text else space + other.text))
        return _Combination(self.score + other.score, text, self.is_empty and not other.text, other, self)

    def chosen(self) -> list[Translation]:
        """The translations in order."""
        found, one = [self.last], self.before
        while one is not None:
            found.append(one.last)
            one = one.before
        return found[::-1]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _join(parts: Sequence[Translation], space: str) -> Translation:
    return Translation(
        space.join(x.text for x in parts if x.text),
        functools.reduce(operator.add, (x.score for x in parts)),
        functools.reduce(operator.add, (x.log_prob for x in parts)),
        tuple(itertools.chain.from_iterable(x.ids for x in parts)),
        tuple(itertools.chain.from_iterable(x.token_log_probs for x in parts)),
    )

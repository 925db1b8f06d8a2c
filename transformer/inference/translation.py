"""A translation with its scores, and the translations of a text from those of its parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field


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
    joined = list(parts[0])
    for part in parts[1:]:
        pairs = sorted(itertools.product(joined, part), key=lambda pair: -pair[0].score - pair[1].score)
        best: dict[str, Translation] = {}
        for pair in pairs:
            whole = _join(*pair, space)
            best.setdefault(whole.text, whole)
        joined = list(best.values())[:nbest]
    return joined


def join_samples(parts: Sequence[Sequence[Translation]], num_samples: int, space: str) -> list[Translation]:
    """The first samples of all parts joined, then the second ones, and so on.

    A part that was not searched stands in each.
    """
    joined = list(parts[0]) * (num_samples if len(parts[0]) == 1 else 1)
    for part in parts[1:]:
        joined = [_join(a, b, space) for a, b in zip(joined, itertools.cycle(part), strict=False)]
    return joined


def _join(a: Translation, b: Translation, space: str) -> Translation:
    return Translation(
        space.join(x.text for x in (a, b) if x.text),
        a.score + b.score,
        a.log_prob + b.log_prob,
        a.ids + b.ids,
        a.token_log_probs + b.token_log_probs,
    )

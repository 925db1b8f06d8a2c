"""Subword regularisation: each time a pair is visited, its words are split anew.

BPE dropout (Provilkov et al. 2020, algorithm 1): every possible merge is left out with a probability, anew at each
step. Of a unigram model, a segmentation x is drawn with a probability proportional to P(x)^alpha among all of a word
(Kudo 2018, with l = infinity).

A segmentation is a pure function of seed, epoch, visit in the epoch, pair and side, whatever was drawn before: so a run
resumes exactly, and all processes agree. (SentencePiece draws from a generator of the thread that cannot be set.) What
is split is the text of the pieces, so that the text of a corpus is not kept; unknown, user-defined and byte pieces stay
as they are.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
import math
import operator
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.normalization import MARK
from transformer.data.sentencepiece_model import NORMAL, UNUSED
from transformer.data.tokenizer import EOS_ID, Tokenizer
from transformer.errors import DataError
from transformer.sections.data import DataConfig

# Words and partly merged words that are kept for their next occurrence; 400,000 of these take about 160 MiB. Words
# beyond a length rarely occur again.
_MAX_WORDS = 200_000
_MAX_STATES = 400_000
_MAX_KEPT_LENGTH = 24

Draw = Callable[[random.Random], Sequence[int]]  # the ids of a new segmentation of one word


# Symbols, places of the merges that are possible, best first, ids, and where its merges begin in `_States.after`.
_State = tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], int]


@dataclass
class _States:
    """Partly merged words, by number, and where their merges have led.

    They are in two lists: Python's garbage collector visits all objects again and again, except tuples of numbers and
    text. With an object for each state, it took half of the time of sampling.
    An interrupted update leaves them whole: a state is there with its last operation, or not at all.
    """

    known: list[_State] = field(default_factory=list)
    after: list[int] = field(default_factory=list)  # a state, or -1 if it has not been reached

    def add(self, symbols: tuple[str, ...], merges: tuple[int, ...], ids: tuple[int, ...]) -> int:
        """The number of a new state."""
        first = len(self.after)
        self.after += [-1] * len(merges)
        self.known.append((symbols, merges, ids, first))
        return len(self.known) - 1


class SubwordSampler:
    """Splits the words of encoded sentences anew.

    Args:
        tokenizer: of type bpe or unigram.
        dropout: for bpe, the probability with which a merge is left out.
        alpha: for unigram; the larger, the closer to the best segmentation.
        whole: texts of pieces that are never split.

    Raises:
        DataError: the tokenizer is of another type, or has pieces marked as unused or without a score.
        ValueError: `dropout` is not in [0, 1].
    """

    def __init__(
        self, tokenizer: Tokenizer, *, dropout: float = 0.0, alpha: float | None = None, whole: Collection[str] = ()
    ) -> None:
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout} is not in [0, 1]")
        expected, key = ("bpe", "data.subword_dropout") if alpha is None else ("unigram", "data.subword_alpha")
        if tokenizer.type != expected:
            raise DataError(f"{key} is for {expected} models; the tokenizer is of type {tokenizer.type}")
        pieces = tokenizer.scored_pieces()
        if any(piece.kind == UNUSED or not math.isfinite(piece.score) for piece in pieces):
            raise DataError(f"{key}: the tokenizer has unused pieces or scores that are no numbers")
        self._dropout, self._alpha = dropout, alpha
        is_split = [piece.kind == NORMAL and piece.text.replace(MARK, "") not in whole for piece in pieces]
        self._texts = [piece.text if flag else None for piece, flag in zip(pieces, is_split, strict=True)]
        self._ids = {piece.text: id_ for id_, piece in enumerate(pieces) if piece.kind == NORMAL}
        self._scores = {piece.text: piece.score for piece in pieces if piece.kind == NORMAL}
        self._longest = max(map(len, self._ids), default=0)
        # Words can be split one by one unless pieces reach beyond them.
        self._has_words = not any(MARK in text[1:] for text in self._ids)
        self._begins = [text is None or (self._has_words and text[:1] == MARK) for text in self._texts]
        self._ends = [text is None for text in self._texts]
        self._draws: dict[tuple[int, ...], Draw] = {}
        self._states = _States()

    def sample(self, ids: Sequence[int], rng: random.Random) -> list[int]:
        """Another segmentation of the same text; `ids` are those of `Tokenizer.encode`."""
        if len(self._draws) > _MAX_WORDS or len(self._states.known) > _MAX_STATES:
            self._draws, self._states = {}, _States()
        found: list[int] = []
        for word in self._words(ids):
            if (draw := self._draws.get(word)) is None:
                draw = self._draw_of(word)
            found += draw(rng)
        return found

    def _words(self, ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
        begins, ends = self._begins, self._ends
        cuts = (i for i, (last, next_) in enumerate(itertools.pairwise(ids), 1) if begins[next_] or ends[last])
        bounds = [0, *cuts, len(ids)] if len(ids) else []
        return (tuple(ids[start:end]) for start, end in itertools.pairwise(bounds))

    def _draw_of(self, word: tuple[int, ...]) -> Draw:
        text = "".join(self._texts[id_] or "" for id_ in word)
        draw: Draw
        if len(text) < 2:
            draw = functools.partial(_as_before, word)
        elif self._alpha is not None:
            draw = _lattice(text, self._scores, self._ids, self._longest, self._alpha)
        elif len(text) <= _MAX_KEPT_LENGTH:
            draw = functools.partial(self._merge, self._state(tuple(text), word), word)
        else:
            draw = functools.partial(self._merge_long, tuple(text), word)
        if len(text) <= _MAX_KEPT_LENGTH:
            self._draws[word] = draw
        return draw

    def _merge(self, state: int, word: tuple[int, ...], rng: random.Random) -> Sequence[int]:
        """Merge the symbols of a word until every merge is left out, or none is possible."""
        draw, dropout = rng.random, self._dropout
        known, after = self._states.known, self._states.after
        while True:
            _, merges, ids, first = known[state]
            number, num_merges = 0, len(merges)
            if not merges:
                return ids
            if (left_out := draw()) < dropout and (number := self._num_left_out(left_out, num_merges)) == num_merges:
                return ids
            reached = after[first + number]
            state = reached if reached >= 0 else self._follow(state, number, word)

    def _follow(self, state: int, number: int, word: tuple[int, ...]) -> int:
        """The state after one of the possible merges, for the first time."""
        symbols, merges, _, first = self._states.known[state]
        place = merges[number]
        merged = symbols[place] + symbols[place + 1]
        reached = self._state((*symbols[:place], merged, *symbols[place + 2 :]), word)
        self._states.after[first + number] = reached
        return reached

    def _merge_long(self, text: Sequence[str], word: tuple[int, ...], rng: random.Random) -> Sequence[int]:
        """As `_merge`, with nothing kept, and without sorting all merges at each step."""
        symbols = list(text)
        ranks = [-self._scores.get(left + right, -math.inf) for left, right in itertools.pairwise(symbols)]
        num_merges = sum(rank < math.inf for rank in ranks)
        while num_merges and (number := self._num_left_out(rng.random(), num_merges)) < num_merges:
            if number:
                place = heapq.nsmallest(number + 1, range(len(ranks)), key=lambda i: (ranks[i], i))[-1]
            else:
                place = ranks.index(min(ranks))
            num_merges -= sum(rank < math.inf for rank in ranks[max(0, place - 1) : place + 2])
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
            del ranks[place]
            for i in range(max(0, place - 1), min(place + 1, len(ranks))):
                ranks[i] = -self._scores.get(symbols[i] + symbols[i + 1], -math.inf)
                num_merges += ranks[i] < math.inf
        ids = [self._ids.get(symbol, -1) for symbol in symbols]
        return word if -1 in ids else ids

    def _num_left_out(self, left_out: float, num_merges: int) -> int:
        """How many of the best merges are left out before one is not: k with probability p^k (1 - p)."""
        number, limit = 0, self._dropout
        while left_out < limit and number < num_merges:
            number, limit = number + 1, limit * self._dropout
        return number

    def _state(self, symbols: tuple[str, ...], word: tuple[int, ...]) -> int:
        # Takes half of all time, as many merges are the first of their kind; `map` is faster than comprehensions.
        scores = [*map(self._scores.get, map(operator.add, symbols, symbols[1:]))]
        merges = [place for place, score in enumerate(scores) if score is not None]
        merges.sort(key=cast(list[float], scores).__getitem__, reverse=True)  # equal scores stay in order
        ids = tuple(map(self._ids.get, symbols))
        # A character may be a part of pieces only; by itself it would be unknown.
        return self._states.add(symbols, tuple(merges), word if None in ids else cast(tuple[int, ...], ids))


def _as_before(word: tuple[int, ...], rng: random.Random) -> Sequence[int]:  # noqa: ARG001
    return word


def _lattice(text: str, scores: dict[str, float], ids: dict[str, int], longest: int, alpha: float) -> Draw:
    """Forward filtering, backward sampling over all segmentations of a text."""
    totals = [0.0]  # log of the sum of P^alpha over the segmentations of text[:end]
    edges: list[tuple[tuple[float, ...], tuple[tuple[int, int], ...]]] = [((), ())]
    for end in range(1, len(text) + 1):
        found = [
            (totals[start] + alpha * scores[piece], start, ids[piece])
            for start in range(max(0, end - longest), end)
            if (piece := text[start:end]) in scores and totals[start] > -math.inf
        ]
        best = max((weight for weight, _, _ in found), default=-math.inf)
        sums = list(itertools.accumulate(math.exp(weight - best) for weight, _, _ in found))
        totals.append(best + math.log(sums[-1]) if sums else -math.inf)
        edges.append((tuple(sums), tuple((start, id_) for _, start, id_ in found)))

    def draw(rng: random.Random) -> list[int]:
        sampled, end = [], len(text)
        while end:
            sums, starts = edges[end]
            number = bisect.bisect_right(sums, rng.random() * sums[-1]) if len(sums) > 1 else 0
            end, id_ = starts[min(number, len(starts) - 1)]
            sampled.append(id_)
        return sampled[::-1]

    return draw


class PairSampler:
    """Splits the pairs of a run's training data anew in each epoch; DataError as of `SubwordSampler`."""

    def __init__(self, data: DataConfig, tokenizer: Tokenizer) -> None:
        self._max_length = data.max_length
        self._samplers: list[SubwordSampler | None] = []
        for side, of_side in (("source", tokenizer.source), ("target", tokenizer)):
            is_sampled = data.subword_sides in ("both", side)
            # In a tokenizer from elsewhere, they may be pieces as others.
            whole = {*data.user_symbols, *(data.tags if side == "source" else ())}
            made = SubwordSampler(of_side, dropout=data.subword_dropout, alpha=data.subword_alpha, whole=whole)
            self._samplers.append(made if is_sampled else None)

    def sample(
        self, dataset: PairDataset, pairs: Ints, seed: int, epoch: int, repeats: Ints | None = None
    ) -> PairDataset:
        """The pairs with these indices, as a dataset of their own in this order.

        `repeats` counts the earlier visits of each in the epoch; by default this is the first.
        A segmentation of more than `data.max_length` pieces is not taken: the pair keeps that of the corpus.
        """
        visits = [*zip(pairs.tolist(), [0] * len(pairs) if repeats is None else repeats.tolist(), strict=True)]
        src, tgt = (
            self._side(side, sampler, visits, (seed, epoch, number))
            for number, (side, sampler) in enumerate(zip((dataset.src, dataset.tgt), self._samplers, strict=True))
        )
        return PairDataset(src, tgt, dataset.dropped, dataset.fingerprint)

    def _side(
        self,
        side: Side,
        sampler: SubwordSampler | None,
        visits: Sequence[tuple[int, int]],
        key: tuple[int, int, int],
    ) -> Side:
        sentences, rng = [], random.Random()
        for sentence, (pair, repeat) in zip(_sentences(side, visits), visits, strict=True):
            if sampler is not None:
                rng.seed(_seed(*key, pair, repeat))
                sampled = [*sampler.sample(sentence[:-1], rng), EOS_ID]
                sentence = sampled if len(sampled) <= self._max_length else sentence
            sentences.append(sentence)
        lengths = np.fromiter(map(len, sentences), np.int32, len(sentences))
        ids = np.fromiter(itertools.chain.from_iterable(sentences), np.int32, int(lengths.sum()))
        return Side(ids, lengths, np.cumsum(lengths, dtype=np.int64) - lengths)


def pair_sampler(data: DataConfig, tokenizer: Tokenizer) -> PairSampler | None:
    """The sampler that a configuration asks for, if any. DataError as of `SubwordSampler`."""
    is_on = data.subword_dropout > 0 or data.subword_alpha is not None
    return PairSampler(data, tokenizer) if is_on else None


def _sentences(side: Side, visits: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """The ids of the pairs, read in one piece: a mixture looks up by position which corpus has them."""
    pairs = np.array([pair for pair, _ in visits], np.int64)
    ids, _ = side.end_to_end(pairs)
    flat, ends = ids.tolist(), side.lengths[pairs].cumsum().tolist()
    return (flat[start:end] for start, end in itertools.pairwise([0, *ends]))


def _seed(seed: int, epoch: int, side: int, pair: int, repeat: int) -> int:
    # Python promises the same numbers of a seed in all versions.
    return (((repeat << 64 | seed) << 64 | epoch) << 64 | pair) << 1 | side

"""Pairs of random ids, of given or random lengths: data for tests of batches and updates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.tokenizer import EOS_ID

VOCAB_SIZE = 31


def random_pairs(num_pairs: int, longest: int, shortest: int = 1) -> PairDataset:
    """Pairs of `shortest` to `longest` ids a side."""
    return pairs_of(*np.random.default_rng(5).integers(shortest, longest + 1, (2, num_pairs)))


def pairs_of(src_lengths: Ints | Sequence[int], tgt_lengths: Ints | Sequence[int]) -> PairDataset:
    """Pairs of these lengths, of at least 1."""
    return PairDataset(_side(src_lengths, seed=1), _side(tgt_lengths, seed=2), {}, "random")


def _side(lengths: Ints | Sequence[int], seed: int) -> Side:
    ends = np.cumsum(lengths)
    ids = np.random.default_rng(seed).integers(EOS_ID + 1, VOCAB_SIZE, ends[-1]).astype(np.uint16)
    ids[ends - 1] = EOS_ID
    return Side(ids, np.asarray(lengths, np.int32), ends - lengths)

"""Repeated pairs, and text that training and held-out pairs share, by hashes of their ids.

Text is compared as the tokenizer reads it. What has unknown pieces equals nothing, since different characters are alike
there. Memory is 8 bytes per pair and side.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.pairs import digest_of
from transformer.data.tokenizer import UNK_ID
from transformer.files import write_atomic

_IDS_PER_BLOCK = 1 << 20
_MULTIPLIER = 0x9E3779B97F4A7C15

Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


def row_hashes(side: Side, skip: int = 0) -> Hashes:
    """A hash of 64 bits per sentence, without its first `skip` ids.

    It is the sum of T[id] r^position mod 2^64.

    T are random numbers. In blocks, so that ids are not held in memory.
    """
    table = np.random.default_rng(17).integers(1, 1 << 63, 1 << 20, dtype=np.uint64)
    found = np.zeros(len(side.lengths), np.uint64)
    for rows in _blocks(side.lengths):
        ids, columns, firsts = _rows(side, rows, skip)
        terms = table[ids] * _powers(int(columns.max()) + 1)[columns]
        found[rows] = np.add.reduceat(terms, firsts)
    return found


def count_id(side: Side, id_: int) -> int:
    """How often an id occurs in the sentences of a side, which may be some of those in its file."""
    return sum(int((_rows(side, rows)[0] == id_).sum()) for rows in _blocks(side.lengths))


def has_unknown(side: Side) -> Flags:
    """Whether each sentence has an unknown piece."""
    found = np.zeros(len(side.lengths), np.bool_)
    for rows in _blocks(side.lengths):
        ids, _, firsts = _rows(side, rows)
        found[rows] = np.logical_or.reduceat(ids == UNK_ID, firsts)
    return found


def _rows(side: Side, rows: slice, skip: int = 0) -> tuple[Ints, Ints, Ints]:
    """The ids of some sentences, their positions, and where each sentence begins."""
    lengths = side.lengths[rows].astype(np.int64) - skip
    ends = np.cumsum(lengths)
    columns = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    return side.ids[np.repeat(side.starts[rows] + skip, lengths) + columns], columns, ends - lengths


def pair_hashes(pairs: PairDataset) -> Hashes:
    """A hash of both sides of each pair."""
    return combined(row_hashes(pairs.src), row_hashes(pairs.tgt))


def combined(src: Hashes, tgt: Hashes) -> Hashes:
    """The hash of pairs from those of their sides, which are not interchangeable."""
    mixed: Hashes = (src ^ (src >> np.uint64(29))) * np.uint64(_MULTIPLIER) + tgt
    return mixed


def first_of_each(hashes: Hashes) -> Flags:
    """Whether each is the first of its value."""
    is_first = np.zeros(len(hashes), np.bool_)
    is_first[np.unique(hashes, return_index=True)[1]] = True
    return is_first


def first_pairs(datasets: Sequence[PairDataset]) -> list[Flags]:
    """Whether each pair is the first of its text in all datasets; those with unknown pieces are."""
    is_first = first_of_each(np.concatenate([pair_hashes(pairs) for pairs in datasets]))
    flags = np.split(is_first, np.cumsum([len(pairs) for pairs in datasets])[:-1])
    return [flag | has_unknown(pairs.src) | has_unknown(pairs.tgt) for flag, pairs in zip(flags, datasets, strict=True)]


def first_sources(pairs: PairDataset) -> Flags:
    """Likewise of the sources of a dataset."""
    return first_of_each(row_hashes(pairs.src)) | has_unknown(pairs.src)


def _blocks(lengths: npt.NDArray[np.integer]) -> Iterator[slice]:
    ends = np.cumsum(lengths, dtype=np.int64)
    start = 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _IDS_PER_BLOCK, side="right")))
        yield slice(start, stop)
        start = stop


def _powers(number: int) -> Hashes:
    factors = np.full(number, _MULTIPLIER, np.uint64)
    factors[0] = 1
    powers: Hashes = np.cumprod(factors)
    return powers


@dataclass(frozen=True)
class Overlap:
    """How many of the held-out sentences occur in the training data, as pairs and as sources."""

    pairs: int
    sources: int
    total: int

    def __str__(self) -> str:
        return f"{self.pairs:,} of {self.total:,} as pairs, {self.sources:,} by their sources"


def overlap(
    train: list[tuple[PairDataset, int]], held_out: tuple[PairDataset, int], cache: Path | None = None
) -> Overlap:
    """Count the held-out sentences that are in the training data.

    Each dataset comes with the number of ids of its tag, which are skipped.

    With a `cache`, the numbers are kept there.
    """
    prints = [(pairs.fingerprint, skip) for pairs, skip in (*train, held_out)]
    key = digest_of("overlap 2", *prints)
    path = None if cache is None else cache / f"{key}.overlap.json"
    if path is not None and (kept := _kept(path, len(held_out[0]))) is not None:
        return kept
    source, pair = _hashes(*held_out)
    in_sources, in_pairs = np.zeros(len(source), np.bool_), np.zeros(len(source), np.bool_)
    for dataset, skip in train:
        sources, pairs = _hashes(dataset, skip)
        in_sources |= np.isin(source, sources)
        in_pairs |= np.isin(pair, pairs)
    in_sources &= ~has_unknown(held_out[0].src)
    in_pairs &= in_sources & ~has_unknown(held_out[0].tgt)
    found = Overlap(int(in_pairs.sum()), int(in_sources.sum()), len(source))
    if path is not None:
        with contextlib.suppress(OSError):  # another run with the same data may write it at the same time
            write_atomic(path, json.dumps([found.pairs, found.sources, found.total]))
    return found


def _hashes(pairs: PairDataset, skip: int) -> tuple[Hashes, Hashes]:
    src = row_hashes(pairs.src, skip)
    return src, combined(src, row_hashes(pairs.tgt))


def _kept(path: Path, total: int) -> Overlap | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        is_valid = len(found) == 3 and all(type(x) is int for x in found) and found[0] <= found[1] <= found[2] == total
        return Overlap(*found) if is_valid else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None

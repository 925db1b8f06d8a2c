"""Several training corpora as one, each visited as often as its weight says.

The first e epochs take floor(e * weight * n) entries of an endless sequence of random permutations of a corpus of n
pairs. So over any number of epochs the visits are those of the weight but for a fraction of one, and those of two pairs
differ by at most one; each epoch is a pure function of seed and epoch, and the tokens of past epochs need no replay.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from transformer.config import DataConfig
from transformer.data.corpus import load_split, read_entry
from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.duplicates import Flags, count_id, first_pairs
from transformer.data.filters import filtered
from transformer.data.holdout import held_out_pairs, without_held_out
from transformer.data.pairs import Corpus, added, digest_of
from transformer.data.tags import tagged
from transformer.data.tokenizer import UNK_ID
from transformer.errors import DataError


@dataclass(frozen=True)
class TrainingCorpus:
    """A training corpus, filtered but without its tag, and how it is used."""

    corpus: Corpus
    weight: float = 1.0
    tag: str | None = None
    whole: str = ""  # fingerprint of the corpus before anything was left out


def training_corpora(data: DataConfig) -> list[TrainingCorpus]:
    """The training corpora of a run: `data.corpora`, or the training split of `data.corpus`.

    Pairs that `data.hold_out` or `data.filters` take out are left out. DataError.
    """
    if data.corpora:
        found = [
            TrainingCorpus(read_entry(data, index), entry.weight, entry.tag) for index, entry in enumerate(data.corpora)
        ]
    else:
        found = [TrainingCorpus(load_split(data, data.train_split), tag=data.tag)]
    if data.hold_out:
        whole = found[0].corpus
        held_out = held_out_pairs(whole, data.hold_out, data.validation_size, Path(data.cache_dir))
        found = [_replaced(one, without_held_out(one.corpus, list(held_out.values()))) for one in found]
    return [_replaced(one, filtered(one.corpus, data.filters)) for one in found]


def _replaced(one: TrainingCorpus, corpus: Corpus) -> TrainingCorpus:
    return dataclasses.replace(one, corpus=corpus, whole=one.whole or one.corpus.fingerprint)


def joined(corpora: Sequence[TrainingCorpus], tags: Sequence[str] = ()) -> Corpus:
    """All corpora one after the other, once each and without tags, for the tokenizer.

    The tags become symbols that are never split.
    """
    parts = [one.corpus for one in corpora]
    if len(parts) == 1 and not tags:
        return parts[0]
    fingerprint = parts[0].fingerprint if len(parts) == 1 else digest_of(*(part.fingerprint for part in parts))
    return Corpus(
        " and ".join(part.name for part in parts),
        fingerprint,
        lambda: itertools.chain.from_iterable(part.read() for part in parts),
        lambda: sorted({*tags, *itertools.chain.from_iterable(part.symbols() for part in parts)}),
    )


def training_text(data: DataConfig) -> Corpus:
    """All training corpora of a run with their tags, one after the other."""
    corpora = training_corpora(data)
    return joined([_replaced(one, tagged(one.corpus, one.tag, data.tags)) for one in corpora], data.tags)


@dataclass(frozen=True)
class Visits:
    """Which pairs an epoch visits, of corpora that follow each other."""

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    def before(self, epoch: int) -> list[int]:
        """Visits of each corpus in all epochs before this one."""
        # As written: 0.1 * 10 is one visit, in each of any number of epochs.
        return [
            int(epoch * size * Fraction(repr(weight))) for size, weight in zip(self.sizes, self.weights, strict=True)
        ]

    def of_epoch(self, epoch: int) -> Ints:
        """Indices of the pairs of an epoch, those visited twice repeated, in no particular order."""
        return np.concatenate(
            [
                np.tile(np.arange(offset, offset + size), (stop - start) // size)
                if start % size == stop % size == 0
                else offset + self._entries(part, start, stop)
                for (part, offset, size), start, stop in zip(
                    self._parts(), self.before(epoch), self.before(epoch + 1), strict=True
                )
                if size
            ]
        )

    def before_epoch(self, epoch: int, lengths: Ints) -> int:
        """The sum of `lengths` over the visits of all epochs before this one."""
        total = 0
        for (part, offset, size), number in zip(self._parts(), self.before(epoch), strict=True):
            own = lengths[offset : offset + size]
            cycles, rest = divmod(number, size or 1)
            total += cycles * int(own.sum())
            total += int(own[self._entries(part, cycles * size, cycles * size + rest)].sum())
        return total

    def _parts(self) -> Iterator[tuple[int, int, int]]:
        """Number, offset and size of each corpus."""
        return zip(itertools.count(), itertools.accumulate(self.sizes, initial=0), self.sizes, strict=False)

    def _entries(self, part: int, start: int, stop: int) -> Ints:
        """Entries of the endless sequence of permutations."""
        size = self.sizes[part]
        cycles = [self._permutation(part, cycle) for cycle in range(start // size, -(-stop // size))]
        first = start // size * size
        return np.concatenate([np.zeros(0, np.int64), *cycles])[start - first : stop - first]

    def _permutation(self, part: int, cycle: int) -> Ints:
        # Not the numbers that shuffle batches: those are of (seed, epoch).
        return np.random.default_rng((self.seed, cycle, part + 1)).permutation(self.sizes[part])


class JoinedIds:
    """The ids of several corpora, indexed as one array without being copied to one."""

    def __init__(self, parts: Sequence[Ints]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.dtype = np.result_type(*parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, positions: Ints) -> Ints:
        """The ids at positions, an array of any shape."""
        owners = np.searchsorted(self._ends, positions, side="right")
        found = np.empty(np.shape(positions), self.dtype)
        for number, (part, end) in enumerate(zip(self._parts, self._ends, strict=True)):
            is_here = owners == number
            if is_here.any():
                found[is_here] = part[positions[is_here] - (end - len(part))]
        return found


@dataclass(frozen=True)
class Part:
    """One corpus of a mixture, for the summary."""

    name: str
    pairs: PairDataset
    weight: float
    tag: str | None
    num_repeated: int = 0

    @property
    def dropped(self) -> dict[str, int]:
        """Dropped pairs by reason."""
        return self.pairs.dropped | ({"repeated": self.num_repeated} if self.num_repeated else {})


@dataclass(frozen=True)
class Mixture(PairDataset):
    """The pairs of several corpora, one after the other."""

    parts: tuple[Part, ...] = ()

    def visits(self, seed: int) -> Visits | None:
        """Which pairs each epoch visits; None: all, once each."""
        weights = tuple(part.weight for part in self.parts)
        return Visits(tuple(len(part.pairs) for part in self.parts), weights, seed) if {*weights} != {1.0} else None

    def shares(self, kept: Sequence[Flags] | None = None) -> list[float]:
        """The part of an epoch's target tokens that each corpus has on average, if all or the `kept` pairs are."""
        lengths = [part.pairs.tgt.lengths for part in self.parts]
        if kept is not None:
            lengths = [own[flags] for own, flags in zip(lengths, kept, strict=True)]
        sums = [part.weight * int(own.sum()) for part, own in zip(self.parts, lengths, strict=True)]
        return [one / sum(sums) for one in sums]


def mixed(corpora: Sequence[TrainingCorpus], encoded: Sequence[PairDataset], *, deduplicate: bool = False) -> Mixture:
    """Encoded corpora as one.

    With `deduplicate`, it lacks the pairs that repeat one of the same or an earlier corpus.

    The fingerprint of a single corpus, visited once and whole, is its own. DataError if an epoch may visit nothing.
    """
    num_repeated = [0] * len(encoded)
    fingerprints = [pairs.fingerprint for pairs in encoded]
    if deduplicate:
        flags = first_pairs(encoded)
        num_repeated = [int((~flag).sum()) for flag in flags]
        encoded = [_selected(pairs, flag) for pairs, flag in zip(encoded, flags, strict=True)]
    parts = tuple(
        Part(one.corpus.name, pairs, one.weight, one.tag, number)
        for one, pairs, number in zip(corpora, encoded, num_repeated, strict=True)
    )
    weights = [one.weight for one in corpora]
    if not any(Visits(tuple(len(part.pairs) for part in parts), tuple(weights), seed=0).before(1)):
        visits = ", ".join(f"weight {part.weight:g} of {len(part.pairs):,} pairs" for part in parts)
        raise DataError(f"data.corpora: no corpus has a visit in every epoch ({visits}): raise a weight")
    is_plain = len(corpora) == 1 and weights == [1.0] and not deduplicate
    return Mixture(
        src=_joined_side([part.pairs.src for part in parts]),
        tgt=_joined_side([part.pairs.tgt for part in parts]),
        dropped=added(*(part.dropped for part in parts)),
        fingerprint=fingerprints[0] if is_plain else digest_of("mixture 2", fingerprints, weights, deduplicate),
        num_unknown=sum(part.pairs.num_unknown for part in parts),
        parts=parts,
    )


def _selected(pairs: PairDataset, flag: Flags) -> PairDataset:
    src, tgt = (Side(side.ids, side.lengths[flag], side.starts[flag]) for side in (pairs.src, pairs.tgt))
    return dataclasses.replace(pairs, src=src, tgt=tgt, num_unknown=count_id(src, UNK_ID) + count_id(tgt, UNK_ID))


def _joined_side(sides: Sequence[Side]) -> Side:
    if len(sides) == 1:
        return sides[0]
    offsets = itertools.accumulate((len(side.ids) for side in sides), initial=0)
    starts = np.concatenate([side.starts + offset for side, offset in zip(sides, offsets, strict=False)])
    ids: Ints = JoinedIds([side.ids for side in sides])  # type: ignore[assignment]
    return Side(ids, np.concatenate([side.lengths for side in sides]), starts)

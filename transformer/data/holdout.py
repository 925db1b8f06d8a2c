"""Validation and test pairs held out of a training corpus, chosen by a hash of their source text.

What a pair belongs to depends on its text: adding lines never moves a training pair to another split, and pairs with
the same source, up to white space and the Unicode form of accents, are on the same side. Without a size, a pair is
held out if its hash is in the lowest hundredth and among the 2,000 lowest, or in the lowest tenth and among the 100
lowest. The test pairs are chosen likewise from the others, in another order.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transformer.data.pairs import Corpus, digest_of
from transformer.errors import DataError
from transformer.files import write_atomic

_RULES = ((0.01, 2000), (0.1, 100))  # the lowest part of all hashes, and at most how many
_BLOCK = 100_000
# The order in which each split takes hashes: that of the hash times an odd number, modulo 2^64.
_ORDERS = {"validation": 1, "test": 0x9E3779B97F4A7C15}

Hashes = npt.NDArray[np.uint64]
Pairs = list[tuple[str, str]]


def text_hash(text: str) -> int:
    """A hash of 64 bits, of the words: neither the white space between them counts nor whether accents are composed."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    return int.from_bytes(hashlib.blake2b(composed.encode(), digest_size=8).digest(), "big")


def choose_hashes(hashes: Iterable[int], splits: Sequence[str], size: int | None) -> tuple[dict[str, set[int]], int]:
    """The hashes of each split, and the number of distinct ones.

    Of many, the number is a lower bound far above those taken.

    Memory does not grow with their number.

    Args:
        splits: of `validation` and `test`.
        size: how many each takes; None: by the rules above.
    """
    limit = 5 * max(size or 0, *(number for _, number in _RULES))
    splits = [split for split in _ORDERS if split in splits]
    lowest = {split: np.zeros(0, np.uint64) for split in splits}
    hashes = iter(hashes)
    while block := list(itertools.islice(hashes, _BLOCK)):
        for split in splits:
            ordered = np.array(block, np.uint64) * np.uint64(_ORDERS[split])
            lowest[split] = np.unique(np.concatenate((lowest[split], ordered)))[:limit]
    chosen: dict[str, set[int]] = {}
    for split in splits:
        inverse = np.uint64(pow(_ORDERS[split], -1, 1 << 64))
        taken = np.array(sorted(set[int]().union(*chosen.values())), np.uint64)
        free = lowest[split][~np.isin(lowest[split] * inverse, taken)]
        chosen[split] = {int(value) for value in _lowest(free, size) * inverse}
    return chosen, min((len(found) for found in lowest.values()), default=0)


def _lowest(ordered: Hashes, size: int | None) -> Hashes:
    if size is not None:
        return ordered[:size]
    found = [ordered[:number][ordered[:number] < np.uint64(int(part * 2**64))] for part, number in _RULES]
    return np.unique(np.concatenate(found))


def held_out_split(whole: Corpus, split: str, splits: Sequence[str], size: int | None, cache: Path) -> Corpus:
    """The held-out `validation` or `test` pairs, the first of each source, as a corpus.

    DataError as of `held_out_pairs`.
    """
    pairs = held_out_pairs(whole, splits, size, cache)[split]
    name = f"{len(pairs):,} {split} pairs held out of {whole.name}"
    return Corpus(name, digest_of("held-out pairs", pairs), lambda: iter(pairs))


def without_held_out(corpus: Corpus, held_out: Sequence[Pairs]) -> Corpus:
    """A training corpus without the sources of held-out pairs.

    Pairs that are left out are counted.
    """
    sources = {text_hash(source) for pairs in held_out for source, _ in pairs}
    return corpus.without("held_out", lambda source, _: text_hash(source) in sources, digest_of(sorted(sources)))


def held_out_pairs(whole: Corpus, splits: Sequence[str], size: int | None, cache: Path) -> dict[str, Pairs]:
    """The held-out pairs by split, kept in the cache, so that the corpus is read for them once.

    DataError if there would be none, or fewer than half of the distinct sources would be left.
    """
    key = digest_of("held out", whole.fingerprint, sorted(set(splits)), size)
    path = cache / f"{key}.held_out.json"
    pairs = _kept(path, key)
    if pairs is None:
        pairs = _choose(whole, splits, size)
        with contextlib.suppress(OSError):  # another run with the same data may write it at the same time
            cache.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps({"key": key, "sha256": digest_of(pairs), "pairs": pairs}))
    return pairs


def _kept(path: Path, key: str) -> dict[str, Pairs] | None:
    """The pairs in the cache; None if they are absent or damaged, and chosen anew."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        pairs = {split: [(source, target) for source, target in found] for split, found in kept["pairs"].items()}
        return pairs if kept["key"] == key and kept["sha256"] == digest_of(pairs) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _choose(whole: Corpus, splits: Sequence[str], size: int | None) -> dict[str, Pairs]:
    hashes = (text_hash(source) for source, _ in whole if source.strip())
    chosen, num_distinct = choose_hashes(hashes, splits, size)
    num_chosen = sum(map(len, chosen.values()))
    if not all(chosen.values()) or 2 * num_chosen > num_distinct or (size and num_chosen < size * len(chosen)):
        wanted = "a hundredth" if size is None else f"{size:,} pairs"
        raise DataError(
            f"{whole.name}: too few distinct sources ({num_distinct:,}) to hold out {wanted} for "
            f"{' and '.join(chosen)} and keep half of them: give separate files, or another data.validation_size"
        )
    owners = {value: split for split, values in chosen.items() for value in values}
    pairs: dict[str, Pairs] = {split: [] for split in chosen}
    for source, target in whole:
        if owner := owners.pop(text_hash(source), None):
            pairs[owner].append((source, target))
    return pairs

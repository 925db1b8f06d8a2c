"""Sentence pairs as ids, encoded once, kept on disk and memory-mapped."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from transformer.data.corpus import Corpus, in_chunks
from transformer.data.tokenizer import EOS_ID, Tokenizer
from transformer.errors import DataError

_FORMAT = 1
_LOCK_SUFFIX = ".lock"
_ENTRY = re.compile(r"[0-9a-f]{32}(\.model)?")
_PAIRS_PER_CHUNK = 20_000
_CHARACTERS_PER_CHUNK = 1 << 22  # few sentences are so long
_IDS_AT_A_TIME = 1 << 20
_DTYPES = ("uint16", "int32")

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Side:
    """One language: the ids of sentence i are ids[starts[i] : starts[i] + lengths[i]], </s> included."""

    ids: Ints  # memory-mapped
    lengths: Ints
    starts: Ints


@dataclass(frozen=True)
class PairDataset:
    """Encoded pairs. `dropped` counts, by reason, the pairs of the corpus that are not here."""

    src: Side
    tgt: Side
    dropped: dict[str, int]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.src.lengths)


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    cache_dir: str | Path,
    *,
    max_length: int = 256,
    max_ratio: float | None = None,
) -> PairDataset:
    """Encode a corpus, or find it encoded in the cache, where it is filed under its content.

    No text and no ids are held in memory, only lengths: about 24 bytes a pair. Pairs with an empty side, with more than
    `max_length` ids on a side (</s> included) or with lengths that differ by more than the factor `max_ratio` are
    dropped and counted.

    Raises:
        DataError: nothing is left, the corpus cannot be read, or what the cache holds of it is damaged.
    """
    _sweep(Path(cache_dir))
    parts = (_FORMAT, corpus.fingerprint, hashlib.sha256(tokenizer.model).hexdigest(), max_length, max_ratio)
    fingerprint = _digest(parts)
    directory = Path(cache_dir) / fingerprint
    if not (directory / "meta.json").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            if not (directory / "meta.json").is_file():
                _build(directory, corpus, tokenizer, max_length, max_ratio)
    try:
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        num_pairs, dropped, dtype = meta["num_pairs"], meta["dropped"], meta["dtype"]
        if type(num_pairs) is not int or not _are_counts(dropped) or dtype not in _DTYPES:
            raise ValueError("meta.json holds other things than were written")
        if not num_pairs:
            raise DataError(f"{corpus.name}: no sentence pair is left to use; dropped: {dropped}")
        # Entries of the first versions have no sums.
        sums = meta.get("sha256", {"src": None, "tgt": None})
        src, tgt = (
            _load_side(directory, name, num_pairs, dtype, len(tokenizer), sums[name]) for name in ("src", "tgt")
        )
    except DataError:
        raise
    except Exception as error:  # of a damaged .npy, numpy raises whatever its many readers raise
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # nothing is wrong with the entry
        raise DataError(f"{directory}: damaged ({error}); delete it: it will be made again") from None
    return PairDataset(src, tgt, dropped, fingerprint)


def corpus_tokenizer(corpus: Corpus, vocab_size: int, cache_dir: str | Path) -> Tokenizer:
    """The tokenizer of `vocab_size` pieces that a corpus teaches, or the one that it once did, from the cache.

    DataError if there is nothing in the corpus or too little for that many pieces.
    """
    _sweep(Path(cache_dir))
    parts = (_FORMAT, "tokenizer", corpus.fingerprint, vocab_size)
    path = Path(cache_dir) / f"{_digest(parts)}.model"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.is_file():
                _learn(path, corpus, vocab_size)
    tokenizer = Tokenizer.load(path)
    if len(tokenizer) != vocab_size:
        raise DataError(f"{path}: damaged (it has {len(tokenizer)} pieces, not {vocab_size}); delete it")
    return tokenizer


def _learn(path: Path, corpus: Corpus, vocab_size: int) -> None:
    if not any(source.strip() or target.strip() for source, target in corpus):
        raise DataError(f"{corpus.name}: the corpus is empty")
    tokenizer = Tokenizer.train(itertools.chain.from_iterable(corpus), vocab_size, corpus.symbols())
    temporary = _temporary(path)
    temporary.write_bytes(tokenizer.model)
    temporary.replace(path)


@contextlib.contextmanager
def _locked(entry: Path, *, wait: bool = True) -> Iterator[bool]:
    """Inside, this process alone has the lock of this entry of the cache, which ends with the process.

    False if another process has it, unless we `wait`, or there is no right to write here.
    """
    lock = FileLock(entry.with_name(f".{entry.name}{_LOCK_SUFFIX}"))
    try:
        lock.acquire(blocking=wait)
    except (OSError, Timeout):
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _sweep(cache: Path) -> None:
    """Remove what killed processes have left in the cache: they have left a lock that nobody holds."""
    for path in cache.glob(f".*{_LOCK_SUFFIX}"):
        entry = cache / path.name.removeprefix(".").removesuffix(_LOCK_SUFFIX)
        if not _ENTRY.fullmatch(entry.name):
            continue  # others may have locks in the same directory
        with _locked(entry, wait=False) as is_alone:
            for remains in cache.glob(f".{entry.name}-{'[0-9a-f]' * 32}") if is_alone else ():
                if remains.is_dir():
                    shutil.rmtree(remains)
                else:
                    remains.unlink()


def _temporary(entry: Path) -> Path:
    """Where to make an entry; no other process has the same, as not all places have locks."""
    return entry.with_name(f".{entry.name}-{uuid.uuid4().hex}")


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _build(directory: Path, corpus: Corpus, tokenizer: Tokenizer, max_length: int, max_ratio: float | None) -> None:
    temporary = _temporary(directory)
    temporary.mkdir()
    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.int32
    dropped = {"empty": 0, "too_long": 0, "ratio": 0}
    lengths: dict[str, list[Ints]] = {"src": [], "tgt": []}
    digests = {name: hashlib.sha256() for name in lengths}
    try:
        with (temporary / "src.ids").open("wb") as src_file, (temporary / "tgt.ids").open("wb") as tgt_file:
            files = {"src": src_file, "tgt": tgt_file}
            for chunk in in_chunks(
                corpus, _PAIRS_PER_CHUNK, _CHARACTERS_PER_CHUNK, lambda pair: len(pair[0]) + len(pair[1])
            ):
                kept = list(_kept(chunk, tokenizer, max_length, max_ratio, dropped))
                for name, sentences in zip(files, zip(*kept, strict=True), strict=False):
                    ids = np.fromiter(itertools.chain.from_iterable(sentences), dtype=dtype)
                    ids.tofile(files[name])
                    digests[name].update(ids.data)
                    lengths[name].append(np.fromiter(map(len, sentences), dtype=np.int32))
        for name, counts in lengths.items():
            numbers = np.concatenate([np.zeros(0, np.int32), *counts])
            np.save(temporary / f"{name}.lengths.npy", numbers)
            digests[name].update(numbers.data)
        num_pairs = sum(len(counts) for counts in lengths["src"])
        sums = {name: digest.hexdigest() for name, digest in digests.items()}
        meta = {"num_pairs": num_pairs, "dropped": dropped, "dtype": np.dtype(dtype).name, "sha256": sums}
        (temporary / "meta.json").write_text(json.dumps(meta))
        try:
            temporary.replace(directory)
        except OSError:
            # Another process may have been faster: its work is as good.
            if not (directory / "meta.json").is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _kept(
    chunk: list[tuple[str, str]],
    tokenizer: Tokenizer,
    max_length: int,
    max_ratio: float | None,
    dropped: dict[str, int],
) -> Iterator[tuple[list[int], list[int]]]:
    num_threads = os.cpu_count() or 1
    sources, targets = (tokenizer.encode(side, num_threads) for side in zip(*chunk, strict=True))
    for src, tgt in zip(sources, targets, strict=True):
        shorter, longer = sorted((len(src), len(tgt)))
        if not shorter:
            dropped["empty"] += 1
        elif longer + 1 > max_length:
            dropped["too_long"] += 1
        elif max_ratio is not None and longer > max_ratio * shorter:
            dropped["ratio"] += 1
        else:
            yield [*src, EOS_ID], [*tgt, EOS_ID]


def _are_counts(dropped: Any) -> bool:
    return isinstance(dropped, dict) and all(type(count) is int for count in dropped.values())


def _load_side(
    directory: Path, name: str, num_pairs: int, dtype: str, vocab_size: int, expected_digest: str | None
) -> Side:
    """ValueError if the files do not fit each other and the vocabulary, or are not what was written."""
    # Mapped: a header may claim more than there is.
    lengths = np.load(directory / f"{name}.lengths.npy", mmap_mode="r", allow_pickle=False)
    if lengths.dtype != np.int32 or lengths.shape != (num_pairs,) or lengths.min() < 1:
        raise ValueError(f"{name}.lengths.npy does not hold {num_pairs} lengths")
    lengths = np.array(lengths)
    ends = np.cumsum(lengths, dtype=np.int64)
    path = directory / f"{name}.ids"
    if path.stat().st_size != ends[-1] * np.dtype(dtype).itemsize:
        raise ValueError(f"{name}.ids does not hold {ends[-1]} ids")
    digest = hashlib.sha256()
    # Read, not mapped: what has only been looked through should not count as this process's memory.
    with path.open("rb") as file:
        while len(block := np.fromfile(file, dtype, _IDS_AT_A_TIME)):
            if block.min() < 0 or block.max() >= vocab_size:
                raise ValueError(f"{name}.ids holds ids that are not of the vocabulary")
            digest.update(block.data)
    digest.update(lengths.data)
    if expected_digest not in (None, digest.hexdigest()):
        raise ValueError(f"{name}.ids and {name}.lengths.npy are not what was written")
    return Side(np.memmap(path, dtype=dtype, mode="r"), lengths, np.concatenate(([0], ends[:-1])))

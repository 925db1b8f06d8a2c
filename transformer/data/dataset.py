"""Encoded corpora: token ids, cached on disk and memory-mapped."""

import contextlib
import errno
import hashlib
import io
import itertools
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from transformer.data.corpus import Corpus, in_chunks
from transformer.data.pairs import added, digest_of
from transformer.data.tokenizer import EOS_ID, UNK_ID, Tokenizer
from transformer.errors import DataError
from transformer.machine import num_cpus
from transformer.progress import Stage, no_stage

_FORMAT = 2  # of cache entries; format 1 does not count unknown pieces, and its tables may be misread
_FINGERPRINT_FORMAT = 1  # of the fingerprints that checkpoints hold
_LOCK_SUFFIX = ".lock"
_ENTRY = re.compile(r"[0-9a-f]{32}(\.model)?")
_PAIRS_PER_CHUNK = 20_000
_CHARACTERS_PER_CHUNK = 1 << 22  # limits memory for corpora of very long lines
_IDS_PER_READ = 1 << 20
_DTYPES = ("uint16", "int32")

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Side:
    """One language: sentence i is ids[starts[i] : starts[i] + lengths[i]], </s> included."""

    ids: Ints  # memory-mapped
    lengths: Ints
    starts: Ints

    def end_to_end(self, indices: Ints) -> tuple[Ints, Ints]:
        """Ids of these sentences, one after the other, and the position of each within its sentence."""
        lengths = self.lengths[indices].astype(np.int64)
        positions = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        return self.ids[np.repeat(self.starts[indices], lengths) + positions], positions


@dataclass(frozen=True)
class PairDataset:
    """Encoded pairs.

    `dropped` counts the filtered ones by reason, `num_unknown` the unknown pieces of the others on both sides.
    """

    src: Side
    tgt: Side
    dropped: dict[str, int]
    fingerprint: str
    num_unknown: int = 0

    def __len__(self) -> int:
        return len(self.src.lengths)


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    cache_dir: str | Path,
    *,
    max_length: int = 256,
    max_ratio: float | None = None,
    stage: Stage = no_stage,
) -> PairDataset:
    """Encode a corpus, or load it from the cache, which is keyed by content.

    Only lengths are held in memory, about 24 bytes per pair. Pairs with an empty side, with more than `max_length` ids
    on a side (</s> included) or with a length ratio above `max_ratio` are dropped and counted. `stage` shows the work.

    Raises:
        DataError: no pair is left, the corpus cannot be read, or its cache entry is damaged.
    """
    _remove_leftovers(Path(cache_dir))
    fingerprint = digest_of(_FINGERPRINT_FORMAT, corpus.fingerprint, tokenizer.digest, max_length, max_ratio)
    directory = Path(cache_dir) / digest_of(_FORMAT, fingerprint)
    if not (directory / "meta.json").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            if not (directory / "meta.json").is_file():
                with stage("encoding", "pairs") as advance:
                    _write_entry(directory, corpus, tokenizer, max_length, max_ratio, advance)
    try:
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        num_pairs, dropped, dtype, num_unknown = (meta[x] for x in ("num_pairs", "dropped", "dtype", "num_unknown"))
        if any(type(x) is not int for x in (num_pairs, num_unknown, *dropped.values())) or dtype not in _DTYPES:
            raise ValueError("meta.json has unexpected content")
        if not num_pairs:
            raise _nothing_left(corpus, dropped)
        # Entries of the first versions have no checksums.
        sums = meta.get("sha256", {"src": None, "tgt": None})
        sides = (("src", tokenizer.source), ("tgt", tokenizer))
        src, tgt = (_load_side(directory, name, num_pairs, dtype, len(of_side), sums[name]) for name, of_side in sides)
    except DataError:
        raise
    except Exception as error:  # numpy's errors for a damaged .npy are undocumented
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # too many open files: the entry is fine
        raise DataError(f"{directory}: damaged ({error}); delete it: it will be rebuilt") from None
    return PairDataset(src, tgt, dropped, fingerprint, num_unknown)


def _nothing_left(corpus: Corpus, dropped: dict[str, int]) -> DataError:
    first = next(iter(corpus), ("", ""))
    hint = "; the first holds carriage returns: each line must end with a line feed" if "\r" in "".join(first) else ""
    return DataError(f"{corpus.name}: no sentence pair is left to use; dropped: {in_words(dropped)}{hint}")


def in_words(dropped: dict[str, int]) -> str:
    """The numbers of dropped pairs by reason."""
    return ", ".join(f"{reason} {number}" for reason, number in dropped.items())


def corpus_tokenizer(
    corpus: Corpus,
    vocab_size: int,
    cache_dir: str | Path,
    stage: Stage = no_stage,
    *,
    sides: Sequence[int] = (0, 1),
    **settings: Any,
) -> Tokenizer:
    """Train a tokenizer on a corpus, or load it from the cache; `stage` shows the work.

    On these `sides` of its pairs. `settings` are the others of `Tokenizer.train`. DataError if the corpus is empty or
    does not suit `vocab_size`.
    """
    _remove_leftovers(Path(cache_dir))
    symbols = list(corpus.symbols())
    parts = (_FORMAT, "tokenizer", corpus.fingerprint, vocab_size, sorted(settings.items()), *filter(None, [symbols]))
    if len(sides) == 1:
        parts += (f"side {sides[0]}",)
    path = Path(cache_dir) / f"{digest_of(*parts)}.model"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.is_file():
                if not any(pair[side].strip() for pair in corpus for side in sides):
                    raise DataError(f"{corpus.name}: the corpus is empty")
                with contextlib.ExitStack() as learning:
                    sentences = _sentences(corpus, sides, stage, learning, f"learning {vocab_size:,} pieces")
                    tokenizer = Tokenizer.train(sentences, vocab_size, symbols, **settings)
                temporary = _temporary(path)
                try:
                    _append(temporary, tokenizer.model, path.parent)
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)
    tokenizer = Tokenizer.load(path)
    if len(tokenizer) != vocab_size:
        raise DataError(f"{path}: damaged (it has {len(tokenizer)} pieces, not {vocab_size}); delete it")
    return tokenizer


def _sentences(
    corpus: Corpus, sides: Sequence[int], stage: Stage, after: contextlib.ExitStack, what: str
) -> Iterator[str]:
    """These sides of all pairs; the stage `what` begins when they have been read."""
    with stage("reading for the tokenizer", "pairs") as advance:
        for pair in corpus:
            yield from (pair[side] for side in sides)
            advance(1)
    after.enter_context(stage(what))


@contextlib.contextmanager
def _locked(entry: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock a cache entry; yields whether the lock was acquired.

    It is not if another process holds it, unless we `wait`, or if the directory is not writable.
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


def _remove_leftovers(cache: Path) -> None:
    """Remove leftovers of killed processes (stale locks)."""
    for path in cache.glob(f".*{_LOCK_SUFFIX}"):
        entry = cache / path.name.removeprefix(".").removesuffix(_LOCK_SUFFIX)
        if not _ENTRY.fullmatch(entry.name):
            continue  # another program's lock in the same directory
        with _locked(entry, wait=False) as is_stale:
            for leftover in cache.glob(f".{entry.name}-{'[0-9a-f]' * 32}") if is_stale else ():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()


def _temporary(entry: Path) -> Path:
    """Unique temporary name, since not every file system supports locks."""
    return entry.with_name(f".{entry.name}-{uuid.uuid4().hex}")


def _append(path: Path, data: bytes | memoryview, cache: Path) -> None:
    """Append to a file. An OSError names the cache, which may be full."""
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(cache)) from None


def _write_entry(
    directory: Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    max_length: int,
    max_ratio: float | None,
    advance: Callable[[int], None],
) -> None:
    temporary, cache = _temporary(directory), directory.parent
    temporary.mkdir()
    dtype = np.uint16 if max(len(tokenizer), len(tokenizer.source)) <= 1 << 16 else np.int32
    dropped, num_unknown = {"empty": 0, "too_long": 0, "ratio": 0}, 0
    lengths: dict[str, list[Ints]] = {"src": [], "tgt": []}
    digests = {name: hashlib.sha256() for name in lengths}
    try:
        for chunk in in_chunks(
            corpus, _PAIRS_PER_CHUNK, _CHARACTERS_PER_CHUNK, lambda pair: len(pair[0]) + len(pair[1])
        ):
            kept = list(_encode_and_filter(chunk, tokenizer, max_length, max_ratio, dropped))
            for name, sentences in zip(lengths, zip(*kept, strict=True), strict=False):
                ids = np.fromiter(itertools.chain.from_iterable(sentences), dtype=dtype)
                _append(temporary / f"{name}.ids", ids.data, cache)
                num_unknown += int((ids == UNK_ID).sum())
                digests[name].update(ids.data)
                lengths[name].append(np.fromiter(map(len, sentences), dtype=np.int32))
            advance(len(chunk))
        for name, counts in lengths.items():
            numbers = np.concatenate([np.zeros(0, np.int32), *counts])
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(numbers))
            _append(temporary / f"{name}.lengths.npy", header.getvalue(), cache)
            # Not np.save, whose error for a full disk does not say so.
            _append(temporary / f"{name}.lengths.npy", numbers.data, cache)
            digests[name].update(numbers.data)
        dropped = added(dropped, corpus.dropped())
        num_pairs = sum(len(counts) for counts in lengths["src"])
        sums = {name: digest.hexdigest() for name, digest in digests.items()}
        meta = {"num_pairs": num_pairs, "dropped": dropped, "num_unknown": num_unknown}
        meta |= {"dtype": np.dtype(dtype).name, "sha256": sums}
        _append(temporary / "meta.json", json.dumps(meta).encode(), cache)
        try:
            temporary.replace(directory)
        except OSError:
            # Another process may have been faster, with the same result.
            if not (directory / "meta.json").is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _encode_and_filter(
    chunk: list[tuple[str, str]],
    tokenizer: Tokenizer,
    max_length: int,
    max_ratio: float | None,
    dropped: dict[str, int],
) -> Iterator[tuple[list[int], list[int]]]:
    of_sides = (tokenizer.source, tokenizer)
    sides = zip(of_sides, zip(*chunk, strict=True), strict=True)
    sources, targets = (of_side.encode(side, num_cpus()) for of_side, side in sides)
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


def _load_side(
    directory: Path, name: str, num_pairs: int, dtype: str, vocab_size: int, expected_digest: str | None
) -> Side:
    """Verify and map one side. ValueError if its files are inconsistent or changed."""
    # Mapped, not read: a damaged header may claim any size.
    lengths = np.load(directory / f"{name}.lengths.npy", mmap_mode="r", allow_pickle=False)
    if lengths.dtype != np.int32 or lengths.shape != (num_pairs,) or lengths.min() < 1:
        raise ValueError(f"{name}.lengths.npy does not hold {num_pairs} lengths")
    lengths = np.array(lengths)
    ends = np.cumsum(lengths, dtype=np.int64)
    path = directory / f"{name}.ids"
    if path.stat().st_size != ends[-1] * np.dtype(dtype).itemsize:
        raise ValueError(f"{name}.ids does not hold {ends[-1]} ids")
    digest = hashlib.sha256()
    # Read, not mapped: verifying should not add the file to this process's resident memory.
    with path.open("rb") as file:
        while len(block := np.fromfile(file, dtype, _IDS_PER_READ)):
            if block.min() < 0 or block.max() >= vocab_size:
                raise ValueError(f"{name}.ids has ids outside the vocabulary")
            digest.update(block.data)
    digest.update(lengths.data)
    if expected_digest not in (None, digest.hexdigest()):
        raise ValueError(f"{name}.ids and {name}.lengths.npy do not match their checksum")
    return Side(np.memmap(path, dtype=dtype, mode="r"), lengths, np.concatenate(([0], ends[:-1])))

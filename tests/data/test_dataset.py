"""Encoded corpora: the tokenizer's ids, filtering, and a cache keyed by content with atomic entries."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transformer import progress
from transformer.data import dataset as dataset_module
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import Corpus
from transformer.data.dataset import PairDataset, Side, corpus_tokenizer, encode_corpus
from transformer.data.pairs import digest_of
from transformer.data.tokenizer import EOS_ID, Tokenizer
from transformer.errors import DataError

Pairs = Sequence[tuple[str, str]]
NOTHING_DROPPED = {"empty": 0, "too_long": 0, "ratio": 0}


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return list(builtin_pairs("train", 101))


@pytest.fixture(scope="module")
def tokenizer(pairs: Pairs) -> Tokenizer:
    return Tokenizer.train([side for pair in pairs for side in pair], 211)


def entry_name(dataset: PairDataset) -> str:
    """The directory of a corpus in the cache."""
    return digest_of(dataset_module._FORMAT, dataset.fingerprint)


class Shelf:
    """A corpus that counts how often it is read."""

    def __init__(self, pairs: Pairs, fingerprint: str = "shelf") -> None:
        self.num_readings = 0
        self._pairs = pairs
        self.corpus = Corpus("the shelf", fingerprint, self._read)

    def _read(self) -> Iterator[tuple[str, str]]:
        self.num_readings += 1
        yield from self._pairs


def sentences(side: Side) -> list[list[int]]:
    return [side.ids[start : start + length].tolist() for start, length in zip(side.starts, side.lengths, strict=True)]


def expected(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [[*ids, EOS_ID] for ids in tokenizer.encode(texts)]


def assert_holds(dataset: PairDataset, tokenizer: Tokenizer, pairs: Pairs) -> None:
    assert len(dataset) == len(pairs)
    for side, texts in zip((dataset.src, dataset.tgt), zip(*pairs, strict=True), strict=True):
        assert sentences(side) == expected(tokenizer, texts)
        assert len(side.ids) == side.lengths.sum()


def words(number: int) -> str:
    """A text of `number` pieces (checked by `test_the_words_of_these_tests_are_pieces`)."""
    return " ".join(["is"] * number)


def test_the_words_of_these_tests_are_pieces(tokenizer: Tokenizer) -> None:
    assert [len(ids) for ids in tokenizer.encode([words(n) for n in (1, 2, 3, 7)])] == [1, 2, 3, 7]


def test_a_dataset_holds_the_tokenizers_ids_each_with_its_end(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer
) -> None:
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    assert_holds(dataset, tokenizer, pairs)
    assert dataset.dropped == NOTHING_DROPPED


def test_starts_are_the_sums_of_the_lengths_before(tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer) -> None:
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    for side in (dataset.src, dataset.tgt):
        assert side.starts.tolist() == [int(side.lengths[:i].sum()) for i in range(len(side.lengths))]


def test_the_ids_are_memory_mapped_and_cannot_be_changed(tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer) -> None:
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    for side in (dataset.src, dataset.tgt):
        assert isinstance(side.ids, np.memmap)
        assert not side.ids.flags.writeable


# What is dropped


def test_pairs_with_an_empty_side_are_dropped_and_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    kept = [(words(2), words(3)), (words(3), words(2))]
    pairs = [("", words(2)), kept[0], (words(2), ""), ("  \t", words(2)), kept[1], ("", "")]
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    assert_holds(dataset, tokenizer, kept)
    assert dataset.dropped == {"empty": 4, "too_long": 0, "ratio": 0}


def test_a_side_of_maximum_length_is_kept_and_a_longer_one_dropped(tmp_path: Path, tokenizer: Tokenizer) -> None:
    # 6 pieces and </s> are 7.
    kept = [(words(6), words(2)), (words(2), words(6)), (words(6), words(6))]
    pairs = [kept[0], (words(7), words(2)), kept[1], (words(2), words(7)), kept[2]]
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path, max_length=7)
    assert_holds(dataset, tokenizer, kept)
    assert dataset.dropped == {"empty": 0, "too_long": 2, "ratio": 0}
    assert dataset.src.lengths.max() == dataset.tgt.lengths.max() == 7


def test_lengths_at_the_maximum_ratio_are_kept_and_others_dropped(tmp_path: Path, tokenizer: Tokenizer) -> None:
    kept = [(words(2), words(5)), (words(5), words(2)), (words(3), words(3))]
    pairs = [kept[0], (words(2), words(6)), kept[1], (words(3), words(1)), kept[2]]
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path, max_ratio=2.5)
    assert_holds(dataset, tokenizer, kept)
    assert dataset.dropped == {"empty": 0, "too_long": 0, "ratio": 2}


def test_every_dropped_pair_has_one_reason(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pairs = [
        ("", words(11)),  # empty, though also too long
        (words(1), words(11)),  # too long, though also out of ratio
        (words(1), words(5)),  # out of ratio
        (words(5), words(5)),
    ]
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path, max_length=7, max_ratio=2.0)
    assert dataset.dropped == {"empty": 1, "too_long": 1, "ratio": 1}
    assert len(dataset) + sum(dataset.dropped.values()) == len(pairs)


@pytest.mark.parametrize("useless", [[], [("", "a"), ("is is is", "is")]])
def test_a_corpus_of_which_nothing_is_left_is_an_error_with_the_reasons(
    tmp_path: Path, tokenizer: Tokenizer, useless: Pairs
) -> None:
    num_empty, num_ratio = (1, 1) if useless else (0, 0)
    message = (
        "^the shelf: no sentence pair is left to use; "
        rf"dropped: empty {num_empty}, too_long 0, ratio {num_ratio}$"
    )
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match=message):
            encode_corpus(Shelf(useless).corpus, tokenizer, tmp_path, max_ratio=2.0)


def test_a_corpus_without_line_feeds_of_which_nothing_is_left_is_an_error_that_asks_for_them(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    message = r"dropped: empty 0, too_long 1, ratio 0; the first holds carriage returns: each line must end with a lin"
    with pytest.raises(DataError, match=message):
        encode_corpus(Shelf([("a dog\r" * 101, "a cat\r" * 101)]).corpus, tokenizer, tmp_path)


# The cache


def test_a_cached_corpus_is_not_read_again(tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer) -> None:
    shelf = Shelf([*pairs, ("", "")])
    first = encode_corpus(shelf.corpus, tokenizer, tmp_path / "deep" / "cache")
    second = encode_corpus(shelf.corpus, tokenizer, str(tmp_path / "deep" / "cache"))
    assert shelf.num_readings == 1
    assert second.fingerprint == first.fingerprint
    assert second.dropped == first.dropped == {"empty": 1, "too_long": 0, "ratio": 0}
    assert_holds(second, tokenizer, pairs)


def test_whatever_changes_the_ids_changes_the_entry(tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer) -> None:
    other_tokenizer = Tokenizer.train([side for pair in pairs for side in pair], 199)
    variants: list[Callable[[], PairDataset]] = [
        lambda: encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path),
        lambda: encode_corpus(Shelf(pairs, "other content").corpus, tokenizer, tmp_path),
        lambda: encode_corpus(Shelf(pairs).corpus, other_tokenizer, tmp_path),
        lambda: encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path, max_length=23),
        lambda: encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path, max_ratio=3.0),
    ]
    fingerprints = {variant().fingerprint for variant in variants}
    assert len(fingerprints) == len(variants)
    assert len(list(tmp_path.iterdir())) == len(variants)


def test_entries_of_an_older_format_are_not_read_but_fingerprints_stay_those_of_older_checkpoints(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer
) -> None:
    parts = (1, "shelf", hashlib.sha256(tokenizer.model).hexdigest(), 256, None)
    older = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    (tmp_path / older).mkdir()
    (tmp_path / older / "meta.json").write_text("an entry that another reader wrote")
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    assert dataset.fingerprint == older
    assert len(dataset) == len(pairs)


def test_another_name_for_the_same_content_is_the_same_entry(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer
) -> None:
    encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    moved = Shelf(pairs)
    encode_corpus(Corpus("elsewhere", "shelf", moved.corpus.read), tokenizer, tmp_path)
    assert moved.num_readings == 0


@pytest.mark.parametrize("error", [DataError("line 5: broken"), KeyboardInterrupt("ctrl-c")])
def test_a_corpus_that_fails_midway_leaves_nothing_behind(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(dataset_module, "_PAIRS_PER_CHUNK", 7)  # some chunks are on disk by then

    def broken() -> Iterator[tuple[str, str]]:
        yield from pairs[:17]
        raise error

    with pytest.raises(type(error), match=str(error)):
        encode_corpus(Corpus("broken", "shelf", broken), tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert_holds(encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path), tokenizer, pairs)  # mended


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize("name", ["src.ids", "tgt.ids", "src.lengths.npy", "tgt.lengths.npy", "meta.json"])
def test_a_full_disk_is_an_error_that_names_the_cache_and_leaves_nothing_behind(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer, name: str
) -> None:
    def read() -> Iterator[tuple[str, str]]:
        (entry,) = (path for path in tmp_path.iterdir() if path.is_dir())
        (entry / name).symlink_to(FULL)
        yield from pairs

    with pytest.raises(OSError, match="No space left on device") as caught:
        encode_corpus(Corpus("full", "shelf", read), tokenizer, tmp_path)
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
def test_a_disk_full_of_the_tokenizer_is_an_error_that_names_the_cache_and_leaves_nothing_behind(
    tmp_path: Path, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(entry: Path) -> Path:
        path = entry.with_name("temporary")
        path.symlink_to(FULL)
        return path

    monkeypatch.setattr(dataset_module, "_temporary", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        corpus_tokenizer(Shelf(pairs).corpus, 211, tmp_path)
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["ids", "tokenizer"])
def test_one_of_several_threads_builds_an_entry_and_the_others_wait(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer, kind: str
) -> None:
    shelf, has_begun, may_end = Shelf(pairs), threading.Event(), threading.Event()

    def read() -> Iterator[tuple[str, str]]:
        for pair in shelf.corpus.read():
            has_begun.set()
            assert may_end.wait(60)
            yield pair

    def make() -> object:
        corpus = Corpus("some", "shelf", read)
        if kind == "ids":
            return encode_corpus(corpus, tokenizer, tmp_path).fingerprint
        return corpus_tokenizer(corpus, 151, tmp_path).model

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(make)
        assert has_begun.wait(60)
        others = [pool.submit(make) for _ in range(2)]
        assert not wait(others, 0.1).done
        num_readings = shelf.num_readings
        may_end.set()
        assert [other.result() for other in others] == [first.result()] * 2
    assert shelf.num_readings == num_readings + (kind == "tokenizer"), (
        "read once; for a tokenizer, once to see if empty"
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_killed_processes_are_removed_and_files_of_others_kept(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer
) -> None:
    dead, alive, lockless, number = ("d" * 32, "a" * 32, "0" * 32, "7" * 32)
    left_by_others = {".gitconfig.lock", ".gitconfig-work", ".zcompdump.lock", f".zcompdump-{number}", f".{dead}-work"}
    names = {f".{dead}.lock", f".{dead}.model.lock", f".{dead}.model-{number}", f".{alive}.lock", f".{alive}-{number}"}
    for name in (*names, f".{lockless}-{number}", *left_by_others):
        (tmp_path / name).touch()
    (tmp_path / f".{dead}-{number}").mkdir()
    (tmp_path / f".{dead}-{number}" / "src.ids").touch()
    with dataset_module._locked(tmp_path / alive) as is_held:
        assert is_held
        dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
        entry = entry_name(dataset)
        left = {f".{alive}.lock", f".{alive}-{number}", f".{lockless}-{number}", entry, *left_by_others}
        assert {path.name for path in tmp_path.iterdir()} == left
    encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)  # found in the cache, and it sweeps
    assert {path.name for path in tmp_path.iterdir()} == left - {f".{alive}.lock"}


def test_a_lock_whose_file_was_deleted_is_acquired_again(tmp_path: Path) -> None:
    entry, path = tmp_path / "entry", tmp_path / ".entry.lock"

    def hold() -> bool:
        with dataset_module._locked(entry) as is_held:
            return is_held and path.exists()

    with ThreadPoolExecutor(1) as pool:
        with dataset_module._locked(entry):
            with dataset_module._locked(entry, wait=False) as is_held:
                assert not is_held
            waiting = pool.submit(hold)
            assert not wait([waiting], 0.1).done
        assert waiting.result()
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_directory_gives_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with dataset_module._locked(tmp_path / "file" / "entry") as is_held:
        assert not is_held


def test_reordered_ids_do_not_match_their_checksum(tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer) -> None:
    encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    (entry,) = tmp_path.iterdir()
    ids = np.fromfile(entry / "tgt.ids", np.uint16)
    ids[::-1].tofile(entry / "tgt.ids")
    with pytest.raises(
        DataError, match=r"damaged \(tgt\.ids and tgt\.lengths\.npy do not match their checksum\); delete it"
    ):
        encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    meta = json.loads((entry / "meta.json").read_text())
    del meta["sha256"]  # as of the first versions
    (entry / "meta.json").write_text(json.dumps(meta))
    encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)


def test_a_cached_tokenizer_of_another_size_is_refused(tmp_path: Path, pairs: Pairs) -> None:
    corpus_tokenizer(Shelf(pairs).corpus, 151, tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(Tokenizer.train(itertools.chain.from_iterable(pairs), 131).model)
    with pytest.raises(DataError, match=rf"{entry}: damaged \(it has 131 pieces, not 151\); delete it"):
        corpus_tokenizer(Shelf(pairs).corpus, 151, tmp_path)


def test_too_many_open_files_are_not_reported_as_a_damaged_entry(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)

    def refuse(path: Path, **_: object) -> str:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)


@pytest.mark.parametrize("size", [1, 7, 101, 103])
@pytest.mark.parametrize("limit", ["_PAIRS_PER_CHUNK", "_CHARACTERS_PER_CHUNK"])
def test_the_size_of_a_chunk_changes_nothing(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, limit: str, size: int
) -> None:
    mixed = [*pairs[:53], ("", ""), ("", "a"), *pairs[53:]]  # with chunks of 1, some keep nothing
    monkeypatch.setattr(dataset_module, limit, size)
    dataset = encode_corpus(Shelf(mixed).corpus, tokenizer, tmp_path)
    assert_holds(dataset, tokenizer, pairs)
    assert dataset.dropped["empty"] == 2


class LargeTokenizer:
    """A fake with a large vocabulary: texts are ids separated by blanks."""

    digest = "large"

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self.source = self

    def __len__(self) -> int:
        return self._vocab_size

    def encode(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:  # noqa: ARG002
        return [list(map(int, text.split())) for text in texts]


@pytest.mark.parametrize("vocab_size", [65535, 65536, 65537, 100_003])
def test_ids_of_large_vocabularies_survive(tmp_path: Path, vocab_size: int) -> None:
    largest = vocab_size - 1
    corpus = Shelf([(f"4 {largest}", f"{largest} 5 {largest}")]).corpus
    dataset = encode_corpus(corpus, LargeTokenizer(vocab_size), tmp_path)  # type: ignore[arg-type]
    assert sentences(dataset.src) == [[4, largest, EOS_ID]]
    assert sentences(dataset.tgt) == [[largest, 5, largest, EOS_ID]]


def test_entries_have_the_permissions_of_the_cache_directory(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer
) -> None:
    (tmp_path / "made_beside").mkdir()
    dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path / "cache")
    entry = tmp_path / "cache" / entry_name(dataset)
    assert oct(entry.stat().st_mode) == oct((tmp_path / "made_beside").stat().st_mode)


def test_a_tokenizer_is_trained_once_per_corpus_and_size(tmp_path: Path) -> None:
    readings = 0

    def corpus(fingerprint: str) -> Corpus:
        def read() -> Iterator[tuple[str, str]]:
            nonlocal readings
            readings += 1
            return builtin_pairs("train", 211)

        return Corpus("some", fingerprint, read)

    cache = tmp_path / "cache"
    first = corpus_tokenizer(corpus("a"), 151, cache)
    expected = Tokenizer.train(itertools.chain.from_iterable(builtin_pairs("train", 211)), 151)
    assert first.model == expected.model
    so_far = readings
    assert corpus_tokenizer(corpus("a"), 151, cache).model == first.model
    assert readings == so_far, "it was in the cache"
    assert len(corpus_tokenizer(corpus("a"), 157, cache)) == 157
    assert readings > so_far
    so_far = readings
    corpus_tokenizer(corpus("b"), 151, cache)
    assert readings > so_far
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize(
    "settings", [{"normalization": "nfkc"}, {"character_coverage": 0.99}, {"byte_fallback": True}], ids=str
)
def test_each_setting_of_the_tokenizer_has_its_own_entry(
    tmp_path: Path, pairs: Pairs, settings: dict[str, object]
) -> None:
    odd = [*pairs, ("½ ①", "²")]
    plain = corpus_tokenizer(Shelf(odd).corpus, 401, tmp_path)
    other = corpus_tokenizer(Shelf(odd).corpus, 401, tmp_path, **settings)
    assert other.model == Tokenizer.train(itertools.chain.from_iterable(odd), 401, **settings).model  # type: ignore[arg-type]
    assert other.pieces(range(401)) != plain.pieces(range(401))
    assert corpus_tokenizer(Shelf(odd).corpus, 401, tmp_path).model == plain.model
    assert len(list(tmp_path.iterdir())) == 2


def test_the_fingerprint_of_pairs_does_not_depend_on_the_format_of_the_cache(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path)
    parts = [1, "shelf", hashlib.sha256(tokenizer.model).hexdigest(), 256, None]
    expected = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    assert first.fingerprint == expected, "as the first versions computed it, whose runs resume"
    monkeypatch.setattr(dataset_module, "_FORMAT", 10**6)
    shelf = Shelf(pairs)
    assert encode_corpus(shelf.corpus, tokenizer, tmp_path).fingerprint == expected
    assert shelf.num_readings == 1, "entries of another format are built again"


def test_unknown_pieces_of_kept_pairs_are_counted_on_both_sides(
    tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "_PAIRS_PER_CHUNK", 2)
    odd = [("Ж is 漢", "is"), ("is", "é is 字"), ("Ж" * 3 + " is" * 50, "is"), *pairs[:3], ("Ж", "")]
    assert encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path).num_unknown == 0
    for _ in range(2):  # the second time from the cache
        dataset = encode_corpus(Shelf(odd).corpus, tokenizer, tmp_path / "odd", max_length=30)
        assert (dataset.num_unknown, dataset.dropped["too_long"], dataset.dropped["empty"]) == (4, 1, 1)


@pytest.mark.parametrize("pairs", [[], [("", " ")]])
def test_no_tokenizer_is_trained_on_an_empty_corpus(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(DataError, match=r"^nothing: the corpus is empty$"):
        corpus_tokenizer(Corpus("nothing", "x", lambda: iter(pairs)), 151, tmp_path)


def test_each_stage_of_the_work_is_shown_with_the_pairs_that_are_done(tmp_path: Path, pairs: Pairs) -> None:
    shown: list[str] = []

    @contextlib.contextmanager
    def stage(what: str, unit: str = "", total: int | None = None) -> Iterator[Callable[[int], None]]:
        counts: list[int] = []
        shown.append(f"{what} begins")
        yield counts.append
        shown.append(f"{what} ends with {sum(counts)} {unit} of {total}")

    corpus = Corpus("the shelf", "shelf", lambda: iter([("", "no source"), *pairs]))
    for _ in range(2):  # the second time from the cache
        tokenizer = corpus_tokenizer(corpus, 211, tmp_path, stage=stage)
        dataset = encode_corpus(corpus, tokenizer, tmp_path, stage=stage)
    assert (len(dataset), dataset.dropped["empty"]) == (101, 1)
    assert shown == [
        "reading for the tokenizer begins",
        "reading for the tokenizer ends with 102 pairs of None",
        "learning 211 pieces begins",
        "learning 211 pieces ends with 0  of None",
        "encoding begins",
        "encoding ends with 102 pairs of None",
    ]


def test_a_corpus_that_cannot_be_read_ends_the_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read() -> Iterator[tuple[str, str]]:
        yield "a", "b"
        raise DataError("the shelf: torn")

    before = threading.active_count()
    with pytest.raises(DataError, match="torn"):
        corpus_tokenizer(Corpus("the shelf", "torn", read), 211, tmp_path, stage=progress.stage)
    assert threading.active_count() == before
    assert capsys.readouterr() == ("", "")


def test_other_symbols_of_the_same_text_make_another_tokenizer(tmp_path: Path) -> None:
    def pieces(symbols: list[str]) -> list[str]:
        corpus = Corpus("own", "own", lambda: iter([("a b c d", "e f <x> g")]), lambda: symbols)
        return corpus_tokenizer(corpus, 19, tmp_path).pieces(range(19))

    for symbols in ([], ["<x>"], ["d", "<x>"], ["<x>"], []):
        found = pieces(symbols)
        assert found[4 : 4 + len(symbols)] == [f"▁{symbol}" for symbol in symbols]
        assert ("▁<x>" in found) == ("<x>" in symbols)
    assert len(list(tmp_path.glob("*.model"))) == 3


def test_a_tokenizer_without_symbols_keeps_its_place_in_the_cache(tmp_path: Path, pairs: Pairs) -> None:
    corpus_tokenizer(Shelf(pairs).corpus, 211, tmp_path, normalization="nfkc")
    parts = (2, "tokenizer", "shelf", 211, [("normalization", "nfkc")])
    assert (tmp_path / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.model").is_file()


def test_sizes_may_be_numbers_of_numpy(tmp_path: Path, pairs: Pairs, tokenizer: Tokenizer) -> None:
    sizes: Any = {"max_length": np.int64(23), "max_ratio": np.float32(2.5)}
    expected_dataset = encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path, max_length=23, max_ratio=2.5)
    assert encode_corpus(Shelf(pairs).corpus, tokenizer, tmp_path, **sizes).fingerprint == expected_dataset.fingerprint
    number: Any = np.int64(211)
    assert corpus_tokenizer(Shelf(pairs).corpus, number, tmp_path).model == tokenizer.model


def test_keys_of_the_cache_are_hashes_of_json() -> None:
    """Those of numpy are numbers. Other keys would lose the caches that there are."""
    expected = hashlib.sha256(b'["a", [1, 2.5], null]').hexdigest()[:32]
    assert digest_of("a", [np.int64(1), np.float64(2.5)], None) == expected

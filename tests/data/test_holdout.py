"""Held-out pairs depend on the text alone: stable, apart from the training pairs, and of a sensible number."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.data.holdout import choose_hashes, held_out_pairs, held_out_split, text_hash, without_held_out
from transformer.data.pairs import Corpus
from transformer.errors import DataError

BOTH = ("validation", "test")


def corpus(pairs: Sequence[tuple[str, str]], fingerprint: str = "mine") -> Corpus:
    return Corpus("mine", fingerprint, lambda: iter(pairs))


def hashes(number: int, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return [rng.getrandbits(64) for _ in range(number)]


@pytest.mark.parametrize(
    ("number", "low", "high"),
    [(101, 3, 20), (997, 70, 100), (10_007, 100, 130), (50_021, 450, 560), (300_007, 2000, 2000)],
)
def test_without_a_size_about_a_hundredth_is_held_out(number: int, low: int, high: int) -> None:
    chosen, _ = choose_hashes(hashes(number), BOTH, None)
    assert all(low <= len(chosen[split]) <= high for split in BOTH)
    assert not chosen["validation"] & chosen["test"]


@pytest.mark.parametrize("size", [None, 13, 211])
def test_adding_lines_never_moves_a_training_pair_to_another_split(size: int | None) -> None:
    lines = hashes(20_011)
    before: dict[str, set[int]] = {split: set() for split in BOTH}
    seen: set[int] = set()
    for number in (499, 1009, 5003, 20_011):
        chosen, _ = choose_hashes(lines[:number], BOTH, size)
        for split in BOTH:
            came_from_training = chosen[split] & (seen - before["validation"] - before["test"])
            assert not came_from_training
        before, seen = chosen, set(lines[:number])


def test_order_and_repetition_of_lines_do_not_matter() -> None:
    lines = hashes(10_007)
    shuffled = [*lines, *lines[:3001]]
    random.Random(3).shuffle(shuffled)
    assert choose_hashes(lines, BOTH, 17) == choose_hashes(shuffled, BOTH, 17)


def test_the_lowest_hashes_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformer.data.holdout._BLOCK", 101)
    lines = hashes(5003)
    chosen, _ = choose_hashes(lines, ["validation"], 29)
    assert chosen == {"validation": set(sorted(lines)[:29])}


def test_the_splits_share_no_source_and_together_are_the_corpus(tmp_path: Path) -> None:
    pairs = [
        (source.replace(" ", "  ") if i % 3 else source, target)
        for i, (source, target) in enumerate([*builtin_pairs("train", 997), *builtin_pairs("train", 101)])
    ]
    whole = corpus(pairs)
    held_out = held_out_pairs(whole, BOTH, 23, tmp_path)
    train = without_held_out(whole, list(held_out.values()))
    kept = list(train)
    assert [len(held_out[split]) for split in BOTH] == [23, 23]
    assert len(kept) + train.dropped()["held_out"] == len(pairs)
    sources = [{" ".join(source.split()) for source, _ in part} for part in (kept, *held_out.values())]
    assert (
        sum(map(len, sources)) == len(set().union(*sources)) == len({" ".join(source.split()) for source, _ in pairs})
    )
    assert {*held_out["test"]} <= {*pairs}


def test_another_corpus_loses_held_out_sources_only(tmp_path: Path) -> None:
    pairs = list(builtin_pairs("train", 499))
    held_out = held_out_pairs(corpus(pairs), ["validation"], 11, tmp_path)
    other = [*list(builtin_pairs("validation", 97)), *held_out["validation"][:5]]
    train = without_held_out(corpus(other), list(held_out.values()))
    assert list(train) == other[:97]
    assert dict(train.dropped()) == {"held_out": 5}


def test_the_pairs_are_kept_in_the_cache_and_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    pairs = list(builtin_pairs("train", 499))
    readings = []

    def read() -> object:
        readings.append(1)
        return iter(pairs)

    whole = Corpus("mine", "mine", read)  # type: ignore[arg-type]
    found = held_out_pairs(whole, BOTH, 11, tmp_path)
    assert held_out_pairs(whole, BOTH, 11, tmp_path) == found
    assert len(readings) == 2
    (path,) = tmp_path.iterdir()
    good = path.read_text()
    for damaged in ("", "[]", "{}", good.replace("man", "men"), good[:-7], json.dumps({"pairs": 3}), "[" * 3000):
        path.write_text(damaged)
        assert held_out_pairs(whole, BOTH, 11, tmp_path) == found
        assert path.read_text() == good


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pairs = list(builtin_pairs("train", 499))
    assert len(held_out_pairs(corpus(pairs), BOTH, 11, tmp_path / "file")["test"]) == 11


def test_the_fingerprints_follow_the_content_and_the_size(tmp_path: Path) -> None:
    pairs = list(builtin_pairs("train", 499))
    prints = [
        held_out_split(corpus(pairs), split, BOTH, size, tmp_path).fingerprint for split in BOTH for size in (11, 13)
    ]
    assert len({*prints, "mine"}) == 5
    moved = held_out_split(corpus(pairs, "other"), "validation", BOTH, 11, tmp_path)
    assert moved.fingerprint == prints[0], "the pairs count, not where they come from"
    assert moved.name == "11 validation pairs held out of mine"


@pytest.mark.parametrize(("number", "size"), [(3, None), (40, 11), (43, 20), (0, 1), (0, None)])
def test_more_than_half_of_a_corpus_is_not_held_out(tmp_path: Path, number: int, size: int | None) -> None:
    with pytest.raises(DataError, match=rf"mine: too few distinct sources \({number}\) to hold out .* give separate"):
        held_out_pairs(corpus([(f"a {i}", "b") for i in range(number)]), BOTH, size, tmp_path)
    if number > 40:
        assert len(held_out_pairs(corpus([(f"a {i}", "b") for i in range(44)]), BOTH, 11, tmp_path)["test"]) == 11


def test_lines_without_a_source_are_never_held_out(tmp_path: Path) -> None:
    pairs = [("", f"t {i}") for i in range(97)] + [(f"a {i}", "b") for i in range(97)]
    held_out = held_out_pairs(corpus(pairs), BOTH, 7, tmp_path)
    assert all(source for part in held_out.values() for source, _ in part)


def test_the_hash_is_the_same_on_every_machine() -> None:
    expected = int.from_bytes(hashlib.blake2b("a ß".encode(), digest_size=8).digest(), "big")
    assert text_hash(" a\t  ß ") == text_hash("a ß") == expected
    assert text_hash("a b") != text_hash("ab")
    assert text_hash("e\u0301te\u0301") == text_hash("\xe9t\xe9"), "files made on a Mac may be decomposed"

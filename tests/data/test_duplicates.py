"""Hashes of encoded text find what is equal, across blocks, tags and corpora."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from transformer.data import duplicates
from transformer.data.dataset import PairDataset, Side
from transformer.data.duplicates import (
    Overlap,
    combined,
    count_id,
    first_of_each,
    first_pairs,
    first_sources,
    overlap,
    pair_hashes,
    row_hashes,
)
from transformer.data.tokenizer import UNK_ID

EOS = 3


def side(sentences: list[list[int]], gap: int = 0) -> Side:
    """Sentences with </s>, after some ids that belong to none."""
    rows = [[*sentence, EOS] for sentence in sentences]
    lengths = np.array([len(row) for row in rows])
    ids = np.array([7] * gap + [id_ for row in rows for id_ in row], np.uint16)
    return Side(ids, lengths, gap + np.cumsum(lengths) - lengths)


def dataset(pairs: list[tuple[list[int], list[int]]], name: str = "a") -> PairDataset:
    return PairDataset(side([src for src, _ in pairs]), side([tgt for _, tgt in pairs]), {}, name)


def random_sentences(number: int, seed: int = 3) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 7, rng.integers(1, 5)).tolist() for _ in range(number)]


@pytest.mark.parametrize("block", [1, 13, 1 << 20])
def test_hashes_are_equal_exactly_where_sentences_are(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_IDS_PER_BLOCK", block)
    sentences = random_sentences(499)
    hashes = row_hashes(side(sentences, gap=5))
    by_text: dict[tuple[int, ...], set[int]] = {}
    for sentence, value in zip(sentences, hashes, strict=True):
        by_text.setdefault(tuple(sentence), set()).add(int(value))
    assert all(len(values) == 1 for values in by_text.values())
    assert len({next(iter(values)) for values in by_text.values()}) == len(by_text)


def test_a_hash_does_not_depend_on_place_or_on_a_skipped_tag() -> None:
    plain, tagged = side([[5, 6], [9]]), side([[8, 5, 6], [8, 9]], gap=11)
    assert row_hashes(plain).tolist() == row_hashes(tagged, skip=1).tolist()
    assert row_hashes(plain).tolist() != row_hashes(tagged).tolist()


def test_the_sides_of_a_pair_are_not_interchangeable() -> None:
    a, b = row_hashes(side([[5, 6], [9, 4]]))
    assert combined(np.array([a]), np.array([b])) != combined(np.array([b]), np.array([a]))
    equal = pair_hashes(dataset([([5], [6]), ([6], [5]), ([5], [6])]))
    assert equal[0] == equal[2] != equal[1]


def test_the_first_of_each_value_is_marked() -> None:
    values = np.array([5, 3, 5, 5, 2, 3], np.uint64)
    assert first_of_each(values).tolist() == [True, True, False, False, True, False]


def test_an_id_is_counted_in_the_sentences_of_a_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_IDS_PER_BLOCK", 3)
    sentences = random_sentences(97)
    whole = side(sentences)
    assert count_id(whole, 5) == sum(sentence.count(5) for sentence in sentences)
    some = Side(whole.ids, whole.lengths[::3], whole.starts[::3])
    assert count_id(some, 5) == sum(sentence.count(5) for sentence in sentences[::3])


def test_overlap_counts_held_out_sentences_by_pair_and_by_source(tmp_path: Path) -> None:
    train = [(source, target) for source, target in zip(random_sentences(97), random_sentences(97, 5), strict=True)]
    held_out = [train[0], (train[1][0], [9, 9]), ([9, 9, 9], train[2][1]), train[0], ([8], [8])]
    expected = Overlap(2, 3, 5)
    first, second = dataset(train[:50]), dataset(train[50:], "b")
    parts = [(first, 0), (second, 0)]
    assert overlap(parts, (dataset(held_out, "v"), 0)) == expected
    assert overlap(parts, (dataset(held_out, "v"), 0), tmp_path) == expected
    (path,) = tmp_path.iterdir()
    kept = path.read_text()
    path.write_text(kept.replace("2", "1", 1))
    assert overlap(parts, (dataset(held_out, "v"), 0), tmp_path) == Overlap(1, 3, 5), "it is read, not computed again"
    for damaged in ("", "[]", "[5, 3, 5]", "[1, 2]", "[true, 3, 5]", "[1, 3, 7]", "{}", '"abc"'):
        path.write_text(damaged)
        assert overlap(parts, (dataset(held_out, "v"), 0), tmp_path) == expected
        assert path.read_text() == kept
    assert str(expected) == "2 of 5 as pairs, 3 by their sources"


def test_overlap_ignores_tags(tmp_path: Path) -> None:
    train = [([8, 5, 6], [4]), ([8, 6], [5])]
    assert overlap([(dataset(train), 1)], (dataset([([5, 6], [4]), ([6], [4])]), 0)) == Overlap(1, 2, 2)
    assert overlap([(dataset(train), 0)], (dataset([([5, 6], [4]), ([6], [4])]), 0)) == Overlap(0, 0, 2)
    assert Counter(path.name for path in tmp_path.iterdir()) == Counter()


def test_what_has_unknown_pieces_equals_nothing() -> None:
    """Two names in a script that the tokenizer does not have are the same ids."""
    pairs = [([5, UNK_ID], [6]), ([5, UNK_ID], [6]), ([7], [UNK_ID, 4]), ([7], [UNK_ID, 4]), ([8], [9]), ([8], [9])]
    assert [flags.tolist() for flags in first_pairs([dataset(pairs)])] == [[True] * 5 + [False]]
    assert first_sources(dataset(pairs)).tolist() == [True, True, True, False, True, False]
    assert overlap([(dataset(pairs), 0)], (dataset(pairs[::2]), 0)) == Overlap(1, 2, 3)

"""Visits per epoch, resumable positions and joined arrays of several corpora."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.mixture import JoinedIds, TrainingCorpus, Visits, joined, mixed
from transformer.data.pairs import Corpus
from transformer.errors import DataError

SIZES = (7, 13, 1, 0, 29)


def side(sentences: list[list[int]]) -> Side:
    lengths = np.array([len(sentence) for sentence in sentences], np.int32)
    ids = np.array([id_ for sentence in sentences for id_ in sentence], np.uint16)
    return Side(ids, lengths, np.cumsum(lengths) - lengths)


def dataset(sentences: list[list[int]], name: str, num_unknown: int = 0) -> PairDataset:
    return PairDataset(side(sentences), side(sentences), {"empty": 2}, name, num_unknown)


def corpora(*weights: float) -> list[TrainingCorpus]:
    return [
        TrainingCorpus(Corpus(f"c{i}", f"print {i}", lambda: iter([("a", "b")])), weight)
        for i, weight in enumerate(weights)
    ]


def counts(visits: Visits, epochs: Iterator[int] | range) -> Ints:
    """Visits of each pair over some epochs."""
    total = sum(visits.sizes)
    found = np.zeros(total, np.int64)
    for epoch in epochs:
        found += np.bincount(visits.of_epoch(epoch), minlength=total)
    return found


def test_weight_1_visits_every_pair_once() -> None:
    visits = Visits(SIZES, (1.0,) * 5, 3)
    for epoch in range(5):
        assert sorted(visits.of_epoch(epoch)) == list(range(50))


def test_whole_weights_visit_every_pair_as_often() -> None:
    visits = Visits((7, 13), (2.0, 3.0), 3)
    assert counts(visits, range(1)).tolist() == [2] * 7 + [3] * 13


@pytest.mark.parametrize("weight", [0.5, 0.3, 1.5, 2.7, 0.01, 1 / 3])
@pytest.mark.parametrize("size", [1, 3, 7, 97])
def test_over_any_number_of_epochs_the_visits_are_those_of_the_weight(weight: float, size: int) -> None:
    visits, total = Visits((size,), (weight,), 5), 0
    for epoch in range(1, 331):
        total += len(visits.of_epoch(epoch - 1))
        assert 0 <= epoch * Fraction(repr(weight)) * size - total < 1


def test_a_weight_is_the_number_that_is_written() -> None:
    """0.7 * 10 is 7 in every epoch, though 3 * 0.7 * 10 in floating point is below 21."""
    assert [Visits((10,), (0.7,), 5).before(epoch) for epoch in (1, 3, 10**9)] == [[7], [21], [7 * 10**9]]


def test_weights_with_which_an_epoch_may_visit_nothing_are_refused() -> None:
    sentences = [dataset([[5, 3]], "a"), dataset([[7, 3], [9, 3], [4, 3]], "b")]
    with pytest.raises(
        DataError, match=r"no corpus has a visit in every epoch \(weight 0\.5 of 1 pairs, weight 0\.3 of 3"
    ):
        mixed(corpora(0.5, 0.3), sentences)
    with pytest.raises(DataError, match=r"weight 0\.333333 of 3 pairs"):
        mixed(corpora(1 / 3), sentences[1:])  # as a number a little less than a third
    visits = mixed(corpora(0.5, 0.34), sentences).visits(5)
    assert visits is not None
    assert all(len(visits.of_epoch(epoch)) for epoch in range(101))


@pytest.mark.parametrize("weight", [0.5, 0.3, 1.5, 2.7, 0.01, 1 / 3])
def test_over_any_number_of_epochs_visits_differ_by_at_most_one(weight: float) -> None:
    visits = Visits((13, 97), (weight, 1.0), 5)
    for epochs in (1, 2, 3, 7, 50):
        found = counts(visits, range(epochs))
        assert found[:13].max() - found[:13].min() <= 1
        assert found[13:].tolist() == [epochs] * 97


def test_half_of_a_corpus_is_followed_by_the_other_half() -> None:
    visits = Visits((14,), (0.5,), 5)
    halves = [set(visits.of_epoch(epoch).tolist()) for epoch in range(6)]
    for first, second in zip(halves[::2], halves[1::2], strict=True):
        assert not first & second
        assert first | second == set(range(14))
    assert len({frozenset(half) for half in halves}) > 2, "each time another half"


def test_epochs_are_pure_functions_of_the_seed_and_each_corpus_has_its_own_numbers() -> None:
    visits = Visits((97, 97), (0.5, 0.5), 5)
    assert visits.of_epoch(3).tolist() == Visits((97, 97), (0.5, 0.5), 5).of_epoch(3).tolist()
    assert visits.of_epoch(3).tolist() != Visits((97, 97), (0.5, 0.5), 7).of_epoch(3).tolist()
    own = visits.of_epoch(0)
    assert set((own[own >= 97] - 97).tolist()) != set(own[own < 97].tolist())


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.5), (0.3, 1.7), (5.0, 0.01)])
def test_the_tokens_before_an_epoch_are_those_of_its_visits(weights: tuple[float, float]) -> None:
    visits = Visits((13, 97), weights, 5)
    lengths = np.random.default_rng(3).integers(1, 50, 110)
    for epoch in (0, 1, 2, 7, 23):
        assert visits.before_epoch(epoch, lengths) == int((counts(visits, range(epoch)) * lengths).sum())


def test_joined_ids_are_indexed_as_one_array() -> None:
    parts = [np.arange(7, dtype=np.uint16), np.arange(100, 100, dtype=np.uint16), np.arange(50, 63, dtype=np.uint16)]
    whole, ids = np.concatenate(parts), JoinedIds(parts)  # type: ignore[arg-type]
    assert len(ids) == 20
    positions = np.random.default_rng(5).integers(0, 20, (3, 11))
    assert (ids[positions] == whole[positions]).all()
    assert ids[positions].dtype == np.uint16


def test_a_mixture_holds_the_sentences_of_its_parts_in_order() -> None:
    sentences = [[[5, 6, 3], [7, 3]], [[8, 3]], [[9, 9, 9, 3], [4, 3], [5, 3]]]
    found = mixed(corpora(1.0, 2.0, 0.5), [dataset(part, f"d{i}", i) for i, part in enumerate(sentences)])
    rows = [
        found.src.ids[start + np.arange(n)].tolist()
        for start, n in zip(found.src.starts, found.src.lengths, strict=True)
    ]
    assert rows == [row for part in sentences for row in part]
    assert (len(found), found.num_unknown, found.dropped) == (6, 3, {"empty": 6})
    shares = found.shares()
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([5 / 13, 4 / 13, 4 / 13])


def test_a_single_corpus_keeps_its_fingerprint_and_needs_no_visits() -> None:
    one = dataset([[5, 3]], "mine")
    assert mixed(corpora(1.0), [one]).fingerprint == "mine"
    assert mixed(corpora(1.0), [one]).visits(3) is None
    assert mixed(corpora(2.0), [one]).fingerprint != "mine"
    assert mixed(corpora(2.0), [one]).visits(3) == Visits((1,), (2.0,), 3)
    assert mixed(corpora(1.0), [one], deduplicate=True).fingerprint != "mine"


def test_the_fingerprint_follows_weights_and_parts_but_not_their_names() -> None:
    a, b = dataset([[5, 3]], "a"), dataset([[6, 3]], "b")
    prints = [
        mixed(corpora(1.0, 1.0), [a, b]).fingerprint,
        mixed(corpora(1.0, 2.0), [a, b]).fingerprint,
        mixed(corpora(1.0, 1.0), [b, a]).fingerprint,
        mixed(corpora(1.0, 1.0), [a, b], deduplicate=True).fingerprint,
    ]
    assert len(set(prints)) == 4


def test_repeated_pairs_are_dropped_within_and_across_corpora_and_counted() -> None:
    first, second, third = [[5, 3], [6, 3], [5, 3]], [[6, 3], [1, 3], [1, 1, 3], [1, 3]], [[5, 3]]
    parts = [dataset(first, "a"), dataset(second, "b", 6), dataset(third, "c")]
    found = mixed(corpora(1.0, 1.0, 2.0), parts, deduplicate=True)
    assert [len(part.pairs) for part in found.parts] == [2, 3, 0]
    assert [part.dropped.get("repeated", 0) for part in found.parts] == [1, 1, 1]
    assert found.dropped == {"empty": 6, "repeated": 3}
    assert found.num_unknown == 8, "of both sides of what is left, where repeated pairs with unknown pieces are"
    visits = found.visits(3)
    assert visits is not None
    assert sorted(visits.of_epoch(0)) == [0, 1, 2, 3, 4]
    assert len(found) + found.dropped["repeated"] == 8


def test_the_tokenizer_reads_all_texts_once_without_tags() -> None:
    def corpus(name: str) -> TrainingCorpus:
        return TrainingCorpus(Corpus(name, name, lambda: iter([(name, f"{name}!")]), lambda: [f"({name}"]), 3.0, "<a>")

    found = joined([corpus("x"), corpus("y")], ["<a>"])
    assert list(found) == [("x", "x!"), ("y", "y!")]
    assert found.symbols() == ["(x", "(y", "<a>"]
    assert found.name == "x and y"
    (alone,) = corpora(1.0)
    assert joined([alone]) is alone.corpus
    assert collections.Counter(joined([corpus("x")], ["<a>"]).symbols()) == {"(x": 1, "<a>": 1}

"""Translations of parts, joined: the best combinations, and samples one by one."""

from __future__ import annotations

import hashlib
import itertools
from types import SimpleNamespace

import pytest

from transformer.inference import translation
from transformer.inference.translation import Translation, join_best, join_samples


def part(*texts: str, first: float = -1.0) -> list[Translation]:
    return [Translation(text, first - i, 2 * (first - i), (i, 7), (-0.5, -i)) for i, text in enumerate(texts)]


def test_the_best_combinations_come_first_and_once() -> None:
    parts = [part("a", "b", "c"), part("x", "", "x"), part("", "y", first=-1.5)]
    every = itertools.product(*parts)
    wanted: dict[str, float] = {}
    for combination in sorted(every, key=lambda c: -sum(x.score for x in c)):
        text = "_".join(x.text for x in combination if x.text)
        wanted.setdefault(text, sum(x.score for x in combination))
    found = join_best(parts, 5, "_")
    assert [(x.text, x.score) for x in found] == list(wanted.items())[:5]
    assert found[0] == Translation("a_x", -3.5, -7.0)
    assert found[0].ids == (0, 7, 0, 7, 0, 7)
    assert found[0].token_log_probs == (-0.5, 0, -0.5, 0, -0.5, 0)


def test_texts_that_parts_spell_otherwise_are_the_same_combination() -> None:
    # "a_b" and then nothing, "a" and then "b", nothing and then "a_b"
    parts = [part("a_b", "a", ""), part("", "b", "a_b")]
    found = join_best(parts, 9, "_")
    assert len({x.text for x in found}) == len(found)
    assert (found[0].text, found[0].score) == ("a_b", -2.0)
    assert {"a_b", "a", "", "a_b_b", "a_b_a_b", "b", "a_a_b"} == {x.text for x in found}


def test_joining_copies_no_part_more_often_the_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    num_bytes = 0

    class Counted:
        def __init__(self, text: bytes = b"") -> None:
            self.hash = hashlib.sha256()
            self.update(text)

        def update(self, text: bytes) -> None:
            nonlocal num_bytes
            num_bytes += len(text)
            self.hash.update(text)

        def copy(self) -> Counted:
            copied = Counted()
            copied.hash = self.hash.copy()
            return copied

        def digest(self) -> bytes:
            return self.hash.digest()

    monkeypatch.setattr(translation, "hashlib", SimpleNamespace(sha256=Counted))
    found = {}
    for number in (100, 200):
        num_bytes = 0
        (best, *_) = join_best([part("word", "other", "third")] * number, 3, " ")
        assert best == Translation(" ".join(["word"] * number), -1.0 * number, -2.0 * number)
        found[number] = num_bytes
    assert found[200] <= 2.1 * found[100]


def test_samples_are_joined_with_those_of_their_number() -> None:
    copy = [Translation("!", 0.0, 0.0)]
    found = join_samples([copy, part("a", "b", "a"), part("x", "x", "y"), copy], 3, " ")
    assert [x.text for x in found] == ["! a x !", "! b x !", "! a y !"]
    assert [x.score for x in found] == [-2.0, -4.0, -6.0]
    assert found[1].ids == (1, 7, 1, 7)


def test_what_was_not_searched_is_each_sample() -> None:
    copy = Translation("!", 0.0, 0.0)
    assert join_samples([[copy]], 3, " ") == [copy] * 3
    assert join_samples([[copy], [copy]], 2, "") == [Translation("!!", 0.0, 0.0)] * 2
    assert join_samples([part("a", "b")], 2, " ") == part("a", "b")

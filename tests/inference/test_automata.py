"""Automata of phrases, against `str.count` on random texts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from transformer.inference.automata import Automata, Phrases, progress_of


def walk(phrases: Phrases, ids: Sequence[int], vocab_size: int = 5) -> list[int]:
    """Progress before and after each token of one sentence."""
    automata = Automata.of([phrases], vocab_size)
    states, progress = automata.starts[:, None], [0]
    alphabet = automata.alphabet[0].tolist()
    for token in ids:
        symbol = alphabet.index(token) if token in alphabet else len(alphabet)
        states = automata.after(states)[:, :, symbol]
        progress.append(int(automata.progress(states)))
    return progress


def is_met(phrases: Phrases, ids: Sequence[int]) -> bool:
    text, counts = "".join(map(str, ids)), Counter("".join(map(str, phrase)) for phrase in phrases)
    return all(text.count(phrase) >= count for phrase, count in counts.items())


def random_phrases(rng: random.Random, vocab_size: int = 3) -> list[list[int]]:
    phrases = [[rng.randrange(vocab_size) for _ in range(rng.randrange(1, 5))] for _ in range(rng.randrange(1, 4))]
    return [*phrases, phrases[0]] if rng.random() < 0.4 else phrases


def test_progress_is_what_a_hand_counts() -> None:
    assert walk([[1, 2]], [1, 2, 1, 3]) == [0, 1, 2, 2, 2]
    assert walk([[1, 2]], [1, 1, 3, 1, 2]) == [0, 1, 1, 0, 1, 2]
    assert walk([[1, 1, 2]], [1, 1, 1, 2]) == [0, 1, 2, 2, 3]  # the last two of three begin the phrase
    assert walk([[1, 2], [1, 3]], [1, 2, 1, 3]) == [0, 1, 2, 3, 4]  # the first token begins both, and counts once
    assert walk([[1, 2], [2, 3]], [1, 2, 3]) == [0, 1, 3, 4]  # they overlap
    assert walk([[1], [1, 2]], [1, 2]) == [0, 2, 3]  # one contains the other


def test_a_phrase_that_must_occur_twice_does_not_overlap_with_itself() -> None:
    assert walk([[1, 1], [1, 1]], [1, 1, 1, 1]) == [0, 1, 2, 3, 4]
    assert walk([[1, 2, 1], [1, 2, 1]], [1, 2, 1, 2, 1]) == [0, 1, 2, 3, 3, 4]


def test_all_tokens_are_met_exactly_where_each_phrase_occurs_often_enough() -> None:
    for seed in range(101):
        rng = random.Random(seed)
        phrases = random_phrases(rng)
        ids = [rng.randrange(4) for _ in range(29)]
        total = sum(map(len, phrases))
        for t, progress in enumerate(walk(phrases, ids)):
            assert (progress == total) == is_met(phrases, ids[:t]), seed


def test_some_token_always_raises_the_progress_until_all_are_met() -> None:
    for seed in range(101):
        rng = random.Random(seed)
        phrases = random_phrases(rng)
        automata = Automata.of([phrases], 5)
        states, width = automata.starts[:, None], automata.alphabet.size(1) + 1
        for _ in range(31):
            progress = int(automata.progress(states))
            reached = automata.progress(automata.after(states))[0, 0]
            assert int(reached.max()) > progress or progress == int(automata.totals), seed
            states = automata.after(states)[:, :, rng.randrange(width)]


def test_sentences_with_fewer_phrases_are_filled_up_and_kept_apart() -> None:
    rng = random.Random(3)
    sentences = [random_phrases(rng) for _ in range(7)]
    automata = Automata.of(sentences, 5)
    kept = automata.select(torch.tensor([1, 4]))
    for one, phrases in ((0, sentences[1]), (1, sentences[4])):
        assert int(kept.totals[one]) == sum(map(len, phrases))
        assert set(kept.alphabet[one].tolist()) - {-1} == {token for phrase in phrases for token in phrase}
    states = kept.starts[:, None]
    other = kept.after(states)[:, :, -1]
    assert kept.progress(other).tolist() == [[0], [0]]


@pytest.mark.parametrize("token", [-1, 5, 1009])
def test_ids_beyond_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(ValueError, match=rf"^a phrase has the id {token}, and the vocabulary has 5$"):
        Automata.of([[[1, token]]], 5)


def test_of_one_output_the_progress_is_told_without_tensors() -> None:
    rng = random.Random(5)
    for _ in range(101):
        phrases, ids = random_phrases(rng), [rng.randrange(4) for _ in range(rng.randrange(13))]
        assert [progress_of(phrases, ids[:t]) for t in range(len(ids) + 1)] == walk(phrases, ids)
    assert progress_of([], [1, 2]) == 0

"""The probe is softmax regression on states of a word, scored on sentences that it has not seen."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from transformer.errors import ConfigError, DataError
from transformer.inference.ensemble import Ensemble
from transformer.inference.translator import Translator
from transformer.inspection.probe import fit_softmax_regression, held_out_accuracy, probe_word

SUBJECTS = {"person": ("man", "woman", "boy", "girl", "teacher", "doctor"), "animal": ("dog", "cat", "cow", "bear")}
FOODS = ("an apple", "a cake", "an egg", "a carrot")
SENTENCES = [
    (sense, f"The {subject} is eating, and sleeps near {food}.")
    for sense, subjects in SUBJECTS.items()
    for subject, food in itertools.product(subjects, FOODS)
]


@pytest.fixture(scope="module")
def translator(babbler: Path) -> Translator:
    return Translator.load(babbler, device="cpu", precision="fp32", prepack=False)


def test_the_regression_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(53, 7, generator=generator, dtype=torch.float64)
    labels = (x @ torch.randn(7, 3, generator=generator, dtype=torch.float64)).argmax(1)
    weight, bias = fit_softmax_regression(x, labels, 3)
    theirs = linear_model.LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x.numpy(), labels.numpy())
    assert weight.numpy() == pytest.approx(theirs.coef_, abs=1e-4)
    # Biases are not penalised: all of them may be moved by the same number.
    assert (bias - bias.mean()).numpy() == pytest.approx(theirs.intercept_ - theirs.intercept_.mean(), abs=1e-4)


def test_held_out_accuracy_is_1_where_a_plane_separates_and_chance_where_nothing_does() -> None:
    generator = torch.Generator().manual_seed(3)
    x, labels = torch.randn(120, 11, generator=generator), torch.arange(120) % 2
    folds = torch.arange(120) // 2 % 5
    assert held_out_accuracy(x, labels, folds) == pytest.approx(0.5, abs=0.15)
    x[:, 3] = labels * 20.0 - 7
    assert held_out_accuracy(x, labels, folds) == 1


def test_scale_and_constant_channels_do_not_change_the_accuracy() -> None:
    generator = torch.Generator().manual_seed(5)
    x, labels = torch.randn(60, 3, generator=generator), torch.arange(60) % 3
    x[:, 0] += labels
    folds = torch.arange(60) // 3 % 4
    wide = torch.cat((x * torch.tensor([1e3, 1e-3, 1.0]) + 5, torch.full((60, 2), 7.0)), dim=1)
    assert held_out_accuracy(wide, labels, folds) == held_out_accuracy(x, labels, folds) > 0.4


def test_a_static_embedding_only_knows_the_more_frequent_sense_and_layers_know_more(translator: Translator) -> None:
    found = probe_word(translator, "eating", SENTENCES)
    assert (found.counts, found.skipped) == ({"animal": 16, "person": 24}, 0)
    assert found.majority == pytest.approx(0.6)
    accuracy = {row.states: row.accuracy for row in found.rows}
    assert [*accuracy] == ["static embedding", "layer 0", "layer 1", "layer 2"]
    assert accuracy["static embedding"] == found.majority
    assert min(accuracy["layer 1"], accuracy["layer 2"]) > 0.75
    assert all(row.control < 0.75 for row in found.rows)
    assert probe_word(translator, "eating", SENTENCES) == found, "the same on every call"


def test_words_are_found_without_their_case_and_punctuation_and_others_are_skipped(translator: Translator) -> None:
    moved = [(sense, f"Eating: {text}") for sense, text in SENTENCES]
    assert probe_word(translator, "EATING", moved).counts == {"animal": 16, "person": 24}
    more = [*SENTENCES, SENTENCES[0], ("animal", "A dog is sleeping."), ("person", "")]
    found = probe_word(translator, "eating", more)
    assert (found.counts, found.skipped) == ({"animal": 16, "person": 24}, 3)


def test_sentences_that_the_model_reads_as_the_same_are_one(translator: Translator) -> None:
    more = [(sense, text.replace(" ", "\u00a0  ") + " ") for sense, text in SENTENCES]
    found, expected = probe_word(translator, "eating", SENTENCES + more), probe_word(translator, "eating", SENTENCES)
    assert (found.rows, found.counts, found.skipped) == (expected.rows, expected.counts, len(SENTENCES))
    with pytest.raises(DataError, match=r"^a sentence has two senses, person and animal: The man is eating"):
        probe_word(translator, "eating", [*SENTENCES, ("animal", SENTENCES[0][1] + " ")])


def test_sentences_beyond_the_positions_of_a_model_are_skipped(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(map(len, translator.encode([text for _, text in SENTENCES])))
    monkeypatch.setattr(translator.model, "max_length", longest)
    more = [*SENTENCES, ("person", "The man is eating " + "apples " * longest)]
    found = probe_word(translator, "eating", more)
    assert (found.counts, found.skipped) == ({"animal": 16, "person": 24}, 1)
    monkeypatch.undo()
    # One such line would be the width of a whole batch.
    monkeypatch.setattr(translator, "search", dataclasses.replace(translator.search, max_source_length=longest))
    assert probe_word(translator, "eating", more) == found


@pytest.mark.parametrize("seed", range(3))
def test_a_control_that_knows_nothing_is_at_the_more_frequent_sense(translator: Translator, seed: int) -> None:
    even = [*SENTENCES[:16], *SENTENCES[24:]]
    static = probe_word(translator, "eating", even, folds=4, seed=seed).rows[0]
    assert (static.accuracy, static.control) == (0.5, 0.5)


def test_the_states_are_those_of_the_pieces_of_the_word(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def keep(x: torch.Tensor, *_: object) -> float:
        seen.append(x)
        return 0.0

    monkeypatch.setattr("transformer.inspection.probe.held_out_accuracy", keep)
    probe_word(translator, "eating", SENTENCES)
    (src,) = translator.encode([SENTENCES[0][1]])
    words = translator.tokenizer.source.encode_words(SENTENCES[0][1])
    start = sum(map(len, words[:3]))
    with torch.no_grad():
        memory = translator.model.encode(torch.tensor([src])).memory
        expected = memory[0, start : start + len(words[3])].mean(0)  # type: ignore[index, call-overload]
    assert np.allclose(seen[-1][0], expected, atol=1e-5), "of the last layer"
    static = translator.model.embedding(torch.tensor([words[3]]))[0].mean(0).detach()
    assert np.allclose(seen[0], static, atol=1e-5), "the same in every sentence"


@pytest.mark.parametrize(
    ("sentences", "found"),
    [
        ([], "none"),
        (SENTENCES[:20], "20 of person"),
        ([*SENTENCES[:24], *SENTENCES[-4:]], "4 of animal, 24 of person"),
    ],
)
def test_too_few_sentences_are_an_error(translator: Translator, sentences: list[tuple[str, str]], found: str) -> None:
    message = f"^the probe needs two senses, each with 5 sentences that have 'eating'; found {found}$"
    with pytest.raises(DataError, match=message):
        probe_word(translator, "eating", sentences)


def test_an_ensemble_is_an_error(babbler: Path) -> None:
    with pytest.raises(ConfigError, match=r"^an ensemble of 2 models has no attention"):
        probe_word(Ensemble.load([babbler, babbler], device="cpu"), "eating", SENTENCES)

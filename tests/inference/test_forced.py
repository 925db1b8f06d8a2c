"""Scores of given translations: those that a search reports, and those that the model's logits give."""

from __future__ import annotations

import dataclasses
import math
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from transformer.config import SearchConfig
from transformer.data.batching import pad
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import BOS_ID, EOS_ID, UNK_ID
from transformer.errors import ConfigError, DataError
from transformer.inference import forced
from transformer.inference.ensemble import Ensemble
from transformer.inference.forced import (
    ForcedScore,
    PairNotes,
    length_batches,
    perplexity,
    score_ids,
    score_translations,
)
from transformer.inference.prepacked import can_prepack, can_quantize
from transformer.inference.search import beam_search, greedy_search, length_penalty
from transformer.inference.translator import Translator

PAIRS = list(builtin_pairs("test", 7))
SOURCES, TARGETS = [pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS]


def searched(translator: Translator, beam: int) -> tuple[list[list[int]], list[Any]]:
    """Source ids and the hypothesis that a search finds for each."""
    sources = translator.encode(SOURCES)
    state = translator.model.encode(pad(sources))
    limits = [len(src) + 3 for src in sources]
    options: dict[str, Any] = {"bos_id": BOS_ID, "eos_id": EOS_ID}
    if beam == 1:
        return sources, greedy_search(translator._decode, state, limits, **options)
    return sources, [found[0] for found in beam_search(translator._decode, state, limits, beam=beam, **options)]


def by_logits(translator: Translator, source: str, target: str) -> list[float]:
    """Log-probabilities of a target's pieces, from the model's forward pass on the pair alone."""
    ids = [*translator.tokenizer.encode([target])[0], EOS_ID]
    with torch.no_grad():
        logits = translator.model(torch.tensor(translator.encode([source])), torch.tensor([[BOS_ID, *ids[:-1]]]))[0]
    return [float(row.double().log_softmax(-1)[id_]) for row, id_ in zip(logits, ids, strict=True)]


# Laws


@pytest.mark.parametrize("beam", [1, 3])
def test_what_a_search_finds_has_the_score_that_the_search_reports(make_translator: Any, kind: str, beam: int) -> None:
    translator = make_translator(kind)
    sources, found = searched(translator, beam)
    scores = score_ids(translator, sources, [hypothesis.ids for hypothesis in found])
    for score, hypothesis in zip(scores, found, strict=True):
        assert score.ids == hypothesis.ids
        assert score.log_prob == pytest.approx(hypothesis.log_prob, abs=2e-4)
        assert score.score == pytest.approx(hypothesis.score, abs=2e-4)


def test_these_hypotheses_are_long_and_some_are_cut(translator: Translator) -> None:
    _, found = searched(translator, 3)
    assert 0 < sum(hypothesis.ids[-1] == EOS_ID for hypothesis in found) < len(found)
    assert max(len(hypothesis.ids) for hypothesis in found) > 20


def test_scores_are_those_of_the_models_own_logits(make_translator: Any, kind: str) -> None:
    translator = make_translator(kind, torch.float64)
    for score, source, target in zip(score_translations(translator, SOURCES, TARGETS), SOURCES, TARGETS, strict=True):
        expected = by_logits(translator, source, target)
        assert score.log_probs == pytest.approx(expected, abs=1e-10)
        assert score.log_prob == pytest.approx(sum(expected), abs=1e-10)
        assert score.score == pytest.approx(sum(expected) / length_penalty(len(expected), 0.6), abs=1e-10)
        assert score.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)))


@pytest.mark.parametrize("batch_tokens", [1, 61, 4096])
def test_a_pair_scores_alike_alone_and_in_a_batch(translator: Translator, batch_tokens: int) -> None:
    together = score_translations(translator, SOURCES, TARGETS, batch_tokens=batch_tokens, with_ranks=True)
    for score, *pair in zip(together, SOURCES, TARGETS, strict=True):
        (alone,) = score_translations(translator, *([text] for text in pair), with_ranks=True)
        assert score.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
        assert (score.ids, score.ranks) == (alone.ids, alone.ranks)


def test_logits_in_small_chunks_give_the_same_scores(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score_translations(translator, SOURCES, TARGETS, with_ranks=True)
    monkeypatch.setattr(forced, "_CHUNK_NUMEL", {"cpu": 3 * len(translator.tokenizer)})
    for one, other in zip(score_translations(translator, SOURCES, TARGETS, with_ranks=True), whole, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
        assert one.ranks == other.ranks


@pytest.mark.parametrize("quantize", [False, True])
def test_prepacked_weights_score_alike(make_translator: Any, quantize: bool) -> None:
    plain, packed = make_translator("paper"), make_translator("paper")
    weight = packed.model.embedding.output_weight
    if not (can_quantize(weight) if quantize else can_prepack(weight)):
        pytest.skip("this torch has no such kernels")
    packed.prepack(quantize=quantize)
    for one, other in zip(
        score_translations(packed, SOURCES, TARGETS), score_translations(plain, SOURCES, TARGETS), strict=True
    ):
        assert one.log_prob == pytest.approx(other.log_prob, rel=0.05 if quantize else 1e-5)


def test_a_search_with_quantized_products_reports_the_same_score(make_translator: Any) -> None:
    translator = make_translator("paper")
    if not can_quantize(translator.model.embedding.output_weight):
        pytest.skip("this torch has no such kernels")
    translator.prepack(quantize=True)
    sources, found = searched(translator, 3)
    for score, hypothesis in zip(score_ids(translator, sources, [x.ids for x in found]), found, strict=True):
        assert score.log_prob == pytest.approx(hypothesis.log_prob, abs=1e-3)


def test_the_probabilities_of_all_continuations_sum_to_one(translator: Translator) -> None:
    source, prefix = translator.encode(SOURCES[:1])[0], [11, 13]
    size = len(translator.tokenizer)
    scores = score_ids(translator, [source] * size, [[*prefix, id_] for id_ in range(size)], with_ranks=True)
    assert sum(math.exp(score.log_probs[-1]) for score in scores) == pytest.approx(1, abs=1e-5)
    assert sorted(score.ranks[-1] for score in scores) == list(range(1, size + 1))
    best = max(scores, key=lambda score: score.log_prob)
    assert best.ranks[-1] == 1


def test_greedy_search_takes_pieces_of_rank_one(translator: Translator) -> None:
    sources, found = searched(translator, 1)
    for score in score_ids(translator, sources, [hypothesis.ids for hypothesis in found], with_ranks=True):
        assert set(score.ranks) == {1}


@pytest.mark.parametrize("size", [2, 5])
def test_several_processes_share_the_pairs(translator: Translator, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    alone = score_translations(translator, SOURCES, TARGETS, batch_tokens=31)
    shares: list[dict[int, Any]] = []
    together = {i: (score.log_probs, score.ranks) for i, score in enumerate(alone)}

    def all_gather(mine: dict[int, Any]) -> list[dict[int, Any]]:
        shares.append(mine)
        return [together]

    for rank in range(size):
        context = SimpleNamespace(size=size, shard=lambda items, rank=rank: items[rank::size], all_gather=all_gather)
        monkeypatch.setattr(translator, "context", context)
        assert score_translations(translator, SOURCES, TARGETS, batch_tokens=31) == alone
    assert sum(map(len, shares)) == len(PAIRS)
    assert {i: found for share in shares for i, found in share.items()} == together
    assert all(shares)


def test_progress_counts_all_pairs(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(translator, "progress", counted.append)
    score_translations(translator, SOURCES, TARGETS, batch_tokens=61)
    assert sum(counted) == len(PAIRS)
    assert len(counted) > 1


def test_batches_are_of_similar_lengths_and_within_their_budget_on_both_sides() -> None:
    draw = random.Random(3).randrange
    sides = [[[7] * draw(1, 41) for _ in range(101)] for _ in range(2)]
    batches = list(length_batches(*sides, 97))
    assert sorted(i for batch in batches for i in batch) == list(range(101))
    for batch in batches:
        assert all(len(batch) * max(len(side[i]) for i in batch) <= 97 or len(batch) == 1 for side in sides)
    assert len(batches) < 60


# What is not scored


def test_an_empty_target_is_scored_by_its_end_alone(translator: Translator) -> None:
    (score,) = score_translations(translator, SOURCES[:1], [""])
    assert score.ids == [EOS_ID]
    assert score.log_prob == pytest.approx(by_logits(translator, SOURCES[0], "")[0], abs=1e-5)


@pytest.mark.parametrize("blank", ["", " ", "\u2028", "\u0085\t"])
def test_an_empty_source_is_translated_by_an_empty_line_only(translator: Translator, blank: str) -> None:
    notes = PairNotes()
    scores = score_translations(translator, [blank, SOURCES[0], blank], [blank, TARGETS[0], "Ein Hund."], notes=notes)
    assert [scores[0], scores[2]] == [ForcedScore([], [], [], 0.0, 0.0), ForcedScore([], [], [], -math.inf, -math.inf)]
    assert math.isnan(scores[0].perplexity)
    assert scores[1] == score_translations(translator, SOURCES[:1], TARGETS[:1])[0]
    assert notes.no_source == [3]


def test_no_pairs_have_no_scores(translator: Translator) -> None:
    assert score_translations(translator, [], []) == []


def test_pairs_that_are_too_long_are_an_error_or_skipped(make_translator: Any) -> None:
    translator = make_translator()
    translator.search = SearchConfig(max_source_length=23, max_length_offset=3)
    long = " ".join(SOURCES[:2])
    with pytest.raises(DataError, match=r"^source 2 has \d+ pieces, more than the limit of 23: shorten it or raise"):
        score_translations(translator, ["A man.", long], ["Ein Mann.", "Ein Mann."])
    with pytest.raises(DataError, match=r"^target 13 has \d+ pieces, more than the limit of 26: .*--too-long skip$"):
        score_translations(translator, ["A man."], [long], numbers=[13])
    notes = PairNotes()
    scores = score_translations(
        translator, [long, "A man.", "A man."], ["x", long, "Ein Mann."], too_long="skip", notes=notes
    )
    assert [score.log_prob == -math.inf for score in scores] == [True, True, False]
    assert notes.skipped == [1, 2]
    with pytest.raises(ConfigError, match=r"^too_long='split' must be one of error, skip$"):
        score_translations(translator, ["A"], ["B"], too_long="split")  # type: ignore[arg-type]


def test_the_positions_of_a_model_are_a_limit_that_no_option_raises(make_translator: Any) -> None:
    translator = make_translator("learned", max_positions=11)
    with pytest.raises(DataError, match=r"^target 1 has \d+ pieces, more than the limit of 11: shorten it, or choose"):
        score_translations(translator, ["We"], TARGETS[:1])
    (score,) = score_translations(translator, ["We"], ["Wir"])
    assert math.isfinite(score.log_prob)
    with pytest.raises(ValueError, match="1 to 11 ids"):
        score_ids(translator, [[5, EOS_ID]], [[7] * 12])


def test_unknown_characters_are_noted_and_scored(translator: Translator) -> None:
    notes = PairNotes()
    sources, targets = ["A 漢 man.", "A man.", "A man."], ["Ein Mann.", "Ein 漢 Mann.", "Ein Mann."]
    scores = score_translations(translator, sources, targets, notes=notes)
    assert all(math.isfinite(score.log_prob) for score in scores)
    assert [UNK_ID in score.ids for score in scores] == [False, True, False]
    assert (notes.unknown_source, notes.unknown_target) == ([1], [2])
    assert notes.messages() == [
        "1 pair with unknown characters in what is translated is scored as if they were one piece: 1",
        "1 pair with unknown characters in the translation is scored by the piece for all of them: 2",
    ]


def test_sources_that_begin_with_another_tag_are_noted(make_translator: Any) -> None:
    translator = make_translator()
    translator.tags = ("Two",)
    notes = PairNotes()
    score_translations(translator, ["<b> man", "Two dogs", "A <b> man"], ["Ein"] * 3, numbers=[5, 7, 11], notes=notes)
    assert notes.other_tag == [5]
    assert notes.messages()[-1] == (
        "1 pair with something in angle brackets at the beginning is scored with it as text, as it is not one of the "
        "model's tags and a space: 5"
    )


def test_notes_list_ten_pairs_at_most_and_each_once() -> None:
    notes = PairNotes()
    for number in (*range(1, 13), 12):
        notes.add("skipped", number)
    notes.add("skipped", 99, False)
    assert notes.messages() == ["12 pairs beyond the limit are not scored: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"]


# Arguments


def test_other_numbers_of_sources_and_targets_are_an_error(translator: Translator) -> None:
    with pytest.raises(ValueError, match=r"^there are 2 sources and 1 targets; give a target for each source$"):
        score_translations(translator, ["A", "B"], ["A"])
    with pytest.raises(ValueError, match=r"^there are 0 sources and 1 targets"):
        score_ids(translator, [], [[5]])


def test_what_is_no_list_of_texts_is_an_error(translator: Translator) -> None:
    with pytest.raises(TypeError, match="sources must be a list"):
        score_translations(translator, "A man.", ["Ein Mann."])
    with pytest.raises(TypeError, match="targets: sentence 1 is 7"):
        score_translations(translator, ["A man."], [7])  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"^target 5 contains surrogates"):
        score_translations(translator, ["A", "A"], ["B", "\udcff"], numbers=[3, 5])


@pytest.mark.parametrize("ids", [[], [-1], [211], [5, 1 << 40]])
def test_ids_outside_of_the_vocabulary_are_an_error(translator: Translator, ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^target 2 must have 1 to inf ids, each below 211: "):
        score_ids(translator, [[5], [5]], [[7], ids])
    with pytest.raises(ValueError, match=r"^source 1 must have"):
        score_ids(translator, [ids], [[7]])


@pytest.mark.parametrize("src", [[0, 5], [5, 0], [0]])
def test_padding_in_a_source_is_an_error_and_in_a_target_a_piece(translator: Translator, src: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^source 2 has the id of padding, 0: leave padding out$"):
        score_ids(translator, [[5], src], [[7], [7]])
    assert score_ids(translator, [[5]], [src])[0].ids == src


@pytest.mark.parametrize("make", [np.array, torch.tensor, tuple])
def test_ids_of_arrays_are_ints_in_the_score(translator: Translator, make: Any) -> None:
    assert score_ids(translator, [make([5, EOS_ID])], [make([7, EOS_ID])]) == score_ids(
        translator, [[5, EOS_ID]], [[7, EOS_ID]]
    )
    (found,) = score_ids(translator, [make([5, EOS_ID])], [make([7, EOS_ID])])
    assert [type(id_) for id_ in found.ids] == [int, int]


def test_other_arguments_are_checked(translator: Translator) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        score_translations(translator, SOURCES, TARGETS, alpha=-1)
    with pytest.raises(ConfigError, match="batch_tokens=0"):
        score_translations(translator, SOURCES, TARGETS, batch_tokens=0)
    (score,) = score_translations(translator, SOURCES[:1], TARGETS[:1], alpha=0)
    assert score.score == score.log_prob


def test_perplexities_too_large_for_a_number_are_infinite() -> None:
    assert perplexity(-1e6, 1) == math.inf
    assert perplexity(-math.log(8), 3) == pytest.approx(2)
    assert math.isnan(perplexity(0.0, 0))


# Tags and ensembles


def test_a_tag_stands_before_each_source_as_when_it_is_translated(make_translator: Any) -> None:
    """Any word can be a tag here, so that the tagged source is also a text."""
    plain, tagged = make_translator(), make_translator()
    tagged.tag, tagged.tags = "Two", ("Two", "We")
    texts = ["dogs", "We sleep", "", " "]
    targets = ["Zwei Hunde", "Wir", "", ""]
    expected = score_translations(plain, ["Two dogs", "We sleep", "", ""], targets)
    assert score_translations(tagged, texts, targets) == expected != score_translations(plain, texts, targets)
    (found,) = tagged.translate_nbest(["dogs"], nbest=1)
    (score,) = score_ids(tagged, tagged.encode(["dogs"]), [found[0].ids])
    assert score.log_prob == pytest.approx(found[0].log_prob, abs=2e-4)
    num_pieces = len(tagged.encode(["dogs"])[0])
    tagged.search = dataclasses.replace(tagged.search, max_source_length=num_pieces - 1)
    with pytest.raises(DataError, match=rf"^source 1 has {num_pieces} pieces"):
        score_translations(tagged, ["dogs"], ["Hunde"])


def test_an_ensemble_gives_each_piece_its_mean_probability(make_translator: Any) -> None:
    members = [make_translator(kind) for kind in ("paper", "pre-norm", "learned")]
    ensemble = Ensemble(members)
    alone = [score_translations(one, SOURCES, TARGETS) for one in members]
    for score, *scores in zip(score_translations(ensemble, SOURCES, TARGETS, with_ranks=True), *alone, strict=True):
        means = [sum(map(math.exp, x)) / 3 for x in zip(*(one.log_probs for one in scores), strict=True)]
        assert score.log_probs == pytest.approx([math.log(mean) for mean in means], abs=1e-4)
    for source, (found,) in zip(SOURCES, ensemble.translate_nbest(SOURCES, nbest=1), strict=True):
        (score,) = score_ids(ensemble, ensemble.encode([source]), [found.ids])
        assert score.log_prob == pytest.approx(found.log_prob, abs=2e-4)
    with pytest.raises(ValueError, match="must have 1 to 61 ids"):  # of the member with the fewest positions
        score_ids(ensemble, [[EOS_ID] * 62], [[EOS_ID]])

"""From texts and settings to what is searched: rules, limits, prefixes and samples of a translator."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from transformer.config import ModelConfig, SearchConfig
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference.rules import Forbidden, ForcedPrefix, MinLength, NoRepeatNgram
from transformer.inference.sampling import Sampling
from transformer.inference.search_requests import encode_prefixes, rules_of, search_requests, settings_of
from transformer.inference.sources import Source
from transformer.inference.translator import Translation, Translator
from transformer.model.alternatives.build import build_model

TEXTS = ["A man is eating an apple.", "Two dogs.", "", "Is the cat sleeping?", "здесь", "Three boys", "We"]
EMPTY = (2, 4)


@pytest.fixture(scope="module")
def translator(tokenizer: Tokenizer) -> Translator:
    torch.manual_seed(2)
    sizes: Any = {"d_model": 22, "num_layers": 2, "num_heads": 2, "d_ff": 29, "norm": "pre", "tie": "none"}
    model = build_model(len(tokenizer), ModelConfig(**sizes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight *= 2
        model.embedding.output_weight[UNK_ID] *= 2.5
    return Translator(model, tokenizer, SearchConfig(beam=3, max_length_offset=7))


def assert_same(found: list[list[Translation]], wanted: list[list[Translation]]) -> None:
    assert [[x.text for x in some] for some in found] == [[x.text for x in some] for some in wanted]
    for x, y in zip(itertools.chain(*found), itertools.chain(*wanted), strict=True):
        assert x.log_prob == pytest.approx(y.log_prob, abs=1e-3)


# Rules


def test_by_default_there_are_no_rules() -> None:
    assert rules_of(SearchConfig(), [5, 7], [[], []]) == []
    assert rules_of(SearchConfig(min_length=1), [5, 7], []) == []


def test_settings_are_rules() -> None:
    search = SearchConfig(min_length=6, no_repeat_ngram=3, allow_unknown=False)
    rules = [Forbidden((UNK_ID, PAD_ID, BOS_ID)), MinLength([5, 6], (EOS_ID,)), NoRepeatNgram(3)]
    assert rules_of(search, [5, 7], [[], []]) == rules
    assert rules_of(search, [5, 7], [[], [11]]) == [ForcedPrefix([[], [11]], rules)]


@pytest.mark.parametrize(("offset", "most", "limits"), [(7, None, [12, 7]), (7, 11, [11, 7]), (0, 3, [3, 1])])
def test_the_lower_of_both_limits_holds(offset: int, most: int | None, limits: list[int]) -> None:
    search = SearchConfig(max_length_offset=offset, max_length=most)
    sources = [[Source([5] * 5 + [EOS_ID])], [Source([EOS_ID])]]
    assert [x.limit for (x,) in search_requests(sources, [], search, 99, 1)] == limits
    assert [x.limit for (x,) in search_requests(sources, [], search, 2, 1)] == [min(x, 2) for x in limits]


def test_the_identity_names_later_settings_only_where_they_are_set() -> None:
    assert settings_of(SearchConfig()) == {"beam": 4, "alpha": 0.6, "max_length_offset": 50}
    assert settings_of(SearchConfig(no_repeat_ngram=3, max_length=5, max_source_length=7)) == {
        "beam": 4,
        "alpha": 0.6,
        "max_length_offset": 50,
        "no_repeat_ngram": 3,
        "max_length": 5,
    }


# Prefixes


def test_the_prefix_is_for_the_first_part_that_is_searched() -> None:
    sources = [[Source([], "!"), Source([5, EOS_ID]), Source([6, EOS_ID])], [Source([])]]
    requests, (blank,) = search_requests(sources, [[11, 13], [17]], SearchConfig(), 99, 23)
    assert [x.prefix for x in requests] == [[], [11, 13], []]
    assert [(x.number, x.part) for x in requests] == [(23, 0), (23, 1), (23, 2)]
    assert (blank.prefix, blank.number) == ([], 24)


def test_a_prefix_leaves_room_for_the_end() -> None:
    sources = [[Source([5, EOS_ID])], [Source([5, EOS_ID])]]
    search = SearchConfig(max_length_offset=3)
    search_requests(sources, [[], [11] * 3], search, 99, 1)
    with pytest.raises(DataError, match=r"^prefix 2 has 4 pieces, too many for a translation of at most 4, </s> inc"):
        search_requests(sources, [[], [11] * 4], search, 99, 1)


@pytest.mark.parametrize("prefixes", [[], ["Zwei"] * 3])
def test_prefixes_are_one_per_text(tokenizer: Tokenizer, prefixes: list[str]) -> None:
    with pytest.raises(DataError, match=rf"^there are {len(prefixes)} prefixes for 2 texts: give one per text"):
        encode_prefixes(tokenizer, prefixes, 2, 1)


def test_prefixes_are_texts_that_the_tokenizer_knows(tokenizer: Tokenizer) -> None:
    assert encode_prefixes(tokenizer, None, 2, 1) == []
    assert encode_prefixes(tokenizer, iter(["", "Zwei"]), 2, 1) == [[], *tokenizer.encode(["Zwei"])]
    with pytest.raises(TypeError, match="prefixes"):
        encode_prefixes(tokenizer, "Zwei", 4, 1)
    with pytest.raises(TypeError, match="prefixes: sentence 12 is 3"):
        encode_prefixes(tokenizer, ["Zwei", 3], 2, 11)  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"^prefix 12 \('два'\) has characters that the tokenizer does not know"):
        encode_prefixes(tokenizer, ["Zwei", "два"], 2, 11)


@pytest.mark.parametrize("beam", [1, 3])
def test_translations_begin_with_their_prefixes(translator: Translator, beam: int) -> None:
    prefixes = ["Zwei Hunde", "", "Zwei", "Ein Mann und", "Zwei", "Drei", "W"]
    found = translator.translate_nbest(TEXTS, nbest=beam, beam=beam, prefixes=prefixes, max_length_offset=11)
    for i, (prefix, nbest) in enumerate(zip(prefixes, found, strict=True)):
        assert all(x.text.startswith("" if i in EMPTY else prefix) for x in nbest)
    alone = [
        translator.translate_nbest([text], nbest=beam, beam=beam, prefixes=[prefix], max_length_offset=11)[0]
        for text, prefix in zip(TEXTS, prefixes, strict=True)
    ]
    assert [[x.text for x in nbest] for nbest in found] == [[x.text for x in nbest] for nbest in alone]
    assert [x.text for (x, *_) in found][1] == translator.translate([TEXTS[1]], beam=beam, max_length_offset=11)[0]
    translator.check(TEXTS, prefixes)
    with pytest.raises(DataError, match=r"^prefix 14 has"):
        translator.check(TEXTS, ["", *["Zwei Hunde spielen im Garten mit Ball und Hund"] * 6], first_number=13)


def test_the_best_translation_completes_its_beginnings(translator: Translator) -> None:
    ((best,),) = translator.translate_nbest([TEXTS[0]], nbest=1, beam=1)
    pieces = translator.tokenizer.pieces(best.ids)
    for t in (i for i, piece in enumerate(pieces) if i and piece.startswith("\u2581")):
        (beginning,) = translator.tokenizer.decode([best.ids[:t]])
        if translator.tokenizer.encode([beginning])[0] == list(best.ids[:t]):  # else it has other pieces
            assert translator.translate([TEXTS[0]], beam=1, prefixes=[beginning]) == [best.text]


# Settings


def test_unknown_pieces_are_produced_unless_forbidden(translator: Translator) -> None:
    assert "⁇" in "".join(translator.translate(TEXTS))
    for options in ({}, {"beam": 1}, {"sampling": Sampling()}):
        found = translator.translate_nbest(TEXTS, nbest=1, allow_unknown=False, **options)
        assert not any("⁇" in x.text or {UNK_ID, PAD_ID, BOS_ID} & {*x.ids} for (x,) in found)


@pytest.mark.parametrize("options", [{"beam": 1}, {"beam": 3}, {"sampling": Sampling()}])
def test_lengths_are_those_of_the_settings(translator: Translator, options: dict[str, Any]) -> None:
    for low, high in ((5, 7), (8, 8), (1, 1)):
        found = translator.translate_nbest(TEXTS, nbest=1, min_length=low, max_length=high, **options)
        assert all(low <= len(x.ids) <= high for i, (x,) in enumerate(found) if i not in EMPTY)


@pytest.mark.parametrize("options", [{"beam": 1}, {"beam": 3}, {"sampling": Sampling()}])
def test_no_ngram_comes_twice(translator: Translator, options: dict[str, Any]) -> None:
    found = translator.translate_nbest(TEXTS, nbest=1, no_repeat_ngram=2, **options)
    for (x,) in found:
        pairs = list(zip(x.ids, x.ids[1:], strict=False))
        assert len(set(pairs)) == len(pairs)


def test_unknown_settings_are_named(translator: Translator) -> None:
    with pytest.raises(ConfigError, match=r"^unknown key search\.num_beams; did you mean search\.beam\?$"):
        translator.translate(TEXTS, num_beams=3)


def test_scores_are_over_the_chosen_penalty(translator: Translator) -> None:
    for name, power in (("power", 1.5), ("none", 0.0)):
        for x, *_ in translator.translate_nbest(TEXTS, nbest=3, length_penalty=name, alpha=1.5):
            assert x.score == pytest.approx(x.log_prob / max(1, len(x.ids)) ** power)


@pytest.mark.parametrize("options", [{"beam": 1}, {"nbest": 3}, {"nbest": 3, "sampling": Sampling()}])
def test_the_log_probabilities_of_the_pieces_add_up(translator: Translator, options: dict[str, Any]) -> None:
    options = {"nbest": 1, **options}
    plain, found = (translator.translate_nbest(TEXTS, token_scores=x, **options) for x in (False, True))
    assert plain == found
    for x in (x for nbest in found for x in nbest):
        assert len(x.token_log_probs) == len(x.ids)
        assert sum(x.token_log_probs) == pytest.approx(x.log_prob, abs=1e-3)
    assert not any(x.token_log_probs for nbest in plain for x in nbest)


# Samples


def test_samples_depend_on_their_seed_and_number_alone(translator: Translator) -> None:
    options: Any = {"nbest": 5, "sampling": Sampling(seed=7, temperature=0.8)}
    together = translator.translate_nbest(TEXTS, **options)
    assert_same(together, translator.translate_nbest(TEXTS, batch_tokens=1, **options))
    for number, text in enumerate(TEXTS, start=1):
        assert_same(translator.translate_nbest([text], first_number=number, **options), [together[number - 1]])
    fewer = translator.translate_nbest(TEXTS, nbest=2, sampling=options["sampling"])
    assert_same(fewer, [samples[:2] for samples in together])
    assert [len(samples) for samples in together] == [5] * len(TEXTS)
    other = translator.translate_nbest(TEXTS, nbest=5, sampling=Sampling(seed=8, temperature=0.8))
    assert all(a != b for i, (a, b) in enumerate(zip(together, other, strict=True)) if i not in EMPTY)


def test_lines_of_one_text_have_samples_of_their_own(translator: Translator) -> None:
    found = translator.translate([TEXTS[0]] * 5, sampling=Sampling())
    assert len(set(found)) > 1


@pytest.mark.parametrize("value", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"seed": -1}])
def test_samples_are_drawn_within_limits(value: dict[str, Any]) -> None:
    ((name, number),) = value.items()
    with pytest.raises(ConfigError, match=f"^{name}={number} must be "):
        Sampling(**value)


def test_more_samples_than_the_beam_holds_may_be_drawn(translator: Translator) -> None:
    assert len(translator.translate_nbest([TEXTS[0]], nbest=11, sampling=Sampling())[0]) == 11
    with pytest.raises(ConfigError, match=r"^nbest=0 must be a whole number of at least 1$"):
        translator.translate_nbest([TEXTS[0]], nbest=0, sampling=Sampling())

"""The translator: one line out per line in, whatever the batch; found wherever the model lies."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle
import random
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from transformer.config import ModelConfig, SearchConfig, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError, DeviceError
from transformer.inference.alignment import word_alignment
from transformer.inference.bleu import score
from transformer.inference.forced import score_ids
from transformer.inference.prepacked import (
    PrepackedLinear,
    QuantizedLinear,
    can_prepack,
    can_quantize,
    prepack_model,
    ready_model,
)
from transformer.inference.search import beam_search
from transformer.inference.sources import InputNotes
from transformer.inference.translator import Translation, Translator
from transformer.inference.validation_bleu import greedy_bleu
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer
from transformer.training.device import resolve_dtype

NUM_LAYERS, NUM_HEADS = 2, 3
TEXTS = [
    "A man is eating an apple.",
    "Two dogs.",
    "The old woman who is standing next to the big tree is looking at seven small birds in the garden today.",
    "Is the cat sleeping?",
    "The children are not playing with the red ball because it is wet.",
    "Three boys",
    "We",
]


def random_model(tokenizer: Tokenizer, seed: int = 2, *, ends: bool = True, **options: Any) -> Transformer:
    """An untrained model that answers different texts differently; some answers end before their limit, some do not.

    Large weights in the layers and small target embeddings keep it from repeating one piece; a long output vector
    makes </s> as likely as all others together now and then.
    """
    torch.manual_seed(seed)
    sizes = {"d_model": 22, "num_layers": NUM_LAYERS, "num_heads": NUM_HEADS, "d_ff": 29, "d_k": 7, "d_v": 5}
    model = build_model(len(tokenizer), ModelConfig(**{**sizes, "norm": "pre", "tie": "none", **options}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight *= 2
        model.embedding.target_weight *= 0.3
        if ends:
            model.embedding.output_weight[EOS_ID] *= 2.5
    return model


@pytest.fixture(scope="module")
def translator(tokenizer: Tokenizer) -> Translator:
    return Translator(random_model(tokenizer), tokenizer, SearchConfig(beam=3, max_length_offset=7))


@pytest.fixture(scope="module")
def alone(translator: Translator) -> dict[int, list[list[Translation]]]:
    """By beam size, all hypotheses of each text, searched one text at a time."""
    return {beam: [translator.translate_nbest([text], nbest=beam, beam=beam)[0] for text in TEXTS] for beam in (1, 3)}


def endless(tokenizer: Tokenizer, **options: Any) -> Transformer:
    """A model that never ends a sentence: </s> has a logit far below all others."""
    model = random_model(tokenizer, ends=False, **options)
    with torch.no_grad():
        # What the last LayerNorm adds is the same for all positions; of the output vectors only that of </s> follows.
        model.decoder.norm.bias.fill_(1.0)
        model.embedding.output_weight[EOS_ID] = -30.0
    return model


def num_pieces(translation: Translation) -> int:
    """How many pieces were produced, from the penalty of alpha 1: score = log P / ((5 + n) / 6)."""
    return round(6 * translation.log_prob / translation.score - 5)


def assert_same(found: Sequence[Sequence[Translation]], wanted: Sequence[Sequence[Translation]]) -> None:
    assert [[one.text for one in nbest] for nbest in found] == [[one.text for one in nbest] for nbest in wanted]
    for some, others in zip(found, wanted, strict=True):
        for one, other in zip(some, others, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-3)
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-3)


def test_these_tests_see_translations_that_end_and_others_that_are_cut(
    translator: Translator, tokenizer: Tokenizer
) -> None:
    limits = [len(ids) + 7 for ids in tokenizer.encode(TEXTS)]
    for beam in (1, 3):
        found = [best for (best,) in translator.translate_nbest(TEXTS, nbest=1, beam=beam, alpha=1.0)]
        is_shorter = [num_pieces(best) < limit for best, limit in zip(found, limits, strict=True)]
        assert 0 < sum(is_shorter) < len(TEXTS)
        assert len({best.text for best in found}) > 3


# One line out per line in


def test_translations_come_in_the_order_of_the_texts(translator: Translator) -> None:
    expected = dict(zip(TEXTS, translator.translate(TEXTS), strict=True))
    shuffled = random.Random(3).sample(TEXTS, len(TEXTS))
    assert translator.translate(shuffled) == [expected[text] for text in shuffled]


def test_a_text_that_comes_twice_is_translated_twice(translator: Translator) -> None:
    one, two, three = translator.translate([TEXTS[0], TEXTS[1], TEXTS[0]])
    assert one == three
    assert [two] == translator.translate([TEXTS[1]])


@pytest.mark.parametrize("blank", ["", " ", "\t  ", "\n", "\u2028", "\u0085"])
@pytest.mark.parametrize("beam", [1, 3])
def test_a_text_without_content_is_translated_by_one(translator: Translator, blank: str, beam: int) -> None:
    found = translator.translate([blank, TEXTS[0], blank], beam=beam)
    assert found == ["", *translator.translate([TEXTS[0]], beam=beam), ""]
    assert translator.translate([blank], beam=beam) == [""]
    assert translator.translate_nbest([blank], nbest=beam, beam=beam) == [[Translation("", 0.0, 0.0)]]


def test_no_texts_have_no_translations(translator: Translator) -> None:
    assert translator.translate([]) == []
    assert translator.translate_nbest([], nbest=2) == []


def test_a_translation_is_one_line(translator: Translator) -> None:
    for text in translator.translate(["Two dogs.\nThree boys", *TEXTS]):
        assert len(text.splitlines()) <= 1


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("batch_tokens", [1, 61, 4096])
def test_a_text_is_translated_alike_alone_and_in_a_batch(
    translator: Translator, alone: dict[int, list[list[Translation]]], batch_tokens: int, beam: int
) -> None:
    together = translator.translate_nbest(TEXTS, nbest=beam, beam=beam, batch_tokens=batch_tokens)
    assert_same(together, alone[beam])


@pytest.mark.parametrize("batch_tokens", [1, 61, 101, 4096])
def test_batches_are_of_similar_lengths_and_within_their_budget(
    translator: Translator, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    batches: list[Tensor] = []
    encode = translator.model.encode
    monkeypatch.setattr(translator.model, "encode", lambda src: batches.append(src) or encode(src))
    translator.translate(["", *TEXTS], beam=1, max_length_offset=0, batch_tokens=batch_tokens)
    assert all(src.numel() <= batch_tokens or len(src) == 1 for src in batches)
    lengths = [int((row != 0).sum()) for src in batches for row in src]
    assert lengths == sorted((len(ids) + 1 for ids in tokenizer.encode(TEXTS)), reverse=True)
    assert len(batches) == {1: 7, 4096: 1}.get(batch_tokens, len(batches))


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "post"},
        {"positional": "learned", "max_positions": 101},
        {"positional": "shaw", "max_relative_position": 3, "attention_window": 3},
        {"positional": "t5", "attention_score": "additive"},
        {"positional": "rotary", "d_k": 6, "attention_score": "general"},
    ],
)
def test_that_holds_for_other_models_too(tokenizer: Tokenizer, options: dict[str, Any]) -> None:
    other = Translator(random_model(tokenizer, seed=7, **options), tokenizer, SearchConfig(max_length_offset=5))
    alone = [other.translate_nbest([text], nbest=2)[0] for text in TEXTS]
    assert_same(other.translate_nbest(TEXTS, nbest=2), alone)


def test_dropout_is_off(tokenizer: Tokenizer) -> None:
    model = random_model(tokenizer, dropout=0.9).train()
    translator = Translator(model, tokenizer, SearchConfig(beam=2, max_length_offset=3))
    assert translator.translate(TEXTS) == translator.translate(TEXTS)


# Search


def test_log_probabilities_are_those_of_teacher_forcing(translator: Translator, tokenizer: Tokenizer) -> None:
    model = translator.model
    sources = [[*ids, EOS_ID] for ids in tokenizer.encode(TEXTS[:3])]
    width = max(map(len, sources))
    src = torch.tensor([ids + [0] * (width - len(ids)) for ids in sources])

    def decode(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = model.decode(tokens[:, None], state)
        return model.logits(hidden[:, 0]), state

    with torch.no_grad():
        found = beam_search(decode, model.encode(src), [5, 11, 7], bos_id=BOS_ID, eos_id=EOS_ID, beam=5, nbest=5)
        for ids, nbest in zip(sources, found, strict=True):
            for hypothesis in nbest:
                tgt = torch.tensor([[BOS_ID, *hypothesis.ids[:-1]]])
                steps = model(torch.tensor([ids]), tgt).log_softmax(-1)[0]  # (T, V)
                expected = steps.gather(1, torch.tensor(hypothesis.ids)[:, None]).sum().item()
                assert hypothesis.log_prob == pytest.approx(expected, abs=1e-3)


def test_a_beam_of_one_is_greedy_search(translator: Translator, tokenizer: Tokenizer) -> None:
    model = translator.model
    limits = [len(ids) + 7 for ids in tokenizer.encode(TEXTS)]
    expected = []
    with torch.no_grad():
        for ids, limit in zip(tokenizer.encode(TEXTS), limits, strict=True):
            tgt = [BOS_ID]
            while len(tgt) <= limit and (len(tgt) == 1 or tgt[-1] != EOS_ID):
                tgt.append(int(model(torch.tensor([[*ids, EOS_ID]]), torch.tensor([tgt]))[0, -1].argmax()))
            expected += tokenizer.decode([tgt])
    assert translator.translate(TEXTS, beam=1) == expected


def test_the_models_own_settings_hold_unless_others_are_given(translator: Translator, tokenizer: Tokenizer) -> None:
    settings = SearchConfig(beam=2, alpha=2.0, max_length_offset=3)
    other = Translator(translator.model, tokenizer, settings)
    expected = translator.translate_nbest(TEXTS, nbest=1, beam=2, alpha=2.0, max_length_offset=3)
    assert_same(other.translate_nbest(TEXTS, nbest=1), expected)
    assert other.translate(TEXTS) == translator.translate(TEXTS, beam=2, alpha=2.0, max_length_offset=3)
    assert Translator(translator.model, tokenizer).search == SearchConfig()


def test_nothing_asked_for_is_taken_for_a_default(translator: Translator, tokenizer: Tokenizer) -> None:
    (found,) = translator.translate_nbest(TEXTS[:1], nbest=3, alpha=0.0, max_length_offset=0)
    assert all(one.score == one.log_prob for one in found)
    (found,) = Translator(endless(tokenizer), tokenizer).translate_nbest(
        TEXTS[:1], nbest=1, alpha=1.0, max_length_offset=0
    )
    assert num_pieces(found[0]) == len(tokenizer.encode(TEXTS[:1])[0])


@pytest.mark.parametrize("nbest", [1, 2, 3])
def test_the_n_best_are_n_distinct_and_sorted(translator: Translator, nbest: int) -> None:
    for found in translator.translate_nbest(TEXTS, nbest=nbest, beam=3):
        assert len(found) == nbest
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_the_best_of_n_is_the_translation(translator: Translator) -> None:
    best = [found[0].text for found in translator.translate_nbest(TEXTS, nbest=3)]
    assert best == translator.translate(TEXTS)


@pytest.mark.parametrize(("nbest", "beam"), [(3, 2), (0, 2), (2.0, 2)])
def test_more_translations_than_the_beam_holds_are_refused(translator: Translator, nbest: Any, beam: int) -> None:
    with pytest.raises(ConfigError, match=rf"nbest={nbest} must be a whole number between 1 and beam={beam}"):
        translator.translate_nbest(TEXTS, nbest=nbest, beam=beam)
    with pytest.raises(ValueError, match=r"nbest=5 must be a whole number between 1 and beam=3"):
        translator.translate_nbest([], nbest=5)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("max_length_offset", [0, 5])
def test_each_translation_is_limited_by_its_own_text(tokenizer: Tokenizer, beam: int, max_length_offset: int) -> None:
    translator = Translator(endless(tokenizer), tokenizer)
    found = translator.translate_nbest(TEXTS, nbest=1, beam=beam, alpha=1.0, max_length_offset=max_length_offset)
    assert [num_pieces(best) for (best,) in found] == [len(ids) + max_length_offset for ids in tokenizer.encode(TEXTS)]


@pytest.mark.parametrize("beam", [1, 3])
def test_a_model_that_has_diverged_still_gives_a_line_per_text(tokenizer: Tokenizer, beam: int) -> None:
    model = random_model(tokenizer)
    with torch.no_grad():
        model.embedding.output_weight.fill_(float("nan"))
    translator = Translator(model, tokenizer, SearchConfig(max_length_offset=3))
    assert len(translator.translate(["We", "", "Two dogs."], beam=beam)) == 3


@pytest.mark.parametrize("nbest", [2, 3, 5])
def test_no_text_comes_twice_in_a_list(
    translator: Translator, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, nbest: int
) -> None:
    def beginnings(ids: Sequence[Sequence[int]]) -> list[str]:
        """As if all that begins with the same letters were spelled alike."""
        return [text[:3] for text in tokenizer.decode(ids)]

    plain = translator.translate_nbest(TEXTS, nbest=nbest, beam=5)
    assert any(len({one.text[:3] for one in found}) < nbest for found in plain)
    monkeypatch.setattr(translator, "_texts", beginnings)
    for before, found in zip(plain, translator.translate_nbest(TEXTS, nbest=nbest, beam=5), strict=True):
        assert len({one.text for one in found}) == len(found) >= len({one.text[:3] for one in before})
        best = dataclasses.replace(before[0], text=before[0].text[:3])
        # Sentences that are searched on change the number of rows, by which kernels are chosen.
        assert found[0] == dataclasses.replace(best, score=found[0].score, log_prob=found[0].log_prob)
        assert [found[0].score, found[0].log_prob] == pytest.approx([best.score, best.log_prob], rel=1e-5)


# Nothing known


@pytest.mark.parametrize("text", ["👍", "здесь.", "日本語、 здесь"])
@pytest.mark.parametrize("beam", [1, 3])
def test_a_text_of_nothing_known_is_copied_and_changes_no_other(translator: Translator, text: str, beam: int) -> None:
    expected = translator.translate(TEXTS, beam=beam)
    assert translator.translate([text, *TEXTS, text], beam=beam) == [text, *expected, text]
    assert translator.translate_nbest([text], nbest=beam, beam=beam) == [[Translation(text, 0.0, 0.0)]]


def test_validation_scores_a_copy(tokenizer: Tokenizer) -> None:
    model = random_model(tokenizer)
    expected = Translator(model, tokenizer).translate(TEXTS, beam=1)
    sources = [*TEXTS, "здесь спит кошка на диване"]
    assert greedy_bleu(model, tokenizer, sources, [*expected, sources[-1]]) == pytest.approx(100.0)


# Several sentences


@pytest.fixture
def bars(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> Translator:
    """A translator for which sentences are separated by vertical bars."""
    segment = SimpleNamespace(segment=lambda _, text: text.split("|"))
    monkeypatch.setitem(sys.modules, "sentencex", segment)
    monkeypatch.setattr(translator, "languages", ("en", "de"))
    return translator


def joined(*parts: str) -> str:
    """Some of this model's translations are empty."""
    return " ".join(filter(None, parts))


@pytest.mark.parametrize("beam", [1, 3])
def test_sentences_are_translated_one_by_one_and_joined(
    bars: Translator, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = bars.translate(TEXTS[:3], beam=beam)
    texts = ["|".join(TEXTS[:3]), "", TEXTS[1], f"{TEXTS[1]}| |здесь|{TEXTS[0]}"]
    expected = [joined(one, two, three), "", two, joined(two, "здесь", one)]
    assert bars.translate(texts, beam=beam, split_sentences=True) == expected
    monkeypatch.setattr(bars, "languages", ("en", "zh"))
    monkeypatch.setattr(bars, "split_sentences", True)
    assert bars.translate(texts, beam=beam) == [one + two + three, "", two, f"{two}здесь{one}"]
    assert bars.translate(texts[2:3], beam=beam, split_sentences=False) == [two]


def test_a_joined_list_has_the_best_combinations(bars: Translator) -> None:
    parts = bars.translate_nbest(TEXTS[:3], nbest=3)
    combinations = [
        Translation(
            joined(*(one.text for one in choice)),
            sum(one.score for one in choice),
            sum(one.log_prob for one in choice),
        )
        for choice in itertools.product(*parts)
    ]
    (found,) = bars.translate_nbest(["|".join(TEXTS[:3])], nbest=3, split_sentences=True)
    assert_same([found], [sorted(combinations, key=lambda one: -one.score)[:3]])
    assert len({one.text for one in found}) == 3


def test_a_long_text_is_truncated_or_split_if_so_asked(translator: Translator, tokenizer: Tokenizer) -> None:
    sizes = [len(ids) + 1 for ids in tokenizer.encode(TEXTS)]
    text, limit = f"{TEXTS[4]} {TEXTS[0]}", max(sizes[0], sizes[4])
    one, two = translator.translate([TEXTS[4], TEXTS[0]])
    assert translator.translate([text, "We"], too_long="split", max_source_length=limit)[0] == joined(one, two)
    whole = translator.translate([text])
    assert translator.translate([text], max_source_length=sizes[0] + sizes[4] - 1) == whole
    truncated = translator.translate([text], too_long="truncate", max_source_length=limit)
    assert truncated != whole
    with pytest.raises(DataError, match=rf"more than the limit of {limit}: split it"):
        translator.translate([text], max_source_length=limit)
    with pytest.raises(ConfigError, match="max_source_length"):
        translator.translate([""], max_source_length=0, too_long="split")


def test_a_limit_of_the_run_can_be_raised_but_that_of_learned_positions_not(
    translator: Translator, tokenizer: Tokenizer
) -> None:
    low = Translator(translator.model, tokenizer, SearchConfig(max_source_length=2, max_length_offset=7))
    assert low.translate(TEXTS[:1], beam=3, max_source_length=1024) == translator.translate(TEXTS[:1])
    hard = Translator(random_model(tokenizer, positional="learned", max_positions=5), tokenizer)
    with pytest.raises(DataError, match=r"more than the limit of 5: split it, or choose --too-long truncate or split"):
        hard.translate(TEXTS[:1], max_source_length=1024)
    assert len(hard.translate(TEXTS[:1], too_long="split", max_source_length=1024)) == 1


def test_notes_count_what_a_user_should_know(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = InputNotes()
    monkeypatch.setattr(translator, "notes", notes)
    translator.translate_nbest(["We", "здесь", "We. They."], nbest=1, first_number=11)
    assert notes == InputNotes(copied=[12], several=[13], num_lines=3)


# Limits


def test_too_long_a_text_is_named_by_its_number_with_the_limit(translator: Translator, tokenizer: Tokenizer) -> None:
    sizes = [len(ids) + 1 for ids in tokenizer.encode(TEXTS)]
    longest = max(sizes)
    number = sizes.index(longest) + 1
    just_enough = Translator(translator.model, tokenizer, SearchConfig(max_source_length=longest))
    assert len(just_enough.translate(TEXTS, beam=1)) == len(TEXTS)
    one_less = Translator(translator.model, tokenizer, SearchConfig(max_source_length=longest - 1))
    message = rf"^sentence {number} has {longest} pieces, more than the limit of {longest - 1}: split it, raise the "
    with pytest.raises(DataError, match=message):
        one_less.translate(TEXTS)
    with pytest.raises(DataError, match=rf"^sentence {number + 4000} has "):
        one_less.translate_nbest(TEXTS, nbest=1, first_number=4001)


LIMITED = [{"positional": "learned"}, {"attention_score": "location"}]


@pytest.mark.parametrize("options", LIMITED)
def test_learned_positions_limit_the_text(tokenizer: Tokenizer, options: dict[str, Any]) -> None:
    (ids,) = tokenizer.encode(TEXTS[:1])
    size = len(ids) + 1
    for max_positions, fits in ((size, True), (size - 1, False)):
        model = random_model(tokenizer, **options, max_positions=max_positions)
        translator = Translator(model, tokenizer)
        if fits:
            assert len(translator.translate(TEXTS[:1])) == 1
        else:
            with pytest.raises(DataError, match=rf"sentence 1 has {size} pieces, more than the limit of {size - 1}"):
                translator.translate(TEXTS[:1])


@pytest.mark.parametrize("options", LIMITED)
@pytest.mark.parametrize("beam", [1, 3])
def test_learned_positions_limit_the_translation(tokenizer: Tokenizer, beam: int, options: dict[str, Any]) -> None:
    translator = Translator(endless(tokenizer, **options, max_positions=17), tokenizer)
    ((best,),) = translator.translate_nbest(["We"], nbest=1, beam=beam, alpha=1.0)
    assert num_pieces(best) == 17


def test_sinusoidal_positions_limit_nothing(tokenizer: Tokenizer) -> None:
    translator = Translator(endless(tokenizer), tokenizer)
    # 256 positions are prepacked; the table must grow.
    ((best,),) = translator.translate_nbest(["We"], nbest=1, beam=1, alpha=1.0, max_length_offset=300)
    assert num_pieces(best) == len(tokenizer.encode(["We"])[0]) + 300


# Attention


def test_the_identity_tells_apart_what_translates_otherwise(tokenizer: Tokenizer) -> None:
    search = SearchConfig(beam=3, max_length_offset=7)
    identity = Translator(random_model(tokenizer), tokenizer, search).identity()
    longer = Translator(random_model(tokenizer), tokenizer, dataclasses.replace(search, max_source_length=31))
    longer.prepack()
    assert longer.identity() == identity, "which texts are too long changes no translation"
    longer.too_long = "split"
    assert longer.identity() == identity | {"too_long": "split", "max_source_length": 31}
    longer.too_long, longer.split_sentences = "error", True
    assert longer.identity() == identity | {"split_sentences": True}
    pieces = Tokenizer.train((side for pair in builtin_pairs("train", 211) for side in pair), 211)
    half = Translator(random_model(tokenizer).to(torch.bfloat16), tokenizer, search)
    for other, names in (
        (Translator(random_model(tokenizer, seed=3), tokenizer, search), {"weights"}),
        (Translator(random_model(tokenizer), pieces, search), {"tokenizer"}),
        (half, {"weights", "precision"}),
        (
            Translator(random_model(tokenizer), tokenizer, SearchConfig(beam=5, alpha=0.7)),
            {"beam", "alpha", "max_length_offset"},
        ),
    ):
        found = other.identity()
        assert {name for name in identity if found[name] != identity[name]} == names


def test_texts_can_be_checked_without_translating_them(translator: Translator) -> None:
    assert [len(ids) > 0 for ids in translator.encode(["", *TEXTS])] == [False] + [True] * len(TEXTS)
    with pytest.raises(DataError, match="sentence 13 has 1032 pieces, more than the limit of 1024: split it"):
        translator.encode(["Two dogs.", "a " * 1031], first_number=12)


# Loading


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    return load_file(checkpoint / "model.safetensors")


def assert_loaded(translator: Translator, checkpoint: Path) -> None:
    loaded = translator.model.state_dict()
    expected = weights_of(checkpoint)
    assert loaded.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(loaded[name], weight, rtol=0, atol=0)
    assert not translator.model.training


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, with an average, that a test may change."""
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    shutil.copytree(sorted((copy / "checkpoints").iterdir())[0], copy / "averaged")
    return copy


def test_of_a_run_the_average_is_taken_else_the_best_else_the_last(run: Path) -> None:
    (best,) = (run / "best").iterdir()
    last = sorted((run / "checkpoints").iterdir())[-1]
    first_layers = [next(iter(weights_of(path).values())) for path in (run / "averaged", best, last)]
    assert not torch.equal(first_layers[0], first_layers[1])
    assert not torch.equal(first_layers[1], first_layers[2])
    assert_loaded(Translator.load(run, device="cpu", precision="fp32"), run / "averaged")
    shutil.rmtree(run / "averaged")
    assert_loaded(Translator.load(str(run), device="cpu", precision="fp32"), best)
    shutil.rmtree(run / "best")
    assert_loaded(Translator.load(run, device="cpu", precision="fp32"), last)


def test_a_checkpoint_is_loaded_by_its_own_directory(trained_run: Path) -> None:
    for checkpoint in sorted((trained_run / "checkpoints").iterdir()):
        assert_loaded(Translator.load(checkpoint, device="cpu", precision="fp32"), checkpoint)


def test_a_loaded_translator_has_the_runs_tokenizer_and_search(trained_run: Path) -> None:
    translator = Translator.load(trained_run, device="cpu")
    config = load_config(trained_run / "config.yaml")
    assert translator.search == config.search
    assert translator.search != SearchConfig()
    assert translator.languages == (config.data.src_lang, config.data.tgt_lang) == ("en", "de")
    assert translator.tokenizer.model == (trained_run / "tokenizer.model").read_bytes()
    found = translator.translate_nbest(["A man is eating an apple.", ""], nbest=2)
    assert [len(nbest) for nbest in found] == [2, 1]


def test_a_model_can_be_loaded_in_bfloat16(trained_run: Path) -> None:
    translator = Translator.load(trained_run, device="cpu", precision="bf16")
    assert {weight.dtype for weight in translator.model.parameters()} == {torch.bfloat16}
    assert len(translator.translate(["A man is eating an apple.", ""])) == 2


def test_a_model_is_loaded_in_the_precision_of_its_hardware(trained_run: Path) -> None:
    translator = Translator.load(trained_run, device="cpu")
    expected = resolve_dtype("auto", torch.device("cpu"))
    assert {weight.dtype for weight in translator.model.parameters()} == {expected}


def test_log_probabilities_in_bfloat16_are_within_a_twentieth_per_token(
    translator: Translator, tokenizer: Tokenizer
) -> None:
    # Forced to say the same: what a search says may differ where two tokens are about as probable.
    half = copy.deepcopy(translator.model).to(torch.bfloat16)
    with torch.no_grad():
        for ids in tokenizer.encode(TEXTS):
            src, tgt = torch.tensor([[*ids, EOS_ID]]), torch.tensor([[BOS_ID, *ids]])
            expected, actual = (model(src, tgt).float().log_softmax(-1) for model in (translator.model, half))
            likely = expected > math.log(1e-3)
            assert (actual - expected)[likely].abs().mean() < 0.05


@pytest.mark.parametrize("beam", [1, 3])
def test_prepacked_weights_translate_alike(tokenizer: Tokenizer, translator: Translator, beam: int) -> None:
    prepacked = Translator(random_model(tokenizer), tokenizer, translator.search)
    prepacked.prepack()
    assert any(isinstance(module, PrepackedLinear) for module in prepacked.model.modules())
    expected = translator.translate_nbest(TEXTS, nbest=beam, beam=beam)
    assert_same(prepacked.translate_nbest(TEXTS, nbest=beam, beam=beam), expected)


@pytest.mark.skipif(not can_quantize(torch.zeros(1)), reason="torch has no kernel here")
def test_log_probabilities_in_8_bit_integers_are_within_a_tenth_per_token(
    translator: Translator, tokenizer: Tokenizer
) -> None:
    quantized = Translator(random_model(tokenizer), tokenizer)
    quantized.prepack(quantize=True)
    assert isinstance(quantized.logits, QuantizedLinear)
    with torch.no_grad():
        for ids in tokenizer.encode(TEXTS):
            src, tgt = torch.tensor([[*ids, EOS_ID]]), torch.tensor([[BOS_ID, *ids]])
            expected = translator.model(src, tgt).log_softmax(-1)
            hidden, _ = quantized.model.decode(tgt, quantized.model.encode(src))
            actual = quantized.logits(hidden).log_softmax(-1)
            likely = expected > math.log(1e-3)
            assert (actual - expected)[likely].abs().mean() < 0.1


@pytest.mark.skipif(not can_quantize(torch.zeros(1)), reason="torch has no kernel here")
def test_a_model_can_be_loaded_for_8_bit_products(trained_run: Path) -> None:
    quantized = Translator.load(trained_run, device="cpu", precision="int8")
    assert isinstance(quantized.logits, QuantizedLinear)
    assert {weight.dtype for weight in quantized.model.parameters()} == {resolve_dtype("auto", torch.device("cpu"))}
    assert len(quantized.translate(["A man is eating an apple.", ""])) == 2


def test_8_bit_products_that_this_machine_does_not_have_are_refused(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops, "onednn", SimpleNamespace())
    with pytest.raises(DeviceError, match=r"precision=int8: not with device=cpu .*use auto, fp32 or bf16"):
        translator.prepack(quantize=True)


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: no such run or checkpoint directory$"):
        Translator.load(path)


def test_a_directory_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="contains no checkpoint; train first, or name a directory with"):
        Translator.load(tmp_path)


def test_a_hub_model_is_downloaded_and_loaded(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = sorted((trained_run / "checkpoints").iterdir())[-1]
    asked = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(last)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert_loaded(Translator.load("someone/some-model.v2", device="cpu", precision="fp32"), last)
    assert asked == [
        (
            "someone/some-model.v2",
            None,
            [
                *("config.yaml", "tokenizer.model", "source_tokenizer.model", "model.safetensors", "SHA256SUMS"),
                *("config.json", "generation_config.json", "tokenizer_config.json"),
                *("vocab.json", "target_vocab.json", "source.spm", "target.spm"),
            ],
        )
    ]


def test_without_a_network_a_hub_model_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise ConnectionError("the hub\n  is away")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    message = (
        r"^someone/some-model: no such directory, and no such model on the hub \(ConnectionError: the hub is away\)$"
    )
    with pytest.raises(CheckpointError, match=message):
        Translator.load("someone/some-model")


@pytest.mark.parametrize("path", ["./someone", "../someone/model", "/absent/model", "a/b/c", "absent"])
def test_what_cannot_be_a_hub_id_is_not_asked_for(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="no such run or checkpoint directory"):
        Translator.load(path)


def test_a_directory_that_is_there_is_not_asked_for(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    shutil.copytree(sorted((trained_run / "checkpoints").iterdir())[-1], tmp_path / "runs" / "mine")
    assert_loaded(Translator.load("runs/mine", device="cpu", precision="fp32"), tmp_path / "runs" / "mine")


def test_a_home_directory_is_found(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(trained_run.parent))
    expected = Translator.load(trained_run, device="cpu").origin
    assert Translator.load(f"~/{trained_run.name}", device="cpu").origin == expected
    assert Translator.load(Path("~") / trained_run.name, device="cpu").origin == expected


def test_devices_are_names_or_those_of_torch(trained_run: Path) -> None:
    for device in ("cpu", torch.device("cpu")):
        assert Translator.load(trained_run, device=device).model.embedding.weight.device.type == "cpu"
    with pytest.raises(DeviceError, match=r"^device=xpu is not one of auto, cpu, cuda and mps$"):
        Translator.load(trained_run, device="xpu")
    with pytest.raises(DeviceError, match=r"^precision='half' is not one of auto, fp32, tf32, bf16, fp16, int8$"):
        Translator.load(trained_run, precision="half")
    with pytest.raises(DeviceError, match=r"^precision=tf32: device=cpu does not multiply it; use auto, "):
        Translator.load(trained_run, device="cpu", precision="tf32")


@pytest.mark.parametrize("beam", [1, 3])
def test_float16_translates_as_float32_does(tokenizer: Tokenizer, beam: int) -> None:
    plain, half = random_model(tokenizer), random_model(tokenizer).half()
    expected, found = (
        Translator(model, tokenizer).translate_nbest(TEXTS, nbest=1, beam=beam) for model in (plain, half)
    )
    same = [one.text == other.text for (one,), (other,) in zip(found, expected, strict=True)]
    assert sum(same) > len(TEXTS) / 2  # of a random model, many pieces are almost as probable as others
    assert all(
        one.score == pytest.approx(other.score, rel=0.1) for (one,), (other,) in zip(found, expected, strict=True)
    )
    assert Translator(half, tokenizer).identity()["precision"] == "float16"


# Scoring


def test_greedy_bleu_is_the_score_of_greedy_translations(tokenizer: Tokenizer) -> None:
    model = random_model(tokenizer)
    translations = Translator(model, tokenizer).translate(TEXTS, beam=1)
    # References that share words with what the model says, or the score would be 0 whatever it said.
    references = [f"{text} Hund" for text in translations]
    bleu = greedy_bleu(model.train(), tokenizer, TEXTS, references)
    assert bleu == score(translations, references).bleu
    assert 0 < bleu < 100
    assert greedy_bleu(model, tokenizer, TEXTS, translations) == pytest.approx(100.0)
    by_characters = greedy_bleu(model, tokenizer, TEXTS, references, tokenize="char")
    assert by_characters == score(translations, references, "char").bleu != bleu


@pytest.mark.parametrize("texts", ["A dog.", b"A dog."])
def test_one_string_is_not_a_list_of_sentences(translator: Translator, texts: Any) -> None:
    for call in (translator.translate, translator.encode):
        with pytest.raises(TypeError, match=r"^texts must be a list of sentences, not one string$"):
            call(texts)


@pytest.mark.parametrize("what", [None, math.nan, 3, b"x", ["A dog."]])
def test_what_is_not_text_is_named_by_its_number(translator: Translator, what: Any) -> None:
    with pytest.raises(TypeError, match=rf"^texts: sentence 12 is {re.escape(repr(what))}, not text$"):
        translator.translate_nbest(["Two dogs.", what], nbest=1, first_number=11)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"alpha": math.nan}, "search.alpha=nan must be finite"),
        ({"alpha": 1e6}, "search.alpha=1000000.0 must be at most 10"),
        ({"alpha": "much"}, "search.alpha must be a number, got 'much'"),
        ({"beam": 0}, "search.beam=0 must be at least 1"),
        ({"beam": 2.0}, "search.beam must be a whole number, got 2.0"),
        ({"max_length_offset": -3}, "search.max_length_offset=-3 must be at least 0"),
        ({"max_source_length": 0}, "search.max_source_length=0 must be at least 1"),
        ({"batch_tokens": 1e4}, "batch_tokens=10000.0 must be a whole number of at least 1"),
        ({"batch_tokens": 0}, "batch_tokens=0 must be a whole number of at least 1"),
        ({"split_sentences": "no"}, "split_sentences='no' must be True or False"),
    ],
    ids=str,
)
def test_an_argument_out_of_its_range_is_refused(translator: Translator, option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        translator.translate(TEXTS, **option)


def test_numbers_of_numpy_and_text_of_numbers_are_arguments(translator: Translator) -> None:
    expected = translator.translate(TEXTS, beam=2, alpha=0.5, batch_tokens=23)
    assert translator.translate(TEXTS, beam=np.int64(2), alpha="0.5", batch_tokens=np.int64(23)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("notes", [None, InputNotes()])
def test_texts_may_come_from_a_generator(translator: Translator, notes: InputNotes | None) -> None:
    counting = Translator(translator.model, translator.tokenizer, translator.search)
    counting.notes = notes
    assert counting.translate(text for text in TEXTS) == translator.translate(TEXTS)
    assert notes is None or notes.num_lines == len(TEXTS)


def test_a_model_with_another_padding_than_the_tokenizers_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"^the model's pad_id is 5, and tokenizers fill up batches with 0$"):
        Translator(Transformer(len(tokenizer), 22, 1, 2, 29, pad_id=5), tokenizer)


def test_the_tokenizer_of_another_model_is_refused(translator: Translator) -> None:
    other = Tokenizer.train(TEXTS, 53)
    with pytest.raises(DataError, match=r"^the tokenizer has 53 pieces, and the model 211: take the tokenizer that"):
        Translator(translator.model, other)


def test_a_model_that_was_put_into_training_mode_translates_without_dropout(
    tokenizer: Tokenizer, translator: Translator
) -> None:
    trained = Translator(random_model(tokenizer, dropout=0.5), tokenizer, translator.search)
    expected = trained.translate(TEXTS)
    trained.model.train()
    assert trained.translate(TEXTS) == expected


def test_prepacking_twice_is_refused_and_another_projection_is_kept(tokenizer: Tokenizer) -> None:
    if not can_prepack(torch.zeros(1)):
        pytest.skip("torch has no kernel here")
    translator = Translator(random_model(tokenizer), tokenizer)
    translator.prepack()
    with pytest.raises(RuntimeError, match="the model is prepacked already"):
        translator.prepack(quantize=True)
    model = random_model(tokenizer)
    model.__class__ = type("Scaled", (Transformer,), {"logits": lambda self, x: 2 * Transformer.logits(self, x)})
    scaled = Translator(model, tokenizer)
    scaled.prepack()
    hidden = torch.randn(3, 22)
    assert torch.equal(scaled.logits(hidden), model.logits(hidden))


def test_another_model_that_is_set_translates_alone(tokenizer: Tokenizer) -> None:
    for is_prepacked in (False, True):
        translator, other = (
            Translator(random_model(tokenizer), tokenizer),
            Translator(random_model(tokenizer, 3), tokenizer),
        )
        if is_prepacked:
            translator.prepack()
        translator.model = random_model(tokenizer, 3).train()
        assert translator.translate_nbest(TEXTS, nbest=2) == other.translate_nbest(TEXTS, nbest=2)
        assert translator.identity() == other.identity()
        with pytest.raises(
            DataError, match=r"^the tokenizer has \d+ pieces, and the model 7: take the tokenizer that "
        ):
            translator.model = build_model(7, ModelConfig(d_model=22, num_layers=1, num_heads=2, d_ff=29))
        assert translator.translate(TEXTS) == other.translate(TEXTS)


def test_a_compiled_model_translates_alike_and_is_not_prepacked(tokenizer: Tokenizer, translator: Translator) -> None:
    compiled = Translator(torch.compile(random_model(tokenizer), backend="eager"), tokenizer, translator.search)
    modules = [type(module) for module in compiled.model.modules()]
    with pytest.raises(
        RuntimeError, match=r"^a model compiled to OptimizedModule cannot be prepacked: prepack it before$"
    ):
        compiled.prepack()
    assert [type(module) for module in compiled.model.modules()] == modules
    assert_same(compiled.translate_nbest(TEXTS, nbest=1), translator.translate_nbest(TEXTS, nbest=1))


@pytest.mark.skipif(not can_prepack(torch.zeros(1)), reason="torch has no kernel here")
def test_a_projection_that_one_model_was_given_is_kept(tokenizer: Tokenizer) -> None:
    model = random_model(tokenizer)
    model.logits = lambda x: 2 * Transformer.logits(model, x)  # type: ignore[method-assign]
    translator = Translator(model, tokenizer)
    translator.prepack()
    hidden = torch.randn(3, 22)
    assert torch.equal(translator.logits(hidden), model.logits(hidden))


def all_ways(translator: Translator) -> list[Callable[[], object]]:
    """Calls that compute with the model."""
    sources = translator.encode(["Two dogs."])
    return [
        lambda: translator.translate(["Two dogs."]),
        lambda: score_ids(translator, sources, [[5, EOS_ID]]),
        lambda: word_alignment(translator, ["Two dogs."], ["Zwei Hunde."]),
    ]


@pytest.mark.skipif(not can_quantize(torch.zeros(1)), reason="torch has no kernel here")
@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("tie", ["none", "all"])
@pytest.mark.parametrize("make", [lambda x: x, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_weights_changed_in_place_under_their_packed_copies_are_an_error(
    tokenizer: Tokenizer, quantize: bool, tie: str, make: Callable[[Translator], Translator]
) -> None:
    for choose in (
        lambda model: model.embedding.output_weight,
        lambda model: model.decoder.layers[0].feed_forward.w_1.weight,
    ):
        sizes: Any = {"d_model": 22, "num_layers": 1, "num_heads": 2, "d_ff": 29, "tie": tie}
        packed = Translator(build_model(len(tokenizer), ModelConfig(**sizes)), tokenizer)
        packed.prepack(quantize=quantize)
        expected = packed.translate(TEXTS)
        translator = make(packed)
        assert translator.translate(TEXTS) == expected
        with torch.no_grad():
            choose(translator.model).neg_()
        for call in all_ways(translator):
            with pytest.raises(RuntimeError, match=r"^a model prepacked for inference was changed in place"):
                call()
        with pytest.raises(RuntimeError, match="was changed in place"):
            Translator(translator.model, tokenizer).prepack()


def take_a_fused_step(model: Any) -> None:
    parameters = [parameter.requires_grad_() for parameter in model.parameters()]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam(parameters, 0.1, fused=True).step()
    model.requires_grad_(False)


def give_data(model: Any) -> None:
    model.decoder.layers[0].self_attention.w_q.weight.data = torch.randn(22, 22)


def give_a_parameter(model: Any) -> None:
    model.encoder.layers[0].feed_forward.w_2.weight = nn.Parameter(torch.randn(22, 29), requires_grad=False)


def give_a_vector(model: Any) -> None:
    nn.utils.vector_to_parameters(2 * nn.utils.parameters_to_vector(model.parameters()), model.parameters())


def give_an_embedding(model: Any) -> None:
    model.embedding = copy.deepcopy(model.embedding)


@pytest.mark.skipif(not can_quantize(torch.zeros(1)), reason="torch has no kernel here")
@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize(
    "change",
    [take_a_fused_step, give_data, give_a_parameter, give_a_vector, give_an_embedding],
    ids=lambda f: f.__name__,
)
def test_weights_that_change_without_a_count_of_changes_are_an_error(
    tokenizer: Tokenizer, quantize: bool, change: Callable[[Any], None]
) -> None:
    sizes: Any = {"d_model": 22, "num_layers": 1, "num_heads": 2, "d_ff": 29}
    packed = Translator(build_model(len(tokenizer), ModelConfig(**sizes)), tokenizer)
    packed.prepack(quantize=quantize)
    for translator in (copy.deepcopy(packed), packed):
        translator.translate(TEXTS)
        change(translator.model)
        with pytest.raises(RuntimeError, match=r"^a model prepacked for inference was changed in place"):
            translator.translate(TEXTS)


@pytest.mark.skipif(not can_prepack(torch.zeros(1)), reason="torch has no kernel here")
def test_a_weight_that_is_not_a_number_is_no_change(tokenizer: Tokenizer) -> None:
    model = random_model(tokenizer)
    model.encoder.layers[0].feed_forward.w_2.weight.data.fill_(math.nan)  # type: ignore[index, union-attr, operator]
    prepack_model(model)
    ready_model(copy.deepcopy(model))


@pytest.mark.skipif(not can_prepack(torch.zeros(1)), reason="torch has no kernel here")
def test_a_prepacked_model_refuses_other_weights_before_any_of_them_is_changed(tokenizer: Tokenizer) -> None:
    translator = Translator(random_model(tokenizer), tokenizer)
    translator.prepack()
    before = copy.deepcopy(translator.model.state_dict())
    assert before.keys() == random_model(tokenizer).state_dict().keys()
    for assign in (False, True):
        with pytest.raises(RuntimeError, match="cannot load other weights"):
            translator.model.load_state_dict(random_model(tokenizer, 3).state_dict(), assign=assign)
    for convert in (translator.model.double, translator.model.bfloat16, lambda: translator.model.to("meta")):
        with pytest.raises(RuntimeError, match="cannot be moved or converted"):
            convert()
    after = translator.model.state_dict()
    assert all(
        torch.equal(after[name], weight) and after[name].dtype == weight.dtype for name, weight in before.items()
    )
    assert translator.model.float() is translator.model.cpu() is translator.model
    other = Translator(translator.model, tokenizer)
    other.prepack()  # a second time: the same packed weights
    assert other.translate(TEXTS) == translator.translate(TEXTS)
    with torch.inference_mode():
        inference = Translator(random_model(tokenizer), tokenizer)
        inference.prepack()
    assert inference.translate(TEXTS) == translator.translate(TEXTS)


def test_progress_counts_the_texts_with_content(tokenizer: Tokenizer) -> None:
    translator = Translator(random_model(tokenizer), tokenizer)
    silent = translator.translate([*TEXTS, "", "We"], batch_tokens=37)
    counts: list[int] = []
    translator.progress = counts.append
    assert translator.translate([*TEXTS, "", "We"], batch_tokens=37) == silent
    assert (sum(counts), len(counts) > 2) == (len(TEXTS) + 1, True)

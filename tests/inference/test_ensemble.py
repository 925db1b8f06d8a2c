"""Ensembles: the mean of probabilities, by hand and by laws; what does not fit together."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import BOS, EOS, A, B, assert_same, chain, log_softmax, random_oracle
from torch import Tensor

from transformer.config import ModelConfig, SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import EOS_ID, Tokenizer
from transformer.errors import ConfigError, DataError, DeviceError
from transformer.inference.ctranslate2_engine import CTranslate2Translator
from transformer.inference.ensemble import Ensemble, EnsembleState, mean_probabilities
from transformer.inference.forced import score_ids
from transformer.inference.prepacked import can_prepack, can_quantize
from transformer.inference.sampling import Sampling
from transformer.inference.search import Hypothesis, beam_search, greedy_search
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model

LIMITS = [7, 1, 13, 5, 2, 11, 3]
TEXTS = ["A man is eating an apple.", "Two dogs.", "Is the cat sleeping?", "Three boys", "We"]


def search_together(*oracles: Any, beam: int = 3) -> list[list[Hypothesis]]:
    state = EnsembleState(tuple(oracle.start(range(7)) for oracle in oracles))
    options: Any = {"bos_id": BOS, "eos_id": EOS}
    if beam == 1:
        return [[x] for x in greedy_search(mean_probabilities(oracles), state, LIMITS, **options)]
    return beam_search(mean_probabilities(oracles), state, LIMITS, beam=beam, nbest=beam, **options)


def test_probabilities_are_averaged_at_each_step() -> None:
    one = chain({BOS: (0.1, 0.6, 0.3), A: (0.5, 0.2, 0.3), B: (0.8, 0.1, 0.1)})
    other = chain({BOS: (0.1, 0.2, 0.7), A: (0.5, 0.2, 0.3), B: (0.3, 0.7, 0.0)})
    # a has 0.4 and b 0.5; after b, the end has 0.55.
    (found,) = search_together(one, other, beam=1)[0]
    assert found.ids == [B, EOS]
    assert found.log_prob == pytest.approx(math.log(0.5 * 0.55))


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_an_ensemble_of_a_model_with_itself_is_the_model(seed: int, beam: int) -> None:
    oracle = random_oracle(seed, vocab_size=7)
    alone = [[x] for x in oracle.greedy(LIMITS)] if beam == 1 else oracle.beam(LIMITS, 3, nbest=3)
    for found, wanted in zip(search_together(oracle, oracle, oracle, beam=beam), alone, strict=True):
        assert_same(found, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_models_does_not_matter(seed: int) -> None:
    oracles = [random_oracle(3 * seed + i, vocab_size=7) for i in range(3)]
    first, *others = (search_together(*order) for order in itertools.permutations(oracles))
    for other, sentence in itertools.product(others, range(7)):
        assert_same(other[sentence], first[sentence])


def test_every_hypothesis_has_the_mean_probability_of_its_path() -> None:
    oracles = [random_oracle(i, vocab_size=7) for i in range(3)]
    for sentence, hypotheses in enumerate(search_together(*oracles)):
        for h in hypotheses:
            paths = [tuple(h.ids[:t]) for t in range(len(h.ids))]
            steps = [
                sum(math.exp(log_softmax(x.logits(sentence, path))[token]) for x in oracles) / 3
                for path, token in zip(paths, h.ids, strict=True)
            ]
            assert h.log_prob == pytest.approx(sum(map(math.log, steps)), abs=1e-4)


# Translators


def translator(tokenizer: Tokenizer, seed: int, **options: Any) -> Translator:
    torch.manual_seed(seed)
    sizes = {"d_model": 22, "num_layers": 2, "num_heads": 2, "d_ff": 29, "norm": "pre", "tie": "none"}
    model = build_model(len(tokenizer), ModelConfig(**{**sizes, **options}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight *= 2
        model.embedding.output_weight[EOS_ID] *= 2.5
    return Translator(model, tokenizer, SearchConfig(beam=3, max_length_offset=7))


@pytest.fixture(scope="module")
def members(tokenizer: Tokenizer) -> list[Translator]:
    """Of different architectures."""
    others = {"num_layers": 1, "num_heads": 1, "positional": "learned", "max_positions": 17}
    return [
        translator(tokenizer, 2),
        translator(tokenizer, 3, **others),
        translator(tokenizer, 5, positional="rotary", d_k=6),
    ]


def assert_alike(found: list[list[Any]], wanted: list[list[Any]]) -> None:
    assert [[x.text for x in nbest] for nbest in found] == [[x.text for x in nbest] for nbest in wanted]
    for some, others in zip(found, wanted, strict=True):
        for one, other in zip(some, others, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-3)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_translator_with_itself_is_the_translator(members: list[Translator], beam: int) -> None:
    one = members[0]
    twice = Ensemble([one, one])
    assert_alike(twice.translate_nbest(TEXTS, nbest=beam, beam=beam), one.translate_nbest(TEXTS, nbest=beam, beam=beam))


@pytest.mark.parametrize("options", [{"beam": 1}, {"nbest": 3}, {"no_repeat_ngram": 2, "min_length": 5}])
def test_a_text_is_translated_alike_alone_and_in_a_batch(members: list[Translator], options: dict[str, int]) -> None:
    ensemble = Ensemble(members)
    options = {"nbest": 1, **options}
    together = ensemble.translate_nbest(TEXTS, **options)
    assert_alike(together, [ensemble.translate_nbest([text], **options)[0] for text in TEXTS])
    assert_alike(together, ensemble.translate_nbest(TEXTS, batch_tokens=1, **options))
    assert_alike(together, Ensemble(members[::-1]).translate_nbest(TEXTS, **options))
    assert [[x.text for x in nbest] for nbest in together] != [
        [x.text for x in nbest] for nbest in members[0].translate_nbest(TEXTS, **options)
    ]


def test_log_probabilities_are_those_of_the_mean_and_of_each_piece(members: list[Translator]) -> None:
    ensemble = Ensemble(members)
    for (best,) in ensemble.translate_nbest(TEXTS, nbest=1, token_scores=True):
        assert sum(best.token_log_probs) == pytest.approx(best.log_prob, abs=1e-3)
    assert len(ensemble.translate(TEXTS, sampling=Sampling())) == len(TEXTS)


def test_the_shortest_limit_of_the_models_holds(members: list[Translator]) -> None:
    ensemble = Ensemble(members)
    assert ensemble.max_length == 17
    with pytest.raises(DataError, match="more than the limit of 17"):
        ensemble.translate(["A man is eating an apple. " * 5])


def test_the_identity_covers_all_models(members: list[Translator]) -> None:
    one, two, other = (Ensemble(x).identity() for x in (members, members[:2], [members[0], members[2]]))
    assert len({str(x["weights"]) for x in (one, two, other)}) == 3
    alone = members[0].identity()
    assert {name for name in alone if alone[name] != two[name]} == {"weights", "precision"}


def test_other_vocabularies_languages_and_devices_are_refused(
    members: list[Translator], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = translator(Tokenizer.train((side for pair in builtin_pairs("train", 99) for side in pair), 199), 7)
    with pytest.raises(DataError, match=r"its tokenizer \(\w{12}\) is not that of a model \(\w{12}\); the models"):
        Ensemble([members[0], foreign])
    reverse = translator(tokenizer, 7)
    reverse.languages = ("de", "en")
    with pytest.raises(DataError, match=r"de-en, and a model no known languages; an ensemble has one task: set the"):
        Ensemble([members[0], reverse])
    forward = translator(tokenizer, 7)
    forward.languages = ("en", "de")
    with pytest.raises(DataError, match=r"^a model: translates de-en, and a model en-de; an ensemble has one task$"):
        Ensemble([forward, reverse])
    tagged = translator(tokenizer, 7)
    tagged.tag = "<2de>"
    with pytest.raises(DataError, match=r"^a model: its data.tag is <2de>, and that of a model null; the models of an"):
        Ensemble([members[0], tagged])
    elsewhere = translator(tokenizer, 7)
    monkeypatch.setattr(
        type(elsewhere), "device", property(lambda self: torch.device("meta" if self is elsewhere else "cpu"))
    )
    with pytest.raises(DeviceError, match=r"^a model is on meta, and a model on cpu; load both to one device$"):
        Ensemble([members[0], elsewhere])
    with pytest.raises(ConfigError, match=r"^an ensemble needs at least one model$"):
        Ensemble([])
    with pytest.raises(ConfigError, match=r"^an ensemble cannot be a member of another: give the models themselves$"):
        Ensemble([members[0], Ensemble(members)])
    other = CTranslate2Translator.__new__(CTranslate2Translator)
    with pytest.raises(ConfigError, match=r"^an ensemble is of models of this project: "):
        Ensemble([members[0], other])


def pickled(x: Ensemble) -> Ensemble:
    copied: Ensemble = pickle.loads(pickle.dumps(x))
    return copied


@pytest.mark.parametrize("copy_of", [copy.deepcopy, pickled])
def test_a_copy_translates_alike_and_with_its_own_models(tokenizer: Tokenizer, copy_of: Any) -> None:
    original = Ensemble([translator(tokenizer, seed) for seed in (2, 3)])
    found = copy_of(original)
    before = original.translate_nbest(TEXTS, nbest=1)
    assert found.translate_nbest(TEXTS, nbest=1) == before
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in itertools.chain.from_iterable(one.model.parameters() for one in found.members):
            weight.add_(torch.randn_like(weight) / 3)
    changed = found.translate_nbest(TEXTS, nbest=1)
    assert changed != before
    scores = score_ids(found, found.encode(TEXTS), [best.ids for (best,) in changed])
    for (best,), score in zip(changed, scores, strict=True):
        assert best.log_prob == pytest.approx(score.log_prob, abs=1e-3)
    assert original.translate_nbest(TEXTS, nbest=1) == before


@pytest.mark.skipif(not can_prepack(torch.zeros(1)), reason="torch has no kernel here")
def test_a_prepacked_ensemble_can_be_copied_too(tokenizer: Tokenizer) -> None:
    original = Ensemble([translator(tokenizer, seed) for seed in (2, 3)])
    original.prepack()
    for copy_of in (copy.deepcopy, pickled):
        assert copy_of(original).translate(TEXTS) == original.translate(TEXTS)


def test_tokenizers_of_the_source_are_compared_too(tokenizer: Tokenizer) -> None:
    one, other = translator(tokenizer, 2), translator(Tokenizer(tokenizer.model), 3)
    other.tokenizer.source = Tokenizer.train((source for source, _ in builtin_pairs("train", 99)), 150)
    with pytest.raises(DataError, match=r"its tokenizer \(\w{12} and \w{12}\) is not that of"):
        Ensemble([one, other])


@pytest.mark.skipif(not can_prepack(torch.zeros(1)), reason="torch has no kernel here")
def test_all_models_are_prepacked(tokenizer: Tokenizer) -> None:
    made = [[translator(tokenizer, seed) for seed in (2, 3)] for _ in range(3)]
    plain, packed, quantized = map(Ensemble, made)
    packed.prepack()
    assert_alike(packed.translate_nbest(TEXTS, nbest=1), plain.translate_nbest(TEXTS, nbest=1))
    if can_quantize(torch.zeros(1)):
        quantized.prepack(quantize=True)
        assert quantized.identity()["precision"] == ["int8", "int8"]
        assert len(quantized.translate(TEXTS)) == len(TEXTS)


def test_the_models_of_an_ensemble_are_those_of_its_members(tokenizer: Tokenizer) -> None:
    ensemble = Ensemble([translator(tokenizer, 2), translator(tokenizer, 3)])
    other = translator(tokenizer, 5)
    with pytest.raises(AttributeError, match=r"^an ensemble has several models: set that of one of its members$"):
        ensemble.model = other.model
    ensemble.members[0].model = other.model
    assert ensemble.model is other.model
    expected = Ensemble([other, translator(tokenizer, 3)]).translate_nbest(TEXTS, nbest=1)
    assert ensemble.translate_nbest(TEXTS, nbest=1) == expected


def test_runs_are_loaded_by_name(trained_run: Path) -> None:
    ensemble = Ensemble.load([trained_run, trained_run], precision="fp32")
    single = Translator.load(trained_run, precision="fp32")
    assert ensemble.origin == f"{single.origin} + {single.origin}"
    assert (ensemble.languages, ensemble.search) == (single.languages, single.search)
    assert_alike(ensemble.translate_nbest(TEXTS, nbest=1), single.translate_nbest(TEXTS, nbest=1))
    assert len(Ensemble.load(trained_run).members) == 1


def test_tags_are_those_of_all_models(tokenizer: Tokenizer) -> None:
    made = [translator(tokenizer, seed) for seed in (2, 3)]
    for one, tags in zip(made, (["A", "Two", "We"], ["We", "Two"]), strict=True):
        one.tag, one.tags = "Two", tags
    ensemble = Ensemble(made)
    assert (ensemble.tag, ensemble.tags) == ("Two", ["Two", "We"])
    assert ensemble.encode(["dogs"]) == made[0].encode(["dogs"]) != translator(tokenizer, 2).encode(["dogs"])
    assert ensemble.translate(["dogs"]) == Ensemble([translator(tokenizer, seed) for seed in (2, 3)]).translate(
        ["Two dogs"]
    )


def test_nan_of_a_model_is_nan_of_the_ensemble() -> None:
    def decode(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        return torch.full((len(tokens), 7), math.nan), state

    oracle = random_oracle(0, vocab_size=7)
    state = EnsembleState((oracle.start([0]), oracle.start([0])))
    (found,) = greedy_search(mean_probabilities([oracle, decode]), state, [5], bos_id=BOS, eos_id=EOS)
    assert found.ids == []

"""Answers are those of `translate`: line by line, in order, with the same scores; too much text is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from transformer.inference.alignment import word_alignment
from transformer.inference.ensemble import Ensemble
from transformer.inference.translator import Translator
from transformer.inspection.attention import sentence_attention
from transformer.serving.models import NoSuchModelError, served
from transformer.serving.schemas import AttentionAnswer, AttentionRequest, LibreRequest, TranslationsRequest
from transformer.serving.service import Limits, Pending, Service, TooLargeError

LINES = ["A man is sleeping.", "Two small dogs are playing.", "The women are singing."]


@pytest.fixture(scope="module")
def known(translator: Translator) -> list[str]:
    found = translator.translate(LINES)
    assert len({*found}) == 3
    return found


@pytest.fixture
def service(translator: Translator) -> Iterator[Service]:
    service = Service(served([("/runs/my", translator)]), Limits(max_texts=3, max_characters=300))
    yield service
    service.batcher.close()


def done(pending: Pending[Any]) -> Any:
    return pending.finish(pending.future.result(60))


def libre(service: Service, **fields: Any) -> Any:
    return done(service.translate(LibreRequest(**fields), "client"))


def own(service: Service, **fields: Any) -> Any:
    return done(service.translations(TranslationsRequest(**fields), "client"))


def test_a_text_has_a_translation_and_a_list_a_list(service: Service, known: list[str]) -> None:
    assert libre(service, q=LINES[0]).translatedText == known[0]
    assert libre(service, q=LINES).translatedText == known
    assert libre(service, q=LINES[:1]).translatedText == known[:1]
    assert libre(service, q=[]).translatedText == []
    assert libre(service, q=LINES[0]).alternatives is None


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\r\n \t\n"])
def test_lines_are_translated_one_by_one_and_keep_their_ends(service: Service, known: list[str], end: str) -> None:
    blank = end.replace(" \t", "")
    assert libre(service, q=end.join(LINES)).translatedText == blank.join(known)
    assert libre(service, q=f"{end}{LINES[0]}{end}").translatedText == f"{blank}{known[0]}{blank}"


@pytest.mark.parametrize("text", ["", " ", "\n", "\n\n"])
def test_blank_text_stays_blank_and_waits_for_nothing(service: Service, text: str) -> None:
    assert libre(service, q=text).translatedText == text.strip(" ")
    assert service.batcher.num_batches == 0


def test_alternatives_are_the_next_best_distinct_translations(service: Service, translator: Translator) -> None:
    (found,) = translator.translate_nbest(LINES[:1], nbest=3)
    answer = libre(service, q=LINES[0], alternatives=2)
    assert [answer.translatedText, *answer.alternatives] == [one.text for one in found]
    assert libre(service, q=LINES[0], alternatives=77).alternatives == answer.alternatives, "as the beam holds no more"
    assert libre(service, q=LINES[:1], alternatives=2).alternatives == [answer.alternatives]
    assert libre(service, q="", alternatives=2).alternatives == []


def test_an_alternative_of_a_text_has_that_of_each_line(service: Service, translator: Translator) -> None:
    first, second = translator.translate_nbest(LINES[:2], nbest=2)
    answer = libre(service, q="\n".join(LINES[:2]), alternatives=1)
    assert answer.alternatives == [f"{first[1].text}\n{second[1].text}"]


def test_translations_have_the_scores_tokens_and_alignments_of_the_library(
    service: Service, translator: Translator
) -> None:
    expected = translator.translate_nbest(LINES[:2], nbest=2, token_scores=True)
    text = f"{LINES[0]}\n\n{LINES[1]}"
    answer = own(service, q=[text, ""], alternatives=1, token_scores=True, alignment=True)
    assert (answer.model, answer.source, answer.target) == ("my", "en", "de")
    assert [line.source for line in answer.texts[0].lines] == [LINES[0], "", LINES[1]]
    assert [len(line.translations) for line in answer.texts[0].lines] == [2, 0, 2]
    assert [line.source for line in answer.texts[1].lines] == [""]
    for line, source, found in zip(answer.texts[0].lines[::2], LINES, expected, strict=False):
        for shown, one in zip(line.translations, found, strict=True):
            assert (shown.text, shown.tokens) == (one.text, translator.tokenizer.pieces(one.ids))
            assert (shown.score, shown.log_prob) == pytest.approx((one.score, one.log_prob), rel=1e-5)
            assert shown.token_log_probs == pytest.approx(list(one.token_log_probs), rel=1e-4)
            assert [shown.alignment] == word_alignment(translator, [source], [one.text])


def test_what_is_not_asked_for_is_not_computed(service: Service) -> None:
    (line,) = own(service, q=LINES[0]).texts[0].lines
    assert (line.translations[0].alignment, line.translations[0].token_log_probs) == (None, None)


def test_attention_is_that_of_the_library(service: Service, translator: Translator) -> None:
    request = AttentionRequest(q=LINES[0], translation="Ein Hund schläft.")
    answer = AttentionAnswer.model_validate_json(done(service.attention(request, "client")))
    uses = sentence_attention(translator, LINES[0], "Ein Hund schläft.")
    assert [(use.name, use.queries, use.keys) for use in answer.uses] == [use[:3] for use in uses]
    for shown, use in zip(answer.uses, uses, strict=True):
        assert shown.weights == (use.weights * answer.unit).round().int().tolist()
    default = json.loads(done(service.attention(AttentionRequest(q=LINES[0]), "client")))
    assert default["uses"][1]["queries"] == sentence_attention(translator, LINES[0])[1].queries


def test_too_much_text_is_refused_before_it_waits(service: Service) -> None:
    with pytest.raises(TooLargeError, match="4 texts in a request; at most 3 are accepted"):
        libre(service, q=["a"] * 4)
    for q in ("a" * 301, ["a" * 100, "b" * 201]):
        with pytest.raises(TooLargeError, match="301 characters in a request; at most 300 are accepted: send parts"):
            libre(service, q=q)
    with pytest.raises(TooLargeError, match="302 characters"):
        service.attention(AttentionRequest(q="a", translation="a" * 301), "client")
    assert service.batcher.num_batches == 0


def test_a_direction_that_no_model_has_is_an_error(service: Service) -> None:
    with pytest.raises(NoSuchModelError, match="en to fr is not supported; the models translate en to de"):
        libre(service, q="a", source="en", target="fr")


def test_languages_and_models_are_listed(translator: Translator) -> None:
    service = Service(served([("/runs/my", translator), ("/runs/other", translator)]))
    assert [one.model_dump() for one in service.languages()] == [
        {"code": "en", "name": "English", "targets": ["de"]},
        {"code": "de", "name": "German", "targets": []},
    ]
    first, second = service.directions()
    assert (first.name, first.source_name, first.target_name, first.beam) == ("my", "English", "German", 3)
    assert (first.has_attention, second.name) == (True, "other")


def test_an_ensemble_translates_and_has_no_attention(babbler: Path, trained_run: Path) -> None:
    ensemble = Ensemble.load([babbler, trained_run], device="cpu", precision="fp32")
    service = Service(served([("/runs/my", ensemble)]))
    assert not service.directions()[0].has_attention
    assert libre(service, q=LINES[0]).translatedText == ensemble.translate(LINES[:1])[0]
    with pytest.raises(ValueError, match="an ensemble of 2 models has no attention"):
        own(service, q=LINES[0], alignment=True)
    service.batcher.close()

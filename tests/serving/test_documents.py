"""Pages are those of the library, their sentences wait with all others, and nothing is left behind by a client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from transformer.documents.formats import Translated, functions_of, translate_document
from transformer.errors import DataError
from transformer.inference.translator import Translation, Translator
from transformer.serving.batching import Batcher, QueueFullError, StoppingError
from transformer.serving.documents import in_batches, translate_pages
from transformer.serving.models import ServedModel, served
from transformer.serving.schemas import LibreRequest
from transformer.serving.service import Limits, Service

PAGES = [
    "<p>A man <b>is sleeping</b>.</p>\n<p>Two small dogs are playing.</p>",
    "Two <i>dogs</i> &amp; a man",
    " <br> ",
]


class UpperCase:
    """A translator that writes texts in capitals, as soon as it may."""

    def __init__(self) -> None:
        self.languages, self.members = ("en", "de"), [None, None]
        self.started, self.gate = threading.Event(), threading.Event()
        self.texts: list[str] = []

    def translate_nbest(self, texts: list[str], **_: Any) -> list[list[Translation]]:
        self.started.set()
        assert self.gate.wait(10)
        self.texts += texts
        return [[Translation(text.upper(), 0.0, 0.0)] for text in texts]


@pytest.fixture
def upper_case() -> Iterator[UpperCase]:
    translator = UpperCase()
    yield translator
    translator.gate.set()


def model_of(translator: Any) -> ServedModel:
    return ServedModel("my", "en", "de", translator)


@pytest.fixture(scope="module")
def service(translator: Translator) -> Iterator[Service]:
    service = Service(served([("/runs/my", translator)]), Limits(max_characters=300))
    yield service
    service.batcher.close()


def answer(service: Service, **fields: Any) -> Any:
    pending = service.translate(LibreRequest(format="html", **fields), "client")
    return pending.finish(pending.future.result(60))


def test_pages_are_those_of_the_library(service: Service) -> None:
    pytest.importorskip("sentencex")
    (model,) = service.models
    functions = functions_of(model.translator)
    expected = [
        translate_document(page.encode(), "html", *functions, languages=("en", "de")).decode() for page in PAGES
    ]
    assert answer(service, q=PAGES).translatedText == expected
    assert expected[0].count("<b>") == 1
    assert expected[2] == PAGES[2]
    found = answer(service, q=PAGES[0], alternatives=2)
    assert (found.translatedText, found.alternatives) == (expected[0], [])
    assert answer(service, q=PAGES[:2], alternatives=2).alternatives == [[], []]
    assert answer(service, q=[]).translatedText == []


def test_a_page_is_utf8_whatever_it_declares(upper_case: UpperCase) -> None:
    pytest.importorskip("sentencex")
    upper_case.gate.set()
    page = '<meta charset="latin1"><p>größer \u4e00</p>'
    found = in_batches(
        model_of(upper_case), Batcher(), "", lambda x: translate_pages(model_of(upper_case), [page, "\ufeffa b"], x)
    )
    assert found.result(10) == ['<meta charset="latin1"><p>GRÖSSER \u4e00</p>', "\ufeffA B"]


def test_a_page_that_is_no_text_is_an_error(service: Service) -> None:
    with pytest.raises(DataError, match="document: has null characters: it is not text"):
        answer(service, q="a\0b")
    with pytest.raises(DataError, match="text 2 contains surrogates, which UTF-8 cannot encode"):
        answer(service, q=["a", "b\ud800c"])


def test_too_much_is_refused_before_a_page_is_read(service: Service) -> None:
    with pytest.raises(ValueError, match="301 characters in a request; at most 300 are accepted"):
        answer(service, q="a" * 301)


def test_sentences_of_documents_wait_together(upper_case: UpperCase) -> None:
    batcher, model = Batcher(), model_of(upper_case)
    first = in_batches(model, batcher, "", lambda translate: translate(["first"]))
    assert upper_case.started.wait(10)
    others = [in_batches(model, batcher, "", lambda translate, x=x: translate([x, f"{x}{x}"])) for x in "ab"]
    while sum(job.num_waiting for job in batcher._jobs) < 4:
        threading.Event().wait(0.001)
    upper_case.gate.set()
    assert first.result(10) == [Translated("FIRST")]
    found = [[one.text for one in future.result(10)] for future in others]
    assert found == [["A", "AA"], ["B", "BB"]]
    assert (batcher.num_batches, batcher.num_texts) == (2, 5)


def test_a_document_that_was_accepted_is_finished_when_the_server_stops(upper_case: UpperCase) -> None:
    batcher = Batcher()
    upper_case.gate.set()

    def work(translate: Any) -> list[str]:
        (once,) = translate(["once"])
        batcher.stop()
        return [one.text for one in (once, *translate(["again"]))]

    assert in_batches(model_of(upper_case), batcher, "", work).result(10) == ["ONCE", "AGAIN"]
    with pytest.raises(StoppingError, match="the server is stopping"):
        in_batches(model_of(upper_case), batcher, "", lambda translate: translate(["new"])).result(10)


def test_a_document_is_refused_as_other_requests_are(upper_case: UpperCase) -> None:
    batcher, model = Batcher(max_waiting=1), model_of(upper_case)
    in_batches(model, batcher, "", lambda translate: translate(["first"]))
    assert upper_case.started.wait(10)
    waits = in_batches(model, batcher, "", lambda translate: translate(["a"]))
    while not batcher._jobs:
        threading.Event().wait(0.001)
    with pytest.raises(QueueFullError, match="1 texts are waiting"):
        in_batches(model, batcher, "", lambda translate: translate(["b"])).result(10)
    upper_case.gate.set()
    assert waits.result(10) == [Translated("A")]


def test_a_document_whose_client_has_gone_is_dropped(upper_case: UpperCase) -> None:
    batcher, model = Batcher(), model_of(upper_case)
    first = in_batches(model, batcher, "", lambda translate: translate(["first"]))
    assert upper_case.started.wait(10)
    ended = threading.Event()

    def work(translate: Any) -> Any:
        try:
            return translate(["never read"])
        finally:
            ended.set()

    gone = in_batches(model, batcher, "", work)
    while not batcher._jobs:
        threading.Event().wait(0.001)
    assert gone.cancel()
    assert ended.wait(10), "its thread has ended too"
    upper_case.gate.set()
    first.result(10)
    batcher.close()
    assert upper_case.texts == ["first"]


def test_alignments_are_those_of_the_model(service: Service) -> None:
    (model,) = service.models
    lines = ["A man is sleeping.", "Two small dogs are playing."]
    found = in_batches(model, service.batcher, "client", lambda translate: list(translate(lines)))
    translate, align = functions_of(model.translator)
    texts = [one.text for one in translate(lines)]
    assert align is not None
    assert found.result(60) == [Translated(*one) for one in zip(texts, align(lines, texts), strict=True)]
    assert all(one.links for one in found.result())


def test_the_translations_of_an_ensemble_have_no_alignment(upper_case: UpperCase) -> None:
    assert not model_of(upper_case).has_attention
    upper_case.gate.set()
    found = in_batches(model_of(upper_case), Batcher(), "", lambda translate: translate(["a"]))
    assert found.result(10) == [Translated("A")]

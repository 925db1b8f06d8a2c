"""The API under load: refusals with the time to wait, clients that go, a server that stops, answers never crossed."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from transformer.inference.translator import Translation, Translator
from transformer.serving.models import served
from transformer.serving.service import Limits, Service

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from loopback import Client, serving

LINES = ["A man is sleeping.", "Two small dogs are playing.", "The women are singing."]
Set = Callable[[Any], None]


@pytest.fixture(scope="module")
def client(translator: Translator) -> Iterator[Client]:
    with serving(Service(served([("/runs/my", translator)]))) as client:
        yield client


class Gate:
    """Translations that wait until it is opened."""

    def __init__(self) -> None:
        self.started, self.opened = threading.Event(), threading.Event()

    def __call__(self, texts: Sequence[str]) -> list[Any]:
        self.started.set()
        assert self.opened.wait(30)
        return [[Translation(text.upper(), 0.0, 0.0)] for text in texts]


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_full_queue_is_503_and_a_busy_client_429(translator: Translator, set_work: Set) -> None:
    gate = Gate()
    set_work(gate)
    service = Service(served([("/runs/my", translator)]), Limits(max_waiting=3, max_client_requests=2))
    with serving(service) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/translate", q="first")
        assert gate.started.wait(20)
        waiting = [pool.submit(client.post, "/translate", q="a\nb")]
        until(lambda: sum(job.num_waiting for job in service.batcher._jobs) == 2)
        full = client.post("/translate", q="c\nd")
        assert (full.status, full.json) == (503, {"error": "2 texts are waiting"})
        assert int(full.headers["Retry-After"]) >= 1
        waiting.append(pool.submit(client.post, "/translate", q="c"))
        until(lambda: len(service.batcher._jobs) == 2)
        busy = client.post("/translate", q="d")
        assert (busy.status, busy.json) == (429, {"error": "2 requests of this client are waiting"})
        assert int(busy.headers["Retry-After"]) >= 1
        gate.opened.set()
        answers = [first.result(), *(one.result() for one in waiting)]
    assert [answer.json["translatedText"] for answer in answers] == ["FIRST", "A\nB", "C"]


def test_a_client_that_goes_is_not_translated_for(translator: Translator, set_work: Set) -> None:
    gate = Gate()
    set_work(gate)
    service = Service(served([("/runs/my", translator)]))
    with serving(service) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/translate", q="first")
        assert gate.started.wait(20)
        body = json.dumps({"q": "never read"}).encode()
        lengths = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = f"POST /translate HTTP/1.1\r\nHost: x\r\n{lengths}"
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            connection.sendall(f"{head}\r\n".encode() + body)
            until(lambda: bool(service.batcher._jobs))
        until(lambda: not any(job.num_waiting for job in service.batcher._jobs))
        gate.opened.set()
        assert first.result().status == 200
    assert service.batcher.num_texts == 1


def test_what_was_accepted_is_answered_when_the_server_stops(translator: Translator, set_work: Set) -> None:
    gate = Gate()
    set_work(gate)
    service = Service(served([("/runs/my", translator)]))
    with ThreadPoolExecutor(4) as pool:
        with serving(service) as client:
            first = pool.submit(client.post, "/translate", q="first")
            assert gate.started.wait(20)
            second = pool.submit(client.post, "/translate", q="second")
            until(lambda: bool(service.batcher._jobs))
            service.batcher.stop()
            for refused in (client.post("/translate", q="third"), client.get("/health")):
                assert (refused.status, refused.json) == (503, {"error": "the server is stopping"})
            threading.Timer(0.3, gate.opened.set).start()
        assert [one.result().json["translatedText"] for one in (first, second)] == ["FIRST", "SECOND"]
    with pytest.raises(OSError):
        client.get("/health")


def test_clients_at_the_same_time_get_their_own_translations(client: Client, translator: Translator) -> None:
    texts = [f"{word} {line}" for word in ("", "Two", "Dogs") for line in LINES]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: client.post("/translate", q=text), texts * 2))
    assert [answer.json["translatedText"] for answer in answers] == translator.translate(texts) * 2


def test_answers_of_different_kinds_are_never_crossed(client: Client, translator: Translator) -> None:
    texts = [f"{word} {line}" for word in ("", "Two", "Dogs", "Women") for line in LINES]
    expected = dict(zip(texts, translator.translate(texts), strict=True))
    nbest = [[one.text for one in found] for found in translator.translate_nbest(texts, nbest=3)]

    def check(number: int) -> None:
        text, (best, *others) = texts[number % len(texts)], nbest[number % len(texts)]
        assert client.post("/translate", q=text).json == {"translatedText": expected[text]}
        answer = client.post("/translate", q=[text, LINES[0]], alternatives=2).json
        assert (answer["translatedText"][0], answer["alternatives"][0]) == (best, others)
        shown = client.post("/translations", q=text, alternatives=2, alignment=number % 2 == 0, token_scores=True).json
        (line,) = shown["texts"][0]["lines"]
        assert (line["source"], [one["text"] for one in line["translations"]]) == (text, [best, *others])
        assert all(("alignment" in one) == (number % 2 == 0) for one in line["translations"])
        drawn = client.post("/attention", q=text, translation=best).json["uses"][2]
        assert drawn["keys"] == translator.tokenizer.source.pieces(translator.encode([text])[0])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(check, range(48)))

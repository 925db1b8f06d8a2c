"""Bodies are whole and bounded; forms are read as LibreTranslate's clients send them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import pytest

from transformer.serving.request_body import BoundedBody, Receive, Send

JSON = (b"content-type", b"application/json")
FORM = (b"Content-Type", b"application/x-www-form-urlencoded; charset=utf-8")
Scope = MutableMapping[str, Any]


def chunks(*bodies: bytes) -> list[dict[str, Any]]:
    last = len(bodies) - 1
    return [{"type": "http.request", "body": body, "more_body": i < last} for i, body in enumerate(bodies)]


def send(
    messages: Sequence[dict[str, Any]],
    *headers: tuple[bytes, bytes],
    max_bytes: int = 17,
    kind: str = "http",
    method: str = "POST",
    then: Callable[[], Awaitable[Any]] | None = None,
    **options: float,
) -> tuple[list[tuple[Scope, Any]], list[Any]]:
    """What the application behind gets, scope and body, and what is answered in its place."""
    passed: list[tuple[Scope, Any]] = []
    answered: list[Any] = []

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        passed.append((scope, [await receive(), await receive()] if scope["type"] == "http" else None))

    waiting = iter(messages)

    async def receive() -> Any:
        message = next(waiting, None)
        if message is None and then is not None:
            await then()
        return message or {"type": "http.disconnect"}

    async def answer(message: Any) -> None:
        answered.append(message)

    scope = {"type": kind, "method": method, "headers": list(headers)}
    asyncio.run(BoundedBody(app, max_bytes, **options)(scope, receive, answer))
    return passed, answered


def test_a_body_is_passed_on_whole_and_then_what_follows() -> None:
    ((_, (body, after)),), answered = send(chunks(b"in ", b"three ", b"parts"), JSON)
    assert body == {"type": "http.request", "body": b"in three parts", "more_body": False}
    assert after == {"type": "http.disconnect"}
    assert answered == []


@pytest.mark.parametrize(
    ("messages", "headers"),
    [
        (chunks(b"x" * 18), []),
        (chunks(b"x" * 9, b"x" * 9, b"x"), []),
        (chunks(b""), [(b"content-length", b"18")]),
        (chunks(b""), [(b"Content-Length", b"9" * 4000)]),
    ],
    ids=["at once", "in parts", "announced", "announced in thousands of digits"],
)
def test_a_larger_body_is_answered_with_413(messages: Any, headers: list[tuple[bytes, bytes]]) -> None:
    passed, (start, body) = send(messages, *headers)
    assert (passed, start["status"]) == ([], 413)
    assert json.loads(body["body"]) == {"error": "the body of the request has more than 17 bytes"}


def test_a_body_of_the_limit_is_passed_on() -> None:
    ((_, (body, _)),), _ = send(chunks(b"x" * 17), JSON, (b"content-length", b"17"))
    assert body["body"] == b"x" * 17


def test_a_slow_body_is_answered_with_408() -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": True}]
    passed, (start, body) = send(messages, then=lambda: asyncio.sleep(60), timeout_s=0.01)
    assert (passed, start["status"]) == ([], 408)
    assert "did not arrive within 0 s" in json.loads(body["body"])["error"]


def test_a_client_that_goes_is_not_answered() -> None:
    assert send([{"type": "http.request", "body": b"x", "more_body": True}]) == ([], [])


def test_what_is_no_request_is_passed_on() -> None:
    ((scope, _),), _ = send([], kind="lifespan")
    assert scope["type"] == "lifespan"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (b"q=a+cat&source=en", {"q": "a cat", "source": "en"}),
        ("q=K%C3%A4se&q=é&alternatives=3".encode(), {"q": ["Käse", "é"], "alternatives": "3"}),
        (b"q=&format=text", {"q": "", "format": "text"}),
        (b"", {}),
    ],
)
def test_a_form_becomes_json(form: bytes, expected: dict[str, Any]) -> None:
    ((scope, (body, _)),), _ = send(chunks(form), FORM, (b"Content-Length", b"7"), (b"x", b"y"), max_bytes=1000)
    assert json.loads(body["body"]) == expected
    length = str(len(body["body"])).encode()
    assert scope["headers"] == [(b"x", b"y"), (b"content-type", b"application/json"), (b"content-length", length)]


@pytest.mark.parametrize("form", [b"q=\xff", b"q=caf%e9", b"&".join([b"q=a"] * 1001)])
def test_a_form_that_cannot_be_read_is_answered_with_422(form: bytes) -> None:
    passed, (start, body) = send(chunks(form), FORM, max_bytes=10_000)
    assert (passed, start["status"]) == ([], 422)
    assert json.loads(body["body"]) == {"error": "the form is not UTF-8, or has more than 1000 fields"}


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (
            b'{"q": "a"}',
            b"application/x-www-form-urlencoded",
            "this is JSON, but its Content-Type is of a form: it ",
        ),
        (b' ["a"]', b"application/x-www-form-urlencoded", "this is JSON, but its Content-Type is of a form: it "),
        (b'{"q": "a"}', b"", "Content-Type is missing: send application/json, or a form (application/x-www-form-"),
        (b"--x", b"multipart/form-data; boundary=x", "Content-Type is multipart/form-data: send application/json, "),
        (b'{"q": "\xe9"}', b"application/json; charset=latin-1", "the body of the request is not UTF-8"),
        (b'{"q": "\xe9"}', b"application/vnd.x+json", "the body of the request is not UTF-8"),
    ],
)
def test_a_body_of_another_kind_than_it_says_is_answered_with_422(body: bytes, kind: bytes, message: str) -> None:
    headers = [(b"content-type", kind)] if kind else []
    passed, (start, answer) = send(chunks(body), *headers, max_bytes=1000)
    assert (passed, start["status"]) == ([], 422)
    assert json.loads(answer["body"])["error"].startswith(message)


def test_only_bodies_that_are_posted_have_a_kind() -> None:
    for body, method in ((b"x", "PUT"), (b"", "POST")):
        ((_, (passed, _)),), _ = send(chunks(body), method=method)
        assert passed["body"] == body


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_may_have_any_encoding_of_unicode(encoding: str) -> None:
    body = json.dumps({"q": "Käse"}, ensure_ascii=False).encode(encoding)
    ((_, (passed, _)),), _ = send(chunks(body), JSON, max_bytes=1000)
    assert passed["body"] == body

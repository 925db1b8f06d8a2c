"""Bodies of requests: read with a limit of size and time; forms become JSON.

An ASGI application around another one, so that nothing of a body is kept that is too large.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[_Message]]
Send = Callable[[_Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_FORM, _JSON = b"application/x-www-form-urlencoded", b"application/json"
_MOST_FIELDS = 1000


class _RejectedError(Exception):
    """A body that is not passed on, with the HTTP status of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BoundedBody:
    """Passes on requests with their whole bodies. Larger ones are answered with 413, slow ones with 408.

    A form becomes the JSON object of its fields, a list where a field is repeated: clients of LibreTranslate send both.

    Args:
        app: what answers.
        max_bytes: of a body.
        timeout_s: until all of it has arrived.
    """

    def __init__(self, app: Application, max_bytes: int, timeout_s: float = 30.0) -> None:
        self.app, self.max_bytes, self.timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            body = await asyncio.wait_for(self._read(headers.get(b"content-length", b""), receive), self.timeout_s)
            if body is None:  # the client has gone
                return
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if scope.get("method") == "POST":
                _check(body, kind)
            if kind == _FORM:
                body, kind = _form_as_json(body), _JSON
                replaced = (b"content-type", b"content-length")
                kept = [pair for pair in scope["headers"] if pair[0].lower() not in replaced]
                length = str(len(body)).encode()
                scope = {**scope, "headers": [*kept, (b"content-type", kind), (b"content-length", length)]}
        except asyncio.TimeoutError:
            await _answer(send, 408, f"the body of the request did not arrive within {self.timeout_s:.0f} s")
        except _RejectedError as error:
            await _answer(send, error.status, str(error))
        else:
            await self.app(scope, _after(body, receive), send)

    async def _read(self, declared: bytes, receive: Receive) -> bytes | None:
        """The body; None if the client has gone."""
        if declared.isdigit() and int(declared[:20]) > self.max_bytes:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self.max_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> _RejectedError:
        return _RejectedError(413, f"the body of the request has more than {self.max_bytes} bytes")


def _check(body: bytes, kind: bytes) -> None:
    """_RejectedError for a body of another kind, or JSON that says that it is a form, as curl's does by itself."""
    is_json = kind == _JSON or kind.endswith(b"+json")
    if body and not is_json and kind != _FORM:
        name = kind.decode("ascii", "replace") or "missing"
        raise _RejectedError(422, f"Content-Type is {name}: send {_JSON.decode()}, or a form ({_FORM.decode()})")
    if kind == _FORM and body.lstrip()[:1] in (b"{", b"["):
        raise _RejectedError(422, f"this is JSON, but its Content-Type is of a form: it must be {_JSON.decode()}")
    if is_json:
        try:
            body.decode(json.detect_encoding(body))
        except UnicodeDecodeError:
            raise _RejectedError(422, "the body of the request is not UTF-8") from None


def _form_as_json(body: bytes) -> bytes:
    options: Any = {"keep_blank_values": True, "max_num_fields": _MOST_FIELDS, "errors": "strict"}
    try:
        fields = urllib.parse.parse_qs(body.decode("utf-8"), **options)
    except ValueError:  # UnicodeDecodeError is one
        raise _RejectedError(422, f"the form is not UTF-8, or has more than {_MOST_FIELDS} fields") from None
    return json.dumps({name: values[0] if len(values) == 1 else values for name, values in fields.items()}).encode()


def _after(body: bytes, receive: Receive) -> Receive:
    """Receives the body at once, and then what comes after it."""
    is_read = False

    async def read() -> _Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", _JSON), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

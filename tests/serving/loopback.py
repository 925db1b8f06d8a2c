"""A server of the tests: uvicorn in a thread, and a client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from transformer.serving.app import make_app
from transformer.serving.service import Service


class Answer(NamedTuple):
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a server on the loopback interface, with a connection for each request."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(self, method: str, path: str, body: bytes | None = None, kind: str | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {} if kind is None else {"Content-Type": kind})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, **fields: Any) -> Answer:
        return self.post_body(path, json.dumps(fields).encode())

    def post_body(self, path: str, body: bytes, kind: str = "application/json") -> Answer:
        return self.request("POST", path, body, kind)

    def raw(self, sent: bytes, timeout_s: float = 1.0) -> bytes:
        """What comes back for these bytes, until the server closes the connection or says nothing for this time."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.settimeout(timeout_s)
            received = b""
            with contextlib.suppress(OSError):  # it may have closed the connection before it has read all
                connection.sendall(sent)
                while block := connection.recv(1 << 16):
                    received += block
            return received


@contextlib.contextmanager
def serving(service: Service) -> Iterator[Client]:
    """The service on a free port, in a thread."""
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(make_app(service), log_level="critical", http="h11", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        end = time.monotonic() + 30
        while not server.started and time.monotonic() < end:
            time.sleep(0.005)
        try:
            yield Client(port)
        finally:
            server.should_exit = True
            thread.join(30)

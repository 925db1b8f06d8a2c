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


class KeptConnection:
    """Posts over one connection, for one thread, with little work.

    `http.client` takes as long for a request as the server, and the clients of a load share a CPU.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: Any = None

    def post(self, path: str, **fields: Any) -> Answer:
        """Ask, over a new connection if the last one has ended. OSError if there is no whole answer."""
        body = json.dumps(fields).encode()
        kind = "Host: localhost\r\nContent-Type: application/json"
        head = f"POST {path} HTTP/1.1\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            if self._stream is None:
                with socket.create_connection(("127.0.0.1", self._port), timeout=60) as connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._stream = connection.makefile("rwb")  # which keeps it open
            self._stream.write(head.encode() + body)
            self._stream.flush()
            answer = self._read()
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # what could not be written
                self._stream.close()
            self._stream = None

    def _read(self) -> Answer:
        status = self._stream.readline().split(b" ", 2)
        lines = iter(self._stream.readline, b"\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise ConnectionError("the connection ended within an answer")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        body = self._stream.read(length)
        if len(body) < length:
            raise ConnectionError("the connection ended within an answer")
        return Answer(int(status[1]), headers, body)


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

"""Serve models over HTTP, with a page to try them: transformer serve RUN [RUN ...] [--port 5000]

POST /translate, /languages and /health are LibreTranslate's; /translations has scores, tokens and alignments,
/attention attention weights, /openapi.json all of it, and / a page. Requests that wait are translated together. Ctrl-C
or SIGTERM ends it after the requests that it has accepted. It needs the extra `serve`: FastAPI and uvicorn.
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from transformer.cli import print_aside
from transformer.commands.search_options import add_search_options, apply_search_options, load_translator, origins
from transformer.commands.selection import report_checkpoint
from transformer.errors import ConfigError
from transformer.inference.arguments import DEVICES, PRECISIONS, check_count
from transformer.inference.translator import Translator
from transformer.serving.app import check_installed, make_app
from transformer.serving.models import served
from transformer.serving.schemas import Direction
from transformer.serving.service import Limits, Service
from transformer.training.device import tune_process

_MOST_CONNECTIONS = 500  # below the usual limit of 1,024 open files
_GRACE_S = 60  # after a signal, for the requests that were accepted
_HIGHEST_PORT = 65_535


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs = "run or checkpoint directories, or hub ids as owner/name@revision; of the same languages, the first is used"
    parser.add_argument("runs", metavar="RUN", nargs="+", help=runs)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="0: any free one (default: %(default)s)")
    add_search_options(parser)
    parser.set_defaults(too_long="split")
    limits = parser.add_argument_group("limits")
    for name, what in (
        ("max_characters", "of a request"),
        ("max_texts", "of a request"),
        ("max_waiting", "texts, by lines, that wait; beyond it, requests get 503"),
        ("max_client_requests", "that wait, from the same address; beyond it, requests get 429"),
        ("max_batch", "texts, by lines, that are translated together"),
    ):
        option, default = f"--{name.replace('_', '-')}", getattr(Limits(), name)
        limits.add_argument(option, type=int, metavar="N", default=default, help=f"{what} (default: {default})")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    arguments = parser.parse_args(argv)
    chosen = _check_options(arguments)
    with _bound_socket(arguments.host, arguments.port) as listener:
        tune_process(inference=True)
        is_tag_chosen = arguments.tag is not None or arguments.target_language is not None
        translators = [(run, _load(arguments, run)) for run in arguments.runs]
        models = served(translators, is_tag_chosen=is_tag_chosen)
        service = Service(models, chosen)
        for line in _described(service.directions()):
            print_aside(line)
        listener.listen()  # from here on, connections wait for the server
        print(f"{_address(listener)} (Ctrl-C ends it)", flush=True)
        _run(service, listener)
    return 0


def _described(directions: Sequence[Direction]) -> list[str]:
    """A line for each model and source language, with all target languages."""
    targets: dict[str, list[str]] = {}
    for one in directions:
        targets.setdefault(f"{one.name}: {one.source_name} to ", []).append(one.target_name)
    return [f"{model}{', '.join(names)}" for model, names in targets.items()]


def _check_options(arguments: argparse.Namespace) -> Limits:
    """The limits. ConfigError for what cannot be, before anything is loaded."""
    check_installed()
    if arguments.ensemble and len(arguments.runs) > 1:
        raise ConfigError("--ensemble makes one model of several: give one RUN before it")
    if not 0 <= arguments.port <= _HIGHEST_PORT:
        raise ConfigError(f"--port {arguments.port} must be between 0 and {_HIGHEST_PORT}")
    names = ("max_characters", "max_texts", "max_waiting", "max_client_requests", "max_batch")
    for name in names:
        check_count(f"--{name.replace('_', '-')}", getattr(arguments, name))
    return Limits(**{name: getattr(arguments, name) for name in names})


def _load(arguments: argparse.Namespace, run: str) -> Translator:
    translator = load_translator(arguments, run)
    apply_search_options(arguments, translator)
    for given, origin in zip([run, *arguments.ensemble], origins(translator), strict=True):
        report_checkpoint(given, origin)
    return translator


def _bound_socket(host: str, port: int) -> socket.socket:
    """A socket with its address, before models are loaded. ConfigError if the address is not to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        # On Windows it would let two servers have the same port.
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen at --host {host} --port {port}: {reason}") from None
    return bound


def _address(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def _run(service: Service, listener: socket.socket) -> None:
    """Answer until a signal ends it: then nothing new is accepted, and what was is answered."""
    import uvicorn

    config = uvicorn.Config(
        make_app(service),
        log_level="error",  # requests that are malformed are warnings
        access_log=False,
        http="h11",  # bounds the headers of a request
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
    )
    server: Any = uvicorn.Server(config)
    handle_exit = server.handle_exit

    def stop(number: int, frame: FrameType | None) -> None:
        service.batcher.stop()
        handle_exit(number, frame)
        if server.force_exit:  # of the requests that end with it, uvicorn would log the tracebacks
            logging.disable()

    server.handle_exit = stop
    with _noted_signals():
        server.run(sockets=[listener])
    if server.force_exit:  # by a second Ctrl-C; Python cannot end the thread that translates
        print_aside("interrupted")
        os._exit(130)
    print("stopped", file=sys.stderr)


@contextlib.contextmanager
def _noted_signals() -> Iterator[None]:
    """Let the signals that end the server not end the process: uvicorn raises them once more at its end."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

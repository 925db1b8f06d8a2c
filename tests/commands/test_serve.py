"""The serve command: options, and a server of its own process under load, attacked and stopped."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from transformer.commands import serve
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError
from transformer.inference.translator import Translator

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from server_load import ServerProcess, attack, load


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "65536"], "--port 65536 must be between 0 and 65535"),
        (["--port", "-1"], "--port -1 must be between 0 and 65535"),
        (["--max-batch", "0"], "--max-batch"),
        (["--max-characters", "-3"], "--max-characters"),
        (["other", "--ensemble", "third"], "--ensemble makes one model of several: give one RUN before it"),
        (["--host", "no.such.host.invalid"], "cannot listen at --host no.such.host.invalid --port 5000: "),
    ],
)
def test_options_that_cannot_be_are_errors_before_anything_is_loaded(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        serve.main(["absent", *arguments])


def test_a_port_in_use_is_an_error_before_anything_is_loaded() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--host 127.0.0.1 --port {port}: Address already in use"):
            serve.main(["absent", "--port", str(port)])


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent: no such run"):
        serve.main([str(tmp_path / "absent"), "--port", "0"])


# A process of its own


@pytest.fixture(scope="module")
def process(babbler: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(babbler, "--precision", "fp32", "--max-batch", "32")
    yield process
    process.stop(signal.SIGKILL)


def translations(run: Path, number: int) -> dict[str, str]:
    """Of texts, what `translate` gives."""
    texts = [source for source, _ in builtin_pairs("test", number)]
    translated = Translator.load(run, device="cpu", precision="fp32").translate(texts)
    return dict(zip(texts, translated, strict=True))


@pytest.mark.slow
def test_sixteen_clients_get_what_translate_gives_and_faster_than_one(process: ServerProcess, babbler: Path) -> None:
    expected = translations(babbler, 211)
    one, many = (load(process.client, expected, num_clients=number, seconds=3) for number in (1, 16))
    assert (one.num_wrong, many.num_wrong) == (0, 0)
    assert {*one.statuses, *many.statuses} == {200}
    assert many.texts_per_s > one.texts_per_s, "what waits is translated together"


@pytest.mark.slow
def test_hostile_requests_do_no_harm(process: ServerProcess) -> None:
    before = process.client.post("/translate", q="A man is sleeping.").json
    statuses = attack(process.client, 307, seed=23)
    assert {200, 404, 405, 422} <= statuses.keys()
    assert [status for status in statuses if status >= 500 and status != 503] == []
    assert process.client.post("/translate", q="A man is sleeping.").json == before


@pytest.mark.slow
def test_a_server_that_is_killed_under_load_starts_again(babbler: Path) -> None:
    expected = translations(babbler, 101)
    process = ServerProcess(babbler, "--precision", "fp32")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(load, process.client, expected, num_clients=5, seconds=10)
        time.sleep(1)
        process.stop(signal.SIGKILL)
        process = ServerProcess(babbler, "--precision", "fp32", port=process.port)
        found = asking.result()
    status, err = process.stop(signal.SIGTERM)
    assert found.num_lost > 0
    assert ({*found.statuses}, found.num_wrong) == ({200}, 0)
    assert (status, "Traceback" in err) == (0, False)


def long_request(process: ServerProcess) -> tuple[threading.Thread, list[int]]:
    """A request that takes seconds, under way, and its status when there is an answer."""
    text = "\n".join(source for source, _ in builtin_pairs("test", 101))
    answers: list[int] = []

    def ask() -> None:
        with contextlib.suppress(OSError):  # the server has ended
            answers.append(process.client.post("/translate", q=text).status)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    return thread, answers


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_what_it_has_accepted(babbler: Path, number: signal.Signals) -> None:
    process = ServerProcess(babbler, "--precision", "fp32", "--max-batch", "1")
    thread, answers = long_request(process)
    status, err = process.stop(number)
    thread.join(30)
    assert answers == [200]
    assert (status, err.splitlines()[-1]) == (0, "stopped")
    assert "Traceback" not in err
    with pytest.raises(OSError):
        process.client.get("/health")


@pytest.mark.slow
def test_a_second_interrupt_ends_it_at_once(babbler: Path) -> None:
    process = ServerProcess(babbler, "--precision", "fp32", "--max-batch", "1")
    thread, answers = long_request(process)
    process.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.process.poll() is None, "it answers what it has accepted"
    status, err = process.stop(signal.SIGINT)
    thread.join(30)
    assert (status, err.splitlines()[-1]) == (130, "interrupted")
    assert answers in ([503], [])
    assert "Traceback" not in err

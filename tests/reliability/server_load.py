"""A server under load, attacked, killed and restarted; every answer is compared with `translate`. Linux only.

python tests/reliability/server_load.py RUN --seconds 300 --clients 16 --hostile 10000
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from loopback import Client, KeptConnection
from memory_growth import Sample, memory_growth, monitor

from transformer.cli import run
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError
from transformer.inference.translator import Translator

NUM_TEXTS = 499
EVERY_S = 0.5


class ServerProcess:
    """`transformer serve` in a process, once it listens.

    Args:
        num_threads: that compute, unless OMP_NUM_THREADS is set; None: as many as the command finds right.
    """

    def __init__(self, *arguments: object, port: int = 0, num_threads: int | None = 1) -> None:
        command = [sys.executable, "-m", "transformer.commands", "serve", *map(str, arguments), "--port", str(port)]
        limit = {} if num_threads is None else {"OMP_NUM_THREADS": str(num_threads)}
        environment = {**limit, **os.environ}
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (a pipe could fill up)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)\n", line)
        if not found:
            _, err = self.stop(signal.SIGKILL)
            raise RuntimeError(f"{line}{err}")
        self.port = int(found[1])
        self.client = Client(self.port)

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Exit status and standard error after a signal."""
        self.process.send_signal(number)
        self.process.communicate(timeout=120)
        self.log.seek(0)
        return self.process.returncode, self.log.read()


@dataclass
class Load:
    """What clients saw."""

    seconds: float = 0.0
    num_texts: int = 0
    num_wrong: int = 0  # answers that are not those of `translate`
    latencies: list[float] = field(default_factory=list)
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    num_lost: int = 0  # connections that ended without an answer

    @property
    def texts_per_s(self) -> float:
        return self.num_texts / self.seconds

    def percentile(self, percent: int) -> float:
        """Of the latencies, in seconds."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1]


def load(
    client: Client,
    expected: Mapping[str, str],
    *,
    num_clients: int,
    seconds: float,
    several: float = 0.25,
    seed: int = 1,
) -> Load:
    """Let clients ask, each over a connection of its own and as soon as it is answered.

    They ask for three texts in this share of requests, otherwise for one.
    """
    found, lock, texts = Load(), threading.Lock(), list(expected)
    began = time.monotonic()

    def ask(number: int) -> None:
        rng, connection = random.Random(seed * 1009 + number), KeptConnection(client.port)
        while time.monotonic() - began < seconds:
            chosen = rng.sample(texts, 3 if rng.random() < several else 1)
            q = chosen if len(chosen) > 1 else chosen[0]
            start = time.monotonic()
            try:
                answer = connection.post("/translate", q=q)
            except OSError:
                with lock:
                    found.num_lost += 1
                time.sleep(0.05)
                continue
            latency = time.monotonic() - start
            with lock:
                found.statuses[answer.status] += 1
                if answer.status != 200:
                    continue
                found.latencies.append(latency)
                found.num_texts += len(chosen)
                wanted = [expected[text] for text in chosen]
                found.num_wrong += answer.json != {"translatedText": wanted if len(chosen) > 1 else wanted[0]}
        connection.close()

    with ThreadPoolExecutor(num_clients) as pool:
        list(pool.map(ask, range(num_clients)))
    found.seconds = time.monotonic() - began
    return found


_BODIES = [
    b'{"q": "A man is sleeping."}',
    b'{"q": ["a", "b"], "alternatives": 2}',
    b'{"q": ["", " ", "\\n\\r", "\\u0000", "\\u202e\\ud83d\\ude00"], "alignment": true, "token_scores": true}',
    b'{"q": "<b>A <i>man</b> is <!-- sleeping", "format": "html"}',
    b'{"q": "A", "source": "xx", "target": "\\u0000", "model": "../.."}',
    b'{"q": "A", "translation": "B", "alternatives": 1e99}',
    b"q=a&source=en&format=html&q=%ff",
    b"[" * 9000,
    b"",
]


def hostile(rng: random.Random) -> bytes:
    """A request that is wrong somewhere, or not one at all."""
    body = rng.choice(_BODIES)
    method = rng.choice(["POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PO ST", "\x00"])
    path = rng.choice(["/translate", "/translations", "/attention", "/languages", "/", "/../x", "/%00", "*", "/\xff"])
    length = rng.choice([len(body), len(body), len(body), len(body) + 5, 0, -1, 10**12, 10**30])
    form = "application/x-www-form-urlencoded"
    kind = rng.choice(["application/json", "application/json", form, "text/plain", "\x01"])
    lengths = f"Content-Type: {kind}\r\nContent-Length: {length}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lengths}\r\n"
    sent = bytearray(head.encode("latin-1") + body)
    for _ in range(rng.choice([0, 0, 0, 1, 3, 20])):
        position = rng.randrange(len(sent))
        change = rng.randrange(3)
        if change == 0:
            sent[position] = rng.randrange(256)
        elif change == 1:
            sent[position : position + rng.randrange(1, 9)] = b"x"
        else:
            sent[position:position] = rng.randbytes(rng.choice([1, 7, 3000]))
    return bytes(sent)


def attack(client: Client, number: int, *, seed: int = 1) -> collections.Counter[int]:
    """Send hostile requests, 32 at a time; how many answers have each status, 0 for none."""
    rng = random.Random(seed)
    statuses: collections.Counter[int] = collections.Counter()
    with ThreadPoolExecutor(32) as pool:
        for answer in pool.map(client.raw, (hostile(rng) for _ in range(number))):
            found = re.findall(rb"HTTP/1\.1 (\d+) ", answer)
            statuses.update(map(int, found) if found else [0])
    return statuses


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run from English, such as the quickstart's")
    parser.add_argument("--seconds", type=float, default=300, help="of load (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="at the same time (default: %(default)s)")
    parser.add_argument("--hostile", type=int, default=10_000, help="hostile requests (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        raise ConfigError("server_load.py needs /proc, which only Linux has")
    texts = [source for source, _ in builtin_pairs("test", NUM_TEXTS)]
    translator = Translator.load(arguments.run, device="cpu", precision="fp32")
    expected = dict(zip(texts, translator.translate(texts), strict=True))
    server = ServerProcess(arguments.run, "--device", "cpu", "--precision", "fp32", num_threads=None)
    try:
        is_well = _loaded(server, expected, arguments.clients, arguments.seconds)
        is_well &= _attacked(server, expected, arguments.hostile)
    finally:
        server.stop(signal.SIGKILL)
    is_well &= _killed(arguments.run, expected, arguments.clients)
    print("all as it should be" if is_well else "FAILED")
    return 0 if is_well else 1


def _loaded(server: ServerProcess, expected: Mapping[str, str], num_clients: int, seconds: float) -> bool:
    one = load(server.client, expected, num_clients=1, seconds=seconds / 10, several=0)
    _log("one client", _speed(one))
    samples: list[Sample] = []
    is_done = threading.Event()
    sampler = threading.Thread(
        target=lambda: samples.extend(
            monitor(server.process, lambda: 0, until=lambda _: is_done.is_set(), every_s=EVERY_S)
        )
    )
    sampler.start()
    many = load(server.client, expected, num_clients=num_clients, seconds=seconds, several=0)
    is_done.set()
    sampler.join()
    _log(f"{num_clients} clients", f"{_speed(many)}, {many.texts_per_s / one.texts_per_s:.1f} times as many")
    growth = memory_growth(samples)
    _log("resident memory", f"{growth.rss_mib[0]:,.0f} MiB early, {growth.rss_mib[1]:,.0f} MiB late")
    wrong, refused = one.num_wrong + many.num_wrong, {*one.statuses, *many.statuses} - {200}
    _log("other answers than translate's", str(wrong))
    return wrong == one.num_lost == many.num_lost == 0 and not refused and growth.rss_mib[1] - growth.rss_mib[0] < 32


def _attacked(server: ServerProcess, expected: Mapping[str, str], number: int) -> bool:
    statuses = attack(server.client, number)
    shown = ", ".join(f"{count:,} {status or 'without an answer'}" for status, count in sorted(statuses.items()))
    _log(f"{number:,} hostile requests", shown)
    after = load(server.client, expected, num_clients=2, seconds=2)
    _log("after them", _speed(after))
    return after.num_wrong == 0 and not [status for status in statuses if status >= 500 and status != 503]


def _killed(run_: Path, expected: Mapping[str, str], num_clients: int) -> bool:
    """Kill it under load and start it again at the same port; then let a signal stop it under load."""
    server = ServerProcess(run_, "--device", "cpu", "--precision", "fp32")
    client = server.client
    with ThreadPoolExecutor(1) as pool:

        def under_load(seconds: float) -> Future[Load]:
            asking = pool.submit(load, client, expected, num_clients=num_clients, seconds=seconds)
            time.sleep(seconds / 4)
            return asking

        asking = under_load(12)
        server.stop(signal.SIGKILL)
        server = ServerProcess(run_, "--device", "cpu", "--precision", "fp32", port=server.port)
        killed = asking.result()
        asking = under_load(8)
        status, _ = server.stop(signal.SIGTERM)
        stopped = asking.result()
    _log("killed and restarted", f"{_speed(killed)}, {killed.num_lost} connections lost, {killed.num_wrong} wrong")
    refused = {*stopped.statuses} - {200}
    _log("stopped by SIGTERM", f"exit status {status}, {stopped.num_wrong} wrong, refused with {refused or 'none'}")
    is_answered = {*killed.statuses} == {200} and refused <= {503}
    return status == 0 and is_answered and killed.num_wrong == stopped.num_wrong == 0


def _speed(found: Load) -> str:
    latencies = ", ".join(f"p{percent} {1000 * found.percentile(percent):.0f} ms" for percent in (50, 95, 99))
    return f"{found.texts_per_s:.1f} texts/s, {latencies}"


def _log(name: str, value: str) -> None:
    print(f"{name:<32} {value}", flush=True)


if __name__ == "__main__":
    run(main)

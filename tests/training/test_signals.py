"""Signals: training finishes its update, saves and prints how to resume; a second Ctrl-C or SIGTERM acts as usual."""

from __future__ import annotations

import os
import runpy
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from transformer.config import Config, load_config
from transformer.training import signals as signals_module
from transformer.training.signals import StopRequest, ctrl_c_ends_at_once

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
BOTH = (signal.SIGINT, signal.SIGTERM)
WARNINGS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


@pytest.fixture
def received() -> Iterator[list[int]]:
    """The signals that reach the previous handlers."""
    numbers: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        numbers.append(number)

    previous = {number: signal.signal(number, receive) for number in (*BOTH, *WARNINGS)}
    yield numbers
    for number, handler in previous.items():
        signal.signal(number, handler)


def test_without_a_signal_there_is_no_request(received: list[int]) -> None:
    with StopRequest() as stop:
        assert stop() is None
        assert stop.signal is None
    assert received == []


@pytest.mark.parametrize("number", [*BOTH, *WARNINGS])
def test_the_first_signal_is_remembered(received: list[int], number: signal.Signals) -> None:
    with StopRequest() as stop:
        signal.raise_signal(number)
        assert stop() == number.name
        assert stop() == number.name, "calling does not reset it"
    assert stop.signal is number
    assert received == []


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize("second", BOTH)
def test_a_second_signal_acts_as_usual(received: list[int], first: signal.Signals, second: signal.Signals) -> None:
    with StopRequest() as stop:
        signal.raise_signal(first)
        signal.raise_signal(second)
        assert received == [second]
        assert stop.signal is first


@pytest.mark.parametrize("first", [*BOTH, *WARNINGS])
@pytest.mark.parametrize("second", WARNINGS)
def test_a_warning_never_ends_training_at_once(
    received: list[int], first: signal.Signals, second: signal.Signals
) -> None:
    """A closed terminal sends SIGHUP twice, and schedulers may repeat theirs."""
    with StopRequest() as stop:
        for number in (first, second, second):
            signal.raise_signal(number)
        assert stop.signal is first
    assert received == []


@pytest.mark.parametrize("warning", WARNINGS)
def test_after_a_warning_the_first_sigterm_lets_training_save(received: list[int], warning: signal.Signals) -> None:
    with StopRequest() as stop:
        signal.raise_signal(warning)
        signal.raise_signal(signal.SIGTERM)
        assert received == []
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert stop.signal is warning


@pytest.mark.parametrize("number", WARNINGS)
def test_a_warning_that_was_ignored_stays_ignored(received: list[int], number: signal.Signals) -> None:
    """As nohup does with SIGHUP."""
    signal.signal(number, signal.SIG_IGN)
    with StopRequest() as stop:
        signal.raise_signal(number)
        assert stop() is None
    assert signal.getsignal(number) == signal.SIG_IGN
    assert received == []


def test_where_there_are_no_such_signals_the_others_are_heeded(
    received: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals_module, "_WARNINGS", ())  # as on Windows
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop() == "SIGTERM"
    assert received == []


def test_in_long_library_calls_ctrl_c_ends_at_once() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ZeroDivisionError), ctrl_c_ends_at_once():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        _ = 1 // 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_a_caller_is_left_alone_in_long_library_calls(received: list[int]) -> None:
    with ctrl_c_ends_at_once():
        signal.raise_signal(signal.SIGINT)
    assert received == [signal.SIGINT]


def test_other_threads_leave_the_handlers_alone() -> None:
    seen = []

    def run() -> None:
        with ctrl_c_ends_at_once():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_second_ctrl_c_interrupts(received: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopRequest():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert received == []


@pytest.mark.parametrize("number", [None, *BOTH, *WARNINGS])
def test_the_handlers_are_restored(received: list[int], number: signal.Signals | None) -> None:
    before = [signal.getsignal(other) for other in (*BOTH, *WARNINGS)]
    with StopRequest():
        assert all(signal.getsignal(other) not in before for other in (*BOTH, *WARNINGS))
        if number is not None:
            signal.raise_signal(number)
    assert [signal.getsignal(other) for other in (*BOTH, *WARNINGS)] == before
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_the_handlers_are_restored_after_an_error(received: list[int]) -> None:
    with pytest.raises(ZeroDivisionError), StopRequest():
        _ = 1 // 0
    signal.raise_signal(signal.SIGINT)
    assert received == [signal.SIGINT]


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        *(pytest.param(number, 128 + number, marks=pytest.mark.slow) for number in (signal.SIGTERM, *WARNINGS)),
    ],
)
def test_a_signal_saves_and_ends_training(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals, status: int
) -> None:
    path = tmp_path / "tiny run.yaml"
    path.write_text(tiny_config.to_yaml())
    arguments = ["tiny run.yaml", "train.max_steps=99991", "train.validate_steps=99991", f"run_dir={tmp_path / 'run'}"]
    checkpoints = tmp_path / "run" / "checkpoints"
    with subprocess.Popen(
        [sys.executable, str(TRAIN), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            while not list(checkpoints.glob("step-*")):
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
            printed, _ = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == status
    *_, reason, advice = printed.splitlines()
    last = max(path.name for path in checkpoints.iterdir())
    step = int(last.removeprefix("step-"))
    assert reason == f"{number.name} after step {step}; checkpoints are in {tmp_path / 'run'}"
    assert advice == f"go on with: {shlex.join([sys.executable, str(TRAIN), *arguments])}"
    assert (checkpoints / last / "training.json").is_file()

    # The same command, but for where to stop.
    main = runpy.run_path(str(TRAIN))["main"]
    assert main([str(path), *arguments[2:], f"train.max_steps={step + 2}"]) == 0
    printed = capsys.readouterr().out
    assert f"\nresuming after step {step}\n" in printed
    assert f"\ntrain.max_steps={step + 2} reached after step {step + 2}; " in printed
    assert load_config(path).train.max_steps == 11, "the file of the user is left alone"


def test_in_another_thread_there_are_no_handlers_and_no_request() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    seen: list[object] = []

    def run() -> None:
        with StopRequest() as stop:
            seen.append([signal.getsignal(number) for number in BOTH])
            seen.append(stop())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before, None]
    assert [signal.getsignal(number) for number in BOTH] == before

"""Jobs in a thread: their order, their errors, and waiting for them."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from transformer.training.background import Background


class Gate:
    """A job that ends when it is let through."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.has_begun.set()
        assert self.may_end.wait(20)


def fail(error: BaseException) -> Callable[[], None]:
    def job() -> None:
        raise error

    return job


def test_jobs_run_in_order_in_one_thread_while_the_one_that_gives_them_goes_on() -> None:
    background, gate, done = Background(threaded=True), Gate(), list[tuple[int, int]]()
    background.submit(gate)
    for number in range(3):
        background.submit(lambda number=number: done.append((number, threading.get_ident())))
    assert gate.has_begun.wait(20)
    assert done == []
    gate.may_end.set()
    background.wait()
    assert [number for number, _ in done] == [0, 1, 2]
    (thread,) = {thread for _, thread in done}
    assert thread != threading.get_ident()
    while thread in {alive.ident for alive in threading.enumerate()}:  # it ends when nothing is to do
        time.sleep(0.01)
    background.submit(lambda: done.clear())
    background.wait()
    assert done == []


def test_without_a_thread_a_job_runs_at_once_and_raises_its_error() -> None:
    background, done = Background(threaded=False), list[int]()
    background.submit(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]
    with pytest.raises(ZeroDivisionError):
        background.submit(fail(ZeroDivisionError()))
    background.wait()


def test_an_error_drops_the_jobs_behind_it_and_is_raised_once() -> None:
    for call in (Background.check, Background.wait, lambda one: one.submit(lambda: None)):
        background, gate, done = Background(threaded=True), Gate(), list[int]()
        background.submit(gate)
        background.submit(fail(ZeroDivisionError("first")))
        background.submit(lambda: done.append(1))  # noqa: B023
        background.submit(fail(ValueError("second")))
        background.check()  # it has not happened yet
        gate.may_end.set()
        background.drain()
        with pytest.raises(ZeroDivisionError, match="first"):
            call(background)
        assert done == []
        background.wait()
        background.submit(lambda: done.append(2))  # noqa: B023
        background.wait()
        assert done == [2]


def test_ctrl_c_is_raised_when_the_jobs_are_done() -> None:
    background, gate, done = Background(threaded=True), Gate(), list[int]()

    def interrupt() -> None:
        for _ in range(3):
            time.sleep(0.05)
            signal.raise_signal(signal.SIGINT)
        gate.may_end.set()

    background.submit(gate)
    background.submit(lambda: done.append(1))
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        background.wait()
    assert done == [1]
    background.wait()


def test_a_job_that_ctrl_c_keeps_from_the_queue_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    background, done = Background(threaded=True), list[int]()
    submit = ThreadPoolExecutor.submit

    def interrupted(self: ThreadPoolExecutor, job: Callable[[], None], /, *, is_queued: bool) -> None:
        if is_queued:
            submit(self, job).result()
        raise KeyboardInterrupt

    for is_queued in (False, True):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ThreadPoolExecutor, "submit", functools.partialmethod(interrupted, is_queued=is_queued))
            background.submit(lambda is_queued=is_queued: done.append(is_queued))
        background.wait()
    assert done == [True]


def test_a_job_runs_at_once_where_the_system_has_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    background, done = Background(threaded=True), list[int]()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: fail(RuntimeError("can't start new thread"))())
        background.submit(lambda: done.append(threading.get_ident()))
        background.wait()
    assert done == [threading.get_ident()]
    background.submit(lambda: done.append(threading.get_ident()))
    background.wait()
    assert done[1] != done[0]

"""What waits is computed together, in turn and with equal work only; nothing is lost, crossed or waited for in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from transformer.serving import batching
from transformer.serving.batching import (
    Batcher,
    ClientBusyError,
    QueueFullError,
    RefusedError,
    StoppingError,
)


class UpperCase:
    """Writes texts in capitals, as soon as its gate is open; an error for those that begin with `bad`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()

    def __call__(self, texts: Sequence[str], first_number: int) -> list[str]:
        self.batches.append([*texts])
        assert self.gate.wait(10)
        for number, text in enumerate(texts, first_number):
            if text.startswith("bad"):
                raise ValueError(f"text {number} is {text}")
        return [text.upper() for text in texts]


def until(is_so: Any) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def work() -> Iterator[UpperCase]:
    work = UpperCase()
    yield work
    work.gate.set()


def occupy(batcher: Batcher, work: UpperCase) -> Future[list[Any]]:
    """Let the thread compute something, so that what follows waits."""
    future = batcher.submit(work, ["first"], "another client")
    until(lambda: work.batches)
    return future


def results(*futures: Future[list[Any]]) -> list[list[Any]]:
    return [future.result(10) for future in futures]


def test_what_waits_is_computed_together_and_each_request_gets_its_own(work: UpperCase) -> None:
    batcher = Batcher()
    first = occupy(batcher, work)
    futures = [batcher.submit(work, texts) for texts in (["a", "b", "c"], ["d"], ["e", "f"])]
    work.gate.set()
    assert results(first, *futures) == [["FIRST"], ["A", "B", "C"], ["D"], ["E", "F"]]
    assert work.batches == [["first"], ["a", "d", "e", "b", "f", "c"]]
    batcher.close()
    assert (batcher.num_batches, batcher.num_texts) == (2, 7)


def test_a_long_request_does_not_hold_up_short_ones(work: UpperCase) -> None:
    batcher = Batcher(max_batch=2)
    occupy(batcher, work)
    long = batcher.submit(work, ["a", "b", "c", "d", "e"])
    short = [batcher.submit(work, [text]) for text in ("x", "y")]
    work.gate.set()
    assert results(long, *short) == [["A", "B", "C", "D", "E"], ["X"], ["Y"]]
    assert work.batches[1:] == [["a", "x"], ["y", "b"], ["c", "d"], ["e"]]


def test_different_works_take_turns_and_are_never_mixed() -> None:
    works = [UpperCase(), UpperCase()]
    works[1].gate.set()
    batcher = Batcher(max_batch=2)
    occupy(batcher, works[0])
    done: list[int] = []
    futures = []
    for i in (0, 1):
        futures.append(batcher.submit(works[i], [f"{i}{k}" for k in range(4)]))
        futures[-1].add_done_callback(lambda _, i=i: done.append(i))
    works[0].gate.set()
    assert results(*futures) == [["00", "01", "02", "03"], ["10", "11", "12", "13"]]
    assert works[0].batches == [["first"], ["00", "01"], ["02", "03"]]
    assert works[1].batches == [["10", "11"], ["12", "13"]]
    assert done == [0, 1], "the second work did not wait for the end of the first, nor the other way round"


def test_an_error_is_that_of_its_request_alone(work: UpperCase) -> None:
    batcher = Batcher()
    occupy(batcher, work)
    good, bad, other = (batcher.submit(work, texts) for texts in (["a", "b"], ["c", "bad one", "d"], ["e"]))
    work.gate.set()
    assert results(good, other) == [["A", "B"], ["E"]]
    with pytest.raises(ValueError, match="text 2 is bad one"):
        bad.result(10)
    assert results(batcher.submit(work, ["and on"])) == [["AND ON"]]


def test_a_request_that_fails_alone_is_not_computed_twice(work: UpperCase) -> None:
    work.gate.set()
    with pytest.raises(ValueError, match="text 1 is bad"):
        Batcher().submit(work, ["bad"]).result(10)
    assert work.batches == [["bad"]]


def test_too_few_results_are_an_error_and_not_an_answer() -> None:
    batcher = Batcher()
    with pytest.raises(ValueError, match="zip"):
        batcher.submit(lambda _texts, _number: [], ["a"]).result(10)
    assert batcher.submit(lambda texts, _number: texts, ["b"]).result(10) == ["b"]


def test_what_is_cancelled_is_not_computed(work: UpperCase) -> None:
    batcher = Batcher(max_waiting=2)
    occupy(batcher, work)
    dropped = batcher.submit(work, ["a", "b"])
    assert dropped.cancel()
    kept = batcher.submit(work, ["c", "d"])  # for which there is room again
    work.gate.set()
    assert results(kept) == [["C", "D"]]
    assert work.batches == [["first"], ["c", "d"]]
    with pytest.raises(CancelledError):
        dropped.result(10)


def test_what_is_cancelled_while_it_is_computed_harms_no_other(work: UpperCase) -> None:
    batcher = Batcher()
    first = occupy(batcher, work)
    assert first.cancel()
    work.gate.set()
    assert results(batcher.submit(work, ["a"])) == [["A"]]


def test_no_texts_have_no_results(work: UpperCase) -> None:
    assert results(Batcher().submit(work, [])) == [[]]


def test_more_texts_than_the_queue_holds_are_refused(work: UpperCase) -> None:
    batcher = Batcher(max_waiting=3)
    occupy(batcher, work)
    batcher.submit(work, ["a", "b"])
    with pytest.raises(QueueFullError, match="2 texts are waiting") as refusal:
        batcher.submit(work, ["c", "d"])
    assert refusal.value.retry_after_s == 1
    accepted = batcher.submit(work, ["c"])
    work.gate.set()
    assert results(accepted) == [["C"]]


def test_a_request_of_more_texts_is_accepted_when_nothing_waits(work: UpperCase) -> None:
    work.gate.set()
    batcher = Batcher(max_batch=2, max_waiting=3)
    assert results(batcher.submit(work, ["a"] * 5)) == [["A"] * 5]


def test_a_client_has_only_so_many_requests_waiting(work: UpperCase) -> None:
    batcher = Batcher(max_client_requests=2)
    occupy(batcher, work)
    for text in ("a", "b"):
        batcher.submit(work, [text], "one")
    with pytest.raises(ClientBusyError, match="2 requests of this client are waiting"):
        batcher.submit(work, ["c"], "one")
    other = batcher.submit(work, ["d"], "other")
    work.gate.set()
    assert results(other) == [["D"]]


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (2.5, 5), (1e6, 60)])
def test_clients_are_told_how_long_the_queue_takes(work: UpperCase, seconds: float, expected: int) -> None:
    batcher = Batcher(max_waiting=2)
    batcher._seconds_per_text = seconds
    occupy(batcher, work)
    batcher.submit(work, ["a", "b"])
    with pytest.raises(RefusedError) as refusal:
        batcher.submit(work, ["c"])
    assert refusal.value.retry_after_s == expected


def test_after_a_stop_what_waits_is_computed_and_nothing_new_accepted(work: UpperCase) -> None:
    batcher = Batcher()
    first = occupy(batcher, work)
    waiting = batcher.submit(work, ["a"])
    batcher.stop()
    with pytest.raises(StoppingError, match="the server is stopping"):
        batcher.submit(work, ["b"])
    threading.Timer(0.05, work.gate.set).start()
    batcher.close()
    assert first.done()
    assert results(waiting) == [["A"]]


def test_a_batcher_that_did_nothing_can_be_closed() -> None:
    Batcher().close()


def test_the_requests_of_a_batch_are_ended_together(work: UpperCase) -> None:
    batcher, handed_over = Batcher(), threading.Semaphore(0)
    ends: list[Any] = []

    def hand_over(end_requests: Any) -> None:
        ends.append(end_requests)
        handed_over.release()

    batcher.hand_over = hand_over
    first = occupy(batcher, work)
    futures = [batcher.submit(work, [text]) for text in ("a", "b", "bad")]
    work.gate.set()
    for _ in range(4):  # the first batch, and after the error each text alone
        assert handed_over.acquire(timeout=10)
    assert not any(future.done() for future in (first, *futures))
    for end_requests in ends:
        end_requests()
    assert results(first, *futures[:2]) == [["FIRST"], ["A"], ["B"]]
    with pytest.raises(ValueError, match="text 1 is bad"):
        futures[2].result(0)


def test_what_follows_an_accepted_request_is_never_refused(work: UpperCase) -> None:
    batcher = Batcher(max_waiting=1, max_client_requests=1)
    occupy(batcher, work)
    batcher.submit(work, ["a"])
    assert not batcher.is_stopping
    batcher.stop()
    assert batcher.is_stopping
    more = batcher.submit(work, ["b"], is_accepted=True)
    work.gate.set()
    assert results(more) == [["B"]]
    batcher.close()


def test_things_are_put_in_order_now_and_then(work: UpperCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_BATCHES_BETWEEN_RESTS", 2)
    rests: list[str] = []
    batcher = Batcher(rest=lambda: rests.append(threading.current_thread().name))
    work.gate.set()
    for _ in range(5):
        results(batcher.submit(work, ["a"]))
    batcher.close()
    assert rests == ["translation"] * 2


def test_long_texts_are_not_computed_with_many_others(work: UpperCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MOST_CHARACTERS", 7)
    batcher = Batcher()
    occupy(batcher, work)
    futures = [batcher.submit(work, texts) for texts in (["abc", "defghijkl"], ["mno", "p"], ["qr"])]
    work.gate.set()
    assert results(*futures) == [["ABC", "DEFGHIJKL"], ["MNO", "P"], ["QR"]]
    assert work.batches[1:] == [["abc", "mno"], ["qr"], ["defghijkl"], ["p"]]


def test_after_a_stop_the_rest_of_an_accepted_request_is_computed_until_the_end(work: UpperCase) -> None:
    batcher = Batcher()
    first = occupy(batcher, work)
    batcher.stop()
    work.gate.set()
    assert results(first) == [["FIRST"]]
    time.sleep(0.05)  # in which the thread has nothing to do
    assert results(batcher.submit(work, ["b"], is_accepted=True)) == [["B"]]
    batcher.close()
    with pytest.raises(StoppingError, match="the server is stopping"):
        batcher.submit(work, ["c"], is_accepted=True)


class Unequal(UpperCase):
    """Cannot be compared with other works."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("not comparable")

    __hash__ = None  # type: ignore[assignment]


def exits(*_: Any) -> list[str]:
    raise SystemExit(3)


def broken(*_: Any) -> None:
    raise ValueError("the loop is closed")


@pytest.mark.parametrize("cause", ["work", "comparison", "hand_over", "rest"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_requests_fail_with_the_thread_and_the_next_one_starts_another(
    work: UpperCase, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    monkeypatch.setattr(batching, "_BATCHES_BETWEEN_RESTS", 1 if cause == "rest" else 10**6)
    batcher = Batcher(rest=broken)
    occupied = occupy(batcher, work)
    if cause == "hand_over":
        batcher.hand_over = broken
    others = [batcher.submit(exits if cause == "work" else Unequal() if cause == "comparison" else work, ["a"])]
    others.append(batcher.submit(work, ["b"]))
    work.gate.set()
    reason = {"work": "SystemExit: 3", "comparison": "ValueError: not comparable"}
    expected = reason.get(cause, "ValueError: the loop is closed")
    for future in [*others, *([occupied] if cause == "hand_over" else [])]:
        with pytest.raises(RuntimeError, match=f"^the thread that translates has ended by {expected}$"):
            future.result(10)
    batcher.hand_over = lambda end_requests: end_requests()
    monkeypatch.setattr(batching, "_BATCHES_BETWEEN_RESTS", 10**6)
    assert batcher.submit(work, ["c"]).result(10) == ["C"]
    batcher.close()


def test_texts_are_those_of_the_request_whatever_becomes_of_its_list(work: UpperCase) -> None:
    batcher = Batcher()
    occupy(batcher, work)
    texts = ["a", "b"]
    waiting = batcher.submit(work, texts)
    texts[0] = "changed"
    texts.append("more")
    work.gate.set()
    assert waiting.result(10) == ["A", "B"]
    assert batcher.submit(work, (text for text in texts)).result(10) == ["CHANGED", "B", "MORE"]  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a list of sentences, not one string"):
        batcher.submit(work, "abc")
    batcher.close()

"""Lines that arrive: answered when no more comes at once, in whole chunks when all come at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest

from transformer.inference import arriving
from transformer.inference.arriving import arriving_chunks


class Typist:
    """An iterator of lines that another thread provides."""

    def __init__(self) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()

    def __iter__(self) -> Iterator[str]:
        return iter(self.lines.get, None)


def test_a_line_is_answered_before_the_next_is_asked() -> None:
    typist = Typist()
    chunks = arriving_chunks(iter(typist), 7, 1 << 20)
    for number in range(5):
        typist.lines.put(f"line {number}")
        assert next(chunks) == [f"line {number}"]
    typist.lines.put(None)
    assert list(chunks) == []


def test_lines_that_came_meanwhile_are_one_chunk() -> None:
    typist = Typist()
    chunks = arriving_chunks(iter(typist), 7, 1 << 20)
    typist.lines.put("first")
    assert next(chunks) == ["first"]
    for line in ("a", "b", "c", None):
        typist.lines.put(line)
    assert list(chunks) == [["a", "b", "c"]]


@pytest.mark.parametrize("num_lines", [0, 1, 4000, 4001, 20011])
def test_a_fast_producer_fills_whole_chunks(num_lines: int) -> None:
    sizes = []
    for chunk in arriving_chunks(map(str, range(num_lines)), 4000, 1 << 20):
        sizes.append(len(chunk))
        time.sleep(0.05)  # work; meanwhile the thread reads on
    assert sum(sizes) == num_lines
    assert max(sizes, default=0) <= 4000
    # A busy machine may give the first line before the others.
    assert len(sizes) <= -(-num_lines // 4000) + 1


def test_nothing_is_lost_or_reordered() -> None:
    lines = list(map(str, range(5003)))
    assert [line for chunk in arriving_chunks(iter(lines), 17, 101) for line in chunk] == lines


def test_the_characters_of_a_chunk_are_limited() -> None:
    chunks = list(arriving_chunks(iter(["x" * 5] * 11), 7, 11))
    assert [len(chunk) for chunk in chunks if chunk] == [3, 3, 3, 2]


def test_a_full_buffer_is_not_read_into() -> None:
    num_read = 0

    def lines() -> Iterator[str]:
        nonlocal num_read
        for number in range(1009):
            num_read += 1
            yield str(number)

    chunks = arriving_chunks(lines(), 7, 1 << 20)
    next(chunks)
    time.sleep(0.1)
    assert num_read <= 2 * 7 + 1
    chunks.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "reader" and not ended(thread)]


def ended(thread: threading.Thread) -> bool:
    thread.join(5)
    return not thread.is_alive()


def test_a_steady_trickle_does_not_wait_for_a_whole_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "_PAUSE_S", 0.05)

    def lines() -> Iterator[str]:
        for number in range(101):
            time.sleep(0.005)
            yield str(number)

    assert len(next(arriving_chunks(lines(), 4000, 1 << 20))) < 60


def test_an_error_comes_after_the_lines_before_it() -> None:
    def lines() -> Iterator[str]:
        yield from ("a", "b")
        raise KeyError("c")

    chunks = arriving_chunks(lines(), 7, 1 << 20)
    assert next(chunks) == ["a", "b"]
    with pytest.raises(KeyError, match="c"):
        next(chunks)

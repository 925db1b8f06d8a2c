"""Lines of an input that is still arriving, through a pipe, a socket or from a slow producer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

# How long to wait for more once a line is there: a producer writes several in a burst. A person notices neither.
_PAUSE_S = 0.01
_LONGEST_WAIT_S = 0.1
# On Windows, Ctrl-C does not end a wait without a time limit.
_POLL_S = 0.5


class _Buffer:
    """What a thread has read and not yet given away; it stops reading while full."""

    def __init__(self, lines: Iterator[str], size: int, max_characters: int) -> None:
        self._lines, self._size, self._max_characters = lines, size, max_characters
        self._buffer: deque[str] = deque()
        self._num_characters = 0
        self._is_over = False
        self._is_wanted = True
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def read(self) -> None:
        """Read all lines: the thread."""
        try:
            for line in self._lines:
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_full() or not self._is_wanted)
                    if not self._is_wanted:
                        return
                    self._buffer.append(line)
                    self._num_characters += len(line)
                    self._changed.notify_all()
        except BaseException as error:  # raised again where the lines are used
            self._error = error
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def take(self) -> list[str]:
        """Wait for a line, then take all that have arrived; none at the end. Raises what reading raised."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._buffer or self._is_over, _POLL_S):
                pass
            deadline, num_seen = time.monotonic() + _LONGEST_WAIT_S, 0
            while num_seen < len(self._buffer) and not self._is_settled() and time.monotonic() < deadline:
                num_seen = len(self._buffer)
                self._changed.wait_for(self._is_settled, _PAUSE_S)
            chunk = list(self._buffer)
            self._buffer.clear()
            self._num_characters = 0
            self._changed.notify_all()
        if not chunk and self._error is not None:
            raise self._error
        return chunk

    def stop(self) -> None:
        """End the thread, at the latest with the next line that it reads."""
        with self._changed:
            self._is_wanted = False
            self._changed.notify_all()

    def _is_full(self) -> bool:
        return len(self._buffer) >= self._size or self._num_characters >= self._max_characters

    def _is_settled(self) -> bool:
        return self._is_over or self._is_full()


def arriving_chunks(lines: Iterator[str], size: int, max_characters: int) -> Iterator[list[str]]:
    """Chunk lines that arrive one by one: what has arrived, when no more comes at once.

    A thread reads on while a chunk is worked on, so that a fast producer fills whole chunks. An error of `lines` is
    raised after the lines before it.

    Args:
        size: the most lines of a chunk.
        max_characters: a chunk ends with the line that reaches so many.
    """
    buffer = _Buffer(lines, size, max_characters)
    threading.Thread(target=buffer.read, daemon=True, name="reader").start()
    try:
        while chunk := buffer.take():
            yield chunk
    finally:
        buffer.stop()

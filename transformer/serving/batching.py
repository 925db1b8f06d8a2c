"""Dynamic batching: what waits while a model computes is computed together, in one thread."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Protocol

from transformer.inference.arguments import text_list

_LONGEST_WAIT_S = 60  # that a client is told to wait
_NEWEST = 0.2  # the newest batch's share of the running mean of seconds per text
# Of a batch of several texts: as much as is searched at a time, so that long texts do not hold up others for longer.
_MOST_CHARACTERS = 16_384
_BATCHES_BETWEEN_RESTS = 256  # some seconds of small batches


class Work(Protocol):
    """What is done with texts. Works that are equal are done together."""

    def __call__(self, texts: Sequence[str], first_number: int) -> Sequence[Any]:
        """A result for each text; `first_number` is that of the first, for messages."""
        ...


class RefusedError(Exception):
    """A request is not accepted now.

    Attributes:
        retry_after_s: whole seconds after which it may be.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(RefusedError):
    """More texts wait than the queue holds."""


class ClientBusyError(RefusedError):
    """A client has as many requests waiting as it may."""


class StoppingError(RefusedError):
    """The server stops, and accepts nothing new."""


@dataclass(eq=False)
class _Job:
    """A request: texts with the same work, from one client."""

    work: Work
    texts: Sequence[str]
    client: str
    future: Future[list[Any]] = field(default_factory=Future)
    results: dict[int, Any] = field(default_factory=dict)
    num_taken: int = 0

    @property
    def num_waiting(self) -> int:
        """Texts that are in no batch yet; none once the request has ended."""
        return 0 if self.future.done() else len(self.texts) - self.num_taken

    def take(self) -> _Part:
        """The next text."""
        self.num_taken += 1
        return _Part(self, self.num_taken - 1)

    def finish(self, index: int, result: Any) -> None:
        """Keep the result of a text; the last one ends the request."""
        self.results[index] = result
        if len(self.results) == len(self.texts):
            self._end(lambda: self.future.set_result([self.results[i] for i in range(len(self.texts))]))

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        self._end(lambda: self.future.set_exception(error))

    def _end(self, end: Callable[[], None]) -> None:
        try:
            end()
        except InvalidStateError:  # it has failed before, or was cancelled because its client has gone
            return


@dataclass(frozen=True, eq=False)
class _Part:
    """A text of a request."""

    job: _Job
    index: int

    @property
    def text(self) -> str:
        return self.job.texts[self.index]


class Batcher:
    """Does the work of requests in one thread, together of those that wait at the same time.

    A batch has the work of the request that has waited longest, and texts of all requests with equal work in turn, up
    to a number of texts and of characters, so that a long request does not hold up short ones. If a batch fails, its
    texts are tried one by one: an error is that of its request alone. Results depend on the batch only if those of the
    work do.

    Args:
        max_batch: the most texts of a batch.
        max_waiting: the most texts of all requests that wait.
        max_client_requests: the most requests of a client that wait.
        rest: called in the thread after every `_BATCHES_BETWEEN_RESTS` batches, to put things in order.

    Attributes:
        hand_over: calls a function that ends the requests of a batch, by default in the thread itself.
        num_batches, num_texts: computed so far.
    """

    def __init__(
        self,
        *,
        max_batch: int = 64,
        max_waiting: int = 1024,
        max_client_requests: int = 128,
        rest: Callable[[], object] = lambda: None,
    ) -> None:
        self.max_batch, self.max_waiting, self.max_client_requests = max_batch, max_waiting, max_client_requests
        self.hand_over: Callable[[Callable[[], None]], object] = lambda end_requests: end_requests()
        self.num_batches, self.num_texts = 0, 0
        self._rest = rest
        self._jobs: list[_Job] = []  # the next one first
        self._batch: list[_Part] = []  # that is being computed
        self._changed = threading.Condition()
        self._is_stopping = self._is_closed = False
        self._thread: threading.Thread | None = None
        self._seconds_per_text = 0.0

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is accepted any more."""
        return self._is_stopping

    def submit(
        self, work: Work, texts: Sequence[str], client: str = "", *, is_accepted: bool = False
    ) -> Future[list[Any]]:
        """Let the texts of a request wait for a batch.

        Args:
            work: what is done with them.
            client: whose request it is.
            is_accepted: whether they belong to a request that was accepted before; then they are refused only after
                `close`.

        Returns:
            The future list of results, one for each text. When it is cancelled, the texts that wait are dropped.

        Raises:
            StoppingError: after `stop`.
            QueueFullError, ClientBusyError: as many texts, or requests of this client, wait as may.
            TypeError: `texts` is one string, or one of them is not text.
        """
        texts = text_list(texts)  # a copy: the caller's list may change while they wait
        job = _Job(work, texts, client)
        if not texts:
            job.future.set_result([])
            return job.future
        with self._changed:
            self._jobs = [one for one in self._jobs if one.num_waiting]  # without those that were cancelled
            if not is_accepted or self._is_closed:
                self._check(len(texts), client)
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="translation", daemon=True)
                self._thread.start()
            self._changed.notify()
        return job.future

    def _check(self, num_texts: int, client: str) -> None:
        num_waiting = self._num_waiting()
        retry_after_s = min(_LONGEST_WAIT_S, max(1, math.ceil(num_waiting * self._seconds_per_text)))
        if self._is_stopping:
            raise StoppingError("the server is stopping", retry_after_s)
        of_client = sum(job.client == client for job in self._jobs)
        if of_client >= self.max_client_requests:
            raise ClientBusyError(f"{of_client} requests of this client are waiting", retry_after_s)
        # A request of more texts than the queue holds is accepted when nothing else waits.
        if self._jobs and num_waiting + num_texts > self.max_waiting:
            raise QueueFullError(f"{num_waiting} texts are waiting", retry_after_s)

    def stop(self) -> None:
        """Accept nothing new; what waits is still computed. A handler of signals may call it."""
        # Without the lock, which the thread may hold that the signal has interrupted.
        self._is_stopping = True

    def close(self) -> None:
        """Stop, and return when all that waits is computed."""
        self.stop()
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if (thread := self._thread) is not None:
            thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._break_off(error)
            raise

    def _break_off(self, error: BaseException) -> None:
        """Fail all requests when the thread ends, or they would wait for ever; the next one starts another.

        It ends by what a work does not raise for a text, such as SystemExit, and by errors of `hand_over` and `rest`.
        """
        with self._changed:
            self._thread = None
            jobs, self._jobs = {*self._jobs, *(part.job for part in self._batch)}, []
        failure = RuntimeError(f"the thread that translates has ended by {type(error).__name__}: {error}")
        failure.__cause__ = error
        for job in jobs:
            job.fail(failure)

    def _work(self) -> None:
        while batch := self._next():
            self._batch = batch
            start = time.monotonic()
            self._compute(batch)
            newest = (time.monotonic() - start) / len(batch)
            self._seconds_per_text += (newest - self._seconds_per_text) * (_NEWEST if self.num_batches else 1.0)
            self.num_batches += 1
            self.num_texts += len(batch)
            self._batch = batch = []  # or its texts and results would be kept until there is another
            if self.num_batches % _BATCHES_BETWEEN_RESTS == 0:
                self._rest()

    def _next(self) -> list[_Part]:
        """The next batch, as soon as there is one; empty at the end."""
        with self._changed:
            while True:
                if batch := self._take():  # none if all were cancelled
                    return batch
                if self._is_closed:
                    return []
                self._changed.wait()

    def _num_waiting(self) -> int:
        return sum(job.num_waiting for job in self._jobs)

    def _take(self) -> list[_Part]:
        self._jobs = [job for job in self._jobs if job.num_waiting]
        if not self._jobs:
            return []
        in_turn = deque(job for job in self._jobs if job.work == self._jobs[0].work)
        batch: list[_Part] = []
        num_characters = 0
        while in_turn and len(batch) < self.max_batch:
            job = in_turn.popleft()
            num_characters += len(job.texts[job.num_taken])
            if batch and num_characters > _MOST_CHARACTERS:
                break
            batch.append(job.take())
            if job.num_waiting:
                in_turn.append(job)
        # A request that has more goes to the end, or requests with other work would wait until all of it is done.
        served = {part.job for part in batch}
        waiting = [job for job in self._jobs if job.num_waiting]
        self._jobs = [*(job for job in waiting if job not in served), *(job for job in waiting if job in served)]
        return batch

    def _compute(self, batch: Sequence[_Part]) -> None:
        """Compute a batch, or after an error each of its texts alone."""
        first = batch[0]
        try:
            # If the first text is alone, it keeps its number; others are numbered when they are tried alone.
            found = first.job.work([part.text for part in batch], first.index + 1)
            results = list(zip(batch, found, strict=True))
        except Exception as error:
            if len(batch) == 1:
                self.hand_over(functools.partial(first.job.fail, error))
                return
            for part in batch:
                if not part.job.future.done():  # else it has failed, or its client has gone
                    self._compute([part])
            return
        self.hand_over(functools.partial(_finish, results))


def _finish(results: Sequence[tuple[_Part, Any]]) -> None:
    for part, result in results:
        part.job.finish(part.index, result)

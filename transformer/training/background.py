"""Work that goes on in a thread while training does: one job after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Background:
    """Runs jobs in order in one thread, or at once if it is not to be `threaded`.

    The first error of a job drops those behind it, and is raised in the thread that gives jobs: by the next call of
    `submit`, `check` or `wait`.
    """

    def __init__(self, *, threaded: bool) -> None:
        self.threaded = threaded
        self._pool: ThreadPoolExecutor | None = None
        self._jobs: list[_Job] = []  # that may not be done
        self._error: BaseException | None = None

    def submit(self, run: Callable[[], object]) -> None:
        """Run a job, in the thread once those before it are done."""
        self.check()
        if not self.threaded:
            run()
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "background")
        job = _Job(lambda: self._run(run))
        self._jobs = [one for one in self._jobs if not one.is_done.is_set()]
        try:
            self._jobs.append(job)
            self._pool.submit(job)
        except RuntimeError:  # the system has no thread left: the first job of a pool starts it
            self._pool = None
            job()
            self.check()
        except BaseException:  # Ctrl-C: it is in the queue, or will never be
            job.cancel()
            raise

    def check(self) -> None:
        """Raise the error of a job, if there is one; does not wait."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait for all jobs; raise the error of one, if there is one."""
        self.drain()
        self.check()

    def drain(self) -> None:
        """Wait for all jobs, also through Ctrl-C, which is raised afterwards."""
        # What a job has begun is never left behind: another trainer might clean up the files that it writes. Threads
        # are not joined: Python 3.11 takes one for finished if Ctrl-C comes while it is joined.
        interruption: KeyboardInterrupt | None = None
        while self._jobs:
            try:
                self._jobs[0].is_done.wait()
                del self._jobs[0]
            except KeyboardInterrupt as error:
                interruption = error
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None
        if interruption is not None:
            raise interruption

    def _run(self, run: Callable[[], object]) -> None:
        if self._error is None:
            try:
                run()
            except BaseException as error:
                self._error = error


class _Job:
    """Runs once, unless it is cancelled before."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.is_done = threading.Event()
        self._run: Callable[[], object] | None = run
        self._turn = threading.Lock()  # taken by what comes first

    def __call__(self) -> None:
        if self._turn.acquire(blocking=False):
            try:
                if self._run is not None:
                    self._run()
            finally:
                self._run = None  # and with it what it holds
                self.is_done.set()

    def cancel(self) -> None:
        """Do not run, unless it runs already."""
        if self._turn.acquire(blocking=False):
            self.is_done.set()

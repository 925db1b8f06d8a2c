"""Runs fuzz cases in child processes, so that crashes, hangs and huge allocations are caught."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import resource
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformer.errors import UserError

# One case, in its own directory. It returns, or raises UserError or OSError; anything else is a fault.
Case = Callable[[random.Random, Path], None]

_CASES_PER_CHILD = 1000
_LONGEST_ERROR = 5000  # characters


class InvariantError(AssertionError):
    """A violated invariant that raises nothing by itself, such as lost lines."""


@dataclass
class Stats:
    """The results of a target's cases."""

    cases: int = 0
    ok: int = 0
    errors: int = 0  # expected ones, of one line
    worst_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def fuzz(name: str, case: Case, numbers: range, *, seed: int, limit_s: float, memory: int) -> Stats:
    """Run the cases with these numbers; name, seed and number determine a case.

    Args:
        name: name of the target.
        case: the function to call.
        numbers: numbers of the cases.
        seed: seed of all cases.
        limit_s: time after which a case counts as hanging.
        memory: bytes that a child may allocate on top of what it starts with.
    """
    stats = Stats()
    first = numbers.start
    while first < numbers.stop:
        first = _fuzz_in_child(name, case, range(first, numbers.stop), seed, limit_s, memory, stats)
    return stats


def run_case(case: Case, rng: random.Random, directory: Path) -> str | None:
    """Run one case in this process; returns its fault, or None. Expected errors are raised."""
    try:
        case(rng, directory)
    except (UserError, OSError) as error:
        message = str(error)
        if isinstance(error, UserError) and ("\n" in message or len(message) > _LONGEST_ERROR):
            return f"an error of several lines or of {len(message)} characters: {message[:100]!r}"
        raise
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]!r} in {Path(last.filename).name}:{last.lineno}"
    return None


def _fuzz_in_child(name: str, case: Case, numbers: range, seed: int, limit_s: float, memory: int, stats: Stats) -> int:
    """Run cases in one child; returns the number of the first case that it did not run."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException), os.fdopen(writing, "w") as pipe:
            _work(name, case, numbers[:_CASES_PER_CHILD], seed, limit_s, memory, pipe.write, pipe.flush)
        os._exit(0)
    os.close(writing)
    number = numbers.start
    with os.fdopen(reading) as pipe:
        for line in _lines_in_time(pipe.fileno(), 2 * limit_s):
            outcome = json.loads(line)
            number += 1
            stats.cases += 1
            stats.worst_s = max(stats.worst_s, outcome["s"])
            stats.ok += outcome["what"] == "ok"
            stats.errors += outcome["what"] == "error"
            if outcome["what"] == "fault":
                stats.faults.append(f"{name} case {number - 1}: {outcome['why']}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if number < min(numbers.start + _CASES_PER_CHILD, numbers.stop):
        died = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status >> 8}"
        stats.faults.append(f"{name} case {number}: ended the process, or hung, or took its memory ({died})")
        stats.cases += 1
        number += 1
    return number


def _lines_in_time(file: int, limit_s: float) -> Iterator[bytes]:
    """Lines read from a pipe until it closes, or until none has come for `limit_s`."""
    rest = b""
    while select.select([file], [], [], limit_s)[0] and (block := os.read(file, 1 << 16)):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def _work(
    name: str,
    case: Case,
    numbers: range,
    seed: int,
    limit_s: float,
    memory: int,
    write: Callable[[str], object],
    flush: Callable[[], object],
) -> None:
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + memory, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(devnull, descriptor)
    signal.signal(signal.SIGALRM, _hangs)
    faulthandler.disable()  # the parent reports a crash
    for number in numbers:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
            began = time.perf_counter()
            what, why = "ok", None
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            try:
                why = run_case(case, random.Random(f"{name} {seed} {number}"), Path(directory))
                what = "ok" if why is None else "fault"
            except (UserError, OSError):
                what = "error"
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            seconds = time.perf_counter() - began
        write(json.dumps({"what": what, "why": why, "s": seconds}) + "\n")
        flush()


def _hangs(*_: object) -> None:
    raise InvariantError("takes too long")

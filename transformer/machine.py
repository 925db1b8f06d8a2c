"""The machine of this process: its CPUs, how its threads wait for each other, and no place for temporary files."""

import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_NUM_LOOKS, _PAUSE_S = 5, 0.002
_LOAD, _OWN_THREADS = Path("/proc/loadavg"), Path("/proc/self/task")
_PROCESS, _MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def num_cpus() -> int:
    """CPUs by affinity and by the quotas of control groups, at least 1.

    `os.cpu_count` is the machine's, of which a container may have a part, as by `docker run --cpus=1.5`. A part of a
    CPU counts as one.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([available, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """CPUs that the control groups of this process allow, of version 1 and 2, with the groups above them.

    A container may see its own group as the root, where the path of the group does not exist.
    """
    for controllers, path in re.findall(r"^\d+:(.*?):(.*)$", _read(_PROCESS), re.MULTILINE):
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            directory = _MOUNTED / controllers / str(group).lstrip("/")
            if not controllers:
                quota, _, period = _read(directory / "cpu.max").partition(" ")
            elif "cpu" in controllers.split(","):
                quota, period = (_read(directory / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            else:
                continue
            if re.fullmatch(r"\d+\s*", quota) and re.fullmatch(r"[1-9]\d*\s*", period):  # not "max" or -1: unlimited
                yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def let_threads_sleep() -> None:
    """Let waiting threads give up their CPU if other programs need it, unless the user has decided otherwise.

    By default they spin for milliseconds, which makes translation much faster on idle CPUs. Beside another program the
    thread that is waited for cannot run meanwhile, and translation takes several times as long as with threads that
    sleep. libgomp reads this when torch is imported, so it comes before.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    if _num_running_others() + num_cpus() > (os.cpu_count() or 1):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def let_threads_sleep_soon() -> None:
    """Let waiting threads spin for a moment only, unless the user or `let_threads_sleep` has decided.

    For commands that run for hours: CPUs that are idle at the start may be busy later. Beside another program, an
    update takes as long as with threads that sleep at once, and on idle CPUs hardly longer than by default. Translation
    has shorter operations, for which a moment is too short on idle CPUs, and keeps the default. This comes before torch
    is imported, too.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def _num_running_others() -> int:
    """Threads of other programs that compute or wait for a CPU; 0 where the system does not tell."""
    counts = []
    for _ in range(_NUM_LOOKS):  # what runs only for a moment is not among all of them
        found = re.match(r"\S+ \S+ \S+ (\d+)/", _read(_LOAD))
        counts.append(int(found[1]) - _num_running_here() if found else 0)
        time.sleep(_PAUSE_S)
    return max(0, min(counts))


def _num_running_here() -> int:
    """Running threads of this process, such as those of a library that spin for a while after its import."""
    states = (_read(path) for path in _OWN_THREADS.glob("*/stat"))
    return max(1, sum(") R " in state for state in states))


def do_without_temporary_files() -> None:
    """Let torch be imported where no temporary file can be written, as in a read-only container.

    Importing it asks for the directory of temporary files, which is an error if there is none; it writes none there.
    """
    try:
        tempfile.gettempdir()
    except OSError:
        tempfile.tempdir = "/tmp"

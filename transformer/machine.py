"""The machine of this process: its CPUs, how its threads wait for each other, and no place for temporary files."""

import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_SPINS = "1000"  # some ten microseconds; libgomp's default is 300 times as many
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
    """Threads that wait for others soon give up their CPU, unless the user has decided otherwise.

    By default they spin for milliseconds. Where other programs need the CPUs, the thread that is waited for cannot run
    meanwhile, and two threads are several times as slow as one. Sleeping at once would make small products slower on a
    machine without other programs. libgomp reads this when torch is imported, so it comes before.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def do_without_temporary_files() -> None:
    """Let torch be imported where no temporary file can be written, as in a read-only container.

    Importing it asks for the directory of temporary files, which is an error if there is none; it writes none there.
    """
    try:
        tempfile.gettempdir()
    except OSError:
        tempfile.tempdir = "/tmp"

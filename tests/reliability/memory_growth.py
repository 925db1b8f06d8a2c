"""Memory, file handles and threads of another process over time, on Linux."""

from __future__ import annotations

import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Growth is more than this: memory kept by malloc varies by some MiB.
MAX_GROWTH_MIB = 32.0


@dataclass(frozen=True)
class Sample:
    """Resources of a process `seconds` after the first sample, with `progress` of its work done."""

    seconds: float
    rss_mib: float
    peak_virtual_mib: float
    num_files: int
    num_threads: int
    progress: int


@dataclass(frozen=True)
class Growth:
    """Early and late use of resources, after a warm-up: medians of RSS, otherwise maxima."""

    rss_mib: tuple[float, float]
    num_files: tuple[int, int]
    num_threads: tuple[int, int]

    @property
    def is_constant(self) -> bool:
        """Whether late use does not exceed early use."""
        return (
            self.rss_mib[1] - self.rss_mib[0] <= MAX_GROWTH_MIB
            and self.num_files[1] <= self.num_files[0]
            and self.num_threads[1] <= self.num_threads[0]
        )


def memory_growth(samples: Sequence[Sample]) -> Growth:
    """Compare the first quarter, after a tenth of warm-up, with the last. ValueError below 8 samples."""
    if len(samples) < 8:
        raise ValueError(f"{len(samples)} samples are too few to tell growth: at least 8")
    warm = samples[len(samples) // 10 :]
    quarter = len(warm) // 4
    early, late = warm[:quarter], warm[-quarter:]
    return Growth(
        (statistics.median(x.rss_mib for x in early), statistics.median(x.rss_mib for x in late)),
        (max(x.num_files for x in early), max(x.num_files for x in late)),
        (max(x.num_threads for x in early), max(x.num_threads for x in late)),
    )


def start(command: Sequence[str], *, cap_mib: float | None = None, log: Path) -> subprocess.Popen[bytes]:
    """Start a Python script, with output to a log and a limit on virtual memory as by `ulimit -v`."""

    def limit() -> None:
        # A shell's background jobs ignore it, and children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if cap_mib is not None:
            resource.setrlimit(resource.RLIMIT_AS, (int(cap_mib * 2**20), int(cap_mib * 2**20)))

    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, *command], stdout=file, stderr=file, preexec_fn=limit)


def monitor(
    process: subprocess.Popen[bytes],
    progress: Callable[[], int],
    *,
    until: Callable[[Sample], bool] = lambda _: False,
    every_s: float,
) -> list[Sample]:
    """Sample a process until it ends or `until` is true of a sample."""
    began = time.monotonic()
    samples: list[Sample] = []
    while process.poll() is None:
        if found := _sample(process.pid, time.monotonic() - began, progress()):
            samples.append(found)
            if until(found):
                break
        time.sleep(every_s)
    return samples


def _sample(pid: int, seconds: float, progress: int) -> Sample | None:
    """None if the process has ended."""
    directory = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (directory / "status").read_text().splitlines())
        num_files = sum(1 for _ in (directory / "fd").iterdir())
        rss, peak = (int(status[name].split()[0]) / 2**10 for name in ("VmRSS", "VmPeak"))
    except (OSError, KeyError):  # an ending process has no memory entries
        return None
    return Sample(seconds, rss, peak, num_files, int(status["Threads"]), progress)

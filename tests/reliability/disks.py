"""Train and translate on file systems that are full, read-only, gone or slow, then resume on intact ones.

python tests/reliability/disks.py [--background]

They are mounted in a private mount namespace, invisible to other processes. Prints a line for each; exits with status
1 if anything was lost or an error took more than one line. Linux only, with user namespaces enabled.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from differences import broken, last_step, leftovers, names
from run_lifecycle import Ending, Harness, Lifecycle

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
# Additional time to flush a file, so that the disk can change during a run.
SLOW_S = 0.03
ENOUGH_KIB = 65_536
# Fractions of the size of an undisturbed run: from the corpus alone to all but the last checkpoint.
PARTS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)


class Disk:
    """An in-memory file system mounted at `directory`, and at a second place that stays mounted."""

    def __init__(self, directory: Path) -> None:
        self.directory, self._always = directory, directory.with_name(f"{directory.name}.always")
        for path in (self.directory, self._always):
            path.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={ENOUGH_KIB}k", "tmpfs", self._always)
        self.come_back()

    def remount(self, option: str) -> None:
        run("mount", "-o", f"remount,{option}", self._always)

    def resize(self, kib: int) -> None:
        self.remount(f"size={kib}k")

    def go_away(self) -> None:
        run("umount", "--lazy", self.directory)

    def come_back(self) -> None:
        run("mount", "--bind", self._always, self.directory)

    def used_kib(self) -> int:
        return shutil.disk_usage(self.directory).used >> 10


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


def while_running(lifecycle: Lifecycle, act: Callable[[], None]) -> Ending:
    """Start a training and change its disk after its second save."""

    def watch() -> None:
        while len(names(lifecycle.root / "run" / "checkpoints")) < 2:
            time.sleep(0.001)
        act()

    threading.Thread(target=watch, daemon=True).start()
    return lifecycle.start({"slow_s": SLOW_S})


def error_faults(ending: Ending, reason: str) -> list[str]:
    """Faults of a program that should have ended with a one-line error with this reason."""
    *_, last = ending.printed.splitlines() or [""]
    faults = [] if ending.status == 2 else [f"status {ending.status}"]
    if not last.startswith("error: ") or reason not in last or "Traceback" in ending.printed:
        faults.append(f"says {ending.printed[-500:]!r}")
    return faults


def status_faults(ending: Ending, status: int) -> list[str]:
    """Faults of a program that should have ended with this status."""
    return [] if ending.status == status else [f"status {ending.status}: {ending.printed[-500:]}"]


def tried(lifecycle: Lifecycle, failure: str, ending: Ending, faults: Sequence[str]) -> tuple[str, list[str]]:
    """Start again on an intact disk; returns the line to print and the faults."""
    saved = last_step(lifecycle.root)
    found = [*faults, *broken(lifecycle.root)]
    again = lifecycle.start({})
    if again.status:
        found.append(f"then status {again.status}: {again.printed[-500:]}")
    else:
        found += lifecycle.scenario.faults(lifecycle)
    found += [f"left behind: {name}" for name in leftovers(lifecycle.root)]
    said = ending.printed.splitlines()[-1].replace(str(lifecycle.root), "") if ending.status == 2 else ""
    at = f", step {saved} saved" if lifecycle.scenario.name == "train" else ""
    return f"{failure}: status {ending.status}{at}; {'; '.join(found) or 'resumed without loss'}. {said}", found


def failures(new: Callable[[str], tuple[Disk, Lifecycle]]) -> Iterator[tuple[str, list[str]]]:
    """Run each kind of failure; yields the line to print and the faults."""
    disk, lifecycle = new("train")
    least = disk.used_kib()
    lifecycle.start({})
    most = disk.used_kib()
    for kind in ("train", "translate", "evaluate"):
        for part in PARTS if kind == "train" else PARTS[:1]:
            disk, lifecycle = new(kind)
            kib = least + round(part * (most - least)) if kind == "train" else disk.used_kib()
            disk.resize(kib)
            ending = lifecycle.start({})
            disk.resize(ENOUGH_KIB)
            yield tried(
                lifecycle, f"{kind}, full at {kib} KiB", ending, error_faults(ending, "No space left on device")
            )

    for kind in ("train", "resume", "translate", "evaluate", "average"):
        disk, lifecycle = new(kind)
        disk.remount("ro")
        ending = lifecycle.start({})
        disk.remount("rw")
        yield tried(lifecycle, f"{kind}, read-only", ending, error_faults(ending, "Read-only file system"))

    disk, lifecycle = new("train")
    ending = while_running(lifecycle, disk.go_away)
    faults = error_faults(ending, str(lifecycle.root)) + [f"created again: {path}" for path in disk.directory.iterdir()]
    disk.come_back()
    yield tried(lifecycle, "train, goes away", ending, faults)

    disk, lifecycle = new("train")
    ending = lifecycle.start({"slow_s": SLOW_S})
    yield tried(lifecycle, f"train, {SLOW_S} s slower to flush a file", ending, status_faults(ending, 0))

    disk, lifecycle = new("train")
    stop = {"point": "saving a checkpoint", "number": 19, "signals": [signal.SIGTERM], "delay_s": 0.0}
    ending = lifecycle.start({"slow_s": SLOW_S, **stop})
    yield tried(lifecycle, "train, SIGTERM during a slow save", ending, status_faults(ending, 143))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # run in the namespace, in this directory
    parser.add_argument(
        "--background", action="store_true", help="write checkpoints while training goes on, as on CUDA"
    )
    arguments = parser.parse_args(argv)
    directory = arguments.inside
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="disks-") as name:  # mounts end with the namespace
            return subprocess.call([*UNSHARE, sys.executable, __file__, "--inside", str(Path(name).resolve()), *argv])
    harness = Harness(directory, is_forked=True, in_background=arguments.background)
    harness.prepare(["train", "resume", "translate", "evaluate", "average"])
    numbers = itertools.count(1)

    def new(kind: str) -> tuple[Disk, Lifecycle]:
        disk = Disk(directory / f"disk{next(numbers)}")
        return disk, harness.new(kind, disk.directory)

    num_lost = num_tried = 0
    for line, faults in failures(new):
        num_tried += 1
        num_lost += bool(faults)
        print(line, flush=True)
    print(f"{num_tried} disks, {num_tried - num_lost} survived, {num_lost} lost something")
    return bool(num_lost)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

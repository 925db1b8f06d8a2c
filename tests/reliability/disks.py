"""Train and translate on file systems that are full, read-only, gone or slow, and go on when they are well again.

python tests/reliability/disks.py

They are mounted in a namespace of this program's own, where no other process sees them. Prints a line for each;
status 1 if anything was lost or said in more than one line. Linux only, where users may have namespaces.
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

from differences import broken, last_step, names, remains
from run_lifecycle import Ending, Laboratory, Life

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
# How much longer each file takes to be flushed, so that a disk can change while a run is on it.
SLOW_S = 0.03
ENOUGH_KIB = 65_536
# Of what an undisturbed run takes up: from nothing but the corpus to all but the last checkpoint.
PARTS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)


class Disk:
    """A file system in memory at `directory`, through which programs reach it, and at another place that stays."""

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


def while_running(life: Life, act: Callable[[], None]) -> Ending:
    """Start a training whose disk is changed when it has saved twice."""

    def watch() -> None:
        while len(names(life.root / "run" / "checkpoints")) < 2:
            time.sleep(0.001)
        act()

    threading.Thread(target=watch, daemon=True).start()
    return life.start({"slow_s": SLOW_S})


def complaints(ending: Ending, reason: str) -> list[str]:
    """What is wrong with the way in which a program ended for such a reason."""
    *_, last = ending.printed.splitlines() or [""]
    faults = [] if ending.status == 2 else [f"status {ending.status}"]
    if not last.startswith("error: ") or reason not in last or "Traceback" in ending.printed:
        faults.append(f"says {ending.printed[-500:]!r}")
    return faults


def unlike(ending: Ending, status: int) -> list[str]:
    """What is wrong with a program that should have ended with this status."""
    return [] if ending.status == status else [f"status {ending.status}: {ending.printed[-500:]}"]


def tried(life: Life, trouble: str, ending: Ending, faults: Sequence[str]) -> tuple[str, list[str]]:
    """Start again on a disk that is well; the line to print, and what was lost."""
    saved = last_step(life.root)
    found = [*faults, *broken(life.root)]
    again = life.start({})
    if again.status:
        found.append(f"then status {again.status}: {again.printed[-500:]}")
    else:
        found += life.plan.faults(life)
    found += [f"left behind: {name}" for name in remains(life.root)]
    said = ending.printed.splitlines()[-1].replace(str(life.root), "") if ending.status == 2 else ""
    at = f", step {saved} saved" if life.plan.name == "train" else ""
    return f"{trouble}: status {ending.status}{at}; {'; '.join(found) or 'went on as undisturbed'}. {said}", found


def troubles(new: Callable[[str], tuple[Disk, Life]]) -> Iterator[tuple[str, list[str]]]:
    """Each disk with what came of it."""
    disk, life = new("train")
    least = disk.used_kib()
    life.start({})
    most = disk.used_kib()
    for kind in ("train", "translate", "evaluate"):
        for part in PARTS if kind == "train" else PARTS[:1]:
            disk, life = new(kind)
            kib = least + round(part * (most - least)) if kind == "train" else disk.used_kib()
            disk.resize(kib)
            ending = life.start({})
            disk.resize(ENOUGH_KIB)
            yield tried(life, f"{kind}, full at {kib} KiB", ending, complaints(ending, "No space left on device"))

    for kind in ("train", "go on", "translate", "evaluate", "average"):
        disk, life = new(kind)
        disk.remount("ro")
        ending = life.start({})
        disk.remount("rw")
        yield tried(life, f"{kind}, read-only", ending, complaints(ending, "Read-only file system"))

    disk, life = new("train")
    ending = while_running(life, disk.go_away)
    faults = complaints(ending, str(life.root)) + [f"made anew: {path}" for path in disk.directory.iterdir()]
    disk.come_back()
    yield tried(life, "train, goes away", ending, faults)

    disk, life = new("train")
    ending = life.start({"slow_s": SLOW_S})
    yield tried(life, f"train, {SLOW_S} s slower to flush a file", ending, unlike(ending, 0))

    disk, life = new("train")
    stop = {"moment": "saving a checkpoint", "number": 19, "signals": [signal.SIGTERM], "delay_s": 0.0}
    ending = life.start({"slow_s": SLOW_S, **stop})
    yield tried(life, "train, SIGTERM during a slow save", ending, unlike(ending, 143))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # of the namespace, in this directory
    directory = parser.parse_args(argv).inside
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="disks-") as name:  # its mounts end with the namespace
            return subprocess.call([*UNSHARE, sys.executable, __file__, "--inside", str(Path(name).resolve())])
    laboratory = Laboratory(directory, is_forked=True)
    laboratory.prepare(["train", "go on", "translate", "evaluate", "average"])
    numbers = itertools.count(1)

    def new(kind: str) -> tuple[Disk, Life]:
        disk = Disk(directory / f"disk{next(numbers)}")
        return disk, laboratory.begin(kind, disk.directory)

    num_lost = num_tried = 0
    for line, faults in troubles(new):
        num_tried += 1
        num_lost += bool(faults)
        print(line, flush=True)
    print(f"{num_tried} disks, {num_tried - num_lost} survived, {num_lost} lost something")
    return bool(num_lost)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

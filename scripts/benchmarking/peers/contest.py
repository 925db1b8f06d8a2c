"""This program and its peers, run in turn."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarking.peers.environments import EnvironmentBuildError, build
from benchmarking.peers.peer import Peer, PeerError, Speed, Task
from benchmarking.report import Report
from transformer.data.pairs import digest_of

Log = Callable[[str], None]
_UNITS = {"train": "tokens/s", "decode": "sentences per CPU second"}


@dataclass
class Entry:
    """A peer at a task, with its runs so far."""

    peer: Peer
    python: Path
    task: Task
    runs: list[Speed] = field(default_factory=list)

    def __str__(self) -> str:
        beam = f" beam {self.task.beam}" if self.task.what == "decode" else ""
        return f"{self.task.what} {self.task.size}{beam} {self.peer.name} {self.task.precision}"

    def row(self) -> Report:
        """Median and range of the runs."""
        values = [run.value for run in self.runs]
        return {
            "what": self.task.what,
            "size": self.task.size,
            "beam": self.task.beam if self.task.what == "decode" else None,
            "peer": self.peer.name,
            "title": self.peer.title,
            "precision": self.task.precision,
            "threads": self.task.threads,
            "median": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            "peak_memory_gib": max(run.peak_memory_gib for run in self.runs),
        }


@dataclass(frozen=True)
class LeftOut:
    """What was not measured, and why."""

    of: str
    reason: str


class Contest:
    """Runs peers in turn, so that noise of the machine affects all.

    Args:
        pythons: the peers that can run, with their interpreters.
        log: told every run.

    Attributes:
        entries: what is measured.
        left_out: what is not.
    """

    def __init__(self, pythons: Sequence[tuple[Peer, Path]], log: Log) -> None:
        self.pythons, self.log = pythons, log
        self.entries: list[Entry] = []
        self.left_out: list[LeftOut] = []

    def enter(self, task: Task, beams: Sequence[int]) -> None:
        """Let all peers take part in a task, in all their precisions; `task.work` is the directory of all peers."""
        for peer, python in self.pythons:
            # Of this model: a kept file of other sizes would be measured without a word.
            model = digest_of(dataclasses.asdict(task.sizes), task.seed)[:8]
            of_peer = dataclasses.replace(task, work=task.work / peer.name / f"{task.size}-{model}")
            entries = [
                Entry(peer, python, dataclasses.replace(of_peer, precision=precision, beam=beam))
                for precision in peer.precisions(task.what)
                for beam in (beams if task.what == "decode" else (1,))
            ]
            try:
                if entries:
                    peer.prepare(python, entries[0].task)
            except PeerError as error:
                self._leave_out(f"{task.what} {task.size} {peer.name}", error)
            else:
                self.entries += entries

    def run(self, rounds: int) -> list[Report]:
        """Measure everything `rounds` times, and return a row for each entry."""
        for number in range(1, rounds + 1):
            for entry in list(self.entries):
                try:
                    speed = entry.peer.measure(entry.python, entry.task)
                except PeerError as error:
                    self._leave_out(str(entry), error)
                    self.entries.remove(entry)
                    continue
                entry.runs.append(speed)
                self.log(
                    f"round {number} of {rounds}: {entry}: {speed.value:,.5g} {_UNITS[entry.task.what]}, "
                    f"{speed.peak_memory_gib:.2f} GiB"
                )
        return [entry.row() for entry in self.entries]

    def _leave_out(self, of: str, error: Exception) -> None:
        self.left_out.append(LeftOut(of, str(error)))
        self.log(f"left out: {of}: {error}")


def built(
    peers: Sequence[Peer], own_python: Path, cache: Path, log: Log
) -> tuple[list[tuple[Peer, Path]], list[LeftOut]]:
    """The peers whose environments can be built, with their interpreters; and the others."""
    ready: list[tuple[Peer, Path]] = []
    failed: list[LeftOut] = []
    for peer in peers:
        try:
            python = own_python if peer.environment is None else build(peer.environment, cache / "environments", log)
        except EnvironmentBuildError as error:
            failed.append(LeftOut(peer.name, str(error)))
            log(f"left out: {peer.name}: {error}")
        else:
            ready.append((peer, python))
    return ready, failed

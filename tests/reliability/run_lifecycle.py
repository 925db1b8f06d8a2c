"""Programs that are killed on the way, started again, and compared with undisturbed ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from differences import broken, differing_checkpoints, differing_runs, files, last_step, remains
from processes import REPOSITORY, SABOTEUR, start_anew, start_forked

from transformer.data.builtin import builtin_pairs
from transformer.training.run import find_checkpoint

# 30 is no multiple of save_steps: the last checkpoint is one that only the end writes.
LAST_STEP, HALF, SAVE_STEPS, KEEP = 30, 12, 4, 3
CONFIG = """
run_dir: {root}/run
seed: 7
model: {{d_model: 16, num_layers: 1, num_heads: 2, d_ff: 29, dropout: 0.1}}
data: {{corpus: "{root}/corpus/{{split}}.{{lang}}", vocab_size: 211, cache_dir: "{root}/cache"}}
train: {{tokens_per_update: 307, max_tokens: 307, warmup_steps: 13, max_steps: {max_steps}, log_steps: 3,
        validate_steps: 6, save_steps: {save_steps}, save_minutes: null, keep_checkpoints: {keep},
        precision: {precision}, device: cpu, num_threads: 1}}
search: {{beam: 2, max_extra: 7}}
"""
SIZES = {"train": 307, "validation": 17, "test": 61}
# Longer than anything here takes on a busy machine.
TIMEOUT_S = 300
# From the first signal to the end: an update, a validation and a checkpoint on a very busy machine.
LONGEST_S = 30

# Signals are sent one after the other.
SIGNALS = {
    "KILL": [signal.SIGKILL],
    "TERM": [signal.SIGTERM],
    "INT": [signal.SIGINT],
    "INT INT": [signal.SIGINT, signal.SIGINT],
}


@dataclass(frozen=True)
class Kill:
    """What ends a process: `signals` at the event `number` of a moment, `delay_s` later.

    `any time` is `delay_s` after the start. In the middle of writing a file of tensors, when it comes to be larger than
    `limit` bytes, the system itself kills the process.
    """

    moment: str
    number: int
    signals: str
    delay_s: float = 0.0
    limit: int = 0

    def __str__(self) -> str:
        limit = f", {self.limit} bytes" if self.limit else ""
        return f"{self.moment} #{self.number}{limit}{f' + {self.delay_s:.3f} s' if self.delay_s else ''}"


@dataclass
class Plan:
    """One kind of life.

    Attributes:
        name: for the table.
        command: the program and its arguments, below the directory `{root}`.
        begin: makes a new directory what it is at the start of such a life.
        faults: what differs, at the end, from the same without kills; nothing if nothing was lost.
    """

    name: str
    command: list[str]
    begin: Callable[[Path], None]
    faults: Callable[[Life], list[str]]


@dataclass
class Life:
    """One run of one command, again and again, until it has come to its end."""

    plan: Plan
    seed: int
    root: Path
    is_forked: bool = False
    number: int = 0
    faults: list[str] = field(default_factory=list)

    def start(self, orders: dict[str, Any]) -> Ending:
        """Start the command and wait for its end."""
        self.number += 1
        report, output = (self.root.parent / f"{self.root.name}.{kind}" for kind in ("report", "output"))
        report.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join((str(SABOTEUR), str(REPOSITORY))),
            "SABOTEUR": json.dumps({"root": str(self.root), "report": str(report), "last": LAST_STEP, **orders}),
        }
        script, *arguments = [part.replace("{root}", str(self.root)) for part in self.plan.command]
        struck_at, what = None, ""
        is_forked = self.is_forked and orders.get("moment") not in ("importing", "any time")
        start = start_forked if is_forked else start_anew
        process = start(str(REPOSITORY / "scripts" / script), arguments, environment, output)
        try:
            if orders.get("moment") == "any time":
                time.sleep(orders["delay_s"])
                struck_at = time.time()
                for place, number in enumerate(orders["signals"]):
                    time.sleep(0.1 * bool(place))
                    process.send_signal(number)
            status = process.wait(TIMEOUT_S)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        ended_at = time.time()
        if report.exists() and (lines := report.read_text().splitlines()):
            first = json.loads(lines[0])
            struck_at, what = first["at"], first["what"]
        elif status == -signal.SIGXFSZ:
            struck_at = ended_at
        took = None if struck_at is None else ended_at - struck_at
        return Ending(status, took, what, output.read_text())


@dataclass(frozen=True)
class Ending:
    """How a process ended: its status, how long after the first signal (None: it got none), at which event."""

    status: int
    took_s: float | None
    what: str
    printed: str


class Laboratory:
    """The undisturbed results and the kinds of lives, in a directory of its own.

    Args:
        directory: an empty one.
        precision: `train.precision`.
        is_forked: programs start in forks of a process that has imported all they need, which takes tenths of a second
            instead of seconds; but for those to be killed while they import or at any time.
    """

    def __init__(self, directory: Path, precision: str = "fp32", *, is_forked: bool = False) -> None:
        self.directory = directory
        self.precision = precision
        self.is_forked = is_forked
        self.num_lives = 0
        train = ["train.py", "{root}/config.yaml"]
        averaging = ["average.py", "{root}/run", "--last", "3"]
        evaluation = ["evaluate.py", "{root}/run", "--output", "{root}/output", "--json"]
        translation = ["translate.py", "{root}/run", "{root}/corpus/lines.en", "--output", "{root}/output"]
        translation += ["--beam", "1"]
        self.plans = [
            Plan("train", train, self._begin_new, self._run_faults),
            Plan("go on", train, self._begin_half, self._run_faults),
            Plan("average", averaging, self._begin_averaging, self._averaging_faults),
            Plan("evaluate", evaluation, self._begin_trained, self._output_faults),
            Plan("translate", translation, self._begin_trained, self._output_faults),
        ]

    def prepare(self, kinds: Sequence[str]) -> None:
        """Work out, without kills, what the kinds of lives are to be compared with."""
        self.whole = self._undisturbed("train", self._begin_new)
        if {"go on", "average"} & set(kinds):
            self.half = self.directory / "half"
            self._undisturbed("train", lambda root: self._begin_new(root, HALF), self.half)
            self._undisturbed("average", lambda _: None, self.half)
        self.undisturbed = {
            name: self._undisturbed(name, self._plan(name).begin)
            for name in kinds
            if name in ("average", "evaluate", "translate")
        }

    def live(self, name: str, seed: int, kills: Sequence[Kill]) -> tuple[list[tuple[Kill, Ending]], Life]:
        """Go through one life with these kills; what happened, line by line, is printed.

        Returns the kills that came to be, each with what it did, and the life with its faults.
        """
        life = self.begin(name, self.directory / f"life{self.num_lives}", seed)
        self.num_lives += 1
        plan = life.plan
        done: list[tuple[Kill, Ending]] = []
        for kill in kills:
            before = last_step(life.root)
            ending = life.start(
                {
                    "moment": kill.moment,
                    "number": kill.number,
                    "limit": kill.limit,
                    "delay_s": kill.delay_s,
                    "signals": SIGNALS.get(kill.signals, []),
                }
            )
            after = last_step(life.root)
            if ending.took_s is not None:
                done.append((kill, ending))
            faults = broken(life.root)
            if after < before:
                faults.append(f"step {before} was saved, now step {after} is the last")
            if name == "average" and not self._has_average(life.root):
                faults.append("the old average is gone and the new one is not there")
            faults += status_faults(kill, ending)
            life.faults += faults
            self._say(life, kill, ending, f"step {before} to {after}", faults)
            if ending.status == 0:
                break
        ending = life.start({})
        if ending.status:
            life.faults.append(f"the last start: status {ending.status}: {ending.printed[-300:]}")
        else:
            life.faults += plan.faults(life)
        life.faults += [f"left behind: {name}" for name in remains(life.root)]
        print(f"  life {seed} ({name}): {'; '.join(life.faults) or 'as without kills'}", flush=True)
        if not life.faults:
            shutil.rmtree(life.root)
        return done, life

    def begin(self, name: str, root: Path, seed: int = 0) -> Life:
        """A life before its first start, in a directory that is empty or not there yet."""
        plan = self._plan(name)
        plan.begin(root)
        return Life(plan, seed, root, self.is_forked)

    def _say(self, life: Life, kill: Kill, ending: Ending, steps: str, faults: Sequence[str]) -> None:
        if ending.took_s is None:
            happened = f"not reached, status {ending.status}"
        else:
            at = f" at {ending.what}" if ending.what else ""
            happened = f"{kill.signals}{at}: status {ending.status} after {ending.took_s:.1f} s"
        left = ", ".join(remains(life.root)) or "nothing"
        lost = f" FAULTS: {'; '.join(faults)}" if faults else ""
        print(f"  life {life.seed} ({life.plan.name}) {kill}: {happened}; {steps}; left {left}{lost}", flush=True)

    def _plan(self, name: str) -> Plan:
        return next(plan for plan in self.plans if plan.name == name)

    def _undisturbed(self, name: str, begin: Callable[[Path], None], root: Path | None = None) -> Path:
        root = self.directory / f"whole {name}" if root is None else root
        begin(root)
        counts = self.directory / "counts.json"
        plan = self._plan(name)
        life = Life(plan, 0, root, self.is_forked)
        ending = life.start({"counts": str(counts)})
        if ending.status:
            raise RuntimeError(f"{name}: status {ending.status} without a kill: {ending.printed[-2000:]}")
        print(f"  undisturbed {name}: events {json.loads(counts.read_text())}", flush=True)
        return root

    def _begin_new(self, root: Path, max_steps: int = LAST_STEP) -> None:
        (root / "corpus").mkdir(parents=True)
        for split, size in SIZES.items():
            for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
                (root / "corpus" / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
        # A few more lines than are translated at a time.
        (root / "corpus" / "lines.en").write_text("It is.\n\n\n\n\n" * 803)
        values = {"root": root, "max_steps": max_steps, "save_steps": SAVE_STEPS, "keep": KEEP}
        (root / "config.yaml").write_text(CONFIG.format(precision=self.precision, **values))

    def _begin_half(self, root: Path) -> None:
        """A run of half the length with an average, which training may not leave."""
        self._move(self.half, root)
        path = root / "config.yaml"
        path.write_text(path.read_text().replace(f"max_steps: {HALF}", f"max_steps: {LAST_STEP}"))

    def _begin_averaging(self, root: Path) -> None:
        """A trained run that has an average of another number of checkpoints, which is to be replaced."""
        self._begin_trained(root)
        shutil.copytree(self.half / "run" / "averaged", root / "run" / "averaged")

    def _begin_trained(self, root: Path) -> None:
        self._move(self.whole, root)

    def _move(self, source: Path, root: Path) -> None:
        """Copy a directory, and change the names in its configuration; checkpoints stay as they were written."""
        shutil.copytree(source, root, dirs_exist_ok=True)
        for path in (root / "config.yaml", root / "run" / "config.yaml"):
            path.write_text(path.read_text().replace(str(source), str(root)))

    def _run_faults(self, life: Life) -> list[str]:
        return differing_runs(life.root, self.whole)

    def _averaging_faults(self, life: Life) -> list[str]:
        whole = self.undisturbed["average"]
        faults = differing_checkpoints(life.root / "run" / "averaged", whole / "run" / "averaged")
        if files(life.root / "run") != files(whole / "run"):
            faults.append(f"run holds {files(life.root / 'run')}, not {files(whole / 'run')}")
        return faults

    def _has_average(self, root: Path) -> bool:
        """Whether programs find the old average or the new one, whole."""
        found = find_checkpoint(root / "run")
        kept = (self.half / "run" / "averaged", self.undisturbed["average"] / "run" / "averaged")
        return any(not differing_checkpoints(found, average) for average in kept)

    def _output_faults(self, life: Life) -> list[str]:
        whole = self.undisturbed[life.plan.name]
        faults = []
        if (life.root / "output").read_bytes() != (whole / "output").read_bytes():
            faults.append("the output differs")
        if files(life.root) != files(whole):
            faults.append(f"more or less than there should be: {sorted({*files(life.root)} ^ {*files(whole)})}")
        return faults


def status_faults(kill: Kill, ending: Ending) -> list[str]:
    """What is wrong with the status of a process and the time that it took to end."""
    if (ending.took_s or 0.0) > LONGEST_S:
        return [f"took {ending.took_s:.1f} s to end"]
    if ending.status == 0:  # it was done, or not reached
        return []
    if ending.took_s is None:
        return [f"status {ending.status} without a kill: {ending.printed[-300:]}"]
    if kill.moment == "importing" and kill.signals.startswith("INT"):
        return []  # what is imported may make another error of the interruption, as numpy does
    number = signal.SIGXFSZ if kill.signals == "XFSZ" else SIGNALS[kill.signals][0]
    if ending.status not in (-number, 128 + number):
        return [f"status {ending.status}: {ending.printed[-300:]}"]
    return []

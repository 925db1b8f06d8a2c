"""Lifecycles of runs: programs are killed, restarted, and compared with undisturbed ones."""

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

from differences import broken, differing_checkpoints, differing_runs, files, last_step, leftovers
from processes import FAULT_INJECTION, REPOSITORY, start_anew, start_forked
from several_corpora import several_corpora

from transformer.data.builtin import builtin_pairs
from transformer.training.run_directory import find_checkpoint

# 30 is not a multiple of save_steps: the last checkpoint is written only at the end.
LAST_STEP, HALF, SAVE_STEPS, KEEP = 30, 12, 4, 3
CONFIG = """
run_dir: {root}/run
seed: 7
model: {{d_model: 16, num_layers: 1, num_heads: 2, d_ff: 29, dropout: 0.1}}
data: {{corpus: "{root}/corpus/{{split}}.{{lang}}", vocab_size: 211, cache_dir: "{root}/cache"}}
train: {{tokens_per_update: 307, max_tokens: 307, warmup_steps: 13, max_steps: {max_steps}, log_steps: 3,
        validate_steps: 6, save_steps: {save_steps}, save_minutes: null, keep_checkpoints: {keep},
        precision: {precision}, device: cpu, num_threads: 1{more}}}
search: {{beam: 2, max_length_offset: 7}}
"""
SIZES = {"train": 307, "validation": 17, "test": 61}
# More than anything here takes on a busy machine.
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
# A closed terminal, which is not drawn at random.
CLOSED = {"HUP HUP": [signal.SIGHUP, signal.SIGHUP]}


@dataclass(frozen=True)
class Kill:
    """A kill: `signals` are sent `delay_s` after event `number` of a kill point.

    For `any time`, that is `delay_s` after the start. For `mid-write`, the system kills the process when a file of
    tensors exceeds `limit` bytes.
    """

    point: str
    number: int
    signals: str
    delay_s: float = 0.0
    limit: int = 0

    def __str__(self) -> str:
        limit = f", {self.limit} bytes" if self.limit else ""
        return f"{self.point} #{self.number}{limit}{f' + {self.delay_s:.3f} s' if self.delay_s else ''}"


@dataclass
class Scenario:
    """A kind of lifecycle.

    Attributes:
        name: its name in the table.
        command: the program and its arguments; `{root}` is the directory of the lifecycle.
        set_up: prepares the directory for the first start.
        faults: lists the differences, at the end, from the same without kills.
    """

    name: str
    command: list[str]
    set_up: Callable[[Path], None]
    faults: Callable[[Lifecycle], list[str]]


@dataclass
class Lifecycle:
    """A command that is started again and again until it completes."""

    scenario: Scenario
    seed: int
    root: Path
    is_forked: bool = False
    in_background: bool = False  # checkpoints are written while training goes on
    number: int = 0
    faults: list[str] = field(default_factory=list)

    def start(self, options: dict[str, Any]) -> Ending:
        """Start the command and wait for its end."""
        self.number += 1
        report, output = (self.root.parent / f"{self.root.name}.{kind}" for kind in ("report", "output"))
        report.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join((str(FAULT_INJECTION), str(REPOSITORY))),
            "FAULT_INJECTION": json.dumps(
                {
                    "root": str(self.root),
                    "report": str(report),
                    "last": LAST_STEP,
                    "in_background": self.in_background,
                    **options,
                }
            ),
        }
        script, *arguments = [part.replace("{root}", str(self.root)) for part in self.scenario.command]
        killed_at, what = None, ""
        is_forked = self.is_forked and options.get("point") not in ("importing", "any time")
        start = start_forked if is_forked else start_anew
        process = start(str(REPOSITORY / "scripts" / script), arguments, environment, output)
        try:
            if options.get("point") == "any time":
                time.sleep(options["delay_s"])
                killed_at = time.time()
                for place, number in enumerate(options["signals"]):
                    time.sleep(0.1 * bool(place))
                    process.send_signal(number)
            status = process.wait(TIMEOUT_S)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        ended_at = time.time()
        if report.exists() and (lines := report.read_text().splitlines()):
            first = json.loads(lines[0])
            killed_at, what = first["at"], first["what"]
        elif status == -signal.SIGXFSZ:
            killed_at = ended_at
        took = None if killed_at is None else ended_at - killed_at
        return Ending(status, took, what, output.read_text())


@dataclass(frozen=True)
class Ending:
    """How a process ended: status, time since the first signal (None without one), event."""

    status: int
    took_s: float | None
    what: str
    printed: str


class Harness:
    """Runs lifecycles and compares them with undisturbed reference runs.

    Args:
        directory: an empty directory.
        precision: `train.precision`.
        more: further keys of the section train, each after a comma.
        is_forked: start programs in forks of a process that has imported everything, which takes tenths of a second
            instead of seconds, except those to be killed while importing or at any time.
        in_background: write checkpoints in a thread, as on CUDA; undisturbed runs write them in the loop.
    """

    def __init__(
        self,
        directory: Path,
        precision: str = "fp32",
        more: str = "",
        *,
        is_forked: bool = False,
        in_background: bool = False,
    ) -> None:
        self.directory, self.more, self.in_background = directory, more, in_background
        self.precision = precision
        self.is_forked = is_forked
        self.num_lifecycles = 0
        train = ["train.py", "{root}/config.yaml"]
        averaging = ["average.py", "{root}/run", "--last", "3"]
        evaluation = ["evaluate.py", "{root}/run", "--output", "{root}/output", "--json"]
        translation = ["translate.py", "{root}/run", "{root}/corpus/lines.en", "--output", "{root}/output"]
        translation += ["--beam", "1"]
        self.scenarios = [
            Scenario("train", train, self._set_up_new, self._run_faults),
            Scenario("resume", train, self._set_up_half, self._run_faults),
            Scenario("tune", train, self._set_up_tuning, self._run_faults),
            Scenario("corpora", train, self._set_up_corpora, self._run_faults),
            Scenario("average", averaging, self._set_up_averaging, self._averaging_faults),
            Scenario("evaluate", evaluation, self._set_up_trained, self._output_faults),
            Scenario("translate", translation, self._set_up_trained, self._output_faults),
        ]

    def prepare(self, kinds: Sequence[str]) -> None:
        """Make the reference runs of these kinds, without kills."""
        self.reference = self._run_uninterrupted("train", self._set_up_new)
        if {"resume", "average"} & set(kinds):
            self.half = self.directory / "half"
            self._run_uninterrupted("train", lambda root: self._set_up_new(root, HALF), self.half)
            self._run_uninterrupted("average", lambda _: None, self.half)
        self.references = {
            name: self._run_uninterrupted(name, self._scenario(name).set_up)
            for name in kinds
            if name in ("tune", "corpora", "average", "evaluate", "translate")
        }

    def run(self, name: str, seed: int, kills: Sequence[Kill]) -> tuple[list[tuple[Kill, Ending]], Lifecycle]:
        """Run one lifecycle with these kills, printing a line for each.

        Returns the kills that were reached, each with the ending of its process, and the lifecycle with its faults.
        """
        lifecycle = self.new(name, self.directory / f"lifecycle{self.num_lifecycles}", seed)
        self.num_lifecycles += 1
        scenario = lifecycle.scenario
        done: list[tuple[Kill, Ending]] = []
        for kill in kills:
            before = last_step(lifecycle.root)
            ending = lifecycle.start(
                {
                    "point": kill.point,
                    "number": kill.number,
                    "limit": kill.limit,
                    "delay_s": kill.delay_s,
                    "signals": (SIGNALS | CLOSED).get(kill.signals, []),
                }
            )
            after = last_step(lifecycle.root)
            if ending.took_s is not None:
                done.append((kill, ending))
            faults = broken(lifecycle.root)
            if after < before:
                faults.append(f"step {before} was saved, now step {after} is the last")
            if name == "average" and not self._has_average(lifecycle.root):
                faults.append("the old average is gone and the new one is not there")
            faults += status_faults(kill, ending)
            lifecycle.faults += faults
            self._log(lifecycle, kill, ending, f"step {before} to {after}", faults)
            if ending.status == 0:
                break
        ending = lifecycle.start({})
        if ending.status:
            lifecycle.faults.append(f"the last start: status {ending.status}: {ending.printed[-300:]}")
        else:
            lifecycle.faults += scenario.faults(lifecycle)
        lifecycle.faults += [f"left behind: {name}" for name in leftovers(lifecycle.root)]
        print(f"  lifecycle {seed} ({name}): {'; '.join(lifecycle.faults) or 'as without kills'}", flush=True)
        if not lifecycle.faults:
            shutil.rmtree(lifecycle.root)
        return done, lifecycle

    def new(self, name: str, root: Path, seed: int = 0) -> Lifecycle:
        """A lifecycle before its first start, in a new or empty directory."""
        scenario = self._scenario(name)
        scenario.set_up(root)
        return Lifecycle(scenario, seed, root, self.is_forked, self.in_background)

    def _log(self, lifecycle: Lifecycle, kill: Kill, ending: Ending, steps: str, faults: Sequence[str]) -> None:
        if ending.took_s is None:
            happened = f"not reached, status {ending.status}"
        else:
            at = f" at {ending.what}" if ending.what else ""
            happened = f"{kill.signals}{at}: status {ending.status} after {ending.took_s:.1f} s"
        left = ", ".join(leftovers(lifecycle.root)) or "nothing"
        lost = f" FAULTS: {'; '.join(faults)}" if faults else ""
        print(
            f"  lifecycle {lifecycle.seed} ({lifecycle.scenario.name}) {kill}: {happened}; {steps}; left {left}{lost}",
            flush=True,
        )

    def _scenario(self, name: str) -> Scenario:
        return next(scenario for scenario in self.scenarios if scenario.name == name)

    def _run_uninterrupted(self, name: str, set_up: Callable[[Path], None], root: Path | None = None) -> Path:
        root = self.directory / f"reference {name}" if root is None else root
        set_up(root)
        counts = self.directory / "counts.json"
        scenario = self._scenario(name)
        lifecycle = Lifecycle(scenario, 0, root, self.is_forked)
        ending = lifecycle.start({"counts": str(counts)})
        if ending.status:
            raise RuntimeError(f"{name}: status {ending.status} without a kill: {ending.printed[-2000:]}")
        print(f"  undisturbed {name}: events {json.loads(counts.read_text())}", flush=True)
        return root

    def _set_up_new(self, root: Path, max_steps: int = LAST_STEP) -> None:
        (root / "corpus").mkdir(parents=True)
        for split, size in SIZES.items():
            for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
                (root / "corpus" / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
        # Slightly more lines than translate.py reads at a time.
        (root / "corpus" / "lines.en").write_text("It is.\n\n\n\n\n" * 803)
        values = {"root": root, "max_steps": max_steps, "save_steps": SAVE_STEPS, "keep": KEEP, "more": self.more}
        (root / "config.yaml").write_text(CONFIG.format(precision=self.precision, **values))

    def _set_up_half(self, root: Path) -> None:
        """A run of half the length with an average, which resuming has to remove."""
        self._move(self.half, root)
        path = root / "config.yaml"
        path.write_text(path.read_text().replace(f"max_steps: {HALF}", f"max_steps: {LAST_STEP}"))

    def _set_up_tuning(self, root: Path) -> None:
        """A run that begins with the weights of another and trains a part of them; the model is inherited."""
        self._set_up_new(root)
        shutil.copytree(self.reference / "run", root / "source", ignore=shutil.ignore_patterns(".lock"))
        path = root / "config.yaml"
        lines = [line for line in path.read_text().splitlines() if not line.startswith("model:")]
        tuning = f"train: {{init_from: {root}/source, freeze: [embeddings, decoder.layers.0.norm_1], "
        path.write_text("\n".join(lines).replace("train: {", tuning).replace("vocab_size: 211, ", "") + "\n")

    def _set_up_corpora(self, root: Path) -> None:
        self._set_up_new(root)
        several_corpora(root)

    def _set_up_averaging(self, root: Path) -> None:
        """A trained run with an older average, which averaging has to replace."""
        self._set_up_trained(root)
        shutil.copytree(self.half / "run" / "averaged", root / "run" / "averaged")

    def _set_up_trained(self, root: Path) -> None:
        self._move(self.reference, root)

    def _move(self, source: Path, root: Path) -> None:
        """Copy a directory and adapt the paths in its configuration; checkpoints stay unchanged."""
        shutil.copytree(source, root, dirs_exist_ok=True)
        for path in (root / "config.yaml", root / "run" / "config.yaml"):
            path.write_text(path.read_text().replace(str(source), str(root)))

    def _run_faults(self, lifecycle: Lifecycle) -> list[str]:
        return differing_runs(lifecycle.root, self.references.get(lifecycle.scenario.name, self.reference))

    def _averaging_faults(self, lifecycle: Lifecycle) -> list[str]:
        reference = self.references["average"]
        faults = differing_checkpoints(lifecycle.root / "run" / "averaged", reference / "run" / "averaged")
        if files(lifecycle.root / "run") != files(reference / "run"):
            faults.append(f"run holds {files(lifecycle.root / 'run')}, not {files(reference / 'run')}")
        return faults

    def _has_average(self, root: Path) -> bool:
        """Whether programs find the old or the new average, intact."""
        found = find_checkpoint(root / "run")
        kept = (self.half / "run" / "averaged", self.references["average"] / "run" / "averaged")
        return any(not differing_checkpoints(found, average) for average in kept)

    def _output_faults(self, lifecycle: Lifecycle) -> list[str]:
        reference = self.references[lifecycle.scenario.name]
        faults = []
        if (lifecycle.root / "output").read_bytes() != (reference / "output").read_bytes():
            faults.append("the output differs")
        if files(lifecycle.root) != files(reference):
            faults.append(f"missing or unexpected files: {sorted({*files(lifecycle.root)} ^ {*files(reference)})}")
        return faults


def status_faults(kill: Kill, ending: Ending) -> list[str]:
    """Faults in the exit status of a process and in the time that it took to end."""
    if (ending.took_s or 0.0) > LONGEST_S:
        return [f"took {ending.took_s:.1f} s to end"]
    if ending.status == 0:  # already done, or the kill was not reached
        return []
    if ending.took_s is None:
        return [f"status {ending.status} without a kill: {ending.printed[-300:]}"]
    is_importing = kill.point == "importing" or (kill.point == "any time" and "device: " not in ending.printed)
    if is_importing and kill.signals.startswith("INT"):
        return []  # libraries may turn the interruption into another error, as numpy does
    number = signal.SIGXFSZ if kill.signals == "XFSZ" else (SIGNALS | CLOSED)[kill.signals][0]
    if ending.status not in (-number, 128 + number):
        return [f"status {ending.status}: {ending.printed[-300:]}"]
    return []

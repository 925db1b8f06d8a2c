"""Kill real trainings and translations at drawn moments, start them again, and compare with undisturbed ones.

python tests/reliability/kills.py --kills 100 --seed 1

A life is one run from its first start to its end, killed several times on the way. What kills it is drawn from the seed
of the life alone: `--kills 1 --seed S` repeats the life that has the seed S. Ctrl-C ends it with the table of the lives
so far. Status 1 if anything was lost. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import multiprocessing.process
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from transformer.errors import CheckpointError
from transformer.training.integrity import verify
from transformer.training.run import find_checkpoint

REPOSITORY = Path(__file__).parents[2]
SABOTEUR = Path(__file__).with_name("saboteur")

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
# Measured in seconds: no two runs agree on them.
CLOCK_VALUES = {"elapsed_s", "window_s", "tokens_per_s", "seconds", "sentences_per_s"}
# What programs import besides the package.
PRELOADED = ["tensorboard.summary.writer.record_writer", "sacrebleu", "tqdm"]
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
# How many events of each moment there may be before one of them is the one; about as many as there are in one start
# (only those of the first three updates, where a start may go through all), so that most are reached.
EARLY = {"importing": 1500, "claiming the run": 3, "learning the tokenizer": 14, "building the cache": 23}
MIDDLE = {
    "writing metrics": 5,
    "saving a checkpoint": 40,
    "saving the best": 25,
    "pruning": 22,
    "inference": 7,
    "any time": 1,
    "in the middle of a write": 8,
}
LATE = {"final save": 14}
AVERAGE = {"importing": 1500, "averaging": 17}
EVALUATE = {"importing": 1500, "writing the output": 2, "inference": 1}
TRANSLATE = {"importing": 1500, "writing the output": 3, "inference": 1}


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


def draw_kill(moment: str, counts: dict[str, int], numbers: random.Random) -> Kill:
    """One kill at a moment that has so many events."""
    if moment == "in the middle of a write":
        return Kill(moment, numbers.randint(1, counts[moment]), "XFSZ", limit=numbers.randint(1, 20_000))
    signals = numbers.choices(list(SIGNALS), weights=(5, 2, 2, 1))[0]
    number = numbers.randint(1, counts[moment])
    if moment == "any time":
        return Kill(moment, number, signals, delay_s=numbers.uniform(0.1, 6.0))
    if moment == "inference":
        return Kill(moment, number, signals, delay_s=numbers.uniform(0.0, 0.4))
    # Sometimes just after an event: inside of what follows it.
    return Kill(moment, number, signals, delay_s=numbers.choice((0.0, 0.0, numbers.uniform(0.0, 0.004))))


class Program(Protocol):
    """A started program, such as subprocess.Popen."""

    def send_signal(self, sig: int, /) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


def start_anew(script: str, arguments: list[str], environment: dict[str, str], output: Path) -> Program:
    """Start a program as a user does."""
    with output.open("w") as stream:
        command = [sys.executable, script, *arguments]
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)


class Forked:
    """A program in a process that has imported already what takes seconds."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        self.process = process

    def send_signal(self, sig: int, /) -> None:
        if self.process.exitcode is None and self.process.pid is not None:
            os.kill(self.process.pid, sig)

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.process), timeout or 0.0)
        return self.process.exitcode


def start_forked(script: str, arguments: list[str], environment: dict[str, str], output: Path) -> Program:
    """Start a program in a fork of a process that has imported torch and the rest."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformer.inference.translator", "transformer.training.trainer", *PRELOADED])
    process = context.Process(target=run_forked, args=(script, arguments, environment["SABOTEUR"], str(output)))
    process.start()
    return Forked(process)


def run_forked(script: str, arguments: list[str], orders: str, output: str) -> None:
    """Do as Python does for a script, with the saboteur of `environment`."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(descriptor, number)
    # Not by its name: the system may have one of the same, imported already.
    saboteur = runpy.run_path(str(SABOTEUR / "sitecustomize.py"))["Saboteur"](json.loads(orders))
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        saboteur.write_counts()


@dataclass
class Plan:
    """One kind of life.

    Attributes:
        name: for the table.
        command: the program and its arguments, below the directory `{root}`.
        begin: makes a new directory what it is at the start of such a life.
        faults: what differs, at the end, from the same without kills; nothing if nothing was lost.
        draw: the kills of a life.
    """

    name: str
    command: list[str]
    begin: Callable[[Path], None]
    faults: Callable[[Life], list[str]]
    draw: Callable[[random.Random], list[Kill]]


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


# What a directory holds


def files(directory: Path) -> list[str]:
    """The names of all files and directories below, but for TensorBoard's."""
    found = sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
    return [name for name in found if "tensorboard" not in name]


def remains(root: Path) -> list[str]:
    """What a killed write has left: everything with a hidden name, but for the lock of the run. Not what is inside."""
    return [name for name in files(root) if Path(name).name.startswith(".") and name != "run/.lock"]


def names(directory: Path) -> list[str]:
    """The checkpoints below `run/checkpoints` or `run/best`, whole or not."""
    return sorted(path.name for path in directory.glob("step-*"))


def step_of(name: str) -> int:
    return int(name.removeprefix("step-"))


def last_step(root: Path) -> int:
    """How far the saved training has come."""
    return max(map(step_of, names(root / "run" / "checkpoints")), default=0)


def broken(root: Path) -> list[str]:
    """The checkpoints under their final name that are not whole."""
    wanted = {"best": ["model.safetensors"], "checkpoints": ["model.safetensors", "optimizer.safetensors"]}
    others = {"best": ["config.yaml", "tokenizer.model", "SHA256SUMS"]}
    others["checkpoints"] = [*others["best"], "training.json"]
    faults = []
    for parent in wanted:
        for checkpoint in (root / "run" / parent).glob("step-*"):
            try:
                verify(checkpoint)
                for name in wanted[parent]:
                    load_file(checkpoint / name)
                is_whole = all((checkpoint / name).stat().st_size for name in others[parent])
            except (OSError, SafetensorError, CheckpointError):
                is_whole = False
            if not is_whole:
                faults.append(f"{parent}/{checkpoint.name} is not whole")
    return faults


def without_clock(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in CLOCK_VALUES}


def metrics(run: Path) -> list[dict[str, Any]]:
    return [without_clock(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def differing_tensors(here: Path, there: Path) -> list[str]:
    """The tensors that do not agree bit for bit in two files."""
    ours, theirs = load_file(here), load_file(there)
    return sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours
        or name not in theirs
        or ours[name].dtype != theirs[name].dtype
        or not np.array_equal(ours[name], theirs[name], equal_nan=True)
    )


def differing_checkpoints(here: Path, there: Path) -> list[str]:
    """What differs in two checkpoint directories."""
    faults = []
    if files(here) != files(there):
        faults.append(f"{here.name} holds {files(here)}, not {files(there)}")
    for path in sorted(there.glob("*.safetensors")):
        if (here / path.name).is_file() and (found := differing_tensors(here / path.name, path)):
            faults.append(f"{here.name}/{path.name}: {len(found)} tensors differ, such as {found[0]}")
    if (there / "training.json").is_file():
        progress, expected = (without_clock(json.loads((x / "training.json").read_text())) for x in (here, there))
        if progress != expected:
            faults.append(f"{here.name}/training.json: {progress}, not {expected}")
    return faults


def differing_runs(life: Life, expected: Path) -> list[str]:
    """What differs in a run that was killed on the way from one that was not."""
    run, whole = life.root / "run", expected / "run"
    faults = []
    for parent in ("checkpoints", "best"):
        found, wanted = names(run / parent), names(whole / parent)
        if found != wanted:
            faults.append(f"{parent} holds {', '.join(found)}, not {', '.join(wanted)}")
        for name in set(found) & set(wanted):
            faults += differing_checkpoints(run / parent / name, whole / parent / name)
    if metrics(run) != metrics(whole):
        faults.append("metrics.jsonl differs")
    for name in ("cache", "run"):
        top = [{path.name for path in (x / name).iterdir() if path.name != ".lock"} for x in (life.root, expected)]
        if top[0] != top[1]:
            faults.append(f"{name} holds {sorted(top[0])}, not {sorted(top[1])}")
    return faults


# Lives


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
            Plan("train", train, self._begin_new, lambda life: differing_runs(life, self.whole), draw_training),
            Plan("go on", train, self._begin_half, lambda life: differing_runs(life, self.whole), draw_going_on),
            Plan("average", averaging, self._begin_averaging, self._averaging_faults, drawing(AVERAGE, 6)),
            Plan("evaluate", evaluation, self._begin_trained, self._output_faults, drawing(EVALUATE, 4)),
            Plan("translate", translation, self._begin_trained, self._output_faults, drawing(TRANSLATE, 4)),
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

    def live(self, name: str, seed: int, kills: Sequence[Kill] | None = None) -> tuple[list[tuple[Kill, Ending]], Life]:
        """Go through one life, with these kills or those drawn for the seed; what happened, line by line, is printed.

        Returns the kills that came to be, each with what it did, and the life with its faults.
        """
        life = self.begin(name, self.directory / f"life{self.num_lives}", seed)
        self.num_lives += 1
        plan = life.plan
        done: list[tuple[Kill, Ending]] = []
        for kill in plan.draw(random.Random(seed)) if kills is None else kills:
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
        sys.path.insert(0, str(REPOSITORY))
        from transformer.data.builtin import builtin_pairs

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
    number = signal.SIGXFSZ if kill.signals == "XFSZ" else SIGNALS[kill.signals][0]
    if ending.status not in (-number, 128 + number):
        return [f"status {ending.status}: {ending.printed[-300:]}"]
    return []


def drawing(counts: dict[str, int], number: int) -> Callable[[random.Random], list[Kill]]:
    """Draws so many kills, of each moment in turn."""

    def draw(numbers: random.Random) -> list[Kill]:
        moments = [*counts] * number
        return [draw_kill(moment, counts, numbers) for moment in moments[1 : number + 1]]

    return draw


def draw_training(numbers: random.Random) -> list[Kill]:
    """Kills of a training from its beginning: some early ones in the order of things, some of any later moment."""
    early = sorted(numbers.sample(range(len(EARLY)), 2))
    middle = [*numbers.sample(list(MIDDLE), 4), *numbers.choices(list(MIDDLE), k=1)]
    chosen = [(list(EARLY)[place], EARLY) for place in early] + [(moment, MIDDLE) for moment in middle]
    return [draw_kill(moment, counts, numbers) for moment, counts in (*chosen, ("final save", LATE))]


def draw_going_on(numbers: random.Random) -> list[Kill]:
    """Kills of a training that goes on after an average was made."""
    chosen = [("claiming the run", {"claiming the run": 2}), ("averaging", {"averaging": 6})]
    chosen += [(moment, MIDDLE) for moment in numbers.sample(list(MIDDLE), 2)] + [("final save", LATE)]
    return [draw_kill(moment, counts, numbers) for moment, counts in chosen]


# The kinds of lives in turn: most of them train.
KINDS = ("train", "go on", "train", "average", "train", "evaluate", "train", "translate")


def table(kills: Sequence[tuple[str, Kill, bool]]) -> Iterator[str]:
    """Moment by signal: how many kills there were and how many of them lost something."""
    columns = [*SIGNALS, "XFSZ"]
    tried, lost = collections.Counter[tuple[str, str]](), collections.Counter[tuple[str, str]]()
    for kind, kill, is_lost in kills:
        row = f"{kind}: {kill.moment}"
        for key in ((row, kill.signals), (row, "all"), ("all", kill.signals), ("all", "all")):
            tried[key] += 1
            lost[key] += is_lost
    rows = sorted({row for row, _ in tried} - {"all"})
    yield "tried/survived/lost"
    yield f"| moment | {' | '.join(columns)} | all |"
    yield f"| --- |{' --- |' * (len(columns) + 1)}"
    for row in (*rows, "all"):
        keys = [(row, column) for column in (*columns, "all")]
        cells = [f"{tried[key]}/{tried[key] - lost[key]}/{lost[key]}" if tried[key] else "" for key in keys]
        yield f"| {row} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="go on until there were so many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first life; each next one has the next")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--fork", action="store_true", help="fork most programs from one that imported torch")
    parser.add_argument("--directory", type=Path, help="keep lives with faults here instead of in a new one of /tmp")
    arguments = parser.parse_args(argv)
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="kills-"))
    directory.mkdir(parents=True, exist_ok=True)
    laboratory = Laboratory(directory.resolve(), arguments.precision, is_forked=arguments.fork)
    laboratory.prepare(KINDS)
    kills: list[tuple[str, Kill, bool]] = []
    slowest = 0.0
    num_faulty = 0
    seed = arguments.seed
    with contextlib.suppress(KeyboardInterrupt):  # enough seen: the table of what there was
        while len(kills) < arguments.kills:
            kind = KINDS[(seed - 1) % len(KINDS)]
            done, life = laboratory.live(kind, seed)
            kills += [(kind, kill, bool(life.faults)) for kill, _ in done]
            slowest = max([slowest, *(ending.took_s or 0.0 for _, ending in done)])
            num_faulty += bool(life.faults)
            seed += 1
    print("\n".join(table(kills)))
    print(f"{len(kills)} kills in {seed - arguments.seed} lives; {num_faulty} lives with faults")
    print(f"slowest to end after its first signal: {slowest:.1f} s")
    if num_faulty:
        print(f"what is left of lives with faults is in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Programs, started as a user does or, quicker, in forks of a process that has imported what takes seconds."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.process
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).parents[2]
SABOTEUR = Path(__file__).with_name("fault_injection")
# What programs import besides the package.
PRELOADED = ["tensorboard.summary.writer.record_writer", "sacrebleu", "tqdm"]


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
    """Do as Python does for a script, with a saboteur that has these orders, as JSON."""
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

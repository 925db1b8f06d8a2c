"""Start programs as a user does or, faster, in forks of a process that has imported torch."""

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
FAULT_INJECTION = Path(__file__).with_name("fault_injection")
# Imported by programs in addition to the package.
PRELOADED = ["tensorboard.summary.writer.record_writer", "sacrebleu", "tqdm"]


class Program(Protocol):
    """A running program, such as subprocess.Popen."""

    def send_signal(self, sig: int, /) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


def start_anew(script: str, arguments: list[str], environment: dict[str, str], output: Path) -> Program:
    """Start a program as a user does."""
    with output.open("w") as stream:
        command = [sys.executable, script, *arguments]
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)


class Forked:
    """A program in a forked process."""

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
    """Start a program in a fork of a process that has imported torch."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformer.inference.translator", "transformer.training.trainer", *PRELOADED])
    process = context.Process(target=run_forked, args=(script, arguments, environment["FAULT_INJECTION"], str(output)))
    process.start()
    return Forked(process)


def run_forked(script: str, arguments: list[str], options: str, output: str) -> None:
    """Run a script as Python does, with a fault injector with these options (JSON)."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(descriptor, number)
    # By path: the system may have its own sitecustomize, already imported.
    injector = runpy.run_path(str(FAULT_INJECTION / "sitecustomize.py"))["FaultInjector"](json.loads(options))
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        injector.write_counts()

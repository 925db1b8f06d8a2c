"""Programs of the peers as processes, with their peak memory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarking.peers.peer import PeerError, Speed, Task

_SCRIPTS = Path(__file__).parents[2]
# This program sets them for itself (`tune_process`, `let_threads_sleep`); each program shall have its own defaults.
_NOT_INHERITED = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY", "OMP_WAIT_POLICY"}
# Our directory comes last: its train.py or tables.py must not be taken for modules of a toolkit.
_START = "import runpy, sys; sys.path.append(sys.argv[1]); runpy.run_module(sys.argv[2], run_name='__main__')"
# Linux counts the memory of the process that starts another in the peak of that one, until it is replaced: this one
# has hundreds of megabytes, so a small process starts the program and writes down its exit status and its peak.
_WITH_USAGE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(f"{status} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
"""
_LENGTH_TOLERANCE = 1  # of outputs, in which some toolkits do not count </s>


@dataclass(frozen=True)
class Finished:
    """What a process printed, and its peak memory."""

    output: str
    peak_memory_gib: float


def environment_of(threads: int, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables of a peer's process."""
    kept = {name: value for name, value in inherited.items() if name not in _NOT_INHERITED}
    kept.pop("PYTHONPATH", None)
    return {
        **kept,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONSAFEPATH": "1",
        "CUDA_VISIBLE_DEVICES": "",  # on the CPU all of them
        # Toolkits of before torch 2.6 save more than tensors, and load nothing but what they saved themselves here.
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def run(command: Sequence[str | Path], threads: int, cwd: Path, **variables: str) -> Finished:
    """Run a process to its end. PeerError if it fails.

    Args:
        command: program and arguments.
        threads: of its CPU.
        cwd: its working directory, which it may write to; made if need be.
        variables: further environment variables.
    """
    cwd.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as out, tempfile.NamedTemporaryFile() as usage:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _WITH_USAGE, usage.name, *map(str, command)],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**environment_of(threads), **variables},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        out.seek(0)
        output = out.read().decode("utf-8", "replace")
        status, peak = map(int, usage.read().split() or (process.returncode, 0))
    if status:
        lines = [line for line in output.splitlines() if line.strip()]
        last = lines[-1] if lines else "nothing printed"
        raise PeerError(f"exit status {status}: {last[:300]}")
    return Finished(output, (peak if sys.platform != "darwin" else peak / 1024) / 2**20)


def run_program(python: Path, program: str, task: Task, *words: str) -> Speed:
    """Run one of `benchmarking.peers.programs`, which prints JSON last.

    Args:
        python: of the environment.
        program: the name of the module.
        task: its last argument, as JSON.
        words: arguments before that.

    Raises:
        PeerError: it fails, or its outputs have another length than requested.
    """
    described = json.dumps(dataclasses.asdict(task), default=str)
    module = f"benchmarking.peers.programs.{program}"
    finished = run([python, "-c", _START, _SCRIPTS, module, *words, described], task.threads, task.work)
    found = last_json(finished.output)
    check_length(found, task)
    return Speed(float(found["speed"]), finished.peak_memory_gib)


def last_json(output: str) -> dict[str, Any]:
    """The JSON object in the last line. PeerError if there is none."""
    last = output.strip().rpartition("\n")[2]
    try:
        found = json.loads(last)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise PeerError(f"the last line printed is no JSON object: {last[:200]!r}")
    return found


def check_length(found: Mapping[str, Any], task: Task) -> None:
    """PeerError if a decoder stopped early, which would make it look fast."""
    if task.what == "decode" and not (
        task.length - _LENGTH_TOLERANCE <= float(found["tokens_per_sentence"]) <= task.length
    ):
        raise PeerError(f"its outputs have {found['tokens_per_sentence']:g} tokens, not {task.length}")

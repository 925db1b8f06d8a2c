"""This program, by the commands that measure it alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarking.peers.peer import Peer, Speed, Task
from benchmarking.peers.processes import check_length, last_json, run

_SCRIPT = Path(__file__).parents[2] / "benchmark.py"


class Ours(Peer):
    """scripts/benchmark.py train and decode.

    Args:
        overrides: of the configuration, from the command line.
    """

    name = "this"
    title = "this"
    training = ("bf16", "fp32")
    decoding = ("bf16", "fp32", "int8")

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = list(overrides)

    def measure(self, python: Path, task: Task) -> Speed:
        """Train or decode."""
        command = [python, _SCRIPT, task.what, *arguments(task, self.overrides)]
        # Where this program is not installed, it is found as it was by this process.
        finished = run(command, task.threads, Path.cwd(), PYTHONPATH=":".join(filter(None, sys.path)))
        found = last_json(finished.output)
        if task.what == "train":
            return Speed(found["tokens_per_s"], finished.peak_memory_gib)
        check_length({"tokens_per_sentence": found["output_tokens_per_sentence"]}, task)
        return Speed(found["sentences_per_cpu_s"], finished.peak_memory_gib)


def config_of(size: str) -> Path:
    """The configuration of a size."""
    return Path(__file__).parents[3] / "configs" / f"benchmark_{size}.yaml"


def arguments(task: Task, overrides: Sequence[str]) -> list[str | Path]:
    """Of the subcommand, without its name."""
    common = ["--peak-seconds", 0, "--threads", task.threads, "--json"]
    if task.what == "train":
        changed = [*overrides, f"train.precision={task.precision}", f"train.max_tokens={task.max_tokens}"]
        changed += [f"train.tokens_per_update={task.max_tokens}"]
        of_task = ["--updates", task.updates, "--warmup", task.warmup]
    else:
        changed = list(overrides)
        of_task = ["--length", task.length, "--beam", task.beam, "--precision", task.precision, "--repeat", 1]
        of_task += ["--sentences", task.sentences]
        if task.batch is not None:
            of_task += ["--batch", task.batch]
    return [config_of(task.size), *changed, *(str(word) for word in (*of_task, *common))]

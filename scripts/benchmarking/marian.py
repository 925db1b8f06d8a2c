"""The same Marian weights translated by this program, Hugging Face's generate and CTranslate2, in turn.

All translate the same lines from text to text, so many at a time, with a beam of one size, in a process each. Weights
are random, so that every output is made to have the same length.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarking.peers.peer import PeerError
from benchmarking.peers.processes import last_json, run
from benchmarking.report import Report
from transformer.data.builtin import builtin_pairs

# Engines in the order of the rows, each with the packages that it needs and the precisions that it has on a CPU.
PRECISIONS = {"this": ("bf16", "fp32", "int8"), "transformers": ("fp32",), "ctranslate2": ("fp32", "int8")}
TITLES = {"this": "this", "transformers": "Hugging Face Marian (transformers {})", "ctranslate2": "CTranslate2 {}"}
_LENGTH_TOLERANCE = 1  # of outputs, of which CTranslate2 may not count </s>


@dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        engine: one of `PRECISIONS`.
        directory: of its model.
        lines: a file of the lines to translate, the longest first.
        length: tokens of every output, </s> included.
    """

    engine: str
    directory: str
    lines: str
    precision: str
    beam: int
    threads: int
    batch: int
    length: int

    def __str__(self) -> str:
        return f"{self.engine} {self.precision} beam {self.beam}"


@dataclass(frozen=True)
class Speed:
    """Sentences per second, and peak memory."""

    sentences_per_s: float
    peak_memory_gib: float


def write_lines(path: Path, number: int) -> None:
    """Write source sentences of the built-in corpus, the longest first."""
    lines = sorted((source for source, _ in builtin_pairs("test", number)), key=len, reverse=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def benchmark_marian(
    directory: Path,
    *,
    beams: Sequence[int],
    rounds: int,
    sentences: int,
    batch: int,
    length: int,
    threads: int,
    log: Callable[[str], None],
    measure: Callable[[Task, int], Speed] | None = None,
) -> Report:
    """Measure every engine in every precision, round after round.

    Args:
        directory: of the models, as `write_models` writes them; the lines are written beside them.
        beams, batch, length, threads: of each `Task`.
        rounds: measurements of each; speeds are their median.
        sentences: of the built-in corpus.
        log: told each measurement.
        measure: in a process of its own by default; for tests.

    Returns:
        A row for each engine, precision and beam, and those that are left out with the reason.
    """
    write_lines(directory / "lines", sentences)
    common: dict[str, Any] = {"lines": str(directory / "lines"), "threads": threads, "batch": batch, "length": length}
    tasks = [
        Task(engine=engine, directory=str(directory / engine), precision=precision, beam=beam, **common)
        for beam in beams
        for engine, precisions in PRECISIONS.items()
        for precision in precisions
    ]
    speeds: dict[Task, list[Speed]] = {task: [] for task in tasks}
    left_out: dict[Task, str] = {}
    for number, task in itertools.product(range(1, rounds + 1), tasks):
        if task in left_out:
            continue
        try:
            speed = (measure or in_process)(task, sentences)
        except PeerError as error:
            left_out[task] = str(error)
            log(f"{task}: left out: {error}")
            continue
        speeds[task].append(speed)
        log(f"round {number} of {rounds}: {task}: {speed.sentences_per_s:.4g} sentences/s")
    return {
        "rows": [_row(task, found) for task, found in speeds.items() if task not in left_out],
        "left_out": [{"of": str(task), "reason": reason} for task, reason in left_out.items()],
    }


def _row(task: Task, speeds: Sequence[Speed]) -> Report:
    values = [speed.sentences_per_s for speed in speeds]
    return {
        "engine": task.engine,
        "title": title_of(task.engine),
        "precision": task.precision,
        "beam": task.beam,
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "peak_memory_gib": max(speed.peak_memory_gib for speed in speeds),
    }


def title_of(engine: str) -> str:
    """The name of an engine in tables, with its version."""
    try:
        return TITLES[engine].format("" if engine == "this" else importlib.metadata.version(engine))
    except importlib.metadata.PackageNotFoundError:
        return engine


def in_process(task: Task, sentences: int) -> Speed:
    """Measure in a process. PeerError if it fails, as without its package, or outputs have another length."""
    # Where this program is not installed, it is found as it was by this process.
    path = ":".join(filter(None, sys.path))
    command = [sys.executable, "-m", "benchmarking.marian_engines", json.dumps(asdict(task))]
    finished = run(command, task.threads, Path(task.directory), PYTHONPATH=path)
    found = last_json(finished.output)
    if not task.length - _LENGTH_TOLERANCE <= found["tokens_per_sentence"] <= task.length:
        raise PeerError(f"its outputs have {found['tokens_per_sentence']:g} tokens, not {task.length}")
    return Speed(sentences / found["seconds"], finished.peak_memory_gib)

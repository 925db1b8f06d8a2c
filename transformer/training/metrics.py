"""What a run says about itself: a progress bar, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from transformer.errors import CheckpointError
from transformer.files import write_whole


class MetricsLog:
    """Writes numbers to `metrics.jsonl`, one JSON object a line, and to TensorBoard, and shows one progress bar.

    Args:
        run: the run directory.
        first_step: how far the run had come; lines after that, from before an interruption, are removed.
        last_step: where the bar ends.
    """

    def __init__(self, run: Path, first_step: int, last_step: int) -> None:
        self._path = run / "metrics.jsonl"
        with self._writing():
            _truncate(self._path, first_step)
            self._file = self._path.open("a", encoding="utf-8")
            self._tensorboard = _EventFile(run / "tensorboard", first_step + 1)
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=last_step, initial=first_step, unit="step", mininterval=interval, maxinterval=interval, leave=True
        )

    def advance(self) -> None:
        """Move the bar by one update."""
        self._bar.update()

    def log(self, kind: str, step: int, **values: float) -> None:
        """Record numbers of one kind, such as "train" or "validation", after `step` updates.

        CheckpointError if the disk does not take them.
        """
        with self._writing():
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
            self._tensorboard.add({f"{kind}/{name}": value for name, value in values.items()}, step)

    def show(self, **values: str) -> None:
        """Put numbers at the end of the bar."""
        self._bar.set_postfix(values, refresh=False)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Finish the bar and the files. CheckpointError if the disk does not take them."""
        self._bar.close()
        with self._writing():
            self._file.close()
            self._tensorboard.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{self._path}: cannot be written ({error.strerror or error}); checkpoints are intact, and the same "
                "command goes on from the last one"
            ) from None


class _EventFile:
    """Scalars in the format of TensorBoard.

    Its own writers do so in a thread, which prints a traceback where a disk is full.
    """

    def __init__(self, directory: Path, purge_step: int) -> None:
        # Slow to import and only needed here.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        directory.mkdir(parents=True, exist_ok=True)
        self._file = (directory / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}").open("xb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, values: dict[str, float], step: int) -> None:
        scalars = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=self._summary(value=scalars))

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


class NoLog(MetricsLog):
    """Writes and shows nothing: for processes that leave it to another."""

    def __init__(self) -> None:
        pass

    def advance(self) -> None:
        """Nothing."""

    def log(self, kind: str, step: int, **values: float) -> None:
        """Nothing."""

    def show(self, **values: str) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, in order; a line cut short by a crash is left out."""
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def _truncate(path: Path, last_step: int) -> None:
    kept = [record for record in read_metrics(path.parent) if record["step"] <= last_step]
    write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))

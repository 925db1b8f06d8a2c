"""Metrics of a run: metrics.jsonl, TensorBoard and the display."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformer.config import TrainConfig
from transformer.errors import CheckpointError
from transformer.files import write_atomic
from transformer.training.display import Display

if TYPE_CHECKING:  # which import torch
    from transformer.training.callbacks import Notifier
    from transformer.training.training_state import Progress


class MetricsLog:
    """Logs to `metrics.jsonl`, TensorBoard and the display; `max_seconds` is the time that training may take."""

    def __init__(
        self,
        run: Path,
        first_step: int,
        last_step: int,
        max_seconds: float | None = None,
        *,
        is_validated: bool = True,
        notify: "Notifier | None" = None,
    ) -> None:
        self._path = run / "metrics.jsonl"
        with self._writing():
            # Updates after `first_step` were logged before an interruption and will be repeated.
            kept = [record for record in read_metrics(run) if record["step"] <= first_step]
            if not is_validated:  # a validation of `first_step` was logged, but not saved
                kept = [record for record in kept if record["step"] != first_step or not is_validation(record)]
            write_atomic(self._path, "".join(json.dumps(record) + "\n" for record in kept))
            self._file = self._path.open("a", encoding="utf-8")
            self._tensorboard = _EventFile(run / "tensorboard", first_step + 1)
        self._display = Display(first_step, last_step, max_seconds)
        self._notify = notify

    @classmethod
    def of_run(
        cls, run: Path, settings: TrainConfig, progress: "Progress", notify: "Notifier | None" = None
    ) -> "MetricsLog":
        """The log of a run that goes on from here."""
        seconds = None if settings.max_hours is None else settings.max_hours * 3600 - progress.elapsed_s
        is_validated = progress.validated_step == progress.step
        return cls(run, progress.step, settings.max_steps, seconds, is_validated=is_validated, notify=notify)

    def advance(self) -> None:
        """Advance the display by one update."""
        self._display.advance()

    def log(self, kind: str, step: int, **values: float | str) -> None:
        """Record values of one kind, such as "train"; text is not for TensorBoard. CheckpointError if a disk fails."""
        numbers = {f"{kind}/{name}": value for name, value in values.items() if not isinstance(value, str)}
        with self._writing():
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
            self._tensorboard.add(numbers, step)
        if kind == "train":
            self._display.show(step, {name: value for name, value in values.items() if not isinstance(value, str)})
        self.notify(kind, step, **values)

    def notify(self, kind: str, step: int, **values: float | str) -> None:
        """Tell the user's function only."""
        if self._notify is not None:
            self._notify(kind, step, values)

    def print(self, line: str) -> None:
        """Print a line on stdout."""
        self._display.print(line)

    def note(self, text: str) -> None:
        """Show what is done until the next update."""
        self._display.note(text)

    def close(self) -> None:
        """Close the display and the files. CheckpointError if the disk fails."""
        self._display.close()
        with self._writing():
            self._file.close()
            self._tensorboard.file.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{self._path}: cannot be written ({error.strerror or error}); checkpoints are intact: rerun the same "
                "command to resume from the last one"
            ) from None


class _EventFile:
    """Writes scalars in TensorBoard's format.

    TensorBoard's own writers use a thread, which prints a traceback if the disk is full.
    """

    def __init__(self, directory: Path, purge_step: int) -> None:
        # Slow to import and needed only here.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        directory.mkdir(parents=True, exist_ok=True)
        self.file = (directory / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}").open("xb")
        self._records = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, values: dict[str, float], step: int) -> None:
        scalars = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=self._summary(value=scalars))

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


class NullLog(MetricsLog):
    """Discards everything; for ranks other than 0."""

    def __init__(self) -> None:
        pass

    def _discard(self, *_: Any, **__: Any) -> None:
        pass

    advance = log = notify = print = note = close = _discard


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl in order; invalid or truncated lines are skipped. CheckpointError without a run."""
    path = Path(run) / "metrics.jsonl"
    if not path.parent.is_dir():
        raise CheckpointError(f"{run}: no such run directory")
    if not path.is_file():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_record(record):
            records.append(record)
    return records


def is_validation(record: Mapping[str, Any]) -> bool:
    """Whether a record is of the validation set ("validation") or of one that is validated too ("validation/NAME")."""
    kind: str = record["kind"]
    return kind == "validation" or kind.startswith("validation/")


def bleu_tokenizer(validation: Mapping[str, Any]) -> str:
    """The tokenizer of a validation's BLEU; before they were recorded, it was always 13a."""
    name: str = validation.get("bleu_tokenizer", "13a")
    return name


def bleu_tokenizers(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tokenizers of a run's validation BLEU, one per change."""
    found = [bleu_tokenizer(line) for line in records if is_validation(line) and "bleu" in line]
    return [name for name, _ in itertools.groupby(found)]


def _is_record(value: Any) -> bool:
    # Numbers may be non-finite.
    if not isinstance(value, dict) or type(value.get("step")) is not int or not isinstance(value.get("kind"), str):
        return False
    name = value.get("bleu_tokenizer", "")
    if not (isinstance(name, str) and name.isprintable()):
        return False
    numbers = (number for key, number in value.items() if key not in ("kind", "bleu_tokenizer"))
    return all(type(number) is float or (type(number) is int and abs(number) < 1 << 63) for number in numbers)

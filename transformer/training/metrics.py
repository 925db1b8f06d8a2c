"""What a run says about itself: a progress bar, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from transformer.files import write_whole


class MetricsLog:
    """Writes numbers to `metrics.jsonl`, one JSON object a line, and to TensorBoard, and shows one progress bar.

    Args:
        run: the run directory.
        first_step: how far the run had come; lines after that, from before an interruption, are removed.
        last_step: where the bar ends.
    """

    def __init__(self, run: Path, first_step: int, last_step: int) -> None:
        # Slow to import and only needed here.
        from torch.utils.tensorboard import SummaryWriter

        self._path = run / "metrics.jsonl"
        _truncate(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=last_step, initial=first_step, unit="step", mininterval=interval, maxinterval=interval, leave=True
        )

    def advance(self) -> None:
        """Move the bar by one update."""
        self._bar.update()

    def log(self, kind: str, step: int, **values: float) -> None:
        """Record numbers of one kind, such as "train" or "validation", after `step` updates."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def show(self, **values: str) -> None:
        """Put numbers at the end of the bar."""
        self._bar.set_postfix(values, refresh=False)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Finish the bar and the files."""
        self._bar.close()
        self._file.close()
        self._tensorboard.close()


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
    """The lines of a run's metrics.jsonl, in order; what is no record, such as a line cut short, is left out."""
    path = Path(run) / "metrics.jsonl"
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


def _is_record(value: Any) -> bool:
    """Whether it is what `MetricsLog.log` writes; values that are not finite are kept, there may be such."""
    if not isinstance(value, dict) or type(value.get("step")) is not int or not isinstance(value.get("kind"), str):
        return False
    numbers = (number for name, number in value.items() if name != "kind")
    return all(type(number) is float or (type(number) is int and abs(number) < 1 << 63) for number in numbers)


def _truncate(path: Path, last_step: int) -> None:
    kept = [record for record in read_metrics(path.parent) if record["step"] <= last_step]
    write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))

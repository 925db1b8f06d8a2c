"""One trainer per run within a process; the lock of its directory keeps other processes out."""

from __future__ import annotations

import itertools
from pathlib import Path

from transformer.config import Config
from transformer.errors import InUseError
from transformer.training.run_directory import claim_run

_NUMBERS = itertools.count()
_latest: dict[Path, int] = {}  # claim by run directory
_in_use: set[Path] = set()


class Claim:
    """A trainer's claim to its run, entered while it trains.

    The latest claim of a process counts: what an earlier trainer has in memory is no longer what the directory holds.
    """

    def __init__(self, config: Config, *, change: bool = False) -> None:
        """Claim a run; errors as of `claim_run`, and InUseError while an earlier trainer of this process trains it."""
        self._key, self._number = Path(config.run_dir).resolve(), next(_NUMBERS)
        self._name = f"run_dir={config.run_dir}"
        self._check_idle()
        self._lock = claim_run(config, change=change)
        _latest[self._key] = self._number

    def __enter__(self) -> None:
        """InUseError if there is a later claim, or this one is in use."""
        self._check_idle()
        if _latest[self._key] != self._number:
            raise InUseError(f"{self._name}: a later Trainer of this process has claimed it; use that one or a new one")
        _in_use.add(self._key)

    def __exit__(self, *_: object) -> None:
        _in_use.discard(self._key)

    def _check_idle(self) -> None:
        if self._key in _in_use:
            raise InUseError(f"{self._name}: a Trainer of this process is training it; wait until its `fit` ends")

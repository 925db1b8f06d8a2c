"""What is exported: a trained model with its tokenizer and its configuration; and where it is written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformer.config import Config, DataConfig
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ExportError
from transformer.files import fsync
from transformer.hub import is_model_id
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import load_checkpoint, locate_checkpoint
from transformer.training.run_directory import is_run

# Formats that hold a table of positions hold at most so many: of 1,024 channels, 16 MB.
_MOST_POSITIONS = 4096


@dataclass(frozen=True)
class Exported:
    """A model with all that belongs to it.

    Attributes:
        origin: a checkpoint directory, or a hub id with its commit.
        checkpoint: the directory of its files; None for a model that is in memory only.
        run: the run that trained it, if that is known.
    """

    config: Config
    tokenizer: Tokenizer
    model: Transformer  # in float32, on the CPU, in evaluation mode
    origin: str
    checkpoint: Path | None = None
    run: Path | None = None

    @classmethod
    def load(cls, path: str | Path) -> Exported:
        """The model of a run, a checkpoint or a hub id; errors as of `load_checkpoint`."""
        checkpoint, origin = locate_checkpoint(path)
        config, tokenizer, model = load_checkpoint(checkpoint)
        run = None if is_model_id(path) else run_of(checkpoint)
        return cls(config, tokenizer, model.eval(), origin, checkpoint, run)

    @property
    def shared_config(self) -> Config:
        """The configuration without the directories of this machine that the run wrote to."""
        data = dataclasses.replace(self.config.data, cache_dir=DataConfig().cache_dir)
        return dataclasses.replace(self.config, run_dir=Config().run_dir, data=data)

    @property
    def ranks_otherwise(self) -> bool:
        """Whether its search ranks beams by a length penalty that no other engine has."""
        search = self.config.search
        return search.length_penalty == "gnmt" and search.alpha != 0 and search.beam > 1

    @property
    def num_positions(self) -> int:
        """The longest input or output that a format with a table of positions should allow."""
        search = self.config.search
        longest = max(search.max_source_length + search.max_length_offset, search.max_length or 0)
        return min(longest, _MOST_POSITIONS, self.model.max_length or longest)


def run_of(checkpoint: Path) -> Path | None:
    """The run that a checkpoint is inside of."""
    parents = [checkpoint.resolve(), *checkpoint.resolve().parents][:3]
    return next((path for path in parents if is_run(path)), None)


def check_new(path: Path) -> None:
    """ExportError if a file or a directory that is not empty is there."""
    if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
        raise ExportError(f"{path}: exists; remove it or choose another directory")


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory that becomes `path` at the end, unless something fails.

    ExportError if a file or a directory that is not empty is there, OSError if it cannot be written.
    """
    check_new(path)
    with _empty_directory(path.with_name(f".{path.name}.tmp"), path) as temporary:
        try:
            yield temporary
            for file in (*temporary.rglob("*"), temporary):
                fsync(file)
            if path.is_dir():
                path.rmdir()
            temporary.rename(path)
            fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _empty_directory(temporary: Path, path: Path) -> Iterator[Path]:
    """A directory of this process alone, without what one that was killed has left in it.

    ExportError if another process writes `path`.
    """
    temporary.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):  # on Windows
            import fcntl

            descriptor = os.open(temporary, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held the lock before may have put it in its place meanwhile.
                is_own = os.path.samestat(os.fstat(descriptor), temporary.stat())
            except (BlockingIOError, FileNotFoundError):
                is_own = False
            if not is_own:
                raise ExportError(f"{path}: is being written by another process")
        for left in temporary.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield temporary

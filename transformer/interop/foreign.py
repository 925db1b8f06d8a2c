"""Models in other people's formats where a run is asked for: converted once, and kept in a cache.

Read are directories of Hugging Face's Marian models, and OPUS-MT's own releases, unpacked or as a .zip.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from torch import Tensor

from transformer.config import Config
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, warn
from transformer.files import write_atomic
from transformer.hub import check_home
from transformer.interop import marian_directory, opus_release
from transformer.interop.local_files import DECODER
from transformer.interop.marian_model import MarianModel

# Writes a checkpoint atomically: `save_checkpoint`, which is in a room above.
Save = Callable[[Path, Config, Tokenizer, dict[str, Tensor]], None]
_FORMAT = 2  # of what is kept; another number for another conversion of the same files
_CACHE = "attention-is-all-you-need"
_SUFFIXES = (".json", ".spm", ".safetensors", ".npz", ".yml", ".yaml", ".zip", ".md")


def converted(path: Path, save: Save) -> Path:
    """The checkpoint in the cache that a foreign model is converted to, unless it has been before.

    The cache is `$XDG_CACHE_HOME/attention-is-all-you-need/models`, by default in `~/.cache`, and knows models by the
    content of their files. CheckpointError as of `read_model`; ConfigError without a home directory; OSError.
    """
    cache = _cache()
    try:
        return _converted(path, cache, save)
    except OSError as error:
        reason = error.strerror or str(error)
        place = error.filename or cache
        raise OSError(error.errno, f"{reason} (converted models are kept in XDG_CACHE_HOME)", str(place)) from None


def _converted(path: Path, cache: Path, save: Save) -> Path:
    check_links(path)
    name = re.sub(r"[^\w.-]+", "-", _name_of(path))[:64]
    stamps = _stamps(path)
    checkpoint = cache / f"{name}-{_digest(path, stamps)}"
    if not _is_complete(checkpoint):
        with FileLock(cache / f".{checkpoint.name}.lock"):
            if not _is_complete(checkpoint):
                model = read_model(path)
                if _stamps(path) != stamps:  # or it would be kept for what was there before
                    raise CheckpointError(f"{path}: was changed while it was read; try again")
                write_atomic(_notes_file(checkpoint), "\n".join(model.messages))
                save(checkpoint, *model.to_checkpoint())
    _print_notes(_notes_file(checkpoint), str(path))
    return checkpoint


def _is_complete(checkpoint: Path) -> bool:
    return (checkpoint / "SHA256SUMS").is_file()


def _notes_file(checkpoint: Path) -> Path:
    """What was found in the conversion, for those who load the model later."""
    return checkpoint.with_name(f".{checkpoint.name}.notes")


@functools.lru_cache(maxsize=16)
def _print_notes(file: Path, name: str) -> None:
    """Warn of the notes of a model, once in a process."""
    for note in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        warn(f"{name}: {note}")


def read_model(path: Path) -> MarianModel:
    """Read a foreign model. CheckpointError if a file is missing, damaged or of a model that ours cannot be."""
    check_links(path)
    if path.is_file():
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=_cache()) as directory:
            opus_release.unpack(path, Path(directory))
            return opus_release.read_release(Path(directory), str(path))
    if (path / DECODER).is_file() and not (path / marian_directory.WEIGHTS).is_file():
        return opus_release.read_release(path, str(path))
    return marian_directory.read_directory(path)


def check_links(path: Path) -> None:
    """CheckpointError if a file of a foreign model is a link out of its directory.

    As `transformer.hub.check_links` for ours: in the hub's cache, files are links to the `blobs` of their repository.
    """
    if not path.is_dir():
        return
    root = path.resolve()
    allowed = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]
    for file in sorted(path.iterdir()):
        if file.is_symlink() and not any(file.resolve().is_relative_to(parent) for parent in allowed):
            raise CheckpointError(f"{file}: a link out of the model's directory, to {file.resolve()}; copy the file")


def _cache() -> Path:
    check_home("XDG_CACHE_HOME")
    base = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(base) if base else Path.home() / ".cache") / _CACHE / "models"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _name_of(path: Path) -> str:
    """What a model is called: of a download from the hub, the repository."""
    root = path.resolve()
    if root.parent.name == "snapshots":
        return root.parents[1].name.removeprefix("models--").replace("--", "-")
    return path.stem if path.is_file() else root.name


def _files(path: Path) -> list[Path]:
    """The files that are read of a model, and others of their kinds."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes, almost surely, if a file changes while this process runs."""
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path))


@functools.lru_cache(maxsize=16)
def _digest(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:  # noqa: ARG001
    """Changes with the content of a model's files; read once for the same `stamps`."""
    digest = hashlib.sha256(f"{_FORMAT}".encode())
    for file in _files(path):
        digest.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]

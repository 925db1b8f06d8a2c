"""Files of models from elsewhere: which they are, and what is read: regular, in their directory, not too large.

Imports no torch, for commands that only ask which file they got.
"""

from __future__ import annotations

from pathlib import Path

from transformer.errors import CheckpointError
from transformer.files import is_special_file

# Of configurations, vocabularies and SentencePiece models; the largest that are known have a few megabytes.
_MAX_BYTES = 64 << 20
DECODER = "decoder.yml"  # of OPUS-MT's releases
_OUR_FILES = ("config.yaml", "checkpoints", "best")


def is_foreign(path: str | Path) -> bool:
    """Whether a path is a model in another format than ours, readable or not."""
    path = Path(path)
    if path.is_dir():
        is_ours = any((path / name).exists() for name in _OUR_FILES)
        return not is_ours and any((path / name).is_file() for name in ("config.json", DECODER))
    return path.suffix == ".zip" and path.is_file()


def read_bytes(path: Path, name: str | None = None, *, most: int = _MAX_BYTES) -> bytes:
    """The content of a file, called `name` in messages.

    CheckpointError if it is missing, larger than `most` bytes, or no regular file.
    """
    name = str(path) if name is None else name
    try:
        if is_special_file(path):  # reading may never end
            raise CheckpointError(f"{name}: cannot be read: not a regular file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise CheckpointError(f"{name}: is missing") from None
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise CheckpointError(f"{name}: has more than {most:,} bytes")
    return content

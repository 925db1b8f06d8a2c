"""The splits of a run's data as plain text files, which later runs and other programs can read."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from transformer.config import DataConfig
from transformer.data.corpus import load_split
from transformer.data.mixture import training_corpora
from transformer.data.pairs import Corpus
from transformer.errors import ConfigError, DataError, warn

_LINE_ENDS = str.maketrans("\r\n", "  ")


def splits_to_write(data: DataConfig, directory: Path) -> Mapping[str, Corpus]:
    """The splits that `write_splits` writes: train, validation and, if there is one, test.

    Pairs that `data.hold_out` and `data.filters` take out of the training pairs are left out.

    Raises:
        ConfigError: the directory exists, or there are several training corpora, with weights that files do not have.
        DataError: a corpus cannot be read.
    """
    if directory.exists() or directory.is_symlink():
        raise ConfigError(f"--write {directory}: exists; give the name of a new directory")
    if len(data.corpora) > 1:
        raise ConfigError(f"--write takes a single training corpus, and data.corpora has {len(data.corpora)}")
    (train,) = training_corpora(data)
    found = {"train": train.corpus, "validation": load_split(data, data.validation_split)}
    try:
        found["test"] = load_split(data, data.test_split)
    except DataError as error:  # there need not be one
        warn(f"no test pairs are written: {error}")
    return found


def write_splits(splits: Mapping[str, Corpus], languages: tuple[str, str], directory: Path) -> dict[str, int]:
    """Write DIRECTORY/SPLIT.LANGUAGE, one text a line, and return the number of pairs by split.

    The directory appears when all are written. Line breaks within texts become spaces. DataError if a corpus cannot be
    read, OSError if a file cannot be written.
    """
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        numbers = {
            split: _write(pairs, [temporary / f"{split}.{language}" for language in languages])
            for split, pairs in splits.items()
        }
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return numbers


def _write(pairs: Iterable[tuple[str, str]], paths: list[Path]) -> int:
    number = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in paths]
        for pair in pairs:
            number += 1
            for file, text in zip(files, pair, strict=True):
                file.write(f"{text.translate(_LINE_ENDS)}\n")
    return number

"""Where commands may write: not over their inputs, corpora, runs or checkpoints."""

import glob
from collections.abc import Iterable
from pathlib import Path

from transformer.config import DataConfig, load_config
from transformer.data.compression import COMPRESSION_SUFFIXES
from transformer.errors import ConfigError
from transformer.files import check_not_input, check_replaceable
from transformer.hub import is_model_id
from transformer.interop.local_files import is_foreign
from transformer.sections.validation_set import name_and_corpus
from transformer.training.run_directory import CHECKSUMS, RUN_DIRECTORIES, find_checkpoint, is_run

_CHECKPOINT_FILES = ("model.safetensors", CHECKSUMS)
_RUN_FILES = (
    *("config.yaml", "tokenizer.model", "source_tokenizer.model", "metrics.jsonl", "starts.jsonl"),
    *("initialization.json", ".lock"),
)


def check_output(path: Path, inputs: Iterable[Path] = (), data: DataConfig | None = None) -> None:
    """Check, before a long computation, that a command may write its output here.

    Args:
        inputs: files that the command reads.
        data: of the run that it reads; no file of its corpora, nor its tokenizer, may be replaced either.

    Raises:
        ConfigError: it is an input or a file of the corpus, also by way of a link, belongs to a run or a checkpoint, is
            not a regular file, or has the name of a compressed one.
        OSError: the directory is not writable.
    """
    check_not_input(path, inputs)
    if data is not None:
        entries = [place for entry in data.corpora for place in (entry.path, entry.src, entry.tgt) if place]
        validated = [corpus for entry in data.also_validate if (corpus := name_and_corpus(entry)[1])]
        for place in (data.corpus, *entries, *validated, *([data.tokenizer] if data.tokenizer else [])):
            _check_no_part_of_a_corpus(path, Path(place).expanduser())
    _check_no_part_of_a_run(path)
    if path.suffix in COMPRESSION_SUFFIXES:
        raise ConfigError(f"{path}: outputs are not compressed; leave out {path.suffix}")
    check_replaceable(path)


def check_resumable_output(path: Path, inputs: Iterable[Path], run: str) -> None:
    """Check likewise an output of `run`, and the files beside it from which it resumes."""
    # The author of a model from the hub or from elsewhere has another corpus, whatever the name.
    config = None if is_model_id(run) or is_foreign(run) else find_checkpoint(run) / "config.yaml"
    data = load_config(config, saved=True).data if config else None
    inputs = [*inputs, Path(run)]  # which may be an archive
    for suffix in ("", ".part", ".part.json"):
        check_output(path.with_name(f"{path.name}{suffix}"), inputs, data)


def check_output_directory(path: Path) -> None:
    """ConfigError for a directory to write that is, or belongs to, a checkpoint or a run's own directories."""
    directory = path.absolute()
    for parent in (directory, *directory.parents):
        if any((parent / name).exists() for name in _CHECKPOINT_FILES):
            raise ConfigError(f"{path}: {parent} is a checkpoint, to which no other file belongs; choose another place")
        if parent.name in RUN_DIRECTORIES and is_run(parent.parent):
            raise ConfigError(f"{path}: {parent} is a directory of the run there; choose another place")


def _check_no_part_of_a_corpus(path: Path, corpus: Path) -> None:
    """ConfigError for a file of any split or language of `data.corpus`."""
    if corpus.is_dir() and path.exists() and path.resolve().is_relative_to(corpus.resolve()):
        raise ConfigError(f"{path}: belongs to the corpus {corpus}, which the output would damage; choose another name")
    pattern = glob.escape(str(corpus)).replace("{split}", "*").replace("{lang}", "*")
    check_not_input(path, map(Path, glob.iglob(pattern)))  # noqa: PTH207 (the pattern may be absolute)


def _check_no_part_of_a_run(path: Path) -> None:
    directory = path.absolute().parent.resolve()
    if any((directory / name).exists() for name in _CHECKPOINT_FILES):
        raise ConfigError(f"{path}: {directory} is a checkpoint, to which no other file belongs; choose another place")
    is_run_file = is_run(directory) and path.name in _RUN_FILES
    if is_run_file or (directory.name in RUN_DIRECTORIES and is_run(directory.parent)):
        raise ConfigError(f"{path}: belongs to the run there, which the output would damage; choose another name")

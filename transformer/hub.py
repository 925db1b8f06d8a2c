"""Resolve and pin Hugging Face Hub revisions."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from transformer.config import Config, load_config
from transformer.errors import CheckpointError, ConfigError

_MODEL_FILES = ["config.yaml", "tokenizer.model", "source_tokenizer.model", "model.safetensors", "SHA256SUMS"]
# Of Marian models that `transformers` wrote: transformer.interop.marian_directory.
_MARIAN_FILES = [
    *("config.json", "generation_config.json", "tokenizer_config.json"),
    *("vocab.json", "target_vocab.json", "source.spm", "target.spm"),
]
_FETCHED = [*_MODEL_FILES, *_MARIAN_FILES]
_TRAINING_FILES = ["optimizer.safetensors", "training.json"]  # verified too where present
_REPOSITORY = r"[\w-][\w.-]*/[\w-][\w.-]*"
_REVISION = r"\w[\w./-]*"


def is_model_id(path: str | Path) -> bool:
    """Whether this is a hub id `owner/name[@revision]`, not a local path."""
    repository, _, _ = str(path).partition("@")
    is_local = Path(path).exists() or Path(repository).parent.is_dir()
    return not is_local and re.fullmatch(f"{_REPOSITORY}(@.*)?", str(path)) is not None


def fetch_model(model_id: str) -> tuple[Path, str]:
    """Download `owner/name[@revision]`; returns its directory and `owner/name@commit`.

    The revision is a commit, tag or branch, by default the newest commit. Offline, an earlier download is used.
    ConfigError if the revision is malformed, CheckpointError if the model is unknown or there is no network.
    """
    check_home("HF_HOME")
    from huggingface_hub import snapshot_download

    repository, at, revision = model_id.partition("@")
    if at and (not re.fullmatch(_REVISION, revision) or ".." in revision):
        raise ConfigError(f"{model_id}: the revision must be a commit, a tag or a branch, got {revision!r}")
    try:
        directory = Path(snapshot_download(repository, revision=revision or None, allow_patterns=_FETCHED))
    except Exception as error:  # the network library's errors are undocumented
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{model_id}: no such directory, and no such model on the hub ({type(error).__name__}: {reason})"
        ) from None
    return directory, f"{repository}@{directory.name}"


def check_home(variable: str) -> None:
    """ConfigError if there is no home directory to download to, nor one that the environment names instead.

    Libraries would make a directory called `~` in the working directory.
    """
    try:
        Path.home()
    except RuntimeError:
        if variable not in os.environ:
            raise ConfigError(f"no home directory to keep downloads in: set {variable} to a directory") from None


def pin_data(config: Config) -> Config:
    """Set the revision of each hub dataset to a commit, unless it is given.

    A run keeps the commit that it started with; a new run gets the newest. Offline, the revision stays unset, and an
    earlier download may be used.
    """
    data, path = config.data, Path(config.run_dir) / "config.yaml"
    pinned = load_config(path, saved=True).data if path.is_file() else None
    known = {} if pinned is None else {entry.path: entry.revision for entry in pinned.corpora}
    if pinned is not None:
        known[pinned.corpus] = pinned.revision
    corpora = tuple(
        dataclasses.replace(entry, revision=_pinned(entry.path, entry.revision, known)) for entry in data.corpora
    )
    data = dataclasses.replace(data, revision=_pinned(data.corpus, data.revision, known), corpora=corpora)
    return config if data == config.data else dataclasses.replace(config, data=data)


def _pinned(corpus: str | None, revision: str | None, known: Mapping[str | None, str | None]) -> str | None:
    """The revision of a corpus: as given, as a run has it, or the newest; None for other corpora."""
    is_dataset_id = corpus is not None and re.fullmatch(_REPOSITORY, corpus) and not Path(corpus).exists()
    if revision is not None or corpus is None or not is_dataset_id:
        return revision
    return known.get(corpus) or _newest_commit(corpus)


def _newest_commit(dataset: str) -> str | None:
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(dataset).sha
    except Exception:  # undocumented ones of the network library; loading the data will report the cause
        return None


def check_links(directory: Path) -> None:
    """CheckpointError if a model's file is a link out of its directory.

    A model from an untrusted source must not name other files of this machine. In the hub's cache, files are links to
    the `blobs` of the same repository. A link to the whole directory is fine.
    """
    root = directory.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parents[1] / "blobs")
    for name in (*_MODEL_FILES, *_TRAINING_FILES):
        target = (directory / name).resolve()
        if not any(target.is_relative_to(parent) for parent in allowed):
            raise CheckpointError(
                f"{directory / name}: a link out of the model's directory, to {target}; copy the file"
            )

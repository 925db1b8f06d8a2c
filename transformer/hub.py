"""The Hugging Face hub: which commit of a repository is used, so that it can be said, saved and had again."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from transformer.config import Config, DataConfig, load_config
from transformer.errors import CheckpointError, ConfigError

_MODEL_FILES = ["config.yaml", "tokenizer.model", "model.safetensors", "SHA256SUMS"]
_TRAINING_FILES = ["optimizer.safetensors", "training.json"]  # whose sums are looked at too, where they are
_REPOSITORY = r"[\w-][\w.-]*/[\w-][\w.-]*"
_REVISION = r"\w[\w./-]*"


def is_model_id(path: str | Path) -> bool:
    """Whether this is `owner/name` or `owner/name@revision` of the hub, and not a file or directory here."""
    repository, _, _ = str(path).partition("@")
    is_local = Path(path).exists() or Path(repository).parent.is_dir()
    return not is_local and re.fullmatch(f"{_REPOSITORY}(@.*)?", str(path)) is not None


def fetch_model(model_id: str) -> tuple[Path, str]:
    """The directory that `owner/name[@revision]` was downloaded to, and its name with the commit that this is.

    Without a revision, which is a commit, a tag or a branch, it is the newest; without a network, what was downloaded
    before.

    Raises:
        ConfigError: the revision is none.
        CheckpointError: there is no such model, or no network.
    """
    from huggingface_hub import snapshot_download

    repository, at, revision = model_id.partition("@")
    if at and (not re.fullmatch(_REVISION, revision) or ".." in revision):
        raise ConfigError(f"{model_id}: the revision must be a commit, a tag or a branch, got {revision!r}")
    try:
        directory = Path(snapshot_download(repository, revision=revision or None, allow_patterns=_MODEL_FILES))
    except Exception as error:  # the hub raises whatever its network library raises
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{model_id}: no such directory, and no such model on the hub ({type(error).__name__}: {reason})"
        ) from None
    return directory, f"{repository}@{directory.name}"


def pin_data(config: Config) -> Config:
    """The same configuration with the commit of the hub's dataset in `data.revision`, unless one is given.

    It is the commit that the run began with, or else the newest. Where the hub cannot be asked, nothing changes: what
    was downloaded before may serve.
    """
    data = config.data
    if data.revision is not None or not _is_dataset_id(data.corpus):
        return config
    begun = Path(config.run_dir) / "config.yaml"
    revision = None
    if begun.is_file():
        before = load_config(begun, allow_base=False).data
        revision = before.revision if before.corpus == data.corpus else None
    revision = revision or _newest_commit(data)
    return dataclasses.replace(config, data=dataclasses.replace(data, revision=revision))


def _is_dataset_id(corpus: str) -> bool:
    return re.fullmatch(_REPOSITORY, corpus) is not None and not Path(corpus).exists()


def _newest_commit(data: DataConfig) -> str | None:
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(data.corpus).sha
    except Exception:  # whatever the network library raises; loading the data will say what is wrong
        return None


def check_links(directory: Path) -> None:
    """CheckpointError if a model's file is a link that leads out of its directory.

    In the hub's cache, files are links to the `blobs` of the same repository. Links to whole directories are followed:
    what matters is where the files of a model are, and a stranger must not choose other files of this machine for it.
    """
    here = directory.resolve()
    allowed = [here]
    if here.parent.name == "snapshots":
        allowed.append(here.parents[1] / "blobs")
    for name in (*_MODEL_FILES, *_TRAINING_FILES):
        place = (directory / name).resolve()
        if not any(place.is_relative_to(root) for root in allowed):
            raise CheckpointError(f"{directory / name}: a link out of the model's directory, to {place}; copy the file")

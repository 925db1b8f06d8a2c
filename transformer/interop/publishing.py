"""Directories of models to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from transformer.errors import ExportError
from transformer.hub import check_home

_REPOSITORY = r"[\w-][\w.-]*/[\w-][\w.-]*"


def check_repository(repo_id: str) -> None:
    """ExportError unless it has the form `owner/name`."""
    if not re.fullmatch(_REPOSITORY, repo_id):
        raise ExportError(f"{repo_id!r} is not a repository of the hub: give owner/name")


def upload(directory: Path, repo_id: str, *, private: bool | None = None, message: str | None = None) -> str:
    """Upload a directory as one commit, into a new or an existing repository; returns its address.

    The token is that of `hf auth login`, or of the variable HF_TOKEN. ExportError if the hub cannot be reached or
    refuses.

    Args:
        private: whether a new repository is; None: as the hub's settings of its owner say.
        message: of the commit.
    """
    check_repository(repo_id)
    check_home("HF_HOME")
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = str(api.create_repo(repo_id, private=private, exist_ok=True))
        api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message=message or "Upload model")
    except Exception as error:  # the network library's errors are undocumented
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"{repo_id}: was not uploaded ({type(error).__name__}: {reason})") from None
    return address

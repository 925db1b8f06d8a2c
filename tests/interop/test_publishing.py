"""Uploads to the hub, by a hub that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from transformer.errors import ExportError
from transformer.interop.publishing import check_repository, upload


class Hub:
    """Records what is asked of it."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    error: Exception | None = None

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.calls.append(("create", {"repo_id": repo_id, **options}))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, folder_path: Path, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(("upload", {**options, "files": sorted(path.name for path in Path(folder_path).iterdir())}))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    class Fresh(Hub):
        calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012

    monkeypatch.setattr(huggingface_hub, "HfApi", Fresh)
    return Fresh


def test_a_directory_becomes_one_commit(hub: type[Hub], tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    (tmp_path / "model.safetensors").touch()
    assert upload(tmp_path, "org/name", private=True, message="A model") == "https://huggingface.co/org/name"
    assert hub.calls == [
        ("create", {"repo_id": "org/name", "private": True, "exist_ok": True}),
        ("upload", {"repo_id": "org/name", "commit_message": "A model", "files": ["README.md", "model.safetensors"]}),
    ]


def test_whatever_the_hub_raises_is_one_line(hub: type[Hub], tmp_path: Path) -> None:
    hub.error = RuntimeError("403\nno right to write")
    with pytest.raises(ExportError, match=r"^org/name: was not uploaded \(RuntimeError: 403 no right to write\)$"):
        upload(tmp_path, "org/name")


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "../x", "/a", "a/", ""])
def test_a_repository_is_an_owner_and_a_name(repo_id: str) -> None:
    with pytest.raises(ExportError, match="is not a repository of the hub: give owner/name"):
        check_repository(repo_id)

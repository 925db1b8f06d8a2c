"""Models in other people's formats, and an empty cache of converted ones."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interop_models import make as make
from interop_models import offline as offline
from interop_models import other_tokenizer as other_tokenizer
from interop_models import save as save
from marian_files import HuggingFace, pairs, train_sentencepiece, write_release

MakeHuggingFace = Callable[..., HuggingFace]


@pytest.fixture(scope="session")
def sentencepiece_models() -> tuple[bytes, bytes]:
    """Of source and target."""
    sources, targets = zip(*pairs(), strict=True)
    return train_sentencepiece(sources, 113), train_sentencepiece(targets, 131)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of converted models."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory))
    return directory / "attention-is-all-you-need" / "models"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets cannot be made."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.fixture
def make_hugging_face(tmp_path: Path, sentencepiece_models: tuple[bytes, bytes]) -> MakeHuggingFace:
    """Makes a directory; keywords are those of `HuggingFace`."""

    def make(name: str = "marian", **options: Any) -> HuggingFace:
        return HuggingFace(tmp_path / name, sentencepiece_models, **options)

    return make


@pytest.fixture(scope="session")
def hugging_face(tmp_path_factory: pytest.TempPathFactory, sentencepiece_models: tuple[bytes, bytes]) -> HuggingFace:
    """A directory of a joint vocabulary; read it, do not change it."""
    return HuggingFace(tmp_path_factory.mktemp("hugging_face") / "opus-mt-en-de", sentencepiece_models)


@pytest.fixture
def directory(hugging_face: HuggingFace, tmp_path: Path) -> Path:
    """A copy of it to change."""
    shutil.copytree(hugging_face.directory, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def release(tmp_path: Path, sentencepiece_models: tuple[bytes, bytes]) -> Path:
    """An unpacked release."""
    return write_release(tmp_path / "opus-2020-02-26", sentencepiece_models)

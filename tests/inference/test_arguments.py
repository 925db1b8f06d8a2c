"""Wrong arguments are told from right ones, by name; what `Translator` does with them is tested there."""

from __future__ import annotations

import pytest
import torch

from transformer.errors import CheckpointError, DeviceError
from transformer.inference import arguments
from transformer.inference.arguments import device_of, path_of, text_list


def test_any_iterable_of_texts_becomes_a_list() -> None:
    texts = ["a", "", "b c"]
    for given in (texts, tuple(texts), iter(texts), dict.fromkeys(texts)):
        assert text_list(given) == texts
    with pytest.raises(TypeError, match=r"^lines must be a list of sentences, not one string$"):
        text_list("abc", "lines")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "xpu", "CPU", "", "meta"])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"^device={name} is not one of auto, cpu, cuda and mps$"):
        device_of(name)
    assert device_of(torch.device("cpu")) == device_of("cpu") == torch.device("cpu")


def test_the_number_of_a_device_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert device_of("cuda:2") == torch.device("cuda", 2)
    with pytest.raises(DeviceError, match=r"^device=cuda:3: torch \S+ sees 3 of them, counted from 0$"):
        device_of("cuda:3")


def test_no_home_directory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> str:
        raise ValueError("begins with ~, and no home directory is known")

    assert path_of("runs/~x") == "runs/~x"
    monkeypatch.setattr(arguments, "expand_home", refuse)
    with pytest.raises(CheckpointError, match=r"^~/run begins with ~, and no home directory is known$"):
        path_of("~/run")

"""Untrained models of small sizes with the tokenizer of a trained run, as they are exported."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from transformer.config import ModelConfig, SearchConfig
from transformer.data.batching import pad
from transformer.data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from transformer.interop.exported import Exported
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import load_checkpoint, save_checkpoint

TEXTS = ["A man is sleeping.", "Two small dogs are playing in the park.", "The women are singing.", "A cat."]
SIZES: dict[str, Any] = {"d_model": 22, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2, "d_ff": 29}
Make = Callable[..., Exported]
Save = Callable[[Exported], Path]


@pytest.fixture
def make(trained_run: Path) -> Make:
    """Makes a model with options of the section `model`; `search` are options of that section."""
    config, tokenizer, _ = load_checkpoint(max((trained_run / "checkpoints").iterdir()))

    def call(*, search: dict[str, Any] | None = None, source: Tokenizer | None = None, **options: Any) -> Exported:
        torch.manual_seed(11)
        model_config = ModelConfig(**{**SIZES, **options})
        own = Tokenizer(tokenizer.model)
        own.source = own if source is None else source
        target_size, source_size = own.sizes
        model = build_model(target_size, model_config, source_vocab_size=source_size)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # neither zeros nor ones, which could be swapped unseen
                nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
        whole = dataclasses.replace(
            config,
            model=model_config,
            data=dataclasses.replace(config.data, separate_vocabularies=own.is_separate),
            search=SearchConfig(**{"beam": 3, "max_length_offset": 7, **(search or {})}),
        )
        return Exported(whole, own, model.eval(), "a model in memory")

    return call


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves an exported model as a checkpoint."""

    def call(exported: Exported) -> Path:
        directory = tmp_path / "checkpoint"
        save_checkpoint(directory, exported.config, exported.tokenizer, exported.model.state_dict())
        return directory

    return call


@pytest.fixture(scope="session")
def other_tokenizer() -> Tokenizer:
    """Of another size than that of the run, for the source of separate vocabularies."""
    return Tokenizer.train([*TEXTS, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,"] * 3, 83)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No connection can be made."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asks the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    yield


def source_ids(exported: Exported) -> Tensor:
    """Ids of the texts with </s>, padded: (B, S)."""
    return pad([[*ids, EOS_ID] for ids in exported.tokenizer.source.encode(TEXTS)])


def zero_start(exported: Exported) -> Exported:
    """As a model that came from Marian: the decoder starts from zero."""
    with torch.no_grad():
        for parameter in exported.model.embedding.parameters():
            parameter[BOS_ID] = 0
    return exported


def with_tag(exported: Exported, tag: str) -> Exported:
    """As a model that was trained with a tag before each source."""
    data = dataclasses.replace(exported.config.data, tag=tag)
    return dataclasses.replace(exported, config=dataclasses.replace(exported.config, data=data))


def programs(page: Path) -> list[str]:
    """The Python programs of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def output_of(program: str) -> str:
    """What a program prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "card", "exec"), {"__name__": "card"})
    return out.getvalue()

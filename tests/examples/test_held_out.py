"""What the examples on the built-in grammar score is of a split that they do not train on; splits are disjoint."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from torch import nn

READERS = {
    "bert": ("builtin_pairs", ["--pairs", "503", "--batch", "2", "--d-model", "8", "--num-layers", "1"]),
    "distillation": ("builtin_pairs", ["--pairs", "67", "--student-pairs", "67", "--test-pairs", "2"]),
    "elmo": ("clauses", ["--sentences", "67"]),
    "scaling": ("english", ["--log2-tokens", "9", "--amounts", "3", "--resamples", "2"]),
    "textcnn": ("corpus", ["--trees", "503", "--batch", "2"]),
}


@pytest.mark.parametrize("name", READERS)
def test_tests_are_of_the_test_split(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, (reader, argv) = importlib.import_module(name), READERS[name]
    original, splits = getattr(module, reader), []

    def read(split: str, *sizes: int) -> Any:
        splits.append(split)
        return original(split, *(min(size, 503) for size in sizes))  # fewer, for the time it takes

    def fit(model: nn.Module, *_: object, **__: object) -> None:
        model.eval()

    monkeypatch.setattr(module, reader, read)
    monkeypatch.setattr(module, "fit", fit)
    module.main(argv)
    assert {*splits[:-1]} == {"train"}
    assert splits[-1] == "test"

"""Fixtures that several rooms share: a configuration that trains in seconds, and a run trained with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported here, and for the processes that tests start: they share few cores.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import pytest
import torch

from transformer.config import Config, load_config
from transformer.data.builtin import builtin_pairs
from transformer.training.trainer import Trainer

# Small matrices do not gain from a second thread, and test processes may share the machine.
torch.set_num_threads(1)

# Sizes are small primes where the model allows it.
TINY_YAML = """
seed: 7
model: {d_model: 22, num_layers: 2, num_heads: 2, d_ff: 29, d_k: 7, d_v: 5, dropout: 0.1}
data: {vocab_size: 307}
train: {tokens_per_update: 509, max_tokens: 211, warmup_steps: 13, max_steps: 11, log_steps: 3, validate_steps: 5,
        validation_bleu: false, save_steps: 4, save_minutes: null, keep_checkpoints: 3, precision: fp32, device: cpu}
search: {beam: 3, max_length_offset: 7}
"""


@pytest.fixture(scope="session", autouse=True)
def untuned() -> Iterator[None]:
    """Commands that tests call in their own process leave its allocator as it is: it would keep all freed memory."""
    with pytest.MonkeyPatch.context() as patch:
        for command in ("train", "evaluate", "translate", "parse"):
            patch.setattr(f"transformer.commands.{command}.tune_process", lambda: None)
        yield


def write_tiny_config(directory: Path, corpus: str) -> Config:
    """The tiny configuration, with its run and its cache in `directory`."""
    path = directory / "tiny.yaml"
    path.write_text(TINY_YAML)
    places = [f"run_dir={directory / 'run'}", f"data.cache_dir={directory / 'cache'}"]
    return load_config(path, [f"data.corpus={corpus}", *places])


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pattern of files with pairs of the grammar: 397 for training, 53 for validation and for test.

    The builtin corpus has 1,000 for validation, which take longer than the 11 updates.
    """
    directory = tmp_path_factory.mktemp("tiny")
    for split, size in (("train", 397), ("validation", 53), ("test", 53)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
            (directory / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    return f"{directory}/{{split}}.{{lang}}"


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_corpus: str) -> Config:
    """Two small layers on a few hundred pairs, 11 updates, in a directory of its own."""
    return write_tiny_config(tmp_path, tiny_corpus)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: str) -> Path:
    """A run directory after the 11 updates of the tiny configuration; read it, do not change it."""
    config = write_tiny_config(tmp_path_factory.mktemp("trained"), tiny_corpus)
    Trainer.from_config(config).fit()
    return Path(config.run_dir)

"""Fixtures that several rooms share: a configuration that trains in seconds, and a run trained with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transformer.config import Config, load_config
from transformer.training.trainer import Trainer

# Small matrices do not gain from a second thread, and test processes may share the machine.
torch.set_num_threads(1)

# Sizes are small primes where the model allows it.
TINY_YAML = """
seed: 7
model: {d_model: 22, num_layers: 2, num_heads: 2, d_ff: 29, d_k: 7, d_v: 5, dropout: 0.1}
data: {corpus: builtin, builtin_size: 397, vocab_size: 307}
train: {tokens_per_update: 509, max_tokens: 211, warmup_steps: 13, max_steps: 11, log_steps: 3, validate_steps: 5,
        validation_bleu: false, save_steps: 4, save_minutes: null, keep_checkpoints: 3, precision: fp32, device: cpu}
search: {beam: 3, max_length_offset: 7}
"""


def write_tiny_config(directory: Path, *overrides: str) -> Config:
    """The tiny configuration, with its run and its cache in `directory`."""
    path = directory / "tiny.yaml"
    path.write_text(TINY_YAML)
    return load_config(path, [f"run_dir={directory / 'run'}", f"data.cache_dir={directory / 'cache'}", *overrides])


@pytest.fixture
def tiny_config(tmp_path: Path) -> Config:
    """Two small layers on a few hundred builtin pairs, 11 updates, in a directory of its own."""
    return write_tiny_config(tmp_path)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory after the 11 updates of the tiny configuration; read it, do not change it."""
    config = write_tiny_config(tmp_path_factory.mktemp("trained"))
    Trainer.from_config(config).fit()
    return Path(config.run_dir)

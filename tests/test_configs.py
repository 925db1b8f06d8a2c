"""The shipped configurations: each one loads, counts its parameters and trains."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch
from ablation.rows import divide_model

from transformer.config import load_config
from transformer.model.alternatives.build import build_model
from transformer.training.trainer import Trainer

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
SMALL = [
    "data.src_lang=en",
    "data.tgt_lang=de",
    "data.vocab_size=307",
    "train.tokens_per_update=211",
    "train.max_tokens=211",
    "train.device=cpu",
    "train.init_from=null",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_they_are_found() -> None:
    assert {"base.yaml", "big.yaml", "quickstart.yaml"} < {path.name for path in CONFIGS.glob("*.yaml")}
    assert len(list((CONFIGS / "table3").glob("*.yaml"))) == 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_configuration_loads_counts_its_parameters_and_trains(
    path: Path, tmp_path: Path, cache: Path, tiny_corpus: str
) -> None:
    config = load_config(path)
    assert config.run_dir == f"runs/{path.stem}"
    with torch.device("meta"):
        model = build_model(config.data.vocab_size, config.model)
    full_size = sum(parameter.numel() for parameter in model.parameters())

    places = [f"run_dir={tmp_path / 'run'}", f"data.cache_dir={cache}", f"data.corpus={tiny_corpus}"]
    small = load_config(path, [*SMALL, *places])
    trainer = Trainer.from_config(dataclasses.replace(small, model=divide_model(small.model, 8)))
    before = {name: weight.clone() for name, weight in trainer.weights.master.state_dict().items()}
    (number,) = re.findall(r"^parameters: ([\d,]+) \(vocabulary of 307\)$", trainer.summary(), re.MULTILINE)
    assert 0 < int(number.replace(",", "")) < full_size
    batches = trainer.update()
    assert sum(batch.num_tokens for batch in batches) > 0
    after = trainer.weights.master.state_dict()
    assert all(math.isfinite(weight.sum().item()) for weight in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)

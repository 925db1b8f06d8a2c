"""The recipes of docs/RECIPES.md train the model, where their packages are installed; all of them are Python."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.inference.translator import Translator
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import load_checkpoint

PAGE = (Path(__file__).parents[1] / "docs" / "RECIPES.md").read_text(encoding="utf-8")
START, *RECIPES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# What each needs; the Trainer of transformers starts with accelerate only.
PACKAGES = [("accelerate",), ("pytorch_lightning",), ("transformers", "accelerate"), ("peft",)]
# On the CPU and without a network, whatever is there.
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize("program", [START, *RECIPES])
def test_every_recipe_is_python_of_at_most_twenty_lines(program: str) -> None:
    ast.parse(program)
    assert sum(bool(line.strip()) for line in program.splitlines()) <= 20


def test_there_is_a_recipe_for_each_package() -> None:
    assert len(RECIPES) == len(PACKAGES)
    assert all(f"import {needed[0]}" in recipe or f"from {needed[0]} import" in recipe
               for recipe, needed in zip(RECIPES, PACKAGES, strict=True))  # fmt: skip


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the recipes begin with, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    torch.manual_seed(0)
    found: dict[str, Any] = {"__name__": "recipes"}
    exec(START, found)
    return found


@torch.no_grad()
def loss_of_all(names: dict[str, Any], model: Any) -> float:
    batch = {side: torch.stack([pair[side] for pair in names["pairs"]]) for side in ("src", "tgt")}
    return names["loss_of"](model.eval(), **batch).item()


@pytest.mark.parametrize("number", range(len(PACKAGES)), ids=["accelerate", "lightning", "trainer", "peft"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_recipe_trains_the_model(names: dict[str, Any], number: int) -> None:
    for package in PACKAGES[number]:
        pytest.importorskip(package)
    before = loss_of_all(names, names["model"])
    exec(RECIPES[number], names)
    model = names["model"]
    assert type(model) is Transformer
    assert loss_of_all(names, model) < before - 0.05


def test_adapters_are_all_that_peft_trains_and_are_merged_into_the_weights(names: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    embedding = names["model"].embedding.weight.detach().clone()
    exec(RECIPES[3], names)
    model = names["model"]
    assert torch.equal(model.embedding.weight, embedding)
    assert not any("lora" in name for name in model.state_dict())
    assert model.state_dict().keys() == Transformer(1000, 64, 2, 4, 128).state_dict().keys()


@pytest.mark.usefixtures("names")
def test_a_run_with_merged_adapters_translates(trained_run: Path) -> None:
    peft = pytest.importorskip("peft")
    config, tokenizer, model = load_checkpoint(trained_run / "best" / "step-00000010")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=3, target_modules=["w_q", "w_2"], init_lora_weights=False))
    src, tgt = torch.randint(4, len(tokenizer), (2, 5, 7))
    expected = adapted.eval()(src, tgt)
    merged = adapted.merge_and_unload().eval()
    torch.testing.assert_close(merged(src, tgt), expected)
    assert len(Translator(merged, tokenizer, config.search).translate(["A man is walking."])) == 1

"""`transformer train` with trained weights, frozen parameters and --change, from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from transformer.cli import run
from transformer.commands import train
from transformer.config import load_config
from transformer.training.run_directory import find_checkpoint

Train = Callable[..., tuple[object, str, str]]


@pytest.fixture
def call(tiny_corpus: str, trained_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Train:
    """Run the command on a file that names only the source, the data and how long to train."""
    path = tmp_path / "mine.yaml"
    values = {"init_from": str(trained_run), "tokens_per_update": 509, "max_tokens": 211, "max_steps": 2}
    values |= {"validate_steps": 2, "validation_bleu": False, "precision": "fp32", "device": "cpu"}
    data = {"corpus": tiny_corpus, "cache_dir": str(tmp_path / "cache")}
    path.write_text(yaml.safe_dump({"run_dir": str(tmp_path / "run"), "data": data, "train": values}))

    def call(*arguments: str) -> tuple[object, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(lambda: train.main([str(path), *arguments]))
        return ended.value.code, *capfd.readouterr()

    return call


def test_a_few_lines_are_a_configuration(call: Train, trained_run: Path, tmp_path: Path) -> None:
    status, out, _ = call("train.freeze=[encoder, embeddings]")
    assert status == 0
    assert f"\ninitial weights: {find_checkpoint(trained_run)} (SHA-256 " in out
    (line,) = [line for line in out.splitlines() if line.startswith("parameters: ")]
    numbers = [int(word.replace(",", "")) for word in re.findall(r"\d[\d,]*\b", line)]
    assert 0 < numbers[1] < numbers[0] and " of them trained (vocabulary of 307)" in line
    complete = load_config(tmp_path / "run" / "config.yaml", saved=True)
    assert complete.model == load_config(trained_run / "config.yaml", saved=True).model
    assert complete.train.freeze == ("encoder", "embeddings")


def test_other_values_are_refused_printed_and_recorded(call: Train, tmp_path: Path) -> None:
    assert call()[0] == 0
    status, _, err = call("train.lr_factor=0.5", "train.max_steps=3")
    assert status == 2 and err.endswith("; --change goes on with the new ones\n") and err.count("\n") == 1
    status, out, _ = call("train.lr_factor=0.5", "train.max_steps=3", "--change")
    assert status == 0 and "\ntrain.lr_factor: 1.0 → 0.5\n" in out and "initial weights" not in out
    last = json.loads((tmp_path / "run" / "starts.jsonl").read_text().splitlines()[-1])
    assert last["changed"] == {"train.lr_factor": [1.0, 0.5], "train.max_steps": [2, 3]}


@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.freeze=[encodre]", "train.freeze: 'encodre' names no parameter of this model"),
        ("train.freeze=*", "train.freeze=*: names all parameters, so there is nothing to train"),
        ("train.init_from=/no/such", "/no/such: no such run or checkpoint directory"),
    ],
)
def test_what_cannot_be_trained_is_said_before_there_is_a_run(
    call: Train, tmp_path: Path, override: str, message: str, check: tuple[str, ...]
) -> None:
    status, _, err = call(override, *check)
    assert status == 2 and err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()

"""Resuming equals never having stopped, however training ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.builtin import builtin_pairs
from transformer.training import run_directory as run_module
from transformer.training.metrics import read_metrics
from transformer.training.run_directory import checkpoints
from transformer.training.trainer import Trainer

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
NUM_STEPS = 11
# Measured in seconds: they differ between runs.
TIMES = {"elapsed_s", "window_s", "tokens_per_s"}


def changed(config: Config, run_dir: Path, *overrides: str) -> Config:
    """The configuration in another directory and with other values."""
    path = run_dir.with_suffix(".yaml")
    path.write_text(config.to_yaml())
    return load_config(path, [f"run_dir={run_dir}", *overrides])


@pytest.fixture(scope="module")
def config(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Dropout, and 11 updates: two epochs of 41 pairs and a bit of the third."""
    directory = tmp_path_factory.mktemp("resume")
    for split, size in (("train", 41), ("validation", 17)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
            (directory / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    data = (f"data.corpus={directory}/{{split}}.{{lang}}", f"data.cache_dir={directory / 'cache'}")
    sizes = ("data.vocab_size=151", "train.tokens_per_update=401", "train.max_tokens=97")
    return load_config(trained_run / "config.yaml", [*data, *sizes])


@pytest.fixture(scope="module")
def whole_run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """All 11 updates at once."""
    return train(changed(config, tmp_path_factory.mktemp("whole") / "run"), [])


def train(config: Config, stops: list[int]) -> Trainer:
    """Train, with a new trainer after each of these steps; returns the last trainer."""
    for step in [*stops, NUM_STEPS]:
        trainer = Trainer.from_config(config)
        trainer.fit(lambda until=step, now=trainer: "stop" if now.progress.step == until else None)
        assert trainer.progress.step == step
    return trainer


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in TIMES}


def assert_same_run(actual: Path, expected: Path) -> None:
    """Weights, moments, random numbers, position and log of the last checkpoints agree bit for bit."""
    name = f"step-{NUM_STEPS:08d}"
    here, there = (run / "checkpoints" / name for run in (actual, expected))
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert_close(load_file(here / file), load_file(there / file), rtol=0, atol=0)
    progress, expected_progress = (json.loads((path / "training.json").read_text()) for path in (here, there))
    assert without_times(progress) == without_times(expected_progress)
    lines, expected_lines = ([without_times(line) for line in read_metrics(run)] for run in (actual, expected))
    assert lines == expected_lines
    assert [path.name for path in (actual / "best").iterdir()] == [path.name for path in (expected / "best").iterdir()]


def test_the_configuration_crosses_two_epochs_and_ends_between_log_lines(whole_run: Trainer) -> None:
    assert whole_run.progress.epoch == 2
    assert whole_run.progress.running_tokens > 0
    assert [line["step"] for line in read_metrics(whole_run.run)] == [1, 3, 5, 6, 9, 10]


@pytest.mark.parametrize("stops", [[2], pytest.param([3, 7, 8], marks=pytest.mark.slow)], ids=str)
def test_stopping_and_resuming_equals_never_having_stopped(
    config: Config, whole_run: Trainer, tmp_path: Path, stops: list[int]
) -> None:
    assert_same_run(train(changed(config, tmp_path / "parts"), stops).run, whole_run.run)


def test_stopping_and_resuming_in_bfloat16_equals_never_having_stopped(config: Config, tmp_path: Path) -> None:
    values = ("train.precision=bf16", "model.num_layers=1")
    whole = train(changed(config, tmp_path / "whole", *values), [])
    assert whole.dtype == torch.bfloat16
    parts = train(changed(config, tmp_path / "parts", *values), [3, 8])
    assert_same_run(parts.run, whole.run)


def test_stopping_after_every_update_and_so_at_the_end_of_an_epoch(
    config: Config, whole_run: Trainer, tmp_path: Path
) -> None:
    parts = train(changed(config, tmp_path / "parts"), list(range(1, NUM_STEPS)))
    assert_same_run(parts.run, whole_run.run)


def test_updates_after_the_last_checkpoint_are_repeated(config: Config, whole_run: Trainer, tmp_path: Path) -> None:
    """After a crash, the log has lines and `best` a checkpoint from after the last checkpoint."""

    def crash() -> None:
        if trainer.progress.step == 7:
            raise RuntimeError("crash")

    crashing = changed(config, tmp_path / "crashed")
    trainer = Trainer.from_config(crashing)
    with pytest.raises(RuntimeError, match="crash"):
        trainer.fit(crash)
    assert [line["step"] for line in read_metrics(trainer.run)] == [1, 3, 5, 6]
    assert [path.name for path in (trainer.run / "best").iterdir()] == ["step-00000005"]
    assert Trainer.from_config(crashing).progress.step == 4
    assert_same_run(train(crashing, []).run, whole_run.run)


@pytest.mark.slow
def test_stops_do_not_change_which_checkpoints_are_kept(config: Config, whole_run: Trainer, tmp_path: Path) -> None:
    def kept(trainer: Trainer) -> list[str]:
        return sorted(path.name for path in (trainer.run / "checkpoints").iterdir())

    assert kept(train(changed(config, tmp_path / "parts"), [3, 7, 9, 10])) == kept(whole_run)


def test_a_run_killed_before_pruning_prunes_when_restarted(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt(arguments)

    here = changed(config, tmp_path / "run", "train.keep_checkpoints=2", "train.validate_steps=1000")
    Trainer.from_config(changed(here, tmp_path / "run", "train.max_steps=8")).fit()
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "remove_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            Trainer.from_config(here).fit()
    assert len(checkpoints(tmp_path / "run" / "checkpoints")) == 3
    Trainer.from_config(here).fit()
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000008", "step-00000011"]


def test_a_larger_max_steps_resumes(config: Config, tmp_path: Path) -> None:
    """The run is as one that never ended, but for the record of the validation at its end."""
    whole = Trainer.from_config(changed(config, tmp_path / "whole"))
    whole.fit()
    first = Trainer.from_config(changed(config, tmp_path / "run", "train.max_steps=7"))
    assert first.fit() == "train.max_steps=7 reached"
    trainer = Trainer.from_config(changed(config, tmp_path / "run", "train.max_steps=11"))
    assert "resuming after step 7" in trainer.summary()
    assert trainer.fit() == "train.max_steps=11 reached"
    path = trainer.run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    extra = [line for line in lines if '"validation", "step": 7,' in line]
    assert len(extra) == 1
    path.write_text("".join(line for line in lines if line not in extra))
    assert_same_run(trainer.run, whole.run)


def test_a_moved_run_and_a_lost_cache_change_nothing(config: Config, whole_run: Trainer, tmp_path: Path) -> None:
    train(changed(config, tmp_path / "here"), [7])
    (tmp_path / "here").rename(tmp_path / "there")
    moved = changed(config, tmp_path / "there", f"data.cache_dir={tmp_path / 'cache'}")
    assert_same_run(train(moved, []).run, whole_run.run)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(config: Config, tmp_path: Path) -> None:
    values = ("train.max_steps=31", "train.num_threads=1", "train.validate_steps=1000")
    for name in ("undisturbed", "killed"):
        (tmp_path / f"{name}.yaml").write_text(changed(config, tmp_path / name, *values).to_yaml())
    # All in processes of their own: commands choose oneDNN for float32, which tests in this process do not.
    options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    subprocess.run([sys.executable, str(TRAIN), "undisturbed.yaml"], check=True, capture_output=True, **options)
    saved = tmp_path / "killed" / "checkpoints"
    command = [sys.executable, str(TRAIN), "killed.yaml"]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
        try:
            while not list(saved.glob("step-*")):
                assert process.poll() is None, (tmp_path / "output").read_text()
                time.sleep(0.001)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL, "it should be killed before its end"
    printed = subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout
    assert "\nresuming after step " in printed
    assert "\ntrain.max_steps=31 reached after step 31; " in printed
    last = Path("checkpoints") / "step-00000031" / "model.safetensors"
    assert (tmp_path / "killed" / last).read_bytes() == (tmp_path / "undisturbed" / last).read_bytes()
    assert [path.name for path in saved.iterdir() if path.name.startswith(".")] == []

"""Training on CUDA: nothing waits in an update, no devices are mixed, and a run is that of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from full_size import measure
from pretended import PretendedCuda

from transformer.config import Config, load_config
from transformer.training.checkpoint import load_checkpoint
from transformer.training.trainer import Trainer

# Sizes with which attention has a fused kernel on CUDA.
SMALL = ["model.d_model=48", "model.num_heads=3", "model.num_layers=1", "model.d_k=null", "model.d_v=null"]
NO_DROPOUT = ["train.precision=fp32", "model.dropout=0.0"]  # random numbers of CUDA are others
MakeConfig = Callable[..., Config]


@pytest.fixture
def config(tmp_path: Path, tiny_config: Config) -> MakeConfig:
    """Makes a small configuration, with options, of a run in a directory of this name."""

    def make(*options: str, run: str = "run") -> Config:
        places = [f"data.cache_dir={tmp_path}/cache", f"run_dir={tmp_path}/{run}"]
        return load_config(
            tmp_path / "tiny.yaml", [f"data.corpus={tiny_config.data.corpus}", *places, *SMALL, *options]
        )

    return make


@pytest.mark.parametrize(
    "options",
    [
        ["train.precision=bf16"],
        ["train.clip_norm=0.5", "train.precision=fp32"],
        ["train.precision=fp16"],
        ["model.norm=pre", "model.positional=shaw", "train.precision=bf16"],
        ["train.ema_decay=0.99", "train.freeze=[encoder]", "train.precision=bf16"],
        ["train.gradient_checkpointing=true", "train.precision=bf16"],
        ["data.subword_dropout=0.1", "train.precision=bf16"],
    ],
    ids=lambda options: options[0],
)
def test_an_update_waits_for_nothing_and_mixes_no_devices(config: MakeConfig, options: list[str]) -> None:
    with PretendedCuda() as cuda:
        trainer = Trainer.from_config(config("train.device=cuda", *options))
        trainer.update()
        cuda.reset()
        trainer.update()
        assert cuda.waits == []
        assert cuda.num_kernels > 0


def test_a_save_reads_one_number_for_all_weights(config: MakeConfig) -> None:
    with PretendedCuda() as cuda:
        trainer = Trainer.from_config(config("train.device=cuda"))
        trainer.update()
        cuda.reset()
        trainer._save()
        assert sum(wait.startswith("_local_scalar_dense") for wait in cuda.waits) <= 1, cuda.waits


def weights_of(config: Config) -> dict[str, torch.Tensor]:
    last = max(Path(config.run_dir, "checkpoints").iterdir())
    return dict(load_checkpoint(last)[2].state_dict())


def train(config: Config) -> Config:
    Trainer.from_config(config).fit()
    return config


def test_a_run_on_cuda_is_that_of_the_cpu_also_if_it_moves_on_the_way(config: MakeConfig) -> None:
    def run(name: str, *more: str) -> Config:
        return config("train.validate_steps=50", "train.save_steps=2", *NO_DROPOUT, *more, run=name)

    expected = weights_of(train(run("cpu", "train.max_steps=4")))
    train(run("to_cuda", "train.max_steps=2"))
    with PretendedCuda():
        on_cuda = train(run("cuda", "train.max_steps=4", "train.device=cuda"))
        to_cuda = train(run("to_cuda", "train.max_steps=4", "train.device=cuda"))
        train(run("to_cpu", "train.max_steps=2", "train.device=cuda"))
    to_cpu = train(run("to_cpu", "train.max_steps=4"))
    for found in (on_cuda, to_cuda, to_cpu):
        torch.testing.assert_close(weights_of(found), expected, atol=1e-5, rtol=1e-4)


def test_a_run_on_cuda_that_is_resumed_draws_the_numbers_of_one_that_never_stopped(config: MakeConfig) -> None:
    options = ["train.validate_steps=50", "train.save_steps=1", "train.device=cuda", "train.precision=fp32"]
    with PretendedCuda():
        whole = train(config("train.max_steps=2", *options, run="whole"))
        torch.cuda.manual_seed_all(101)  # another state than that of the checkpoint
    for steps in (1, 2):
        with PretendedCuda():
            parts = train(config(f"train.max_steps={steps}", *options, run="parts"))
    torch.testing.assert_close(weights_of(parts), weights_of(whole), atol=0, rtol=0)


def test_an_update_of_25000_tokens_fits_into_8_gib_and_takes_no_more_kernels_than_before() -> None:
    found = measure(load_config("configs/base.yaml"), 25000, 1)
    assert found.peak_bytes <= 8 << 30
    assert found.static_bytes <= 16 * 65_000_000  # weights and both moments in float32, and rounded weights
    assert found.num_kernels <= 1400

"""Updates of packed batches on a CUDA device: what they launch, what they wait for, and that the numbers are right."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended import PretendedCuda
from torch import Tensor

from transformer.config import Config, load_config
from transformer.errors import ConfigError
from transformer.training.packed.cuda_batch import PackedBatch
from transformer.training.train_step import AnyBatch, accumulate_in_memory
from transformer.training.trainer import Trainer

pytest.importorskip("torch.nn.attention.varlen")  # since torch 2.10

SIZES = [
    *("model.d_model=24", "model.num_layers=1", "model.num_heads=3", "model.d_k=8", "model.d_v=8", "model.dropout=0"),
    *("train.precision=bf16", "train.max_tokens=null"),
]


@pytest.fixture
def cuda() -> Iterator[PretendedCuda]:
    with PretendedCuda() as device:
        yield device


def trainer_of(config: Config, name: str, *overrides: str, device: str = "cuda") -> Trainer:
    path = Path(config.run_dir).with_name("packed.yaml")
    path.write_text(config.to_yaml())
    places = [f"run_dir={path.with_name(name)}", f"train.device={device}"]
    return Trainer.from_config(load_config(path, [*SIZES, *places, *overrides]))


def counted_update(cuda: PretendedCuda, trainer: Trainer) -> tuple[Sequence[AnyBatch], int]:
    """Batches and kernels of an update after the first."""
    trainer.update()
    cuda.reset()
    batches = trainer.update()
    return batches, cuda.num_kernels


def test_a_packed_update_waits_for_nothing_and_launches_less(cuda: PretendedCuda, tiny_config: Config) -> None:
    values = ("model.num_layers=2", "model.norm=pre", "model.positional=learned", "train.clip_norm=1")
    (batch,), number = counted_update(cuda, trainer_of(tiny_config, "packed", *values))
    assert isinstance(batch, PackedBatch)
    assert not cuda.waits
    assert cuda.attention == {"varlen": 6}
    padded, more = counted_update(
        cuda, trainer_of(tiny_config, "padded", "train.packed=false", "train.max_tokens=211", *values)
    )
    assert not any(isinstance(batch, PackedBatch) for batch in padded)
    assert len(padded) > 1 and number < 0.6 * more


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        (),
        ("train.precision=fp16", "train.freeze=[encoder.layers.0]", "train.ema_decay=0.9", "train.max_tokens=211"),
        ("data.subword_dropout=0.2", "train.gradient_checkpointing=true", "model.tie=none"),
    ],
    ids=str,
)
def test_a_run_of_packed_batches_is_that_of_padded_ones_on_a_cpu(tiny_config: Config, values: tuple[str, ...]) -> None:
    found = []
    for name in ("cuda", "cpu"):
        with PretendedCuda() if name == "cuda" else contextlib.nullcontext() as device:
            quick = ("train.max_steps=4", "train.log_steps=1", "train.validate_steps=4", "train.save_steps=4")
            padded = () if name == "cuda" else ("train.packed=false",)
            trainer = trainer_of(tiny_config, name, *quick, *values, *padded, device=name)
            assert ("batches: packed" in trainer.summary().splitlines()) == (name == "cuda")
            trainer.fit()
            if device is not None:
                assert device.attention["varlen"] >= 12
        lines = [json.loads(line) for line in (trainer.run / "metrics.jsonl").read_text().splitlines()]
        found.append([(line["kind"], line["nll"]) for line in lines])
    assert [kind for kind, _ in found[0]] == ["train"] * 4 + ["validation"]
    for (_, nll), (_, expected) in zip(*found, strict=True):
        assert nll == pytest.approx(expected, rel=2e-3)


def test_too_little_memory_halves_batches_for_the_rest_of_the_run(cuda: PretendedCuda, tiny_config: Config) -> None:
    trainer, told, pairs = trainer_of(tiny_config, "halved"), [], [np.arange(41)]
    packer, weights, dataset = trainer.packer, trainer.weights, trainer.data.train
    num_tokens = int(dataset.tgt.lengths[:41].sum())
    assert packer is not None

    def accumulate() -> tuple[Sequence[AnyBatch], Tensor]:
        weights.zero_grad()
        batches, _, _ = accumulate_in_memory(
            weights, dataset, pairs, 0.1, num_tokens, lambda: told.append(1), packer=packer
        )
        gradients = [p.grad.cpu().flatten() for p in weights.master.parameters() if p.grad is not None]
        return batches, torch.cat(gradients)

    cuda.reset()
    whole, expected = accumulate()
    weights.zero_grad()
    cuda.memory = cuda.live_bytes + 2 * (cuda.peak_bytes - cuda.live_bytes) // 3
    batches, found = accumulate()
    assert len(whole) == 1 and len(batches) > 1 and told
    assert sum(batch.num_tokens for batch in batches) == num_tokens
    assert (found - expected).norm() < 0.06 * expected.norm()  # rounded to bfloat16
    told.clear()
    assert len(accumulate()[0]) == len(batches) and not told
    cuda.memory = cuda.live_bytes + (1 << 15)
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        accumulate()


@pytest.mark.usefixtures("cuda")
def test_a_hook_that_is_added_later_gets_padded_batches(tiny_config: Config) -> None:
    for name, values in (("auto", ()), ("true", ("train.packed=true",))):
        trainer, shapes = trainer_of(tiny_config, name, *values), []
        trainer.update()
        model = trainer.weights.model
        handle = model.encoder.register_forward_hook(lambda *inputs, seen=shapes: seen.append(inputs[2].shape))
        if values:
            with pytest.raises(ConfigError, match=r"^train\.packed=true: encoder has a hook, .*; use auto or false$"):
                trainer.update()
            continue
        batches = trainer.update()
        assert not any(isinstance(batch, PackedBatch) for batch in batches)
        assert [tuple(shape[:2]) for shape in shapes] == [tuple(batch.src.shape) for batch in batches]
        assert "batches: padded, as encoder has a hook, which may expect a row for each sentence" in trainer.summary()
        handle.remove()
        assert all(isinstance(batch, PackedBatch) for batch in trainer.update())


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(
    ("values", "line"),
    [
        (("train.max_steps=10000",), "batches: packed, compiled in the first update"),
        (("train.max_steps=9999",), "batches: packed"),
        (("train.compile=true",), "batches: packed, compiled in the first update"),
        (("train.precision=fp32",), "batches: padded, as flash attention computes in bf16 or fp16, not in float32"),
    ],
    ids=str,
)
def test_the_summary_says_what_batches_are(tiny_config: Config, values: tuple[str, ...], line: str) -> None:
    assert line in trainer_of(tiny_config, "described", *values).summary().splitlines()


@pytest.mark.usefixtures("cuda")
def test_what_cannot_be_packed_on_the_device_is_one_line(tiny_config: Config) -> None:
    message = (
        r"^train\.packed=true: encoder\.layers\.0\.self_attention\.attention is a ShawAttention, which takes padded"
    )
    with pytest.raises(ConfigError, match=message):
        trainer_of(tiny_config, "shaw", "train.packed=true", "model.positional=shaw")

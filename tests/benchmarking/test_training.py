"""What a training measurement reports is what the updates contained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from benchmarking.training import benchmark_training, time_updates

from transformer.config import Config
from transformer.data.batching import group_into_updates
from transformer.training.train_step import no_timer
from transformer.training.trainer import Trainer


def test_padding_and_tokens_are_those_of_the_plan(tiny_config: Config) -> None:
    train = dataclasses.replace(tiny_config.train, batching="bucketed", packed=False)
    trainer = Trainer.from_config(dataclasses.replace(tiny_config, train=train))
    src, tgt = trainer.data.train.src.lengths, trainer.data.train.tgt.lengths
    settings = tiny_config.train
    plan = group_into_updates(
        src, tgt, max_tokens=settings.max_tokens, tokens_per_update=settings.tokens_per_update, seed=7, epoch=0
    )
    batches = [batch for update in plan[1:4] for batch in update]
    timing_of_one = time_updates(trainer, 1)
    timing = time_updates(trainer, 3)
    assert timing_of_one.work.sentences == sum(map(len, plan[0]))
    assert len(timing.seconds) == 3
    assert timing.total_s >= sum(timing.seconds)
    work = timing.work
    assert work.source_tokens == sum(src[batch].sum() for batch in batches)
    assert work.target_tokens == sum(tgt[batch].sum() for batch in batches)
    assert work.source_pairs == sum((src[batch].astype(np.int64) ** 2).sum() for batch in batches)
    assert work.cross_pairs == sum((src[batch].astype(np.int64) * tgt[batch]).sum() for batch in batches)
    assert timing.source_positions == sum(len(batch) * src[batch].max() for batch in batches)
    assert timing.target_positions == sum(len(batch) * tgt[batch].max() for batch in batches)


def test_a_report_is_consistent_in_itself(tiny_config: Config) -> None:
    trainer = Trainer.from_config(tiny_config)
    report = benchmark_training(trainer, updates=3, warmup=2, peak_s=0.003)
    assert trainer.progress.step == 5
    assert trainer.timer is no_timer
    assert list(report["phases"]) == ["data", "forward", "backward", "optimizer", "host"]
    assert sum(report["phases"].values()) == pytest.approx(1)
    assert all(0 < share < 1 for share in report["phases"].values())
    assert report["tokens_per_s"] == pytest.approx(1e3 * report["tokens_per_update"] / report["update_ms"]["mean"])
    assert report["update_ms"]["fastest"] <= report["update_ms"]["median"] <= report["update_ms"]["slowest"]
    assert report["fraction_of_peak"] == pytest.approx(report["tokens_per_s"] / report["peak_tokens_per_s"])
    assert all(0 <= share < 1 for share in report["padding"].values())
    assert report["peak_memory_gib"] > 0


def test_peak_throughput_can_be_left_out(tiny_config: Config) -> None:
    assert "fraction_of_peak" not in benchmark_training(Trainer.from_config(tiny_config), updates=1, warmup=0, peak_s=0)

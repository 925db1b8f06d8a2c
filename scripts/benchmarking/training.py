"""How fast training is: real updates of a real trainer, with real tokens counted."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from benchmarking.ceiling import measure_products, training_ceiling
from benchmarking.clock import Stopwatch, peak_memory, synchronize
from benchmarking.flops import Work, batch_work, forward_flops, num_padded, weight_products
from benchmarking.report import Report
from transformer.training.phases import untimed
from transformer.training.trainer import Trainer

_PHASED_UPDATES = 5


@dataclass(frozen=True)
class Timing:
    """Some updates: how long they took, what they contained, and how many positions that was with padding."""

    total_s: float
    seconds: list[float]  # of each; on CUDA, of telling the device what to do
    work: Work
    source_positions: int
    target_positions: int


def time_updates(trainer: Trainer, number: int) -> Timing:
    """Do `number` updates as `Trainer.fit` does them, and count afterwards what was in them."""
    seconds, batches = [], []
    synchronize(trainer.device)
    began = last = time.perf_counter()
    for _ in range(number):
        batches += trainer.update()
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    synchronize(trainer.device)
    return Timing(time.perf_counter() - began, seconds, batch_work(batches), *num_padded(batches))


def benchmark_training(trainer: Trainer, *, updates: int, warmup: int, ceiling_s: float = 0.3) -> Report:
    """Time updates and their phases; then measure what the matrix products of the same shapes could do by themselves.

    Args:
        trainer: ready to do its next update.
        updates: how many are timed, after `warmup` others.
        ceiling_s: seconds spent on each matrix product; 0 leaves the ceiling out.
    """
    time_updates(trainer, warmup)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    phases = trainer.phase = Stopwatch(trainer.device)
    if trainer.device.type == "cuda":
        # Waiting for the device at every phase would slow the updates down.
        phased_s = time_updates(trainer, min(updates, _PHASED_UPDATES)).total_s
        trainer.phase = untimed
        timing = time_updates(trainer, updates)
    else:
        timing = time_updates(trainer, updates)
        phased_s = timing.total_s
    trainer.phase = untimed
    total_s, work = timing.total_s, timing.work
    model, vocab_size = trainer.config.model, len(trainer.data.tokenizer)
    tokens_per_s = work.target_tokens / total_s
    report = {
        "tokens_per_s": tokens_per_s,
        "sentences_per_s": work.sentences / total_s,
        "gflops": 3 * forward_flops(model, vocab_size, work) / total_s / 1e9,
        "update_ms": {
            "mean": 1e3 * total_s / updates,
            "median": 1e3 * statistics.median(timing.seconds),
            "fastest": 1e3 * min(timing.seconds),
            "slowest": 1e3 * max(timing.seconds),
        },
        "tokens_per_update": work.target_tokens / updates,
        "padding": {
            "source": 1 - work.source_tokens / timing.source_positions,
            "target": 1 - work.target_tokens / timing.target_positions,
        },
        "peak_memory_gib": peak_memory(trainer.device) / 2**30,
        "phases": phases.shares(phased_s, rest="host"),
    }
    if ceiling_s:
        products = weight_products(model, vocab_size)
        rates = measure_products(products, trainer.config.train.max_tokens, trainer.dtype, trainer.device, ceiling_s)
        ceiling = training_ceiling(products, rates, work.source_tokens / work.target_tokens)
        report |= {"ceiling_tokens_per_s": ceiling, "fraction_of_ceiling": tokens_per_s / ceiling}
    return report

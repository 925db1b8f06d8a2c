"""Training speed: updates of the real trainer, counting non-padding tokens."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from benchmarking.clock import Stopwatch, peak_memory, synchronize
from benchmarking.flops import Work, batch_work, forward_flops, num_padded, weight_products
from benchmarking.peak_flops import measure_products, peak_training_speed
from benchmarking.report import Report
from transformer.training.train_step import AnyBatch, no_timer
from transformer.training.trainer import Trainer

_PHASED_UPDATES = 5


@dataclass(frozen=True)
class Timing:
    """Timed updates, their work, and their number of positions including padding."""

    total_s: float
    seconds: list[float]  # per update; on CUDA, of launching it
    work: Work
    source_positions: int
    target_positions: int


def time_updates(trainer: Trainer, number: int) -> Timing:
    """Time `number` updates done as by `Trainer.fit`."""
    seconds: list[float] = []
    batches: list[AnyBatch] = []
    synchronize(trainer.device)
    began = last = time.perf_counter()
    for _ in range(number):
        batches += trainer.update()
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    synchronize(trainer.device)
    return Timing(time.perf_counter() - began, seconds, batch_work(batches), *num_padded(batches))


def benchmark_training(trainer: Trainer, *, updates: int, warmup: int, peak_s: float = 0.3) -> Report:
    """Time updates and their phases, and compare with the peak throughput of their matrix products.

    Args:
        trainer: ready for its next update.
        updates: number of timed updates, after `warmup` others.
        peak_s: seconds per matrix product to measure the peak throughput; 0 omits it.
    """
    time_updates(trainer, warmup)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    phases = trainer.timer = Stopwatch(trainer.device)
    if trainer.device.type == "cuda":
        # Synchronizing at every phase would slow the updates down.
        phased_s = time_updates(trainer, min(updates, _PHASED_UPDATES)).total_s
        trainer.timer = no_timer
        timing = time_updates(trainer, updates)
    else:
        timing = time_updates(trainer, updates)
        phased_s = timing.total_s
    trainer.timer = no_timer
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
    if peak_s:
        products = weight_products(model, vocab_size)
        rates = measure_products(products, trainer.config.train.padded_tokens, trainer.dtype, trainer.device, peak_s)
        peak = peak_training_speed(products, rates, work.source_tokens / work.target_tokens)
        report |= {"peak_tokens_per_s": peak, "fraction_of_peak": tokens_per_s / peak}
    return report

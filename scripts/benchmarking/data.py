"""Data preparation at scale: time and memory of each stage from text to batches.

Each stage runs in its own process, so that its peak memory is measured separately, imports included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarking.clock import Stopwatch, peak_memory, synchronize
from benchmarking.report import Report
from transformer.config import Config, DataConfig
from transformer.data.batching import group_into_updates
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import Corpus, load_split
from transformer.data.dataset import PairDataset, corpus_tokenizer, encode_corpus
from transformer.data.tokenizer import Tokenizer
from transformer.inference.validation_bleu import greedy_bleu
from transformer.training.device import tune_process
from transformer.training.trainer import Trainer

_process_start = 0.0  # time.time() at the start of a stage's process


def benchmark_data(
    config: Config,
    directory: Path,
    *,
    pairs: int,
    distinct: int,
    extra: str | None = None,
    updates: int = 20,
    log: Callable[[str], None] = print,
) -> Report:
    """Time the stages between text and training for a corpus of `pairs` pairs and one of a tenth of that.

    Args:
        config: the run; its corpus, cache and run directory are replaced by ones in `directory`.
        directory: an empty directory with room for about 250 bytes a pair.
        pairs: number of sentence pairs, at least 10.
        distinct: number of distinct builtin pairs, which are then repeated.
        extra: a pattern as in data.corpus; its training pairs are repeated too.
        updates: updates to train, to measure how long they wait for data; at least 2.
        log: receives a line per stage.
    """
    rows: list[dict[str, Any]] = []
    details: dict[str, dict[str, Any]] = {}
    for size in (pairs // 10, pairs):
        place = directory / str(size)
        place.mkdir()
        here = _short_run(config, place, updates)
        arguments: dict[Callable[..., dict[str, Any]], tuple[Any, ...]] = {
            _generate: (str(place), size, distinct, extra),
            **dict.fromkeys((_fingerprint, _tokenizer, _encode, _plan), (here,)),
            _start: (here,),
        }
        for stage in arguments:
            name = stage.__name__.removeprefix("_")
            details[name] = in_subprocess(stage, *arguments[stage])
            seconds, peak = details[name]["seconds"], details[name]["peak_bytes"]
            log(f"{size:,} pairs: {name} {seconds:.2f} s, {peak / 2**20:.0f} MiB")
            rows.append(
                {
                    "stage": name,
                    "pairs": size,
                    "seconds": seconds,
                    "cpu_seconds": details[name]["cpu_seconds"],
                    "pairs_per_s": size / seconds,
                    "peak_memory_mib": peak / 2**20,
                }
            )
    tenth, whole = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    return {
        "pairs": pairs,
        "target_tokens": details["plan"]["tokens"],
        "updates_per_epoch": details["plan"]["updates"],
        "seconds_to_first_update": details["start"]["seconds"],
        "share_of_update_waiting_for_data": details["start"]["data_share"],
        "memory_bytes_per_further_pair": {
            row["stage"]: (row["peak_memory_mib"] - less["peak_memory_mib"]) * 2**20 / (pairs - pairs // 10)
            for less, row in zip(tenth, whole, strict=True)
        },
        "stages": rows,
    }


def _short_run(config: Config, place: Path, updates: int) -> Config:
    """The same run on the corpus in a directory, short, without validation and saving."""
    return dataclasses.replace(
        config,
        run_dir=str(place / "run"),
        data=dataclasses.replace(
            config.data,
            corpus=f"{place}/{{split}}.{{lang}}",
            src_lang="en",
            tgt_lang="de",
            train_split="train",
            validation_split="validation",
            cache_dir=str(place / "cache"),
        ),
        train=dataclasses.replace(
            config.train, max_steps=updates, validate_steps=1 << 30, save_steps=None, save_minutes=None, patience=None
        ),
    )


def write_corpus(directory: Path, pairs: int, distinct: int, extra: Iterable[tuple[str, str]]) -> None:
    """Write train.{en,de} with `pairs` lines, repeating builtin and extra pairs, and validation.{en,de}.

    Args:
        directory: an existing directory.
        pairs: number of lines.
        distinct: number of distinct builtin pairs, at most `pairs`.
        extra: more pairs.
    """
    for split, drawn in (
        ("train", itertools.chain(builtin_pairs("train", min(distinct, pairs)), extra)),
        ("validation", builtin_pairs("validation", 1000)),
    ):
        paths = [directory / f"{split}.{lang}" for lang in ("en", "de")]
        with paths[0].open("wb") as src, paths[1].open("wb") as tgt:
            for source, target in drawn:
                src.write(f"{source}\n".encode())
                tgt.write(f"{target}\n".encode())
    for lang in ("en", "de"):
        _repeat_lines(directory / f"train.{lang}", pairs)


def _repeat_lines(path: Path, number: int) -> None:
    """Repeat or truncate a file to `number` lines."""
    block = path.read_bytes()
    num_lines = block.count(b"\n")
    times, rest = divmod(number, num_lines)
    with path.open("wb") as file:
        for _ in range(times):
            file.write(block)
        file.writelines(itertools.islice(block.splitlines(keepends=True), rest))


# The stages. Each returns its seconds and other results.


def _generate(directory: str, pairs: int, distinct: int, extra: str | None) -> dict[str, Any]:
    more = () if extra is None else load_split(DataConfig(corpus=extra), "train")
    return _timed(lambda: write_corpus(Path(directory), pairs, distinct, more))


def _fingerprint(config: Config) -> dict[str, Any]:
    return _timed(lambda: load_split(config.data, "train"))


def _tokenizer(config: Config) -> dict[str, Any]:
    corpus = load_split(config.data, "train")
    return _timed(lambda: _trained_tokenizer(config, corpus))


def _encode(config: Config) -> dict[str, Any]:
    corpus = load_split(config.data, "train")
    tokenizer = _trained_tokenizer(config, corpus)
    return _timed(lambda: _dataset(config, corpus, tokenizer))


def _plan(config: Config) -> dict[str, Any]:
    corpus = load_split(config.data, "train")
    dataset = _dataset(config, corpus, _trained_tokenizer(config, corpus))
    settings = config.train
    num_updates = 0

    def plan() -> None:
        nonlocal num_updates
        num_updates = len(
            group_into_updates(
                dataset.src.lengths,
                dataset.tgt.lengths,
                max_tokens=settings.padded_tokens,
                tokens_per_update=settings.tokens_per_update,
                seed=config.seed,
                epoch=0,
            )
        )

    return {**_timed(plan), "updates": num_updates, "tokens": int(dataset.tgt.lengths.sum())}


def _start(config: Config) -> dict[str, Any]:
    """Train as scripts/train.py does, with a warm cache, timed from the start of the process."""
    tune_process()
    trainer = Trainer.from_config(config, scorer=greedy_bleu)
    stopwatch = Stopwatch(trainer.device)
    found: dict[str, Any] = {}

    def after_an_update() -> None:
        if trainer.progress.step == 1 and not found:
            synchronize(trainer.device)
            found.update(seconds=time.time() - _process_start, cpu_seconds=time.process_time())
            # From here: the first update also waits for the plan of the epoch, which is timed as a stage.
            trainer.timer = stopwatch

    with contextlib.redirect_stdout(sys.stderr):  # the line of the last validation; the report is on stdout
        trainer.fit(after_an_update)
    return {**found, "data_share": stopwatch.shares(sum(stopwatch.seconds.values()), rest="host")["data"]}


def _timed(stage: Callable[[], object]) -> dict[str, Any]:
    """Wall time and CPU time of a stage."""
    began, cpu_began = time.perf_counter(), time.process_time()
    stage()
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}


def _dataset(config: Config, corpus: Corpus, tokenizer: Tokenizer) -> PairDataset:
    data = config.data
    return encode_corpus(corpus, tokenizer, data.cache_dir, max_length=data.max_length, max_ratio=data.max_ratio)


def _trained_tokenizer(config: Config, corpus: Corpus) -> Tokenizer:
    return corpus_tokenizer(corpus, config.data.vocab_size, config.data.cache_dir, **config.data.tokenizer_settings)


def in_subprocess(stage: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a stage in its own process; returns its result with the peak memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_remember_start, initargs=(time.time(),)) as pool:
        try:
            return pool.submit(_with_peak, stage, *arguments).result()
        except (KeyboardInterrupt, SystemExit):
            # Otherwise the pool would wait for the stage to end.
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _remember_start(start: float) -> None:
    global _process_start
    _process_start = start
    # A parent that is killed cannot end this process, which would keep a core busy for hours.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _with_peak(stage: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    found = stage(*arguments)
    return {**found, "peak_bytes": peak_memory(torch.device("cpu"))}

"""Data, a training loop and a clock for libraries of models."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAD, UNKNOWN, BOS, EOS = 0, 1, 2, 3
BATCH = 64  # sentences translated at a time, by default
Pair = tuple[list[int], list[int]]


def the_task() -> SimpleNamespace:
    """The task that this process was started with; sets the number of threads and the seed."""
    task = json.loads(sys.argv[-1], object_hook=lambda values: SimpleNamespace(**values))
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    return task


def report(**values: float) -> None:
    """Print what was measured, as the last line."""
    print(json.dumps(values), flush=True)


def read_words(directory: str, name: str) -> list[list[str]]:
    """Sentences of a file as words."""
    return [line.split() for line in Path(directory, name).read_text(encoding="utf-8").splitlines()]


def read_ids(directory: str, name: str) -> list[list[int]]:
    """Sentences of a file as ids, with </s>."""
    return [
        [UNKNOWN if word == "<unk>" else int(word) for word in words] + [EOS] for words in read_words(directory, name)
    ]


def bucket(pairs: Sequence[Pair], max_tokens: int, order: random.Random) -> list[list[Pair]]:
    """Batches of similar length in random order; the longer side times the sentences is at most `max_tokens`."""
    shuffled = order.sample(list(pairs), len(pairs))
    shuffled.sort(key=lambda pair: (max(map(len, pair)), len(pair[1])))
    batches: list[list[Pair]] = [[]]
    for pair in shuffled:  # in order of length: the newest is the longest
        if batches[-1] and (len(batches[-1]) + 1) * max(map(len, pair)) > max_tokens:
            batches.append([])
        batches[-1].append(pair)
    order.shuffle(batches)
    return batches


def padded(sentences: Sequence[Sequence[int]]) -> Tensor:
    """(B, L) int64."""
    rows = [torch.tensor(sentence) for sentence in sentences]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def tensors(batch: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Source (B, S), target shifted right and target (B, T)."""
    sources, targets = zip(*batch, strict=True)
    return padded(sources), padded([[BOS, *target[:-1]] for target in targets]), padded(targets)


def endless(pairs: Sequence[Pair], max_tokens: int, seed: int) -> Iterator[list[Pair]]:
    """Batches of one epoch after another."""
    order = random.Random(seed)
    while True:
        yield from bucket(pairs, max_tokens, order)


def train(task: SimpleNamespace, model: nn.Module, logits: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Time updates with Adam; report target tokens per second.

    Args:
        task: precision, data and number of updates.
        model: whose parameters are trained.
        logits: computes (B, T, V) from source (B, S) and shifted target (B, T).
    """
    source, target = (read_ids(task.data, f"train.{side}") for side in ("src", "tgt"))
    batches = endless(list(zip(source, target, strict=True)), task.max_tokens, task.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
    model.train()

    def update(batch: Sequence[Pair]) -> int:
        src, tgt_in, tgt_out = tensors(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=task.precision == "bf16"):
            found = logits(src, tgt_in)
            loss = F.cross_entropy(
                found.flatten(0, 1), tgt_out.flatten(), ignore_index=PAD, label_smoothing=task.sizes.label_smoothing
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return sum(len(pair[1]) for pair in batch)

    for _ in range(task.warmup):
        update(next(batches))
    began = time.perf_counter()
    num_tokens = sum(update(next(batches)) for _ in range(task.updates))
    seconds = time.perf_counter() - began
    report(speed=num_tokens / seconds, parameters=sum(parameter.numel() for parameter in model.parameters()))


def decode(task: SimpleNamespace, sentences: Sequence[Any], translate: Callable[[Sequence[Any]], int]) -> None:
    """Time translation after a warm-up batch, and report sentences per CPU second.

    Args:
        task: batch size.
        sentences: what `translate` takes, with lengths; the longest are translated first.
        translate: translates a batch, and returns the number of tokens of its outputs.
    """
    longest_first = sorted(sentences, key=len, reverse=True)
    size = task.batch or BATCH
    batches = [longest_first[start : start + size] for start in range(0, len(sentences), size)]
    translate(batches[0])
    began = time.process_time()
    num_tokens = sum(map(translate, batches))
    seconds = time.process_time() - began
    report(speed=len(sentences) / seconds, tokens_per_sentence=num_tokens / len(sentences))

"""Does a longer source cost quality? Figure 2 of Bahdanau et al. (2015), measured again with three models.

RNNenc (Cho et al. 2014) has to put a source into one vector; RNNsearch and the Transformer read it again at every step.
They get nearly as many parameters, and equally many updates on the same pairs. By default they reverse letters, which
takes nothing but memory; with `--data` they translate captions of Multi30k, some of them joined:

    python examples/source_lengths.py
    python examples/source_lengths.py --data 'multi30k/data/task1/raw/{split}.{lang}.gz'
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from long_sources import SHORTEST, batches, captions_task, letters_task
from loop import fit
from options import at_least, demand, run
from report import count_parameters, print_end, print_table
from rnnsearch import RNNenc, RNNsearch
from torch import Tensor, nn

from transformer import PAD_ID, SearchConfig, Transformer, Translator, label_smoothed_cross_entropy
from transformer.inference.by_length import LengthBucket, score_by_length, text_lengths


def loss(model: Any, src: Tensor, tgt: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy per target token, of any model that encodes and decodes; in nats."""
    hidden, _ = model.decode(tgt[:, :-1], model.encode(src))  # (B, T, D)
    is_token = tgt[:, 1:] != PAD_ID  # (B, T)
    total, _ = label_smoothed_cross_entropy(model.logits(hidden[is_token]), tgt[:, 1:][is_token], label_smoothing)
    return total / is_token.sum()


def largest(make: Callable[[int], nn.Module], limit: int) -> nn.Module:
    """The model of at most `limit` parameters with the largest n, a multiple of 4."""
    n = 4
    with torch.device("meta"):
        while count_parameters(make(n + 4)) <= limit:
            n += 4
    return make(n)


def systems_of_one_size(vocab_size: int, args: argparse.Namespace) -> dict[str, nn.Module]:
    """The three models, in order of time; those with states of size n have as many parameters as the Transformer."""
    torch.manual_seed(args.seed)
    m, dropout = args.d_model, args.dropout
    transformer = Transformer(vocab_size, m, args.layers, args.heads, 4 * m, dropout=dropout)
    limit = count_parameters(transformer)
    rnnenc = largest(lambda n: RNNenc(vocab_size, m, n, dropout=dropout), limit)
    rnnsearch = largest(lambda n: RNNsearch(vocab_size, m, n, dropout=dropout), limit)
    return {"RNNenc": rnnenc, "RNNsearch": rnnsearch, "Transformer": transformer}


def train(model: nn.Module, pairs: Iterator[tuple[Tensor, Tensor]], args: argparse.Namespace) -> None:
    fit(
        model,
        lambda _: loss(model, *next(pairs), args.label_smoothing),
        args.updates,
        lr=args.lr,
        warmup_updates=args.updates // 10,
    )


def show(systems: dict[str, list[LengthBucket]], unit: str) -> None:
    """Print a row for each bucket of lengths, with a column for each metric and system."""
    first = next(iter(systems.values()))
    names = {metric: score.name for metric, score in first[-1].scores.items()}
    rows = [
        [bucket.name, bucket.sentences]
        + [f"{buckets[i].scores[metric].score:.1f}" for metric in names for buckets in systems.values()]
        for i, bucket in enumerate(first)
        if bucket.sentences
    ]
    print_table([f"source {unit}", "sentences", *(f"{name}, {x}" for name in names.values() for x in systems)], rows)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", metavar="PATTERN", help="captions of Multi30k: files, with {split} and {lang}; by default letters")
    count = at_least(1)
    add("--joined", type=count, default=4, help="at most so many captions are a source")
    add("--vocab-size", type=count, default=2000, help="of captions")
    add("--longest", type=at_least(SHORTEST), default=16, help="so many letters in training, 8 more in tests")
    add("--d-model", type=count, default=64, help="of the Transformer, and m of the others")
    add("--layers", type=count, default=2, help="of encoder and decoder")
    add("--heads", type=count, default=4)
    add("--dropout", type=float, default=0.0)
    add("--label-smoothing", type=float, default=0.0)
    add("--updates", type=at_least(0), default=1200)
    add("--batch", type=count, default=64, help="pairs per update")
    add("--lr", type=float, default=3e-3)
    add("--beam", type=count, default=4)
    add("--tests", type=count, default=1000, help="sources to score")
    add("--seed", type=at_least(0), default=1)
    add("--json", metavar="FILE", type=Path, help="also write the scores there, as scripts/figures.py draws them")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args, began = parse(argv), time.monotonic()
    demand(args.d_model % args.heads == 0, f"--d-model {args.d_model} is not a multiple of --heads {args.heads}")
    demand(0 <= args.dropout < 1, f"--dropout {args.dropout} is not from 0 to below 1")
    demand(0 <= args.label_smoothing < 1, f"--label-smoothing {args.label_smoothing} is not from 0 to below 1")
    if args.data is not None:
        task = captions_task(args.data, args.joined, args.vocab_size, args.tests, args.seed)
    else:
        task = letters_task(args.longest, args.tests, args.seed)
    unit, lengths = text_lengths(task.sources)
    systems, models = {}, systems_of_one_size(len(task.tokenizer), args)
    for name, model in models.items():
        torch.manual_seed(args.seed)
        train(model, batches(task.train(), task.tokenizer, args.batch), args)
        # It asks for encode, decode, logits and an embedding, which the recurrent models have as well.
        translator = Translator(cast("Transformer", model), task.tokenizer, SearchConfig(beam=args.beam))
        outputs = translator.translate(task.sources)
        systems[name] = score_by_length(task.scorer, outputs, [task.references], lengths, task.step)
    show(systems, unit)
    print_end(time.monotonic() - began, *models.values())
    if args.json:
        buckets = {name: [dataclasses.asdict(bucket) for bucket in found] for name, found in systems.items()}
        kept = {"unit": f"source {unit}", "longest_in_training": task.longest, "systems": buckets}
        args.json.write_text(json.dumps(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)

"""Pairs of which the sources are long: letters to reverse, and captions that are joined."""

from __future__ import annotations

import gzip
import itertools
import random
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from transformer import BOS_ID, EOS_ID, PAD_ID, Tokenizer, UserError
from transformer.inference.scoring import MetricScore, Scorer

Pair = tuple[str, str]
LANGUAGES = "en", "de"
SHORTEST = 4  # letters: BLEU counts 4-grams
POOL = 20  # batches that are read and sorted together, as in appendix B.2


class ExactScorer(Scorer):
    """BLEU, and the share of outputs that are right from the first to the last word."""

    def score(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, MetricScore]:
        right = sum(map(str.__eq__, hypotheses, references[0]))
        exact = MetricScore("all words right (%)", 100 * right / len(hypotheses), "", "")
        return {**super().score(hypotheses, references), "exact": exact}


class Task(NamedTuple):
    """Pairs without end to train with, texts to test with, and how these are read and scored."""

    train: Callable[[], Iterator[Pair]]
    sources: list[str]
    references: list[str]
    tokenizer: Tokenizer
    scorer: Scorer
    step: int  # lengths in a bucket
    longest: int | None = None  # length in training, where tests have longer sources


def reversed_letters(longest: int, seed: int | str) -> Iterator[Pair]:
    """Letters and the same backwards, SHORTEST to `longest` of them, without end."""
    rng = random.Random(seed)
    while True:
        letters = rng.choices(string.ascii_lowercase, k=rng.randint(SHORTEST, longest))
        yield " ".join(letters), " ".join(letters[::-1])


def captions(pattern: str, split: str) -> list[Pair]:
    """The pairs of a split, from two files of lines, plain or .gz; UserError for a pattern without both fields.

    A pattern of one file would have it as source and as target, of training and of the test.
    """
    try:
        paths = [Path(pattern.format(split=split, lang=lang)) for lang in LANGUAGES]
    except (LookupError, ValueError) as error:
        raise UserError(f"{pattern!r} has other fields than {{split}} and {{lang}}: {error}") from None
    if not ("{split}" in pattern and "{lang}" in pattern):
        raise UserError(f"{pattern!r} names one file for all; it needs {{split}} and {{lang}}")
    texts = [gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in map(Path.read_bytes, paths)]
    # Other line ends than these, such as U+2028 inside of a line, would move one side against the other.
    sides = [[line.removesuffix("\r") for line in text.decode().removesuffix("\n").split("\n")] for text in texts]
    if len(sides[0]) != len(sides[1]):
        raise UserError(f"{paths[0]} has {len(sides[0])} lines and {paths[1]} has {len(sides[1])}")
    return list(zip(*sides, strict=True))


def joined(pairs: Sequence[Pair], most: int, seed: int | str) -> Iterator[Pair]:
    """1 to `most` pairs at random as one, without end."""
    rng = random.Random(seed)
    while True:
        chosen = rng.sample(pairs, rng.randint(1, most))
        yield " ".join(source for source, _ in chosen), " ".join(target for _, target in chosen)


def first(pairs: Iterator[Pair], number: int) -> tuple[list[str], list[str]]:
    """Sources and targets of the first pairs."""
    sources, targets = zip(*itertools.islice(pairs, number), strict=True)
    return list(sources), list(targets)


def batches(pairs: Iterator[Pair], tokenizer: Tokenizer, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Sources (B, S), which end with </s>, and targets (B, T + 1), which begin with <s> as well; of similar length."""
    rng = random.Random(0)
    while True:
        sources, targets = map(tokenizer.encode, first(pairs, POOL * size))
        order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), len(targets[i])))
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        for chunk in rng.sample(chunks, len(chunks)):
            src = [torch.tensor([*sources[i], EOS_ID]) for i in chunk]
            tgt = [torch.tensor([BOS_ID, *targets[i], EOS_ID]) for i in chunk]
            yield pad_sequence(src, True, PAD_ID), pad_sequence(tgt, True, PAD_ID)


def letters_task(longest: int, num_tests: int, seed: int) -> Task:
    """Reverse letters; tests have up to 8 more than training."""
    tokenizer = Tokenizer.train(
        [" ".join(string.ascii_lowercase)], 57
    )  # 4 special ids, ▁, each letter with and without
    test = first(reversed_letters(longest + 8, "test"), num_tests)
    return Task(lambda: reversed_letters(longest, seed), *test, tokenizer, ExactScorer("none"), 4, longest)


def captions_task(pattern: str, most: int, vocab_size: int, num_tests: int, seed: int) -> Task:
    """Translate up to `most` captions at once."""
    pairs = captions(pattern, "train")
    if most > len(pairs):
        raise UserError(f"--joined {most} is more than the {len(pairs)} captions")
    tokenizer = Tokenizer.train((text for pair in pairs for text in pair), vocab_size)
    test = first(joined(captions(pattern, "test_2016_flickr"), most, "test"), num_tests)
    return Task(lambda: joined(pairs, most, seed), *test, tokenizer, Scorer(), 10)

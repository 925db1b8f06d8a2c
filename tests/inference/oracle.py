"""A decoder that looks probabilities up, and exhaustive search: no neural network."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transformer.inference.penalties import Penalty, length_penalty
from transformer.inference.search import Hypothesis, beam_search, greedy_search

EOS, A, B, BOS = 0, 1, 2, 1009
NEVER = -math.inf
Prefix = tuple[int, ...]
# Unnormalised log-probabilities of the next token, from the number of a sentence and what was said before.
Logits = Callable[[int, Prefix], Sequence[float]]


@dataclass(frozen=True)
class Memory:
    """A decoder's state: all inputs of each hypothesis, and the number of each sentence."""

    sentences: Tensor  # (B,)
    inputs: Tensor  # (R, t)

    def select(self, rows: Tensor) -> Memory:
        assert rows.dim() == 2
        assert rows.dtype == torch.int64
        num_beams = len(self.inputs) // len(self.sentences)
        kept = rows // num_beams  # (B', W')
        assert (kept == kept[:, :1]).all()
        assert kept[:, 0].tolist() == sorted(kept[:, 0].tolist())
        return Memory(self.sentences[kept[:, 0]], self.inputs[rows.flatten()])


@dataclass
class Oracle:
    """A decoder that looks up the next token's logits by sentence and whole path, and counts its rows."""

    logits: Logits
    num_rows: list[int] = field(default_factory=list)  # of each call

    def start(self, sentences: Sequence[int]) -> Memory:
        return Memory(torch.tensor(sentences, dtype=torch.int64), torch.zeros((len(sentences), 0), dtype=torch.int64))

    def __call__(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        num_sentences = len(memory.sentences)
        assert tokens.shape == (len(memory.inputs),)
        assert tokens.dtype == torch.int64
        assert len(tokens) % num_sentences == 0
        self.num_rows.append(len(tokens))
        inputs = torch.cat((memory.inputs, tokens[:, None]), dim=1)
        assert (inputs[:, 0] == BOS).all()
        sentences = memory.sentences.repeat_interleave(len(tokens) // num_sentences).tolist()
        rows = [self.logits(i, tuple(path[1:])) for i, path in zip(sentences, inputs.tolist(), strict=True)]
        return torch.tensor(rows, dtype=torch.float32), replace(memory, inputs=inputs)

    def greedy(self, limits: Sequence[int], **options: Any) -> list[Hypothesis]:
        memory = self.start(range(len(limits)))
        return greedy_search(self, memory, limits, **{"bos_id": BOS, "eos_id": EOS} | options)

    def beam(self, limits: Sequence[int], beam: int, **options: Any) -> list[list[Hypothesis]]:
        memory = self.start(range(len(limits)))
        return beam_search(self, memory, limits, beam=beam, **{"bos_id": BOS, "eos_id": EOS} | options)


def chain(table: Mapping[int, Sequence[float]]) -> Oracle:
    """A Markov chain: the probabilities of </s>, a and maybe b after each token."""
    logs = {token: [math.log(p) if p else NEVER for p in probabilities] for token, probabilities in table.items()}
    return Oracle(lambda _, prefix: logs[prefix[-1] if prefix else BOS])


def memoryless(*probabilities: float) -> Oracle:
    """A chain that forgets: always the same probabilities of </s>, a and b."""
    return chain(dict.fromkeys((BOS, A, B), probabilities))


def random_oracle(seed: int, vocab_size: int = 5) -> Oracle:
    """Random logits for every sentence and path: mixing up two rows gives other numbers."""

    def logits(sentence: int, prefix: Prefix) -> list[float]:
        rng = np.random.default_rng((seed, sentence, len(prefix), *prefix))
        return (2 * rng.normal(size=vocab_size)).tolist()

    return Oracle(logits)


def log_softmax(logits: Sequence[float]) -> list[float]:
    largest = max(logits)
    total = largest + math.log(sum(math.exp(x - largest) for x in logits))
    return [x - total for x in logits]


def log_prob_of(oracle: Oracle, sentence: int, ids: Sequence[int]) -> float:
    """log P of a sequence, one token after the other."""
    return sum(log_softmax(oracle.logits(sentence, tuple(ids[:t])))[token] for t, token in enumerate(ids))


def everything(
    oracle: Oracle,
    sentence: int,
    limit: int,
    alpha: float,
    eos_ids: Collection[int] = (EOS,),
    penalty: Penalty = length_penalty,
    *,
    with_cut: bool = False,
) -> list[Hypothesis]:
    """All sequences that end within the limit, best first; then maybe those that the limit cuts."""

    def walk(prefix: Prefix, log_prob: float) -> Iterator[Hypothesis]:
        for token, step in enumerate(log_softmax(oracle.logits(sentence, prefix))):
            ids, total = (*prefix, token), log_prob + step
            if token in eos_ids or (with_cut and len(ids) == limit):
                yield Hypothesis(list(ids), total, total / penalty(len(ids), alpha))
            elif len(ids) < limit:
                yield from walk(ids, total)

    return sorted(walk((), 0.0), key=lambda hypothesis: (hypothesis.ids[-1] not in eos_ids, -hypothesis.score))


def assert_same(found: Sequence[Hypothesis], wanted: Sequence[Hypothesis]) -> None:
    assert [hypothesis.ids for hypothesis in found] == [hypothesis.ids for hypothesis in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
        assert one.score == pytest.approx(other.score, abs=1e-4)

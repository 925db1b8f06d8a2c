"""The word "bank": one static vector (2013) beside one per sentence (as of BERT, Devlin et al. 2018).

The idea: a table of words gives each word one vector, an encoder one for each of its places. Sentences of embeddings.py
are about money or about water, and "bank" may stand in either. A linear probe must tell which from the vector of "bank"
alone, in sentences of which it has seen no agent and no thing in training.

Shown: the probe with the static vectors of SGNS, and with each layer of a small encoder that was trained to fill in
masked words. The same probe at the agents is the control: their static vectors do know the topic.

    python examples/bank.py
"""

from __future__ import annotations

import random
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from captions import UNKNOWN_ID, Vocabulary, padded
from embeddings import SkipGram, cooccurrences, train_skip_gram
from loop import fit
from options import demand, read_options, run
from report import print_end, print_table
from topics import TOPICS, WORDS, sentence
from torch import Tensor, nn

from transformer import (
    PAD_ID,
    Encoder,
    FeedForward,
    Layer,
    MultiHeadAttention,
    SharedEmbedding,
    SinusoidalPositions,
    linear_cross_entropy,
    padding_mask,
)

MASK_ID = UNKNOWN_ID
HALVES = (slice(0, 3), slice(3, 6))  # of agents and of things: those of training and those of the test


class MaskedLanguageModel(nn.Module):
    """A small BERT: words, some of them masked, to the words that stood there."""

    def __init__(self, vocab_size: int, d_model: int, num_layers: int = 2) -> None:
        super().__init__()
        self.embedding, self.positions = SharedEmbedding(vocab_size, d_model), SinusoidalPositions(d_model)
        self.encoder = Encoder(
            Layer(MultiHeadAttention(d_model, 4), FeedForward(d_model, 4 * d_model), dropout=0.0)
            for _ in range(num_layers)
        )

    def forward(self, ids: Tensor) -> list[Tensor]:
        """The input and the outputs of all layers: ids (B, L) to (B, L, D) each."""
        states = [self.positions(self.embedding(ids))]
        for layer in self.encoder.layers:
            states.append(layer(states[-1], padding_mask(ids))[0])
        return states

    def loss(self, ids: Tensor, share: float = 0.3) -> Tensor:
        """Mean NLL of masked words: more of them than BERT's 15 %, as sentences are short."""
        is_chosen = (torch.rand(ids.shape) < share) & (ids != PAD_ID)
        hidden = self(ids.masked_fill(is_chosen, MASK_ID))[-1][is_chosen]  # (N, D)
        return linear_cross_entropy(hidden, self.embedding.output_weight, ids[is_chosen], 0.0)[0] / len(hidden)


class Places(NamedTuple):
    """Where a word stands in sentences: their ids (B, L), its positions (B,), their topics (B,), 0 or 1."""

    ids: Tensor
    positions: Tensor
    topics: Tensor

    def at(self, state: Tensor) -> Tensor:
        """The vectors of the word: (B, L, D) to (B, D)."""
        return state[torch.arange(len(state)), self.positions]


def places(draw: random.Random, vocabulary: Vocabulary, slot: str, half: slice, size: int) -> Places:
    """Sentences with "bank", as often about money as about water; where it stands, or where its agent does."""
    ids: list[list[int]] = []
    positions: list[int] = []
    targets = {"place": {"bank"}, "agent": {*" ".join(WORDS["agent"].values()).split()}}[slot]
    while len(ids) < size:
        words = sentence(draw, TOPICS[len(ids) % 2], half)
        if "bank" in words:
            positions.extend(i for i, word in enumerate(words) if word in targets)
            ids.append(vocabulary.encode(words))
    return Places(padded(ids), torch.tensor(positions), torch.arange(size) % 2)


def probe_accuracy(train: Tensor, train_topics: Tensor, test: Tensor, test_topics: Tensor) -> float:
    """Accuracy of logistic regression: vectors (N, D), topics (N,) 0 or 1."""
    probe = nn.Linear(train.size(1), 2)
    fit(probe, lambda _: F.cross_entropy(probe(train), train_topics), 200, lr=0.05, weight_decay=0.1)
    with torch.no_grad():
        return (probe(test).argmax(dim=1) == test_topics).double().mean().item()


def main(argv: list[str] | None = None) -> None:
    """Train static vectors and an encoder, then probes at two places."""
    start = time.perf_counter()
    args = read_options(__doc__, argv, updates=600, batch_size=64, sentences=5000, probe_sentences=1000)
    draw = random.Random(args.seed)
    demand(args.probe_sentences % 2 == 0, f"--probe-sentences {args.probe_sentences} are not as many of each topic")
    corpus = [sentence(draw, topic) for _ in range(args.sentences // 2) for topic in TOPICS]
    demand(args.batch_size <= len(corpus), f"--batch-size {args.batch_size} is more than --sentences")
    vocabulary = Vocabulary(corpus)
    ids = [vocabulary.encode(words) for words in corpus]
    static, contextual = SkipGram(len(vocabulary), 32), MaskedLanguageModel(len(vocabulary), 32)
    train_skip_gram(static, cooccurrences(ids, len(vocabulary), lambda _: 1), args.updates, 8 * args.batch_size)

    def loss(_: int) -> Tensor:
        return contextual.loss(padded(draw.sample(ids, args.batch_size)))

    fit(contextual, loss, args.updates, lr=5e-3, warmup_updates=args.updates // 10)
    columns = []
    for slot in ("place", "agent"):
        halves = [places(draw, vocabulary, slot, half, args.probe_sentences) for half in HALVES]
        with torch.no_grad():
            vectors = [[half.at(x) for x in (static.words(half.ids), *contextual(half.ids))] for half in halves]
        columns.append(
            [probe_accuracy(x, halves[0].topics, y, halves[1].topics) for x, y in zip(*vectors, strict=True)]
        )
    names = ("static, SGNS", "encoder, input", "encoder, layer 1", "encoder, layer 2")
    rows = [(name, *(f"{value:.3f}" for value in values)) for name, *values in zip(names, *columns, strict=True)]
    print_table(("vectors", "topic at bank", "topic at agents"), rows)
    print_end(time.perf_counter() - start, static, contextual)


if __name__ == "__main__":
    run(main)

"""Static word vectors: word2vec (Mikolov et al. 2013) and GloVe (Pennington et al. 2014).

The idea of both: words in similar company get similar vectors. Skip-gram with negative sampling (SGNS) tells true pairs
of a word and one near it from pairs with a random word; GloVe fits the logarithms of how often words meet. Both turn
out to factorise a matrix of co-occurrences, SGNS that of PMI - log k (Levy & Goldberg 2014).

Shown, on generated sentences about money or water: how well each fits its matrix, whether the nearest word is of the
same topic, and the neighbours of "bank", which stands in both and has one vector all the same (bank.py goes on there).

    python examples/embeddings.py
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from captions import NUM_SPECIAL, Vocabulary
from loop import fit
from options import demand, read_options, run
from report import print_end, print_table
from topics import TOPICS, WORDS, sentence
from torch import Tensor, nn

WINDOW, NEGATIVES, POWER = 4, 5, 0.75


def cooccurrences(sentences: Iterable[Sequence[int]], vocab_size: int, weight: Callable[[int], float]) -> Tensor:
    """How often words meet within the window, weighted by their distance: symmetric, (V, V)."""
    counts = torch.zeros(vocab_size, vocab_size)
    for ids in sentences:
        for distance in range(1, WINDOW + 1):
            for word, context in zip(ids, ids[distance:], strict=False):
                counts[word, context] += weight(distance)
    return counts + counts.T


class Factors(nn.Module):
    """Two vectors for each word, as such (w) and as context (c)."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.words, self.contexts = nn.Embedding(vocab_size, d_model), nn.Embedding(vocab_size, d_model)
        for table in (self.words, self.contexts):
            nn.init.uniform_(table.weight, -0.5 / d_model, 0.5 / d_model)

    def products(self) -> Tensor:
        """w·c of all pairs: (V, V)."""
        return self.words.weight @ self.contexts.weight.T


class SkipGram(Factors):
    """SGNS: log σ(w·c) + Σ_n log σ(-w·n) over true pairs and k words n of noise (equation 4)."""

    def forward(self, words: Tensor, contexts: Tensor, noise: Tensor) -> Tensor:
        """The mean loss of pairs, words and contexts (N,), noise (N, k)."""
        w, c, n = self.words(words), self.contexts(contexts), self.contexts(noise)  # (N, D), (N, D), (N, k, D)
        return -(F.logsigmoid((w * c).sum(dim=1)) + F.logsigmoid(-(n @ w[:, :, None])).sum(dim=(1, 2))).mean()


def noise_distribution(counts: Tensor, power: float = POWER) -> Tensor:
    """P(n) ∝ count(n)^¾: (V,)."""
    return counts.sum(dim=0) ** power / (counts.sum(dim=0) ** power).sum()


def shifted_pmi(counts: Tensor, noise: Tensor, k: int) -> Tensor:
    """log P(c | w) / P_n(c) - log k: the optimum of w·c in SGNS (Levy & Goldberg 2014), (V, V)."""
    return (counts / counts.sum(dim=1, keepdim=True) / noise).log() - math.log(k)


class GloVe(Factors):
    """A fit of log counts: Σ f(X_ij) (w_i·w̃_j + b_i + b̃_j - log X_ij)² (equation 8)."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__(vocab_size, d_model)
        self.word_bias, self.context_bias = (nn.Parameter(torch.zeros(vocab_size)) for _ in range(2))

    def products(self) -> Tensor:
        """w_i·w̃_j + b_i + b̃_j of all pairs: (V, V)."""
        return super().products() + self.word_bias[:, None] + self.context_bias

    def forward(self, counts: Tensor) -> Tensor:
        """The mean loss of those counts X (V, V) that are not 0."""
        fitted, x = self.products()[counts > 0], counts[counts > 0]
        return (glove_weight(x) * (fitted - x.log()).square()).mean()


def glove_weight(counts: Tensor, x_max: float = 100.0, alpha: float = 0.75) -> Tensor:
    """f(X) = min(1, (X / x_max)^α) (equation 9): rare pairs count less, frequent ones no more than others."""
    return (counts / x_max).pow(alpha).clamp(max=1)


def train_skip_gram(model: SkipGram, counts: Tensor, updates: int, batch_size: int) -> None:
    """Draw pairs in proportion to their counts, noise from its distribution; Adam instead of the authors' plain SGD."""
    noise = noise_distribution(counts)

    def loss(_: int) -> Tensor:
        pairs = counts.flatten().multinomial(batch_size, replacement=True)
        drawn = noise.multinomial(batch_size * NEGATIVES, replacement=True).view(batch_size, NEGATIVES)
        return model(pairs // len(counts), pairs % len(counts), drawn)

    fit(model, loss, updates, lr=0.02)


def neighbours(vectors: Tensor) -> Tensor:
    """Per word the others by cosine, the nearest first: (V, V - 1) int64."""
    cosines = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T
    return cosines.fill_diagonal_(-math.inf).argsort(dim=1, descending=True)[:, :-1]


def main(argv: list[str] | None = None) -> None:
    """Train both on generated sentences; print how well they fit their matrices, and what is near to what."""
    args, start = read_options(__doc__, argv, updates=2000, batch_size=512, sentences=5000), time.perf_counter()
    draw = random.Random(args.seed)
    demand(args.sentences > 1, "--sentences 1 is not of both topics")
    corpus = [sentence(draw, topic, strays=0.1) for _ in range(args.sentences // 2) for topic in TOPICS]
    vocabulary = Vocabulary(corpus)
    ids, size = [[i - NUM_SPECIAL for i in vocabulary.encode(words)] for words in corpus], len(vocabulary.words)
    skip_gram, glove = SkipGram(size, 24), GloVe(size, 24)
    near = cooccurrences(ids, size, lambda distance: (WINDOW + 1 - distance) / WINDOW)  # as of windows of 1 to W words
    train_skip_gram(skip_gram, near, args.updates, args.batch_size)
    counts = cooccurrences(ids, size, lambda distance: 1 / distance)
    fit(glove, lambda _: glove(counts), args.updates, lr=0.05)
    topics = {
        word: topic for slot in ("agent", "thing") for topic in WORDS[slot] for word in WORDS[slot][topic].split()
    }
    target, rows = shifted_pmi(near, noise_distribution(near), NEGATIVES), []
    for name, model, matrix in (("SGNS", skip_gram, target), ("GloVe", glove, counts.log())):
        fitted = torch.stack((model.products().detach(), matrix))[:, matrix.isfinite()]  # (2, N)
        vectors = model.words.weight if model is skip_gram else model.words.weight + model.contexts.weight
        nearest = [[vocabulary.words[i] for i in row] for row in neighbours(vectors.detach()).tolist()]
        of = dict(zip(vocabulary.words, nearest, strict=True))
        hits = sum(topics.get(of[word][0]) == topic for word, topic in topics.items())
        correlation = f"{fitted.corrcoef()[0, 1]:.3f}"
        rows.append((name, correlation, f"{hits} of {len(topics)}", ", ".join(of["bank"][:4])))
    print_table(("vectors", "correlation with its matrix", "nearest word of the same topic", "nearest of bank"), rows)
    print_end(time.perf_counter() - start, skip_gram, glove)


if __name__ == "__main__":
    run(main)

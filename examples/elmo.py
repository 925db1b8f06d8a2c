"""ELMo (Peters et al. 2018): word vectors that depend on their sentence, from two directions of LSTMs.

The idea: train a language model of the past and one of the future, which share word vectors and softmax but no LSTM (a
biLM); freeze them; let a task learn the weights of a mixture of their layers. No unit sees both sides of a word before
that mixture: "deeply bidirectional" is BERT, not ELMo.

Shown: from which layer a linear probe can tell whether a word stands in a subordinate clause, which its static vector,
the layer below the LSTMs, cannot know. (The paper's words enter as characters, and its LSTMs have 4,096 cells; here a
table of words and 96 cells do.)

    python examples/elmo.py
"""

from __future__ import annotations

import math
import random
import re
import time

import torch
import torch.nn.functional as F
from captions import Vocabulary
from loop import fit
from options import demand, read_options, run
from report import print_end, print_table
from torch import Tensor, nn

from transformer import BOS_ID, EOS_ID, PAD_ID
from transformer.data.builtin import builtin_trees


class DirectionalLSTM(nn.Module):
    """Layers of LSTMs with residual connections; each position sees itself and those before it."""

    def __init__(self, d_model: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTM(d_model, d_model, batch_first=True) for _ in range(num_layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The outputs of all layers: (B, T, D) to (B, T, D) each."""
        outputs: list[Tensor] = []
        for layer in self.layers:
            y, _ = layer(x)
            outputs.append(x := x + y if outputs else y)  # residual around all but the first layer
        return outputs


class BiLM(nn.Module):
    """Two language models: Σ_k log p(t_k | t_1, ..., t_{k-1}) + log p(t_k | t_{k+1}, ..., t_N) (section 3.1)."""

    def __init__(self, vocab_size: int, d_model: int = 96, num_layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)  # Θ_x and Θ_s are shared, the LSTMs are not
        self.output = nn.Linear(d_model, vocab_size)
        self.past, self.future = (DirectionalLSTM(d_model, num_layers) for _ in range(2))

    def directions(self, ids: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Layers →h_{k,j} of the past, ←h_{k,j} of the future: ids (B, T) to (B, T, D) each."""
        order = reversal(ids)
        future = self.future(self.embedding(ids.gather(1, order)))
        return self.past(self.embedding(ids)), [h.gather(1, order[..., None].expand_as(h)) for h in future]

    def forward(self, ids: Tensor) -> Tensor:
        """h_{k,0}, the word's vector twice, and h_{k,j} = [→h_{k,j}; ←h_{k,j}]: ids (B, T) to (1 + L, B, T, 2D)."""
        layers = [(self.embedding(ids),) * 2, *zip(*self.directions(ids), strict=True)]
        return torch.stack([torch.cat(pair, dim=2) for pair in layers])

    def losses(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Mean NLL of next tokens by the past, of previous ones by the future."""
        (*_, past), (*_, future) = self.directions(ids)
        is_pair = ids[:, 1:] != PAD_ID  # of neighbours in a sentence
        forward = F.cross_entropy(self.output(past[:, :-1][is_pair]), ids[:, 1:][is_pair])
        return forward, F.cross_entropy(self.output(future[:, 1:][is_pair]), ids[:, :-1][is_pair])


def reversal(ids: Tensor) -> Tensor:
    """Positions of each row in reverse order, padding in place: (B, T) int64."""
    positions, lengths = torch.arange(ids.size(1)), (ids != PAD_ID).sum(dim=1, keepdim=True)
    return torch.where(positions < lengths, lengths - 1 - positions, positions)


class ScalarMix(nn.Module):
    """γ Σ_j s_j h_{k,j} with s = softmax(w) (equation 1): the only part of ELMo that a task trains."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.w, self.gamma = nn.Parameter(torch.zeros(num_layers)), nn.Parameter(torch.ones(()))

    def forward(self, layers: Tensor) -> Tensor:
        """(L, ..., D) to (..., D)."""
        return self.gamma * torch.tensordot(self.w.softmax(dim=0), layers, dims=1)


def clauses(split: str, size: int) -> tuple[list[list[str]], list[int]]:
    """Sentences of built-in trees; for each word, 1 in a subordinate clause (SBAR), else 0."""
    sentences, labels = [], []
    for tree in builtin_trees(split, size):
        path, sentence = list[str](), list[str]()
        for label, word, end in re.findall(r"\((\S+)|([^\s()]+)|(\))", tree):
            if word:
                sentence.append(word.lower())
                labels.append(int("SBAR" in path))
            path = path[:-1] if end else [*path, label] if label else path
        sentences.append(sentence)
    return sentences, labels


def probe_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], updates: int, mix: nn.Module) -> float:
    """Accuracy of logistic regression: layers (L, N, D), of which `mix` makes (N, D), labels (N,) 0 or 1."""
    model = nn.Sequential(mix, nn.Linear(train[0].size(2), 2))
    fit(model, lambda _: F.cross_entropy(model(train[0]), train[1]), updates, lr=0.05, max_norm=math.inf)
    with torch.no_grad():
        return (model(test[0]).argmax(dim=1) == test[1]).double().mean().item()


def word_layers(model: BiLM, ids: Tensor) -> Tensor:
    """The layers of all words, but padding, <s> and </s>: (1 + L, N, 2D)."""
    with torch.no_grad():
        return model(ids)[:, (ids != PAD_ID) & (ids != BOS_ID) & (ids != EOS_ID)]


def main(argv: list[str] | None = None) -> None:
    """Train the biLM, then probes on its layers and their mixture."""
    start = time.perf_counter()
    args = read_options(__doc__, argv, updates=800, batch_size=64, sentences=20000, probe_updates=300)
    draw = random.Random(args.seed)
    demand(args.batch_size <= args.sentences, f"--batch-size {args.batch_size} is more than --sentences")
    sentences, _ = clauses("train", args.sentences)
    model = BiLM(len(vocabulary := Vocabulary(sentences)))

    def loss(_: int) -> Tensor:
        return torch.stack(model.losses(vocabulary.encode_batch(draw.sample(sentences, args.batch_size)))).sum()

    fit(model, loss, args.updates, lr=5e-3, warmup_updates=args.updates // 20)
    parts = [clauses("train", 1000), clauses("test", 500)]
    layers = [word_layers(model, vocabulary.encode_batch(part)) for part, _ in parts]
    train, test = (torch.tensor(labels) for _, labels in parts)  # (N,) each
    rows = [("none: always outside", f"{1 - test.double().mean():.3f}", "")]
    probes = {"static vectors (layer 0)": [0], "LSTM layer 1": [1], "LSTM layer 2": [2], "scalar mix": [0, 1, 2]}
    for name, j in probes.items():
        mix = ScalarMix(len(j))
        accuracy = probe_accuracy((layers[0][j], train), (layers[1][j], test), args.probe_updates, mix)
        rows.append((name, f"{accuracy:.3f}", ", ".join(f"{weight:.2f}" for weight in mix.w.softmax(dim=0))))
    print_table(("probe of", "accuracy", "weights s"), rows)
    print_end(time.perf_counter() - start, model)


if __name__ == "__main__":
    run(main)

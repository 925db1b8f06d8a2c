"""TextCNN (Kim 2014): sentences classified by the n-grams they have, beside a Transformer encoder of equal size.

Filters of several widths slide over the words, and of each only its largest response counts ("max over time"). So the
model sees which n-grams there are, not where or in which order. Here half of the sentences have one verb in the wrong
number: "the bird that two horses chase *have* run". Where a filter covers subject and verb, that is one n-gram; where
none does, n-grams from all over the sentence have to tell. The encoder compares all positions with all.

    python examples/textcnn.py

Shapes: B sentences, L words, D size of embeddings, F features.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from agreement import NUMBER, corpus, examples
from loop import fit
from options import at_least, demand, run
from report import print_end, print_table
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from transformer import PAD_ID, Encoder, FeedForward, Layer, MultiHeadAttention, SinusoidalPositions, padding_mask

MAX_NORM = 3.0  # of the weights of a class (Kim 2014)
DISTANCES = {"1": range(1, 2), "2 to 4": range(2, 5), "5 to 7": range(5, 8), "8 and more": range(8, 99)}


class TextCNN(nn.Module):
    """Convolutions of widths h, each with `maps` filters: ĉ = max_i ReLU(w · x_{i:i+h−1} + b)."""

    def __init__(
        self, vocab_size: int, d_model: int = 300, widths: Sequence[int] = (3, 4, 5), maps: int = 100,
        num_classes: int = 2, dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model, padding_idx=PAD_ID)
        self.convolutions = nn.ModuleList(nn.Conv1d(d_model, maps, h, padding=h - 1) for h in widths)
        self.dropout, self.output = nn.Dropout(dropout), nn.Linear(len(widths) * maps, num_classes)

    def features(self, ids: Tensor) -> Tensor:
        """The largest response of each filter to words (B, L): (B, F)."""
        x, is_word = self.embedding(ids).mT, ids != PAD_ID  # (B, D, L), (B, L)
        pooled = []
        for convolution in self.convolutions:
            responses = F.relu(convolution(x))  # (B, maps, L + h - 1)
            num_more = responses.size(-1) - ids.size(1)
            # A window that begins before the last word has at least one.
            has_word = F.pad(is_word, (num_more, 0), value=True)
            pooled.append((responses * has_word[:, None]).amax(dim=-1))  # (B, maps)
        return torch.cat(pooled, dim=-1)  # (B, F)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, classes) of words (B, L) int64, which are padded at the end."""
        return self.output(self.dropout(self.features(ids)))


class EncoderClassifier(nn.Module):
    """The same with the Transformer's encoder for the convolutions: features are maxima over its positions."""

    def __init__(
        self, vocab_size: int, d_model: int, num_layers: int = 2, num_heads: int = 4, *, d_ff: int,
        num_classes: int = 2, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocab_size, d_model), SinusoidalPositions(d_model)
        self.encoder = Encoder(
            Layer(MultiHeadAttention(d_model, num_heads), FeedForward(d_model, d_ff), dropout=dropout)
            for _ in range(num_layers)
        )
        self.dropout, self.output = nn.Dropout(dropout), nn.Linear(d_model, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, classes) of words (B, L) int64, which are padded at the end."""
        x = self.encoder(self.dropout(self.positions(self.embedding(ids))), padding_mask(ids))  # (B, L, D)
        return self.output(self.dropout(x.masked_fill(ids[..., None] == PAD_ID, -torch.inf).amax(dim=1)))


def class_loss(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, after the weights of each class are shortened to MAX_NORM."""
    shorten(model)
    return F.cross_entropy(model(ids), labels)


@torch.no_grad()
def shorten(model: nn.Module) -> None:
    """Bring the weights of each class to MAX_NORM if they are longer."""
    weight = model.get_parameter("output.weight")
    weight.copy_(weight.renorm(2, 0, MAX_NORM))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "updates": 1500,
        "batch": 64,
        "trees": 24_000,
        "d-model": 64,
        "maps": 86,
        "d-ff": 128,
    }.items():
        parser.add_argument(f"--{name}", type=at_least(0 if name == "updates" else 1), default=default)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=at_least(0), default=1)
    args, began = parser.parse_args(argv), time.monotonic()
    demand(args.d_model % 4 == 0, f"--d-model {args.d_model} is not a multiple of the encoder's 4 heads")
    training, tests = corpus("train", args.trees), corpus("test", args.trees // 4)
    demand(args.batch <= len(training), f"--batch {args.batch} is more than {len(training)} sentences of --trees")
    ids = {word: i for i, word in enumerate(sorted({word for one in training for word in one.words} | {*NUMBER}), 2)}

    def encode(texts: Sequence[Sequence[str]]) -> Tensor:
        return pad_sequence([torch.tensor([ids.get(word, 1) for word in words]) for words in texts], True, PAD_ID)

    torch.manual_seed(args.seed)
    models = {
        "TextCNN": TextCNN(len(ids) + 2, args.d_model, maps=args.maps),
        "Transformer encoder": EncoderClassifier(len(ids) + 2, args.d_model, d_ff=args.d_ff),
    }
    test_texts, test_labels = examples(tests, random.Random("test"))
    is_right = {}
    for name, model in models.items():
        rng = random.Random(args.seed)

        def loss(_: int, model: nn.Module = model, rng: random.Random = rng) -> Tensor:
            texts, labels = examples(rng.sample(training, args.batch), rng)
            return class_loss(model, encode(texts), labels)

        fit(model, loss, args.updates, lr=args.lr, warmup_updates=args.updates // 20)
        shorten(model)
        with torch.no_grad():
            is_right[name] = model(encode(test_texts)).argmax(dim=-1) == test_labels
    rows = []
    for distance, numbers in {**DISTANCES, "all": range(99)}.items():
        chosen = torch.tensor([one.distance in numbers for one in tests])
        shares = (f"{100 * found[chosen].float().mean():.1f}" for found in is_right.values())
        rows.append([distance, int(chosen.sum()), *shares])
    print_table(["words from subject to verb", "sentences", *(f"right (%), {name}" for name in models)], rows)
    print_end(time.monotonic() - began, *models.values())


if __name__ == "__main__":
    run(main)

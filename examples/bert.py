"""BERT (Devlin et al. 2019): an encoder alone, trained to fill in blanks, sees both sides of each word.

    python examples/bert.py

It reads `[CLS] A [SEP] B [SEP]`. Of the pieces, 15 % are to be predicted: 80 % of these are hidden, 10 % replaced and
10 % left as they are (masked language model). From [CLS] it tells whether B belongs to A (next sentence prediction).
Here A is an English caption, and B its German translation or that of another one: blanks can be looked up in the other
language (as in Conneau and Lample 2019), unless B is of another caption.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from loop import fit
from options import demand, read_options, run
from report import print_end, print_table
from torch import Tensor, nn

from transformer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    DotProductAttention,
    Encoder,
    FeedForward,
    Layer,
    MultiHeadAttention,
    Tokenizer,
    padding_mask,
)
from transformer.data.builtin import builtin_pairs

Pair = tuple[Sequence[int], Sequence[int]]
# Layers, d_model, heads and d_ff; both with 30,522 pieces.
SIZES = {"base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096)}
MASK_ID, NUM_SPECIAL = 4, 5  # pad, unknown, [CLS] and [SEP], which are <s> and </s> here, and [MASK] come first


class BERT(nn.Module):
    """A post-norm encoder of pieces, positions and segments, with two heads."""

    def __init__(
        self,
        vocab_size: int,
        num_layers: int,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        max_positions: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, d_model), nn.Embedding(max_positions, d_model)
        self.segments = nn.Embedding(2, d_model)
        self.norm, self.dropout = nn.LayerNorm(d_model, 1e-12), nn.Dropout(dropout)

        def layer() -> Layer:
            attention = MultiHeadAttention(d_model, num_heads, bias=True, attention=DotProductAttention(dropout))
            return Layer(attention, FeedForward(d_model, d_ff, activation=F.gelu), dropout=dropout, norm_eps=1e-12)

        self.encoder = Encoder(layer() for _ in range(num_layers))
        self.transform, self.transform_norm = nn.Linear(d_model, d_model), nn.LayerNorm(d_model, 1e-12)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        self.pooler, self.next_sentence = nn.Linear(d_model, d_model), nn.Linear(d_model, 2)
        for name, weight in self.named_parameters():
            if "norm" not in name:
                nn.init.normal_(weight, std=0.02) if weight.dim() == 2 else nn.init.zeros_(weight)

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Ids and segments (B, L), the latter 0 or 1, to hidden states (B, L, D)."""
        x = self.tokens(ids) + self.positions.weight[: ids.size(1)] + self.segments(segments)
        return self.encoder(self.dropout(self.norm(x)), padding_mask(ids, PAD_ID))

    def piece_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states of blanks (N, D) to logits (N, V), by the matrix of the embedding."""
        hidden = self.transform_norm(F.gelu(self.transform(hidden)))  # (N, D)
        return hidden @ self.tokens.weight.T + self.output_bias

    def pair_logits(self, hidden: Tensor) -> Tensor:
        """Logits (B, 2) of whether B belongs to A (0) or does not (1)."""
        return self.next_sentence(torch.tanh(self.pooler(hidden[:, 0])))


def joined(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Pad `[CLS] A [SEP] B [SEP]` to ids (B, L), with segments 0 up to the first [SEP] and 1 after it."""
    sides = [([BOS_ID, *a, EOS_ID], [*b, EOS_ID]) for a, b in pairs]
    ids = [torch.tensor(first + second) for first, second in sides]
    segments = [torch.tensor([0] * len(first) + [1] * len(second)) for first, second in sides]
    return tuple(nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in (ids, segments))  # type: ignore[return-value]


def corrupted(ids: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Choose 15 % of each row, from 1 to 20, but no special piece; returns ids with blanks, and which were chosen."""
    counts = ((ids != PAD_ID).sum(dim=1, keepdim=True) * 0.15).round().clamp(1, 20)  # (B, 1)
    draw = torch.rand(ids.shape).masked_fill(ids < NUM_SPECIAL, 2)
    chosen = (draw.argsort(dim=1).argsort(dim=1) < counts) & (ids >= NUM_SPECIAL)  # (B, L)
    kind, other = torch.rand(ids.shape), torch.randint(NUM_SPECIAL, vocab_size, ids.shape)
    changed = torch.where(kind < 0.8, MASK_ID, torch.where(kind < 0.9, other, ids))
    return torch.where(chosen, changed, ids), chosen


def main(argv: list[str] | None = None) -> None:
    size = read_options(__doc__, argv, updates=1500, batch=64, pairs=50000, num_layers=2, d_model=128, num_heads=4)
    start = time.perf_counter()
    demand(size.batch > 1, "--batch 1 has no other pair from which a wrong B could be")
    texts = [[*builtin_pairs(split, number)] for split, number in (("train", size.pairs), ("test", 4000))]
    tokenizer = Tokenizer.train((text for pair in texts[0] for text in pair), 1000, symbols=["[MASK]"])
    train, test = ([tokenizer.encode(pair) for pair in pairs if len(pair[0].split()) <= 8] for pairs in texts)
    model = BERT(len(tokenizer), size.num_layers, size.d_model, size.num_heads, 4 * size.d_model, dropout=0.0)

    def loss(_: int) -> Tensor:
        rows, is_other = torch.randint(len(train), (size.batch,)), torch.rand(size.batch) < 0.5
        partners = torch.where(is_other, rows.roll(1), rows)
        ids, segments = joined([(train[a][0], train[b][1]) for a, b in zip(rows, partners, strict=True)])
        blanks, chosen = corrupted(ids, len(tokenizer))
        hidden = model(blanks, segments)
        pieces = F.cross_entropy(model.piece_logits(hidden[chosen]), ids[chosen])
        return pieces + F.cross_entropy(model.pair_logits(hidden), is_other.long())

    fit(model, loss, size.updates, lr=1e-3, warmup_updates=size.updates // 10, weight_decay=0.01)

    @torch.no_grad()
    def row(shift: int) -> list[str]:
        """Test captions, each with the B of the one that is `shift` further."""
        ids, segments = joined([(a, b) for (a, _), (_, b) in zip(test, test[shift:] + test[:shift], strict=True)])
        blanks, chosen = corrupted(ids, len(tokenizer))
        hidden = model(blanks, segments)
        logits, told = model.piece_logits(hidden[chosen]), model.pair_logits(hidden).argmax(dim=1)
        return [*scores(logits, ids[chosen]), f"{(told == (shift > 0)).double().mean():.1%}"]

    pieces = [torch.tensor([piece for pair in pairs for side in pair for piece in side]) for pairs in (train, test)]
    frequencies = (pieces[0].bincount(minlength=len(tokenizer)) + 1.0).log().expand(len(pieces[1]), -1)
    rows = [["frequency of pieces", *scores(frequencies, pieces[1]), "50.0%"]]
    rows += [["BERT, B is of another caption", *row(1)], ["BERT, B is the translation", *row(0)]]
    print_table(["", "blanks right", "nats per blank", "pairs right"], rows)
    print_end(time.perf_counter() - start, model)


def scores(logits: Tensor, target: Tensor) -> list[str]:
    """How often the best of logits (N, V) is right, and the NLL of the right one."""
    return [f"{(logits.argmax(dim=1) == target).double().mean():.1%}", f"{F.cross_entropy(logits, target):.3f}"]


if __name__ == "__main__":
    run(main)

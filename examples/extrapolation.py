"""Train short, test long (Press et al. 2022): which positions still help beyond the lengths of training?

The idea: sinusoids, rotations and penalties have a formula for every position or distance, so that a longer input *can*
be read. Whether it should be is another matter: the weights have never met the numbers that come out there.

Shown: language models of characters that differ in their positions only, trained on windows of `--context` of them. All
are asked for the same last characters, with ever more context before. More context cannot hurt a model that knows what
to do with it.

    python examples/extrapolation.py
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from characters import reference_characters
from loop import fit
from options import demand, read_options, run
from report import print_end, print_table
from torch import Tensor, nn

from transformer import (
    Decoder,
    DecoderState,
    DotProductAttention,
    FeedForward,
    MultiHeadAttention,
    SharedEmbedding,
    SinusoidalPositions,
)
from transformer.model.alternatives.embeddings import LearnedPositions, NoPositions
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.alternatives.relative import (
    AlibiAttention,
    RotaryAttention,
    ShawAttention,
    T5Attention,
    T5Bias,
)

KINDS = {
    "none": "none",
    "sinusoidal": "sinusoidal (Vaswani et al. 2017)",
    "learned": "learned (Gehring et al. 2017)",
    "shaw": "relative (Shaw et al. 2018)",
    "t5": "bias by distance (Raffel et al. 2020, T5)",
    "rotary": "rotary (Su et al. 2021)",
    "alibi": "penalty by distance (Press et al. 2022, ALiBi)",
}
FACTORS = (1, 2, 4, 8)  # lengths in tests, by that of training
MAX_DISTANCE = 16  # of Shaw's table, as in the paper
SCORED = 16  # characters at the end of each window
NUM_WINDOWS = 200


class LanguageModel(nn.Module):
    """A pre-norm decoder alone, with one of the `KINDS` of positions; the learned ones end at `context`."""

    def __init__(self, kind: str, vocab_size: int, num_layers: int, d_model: int, num_heads: int, context: int) -> None:
        super().__init__()
        self.embedding = SharedEmbedding(vocab_size, d_model)
        self.positions: nn.Module = NoPositions()
        if kind == "sinusoidal":
            self.positions = SinusoidalPositions(d_model)
        elif kind == "learned":
            self.positions = LearnedPositions(context, d_model)
        bias = T5Bias(num_heads, bidirectional=False)
        if kind == "t5":  # of all layers
            self.bias = bias
        d_k = d_model // num_heads
        wrap: dict[str, Callable[[DotProductAttention], DotProductAttention]] = {
            "shaw": lambda inner: ShawAttention(inner, d_k, d_k, MAX_DISTANCE),
            "t5": lambda inner: T5Attention(inner, bias),
            "rotary": lambda inner: RotaryAttention(inner, d_k),
            "alibi": AlibiAttention,
        }

        def layer() -> PreNormLayer:
            attention = wrap.get(kind, lambda inner: inner)(DotProductAttention())
            self_attention = MultiHeadAttention(d_model, num_heads, attention=attention)
            return PreNormLayer(self_attention, FeedForward(d_model, 4 * d_model), dropout=0.0)

        self.decoder = Decoder((layer() for _ in range(num_layers)), nn.LayerNorm(d_model))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, L, V) of what follows each of ids (B, L); ValueError if learned positions end before."""
        hidden, _ = self.decoder(self.positions(self.embedding(ids)), DecoderState())
        return hidden @ self.embedding.output_weight.T

    def loss(self, ids: Tensor, scored: int = 0) -> Tensor:
        """Mean NLL in nats of the last `scored` of ids (B, L + 1), by default of all but the first."""
        logits = self(ids[:, :-1])[:, -scored:]  # (B, scored, V); a slice from -0 has all
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:][:, -scored:].flatten())


def train(model: LanguageModel, windows: Tensor, size: argparse.Namespace) -> None:
    """On random windows (n, L + 1), the same ones for every model."""
    generator = torch.Generator().manual_seed(size.seed)
    batches = (windows[torch.randint(len(windows), (size.batch,), generator=generator)] for _ in itertools.count())
    fit(model, lambda _: model.loss(next(batches)), size.updates, lr=3e-3, warmup_updates=size.updates // 10)


def windows_of(ids: Tensor, longest: int, number: int) -> Tensor:
    """Evenly spread windows of ids (n,): (number, longest + 1)."""
    starts = torch.linspace(0, len(ids) - longest - 1, number).long()
    return ids[starts[:, None] + torch.arange(longest + 1)]


@torch.no_grad()
def losses_by_length(model: LanguageModel, windows: Tensor, lengths: Sequence[int]) -> list[str]:
    """NLL of the last characters of the windows, of which the model reads the last L, as printed; – if it cannot."""
    cells = []
    for length in lengths:
        try:
            parts = [model.loss(part[:, -length - 1 :], SCORED).item() for part in windows.chunk(4)]
        except ValueError:
            cells.append("–")
        else:
            cells.append(f"{sum(parts) / len(parts):.3f}")
    return cells


def main(argv: list[str] | None = None) -> None:
    size = read_options(__doc__, argv, updates=400, batch=32, context=32, num_layers=2, d_model=64, num_heads=4)
    start = time.perf_counter()
    demand(size.context >= SCORED, f"--context {size.context} is less than the {SCORED} characters that are scored")
    characters, ids = reference_characters()
    cut, lengths = len(ids) * 9 // 10, [factor * size.context for factor in FACTORS]
    windows, tests = ids[:cut].unfold(0, size.context + 1, 1), windows_of(ids[cut:], lengths[-1], NUM_WINDOWS)
    rows, models = [], []
    for kind, name in KINDS.items():
        torch.manual_seed(size.seed)
        model = LanguageModel(kind, len(characters), size.num_layers, size.d_model, size.num_heads, size.context)
        train(model, windows, size)
        rows.append([name, *losses_by_length(model, tests, lengths)])
        models.append(model)
    print_table(["positions", *(f"{length:,} read" for length in lengths)], rows)
    print_end(time.perf_counter() - start, models[0])


if __name__ == "__main__":
    run(main)

"""Transformer-XL (Dai et al. 2019): a language model with a memory of the segments before.

A text is read in segments, and each layer attends to the hidden states of earlier ones too, without gradients into
them: it reaches back memory × layers positions. Absolute positions would repeat in each segment, so scores depend on
distances: A_ij = q_i·k_j + q_i·W_R r_{i-j} + u·k_j + v·W_R r_{i-j}, over √d_k, with sinusoids r and learned u and v.
The table: characters of Python's documentation, by the same model with and without a memory.

    python examples/transformer_xl.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from loop import fit
from options import demand, read_options, run
from report import print_end, print_table
from torch import Tensor, nn

from transformer import FeedForward, Layer, MultiHeadAttention, SharedEmbedding, causal_mask, sinusoidal_positions
from transformer.model.alternatives.scores import WrittenOutAttention

WINDOW = 1024  # characters of a held-out text


class RelativeAttention(WrittenOutAttention):
    """Scores ((q_i + u)·k_j + (q_i + v)·W_R r_{i-j}) / √d_k; the queries are at the end of the keys."""

    def __init__(self, num_heads: int, d_k: int, d_model: int) -> None:
        super().__init__()
        self.u, self.v = (nn.Parameter(torch.zeros(num_heads, 1, d_k)) for _ in range(2))
        self.w_r = nn.Linear(d_model, num_heads * d_k, bias=False)
        self.size = num_heads, d_k, d_model

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """(B, H, Q, M); those of keys behind their query are of no use, and masked in a language model."""
        num_heads, d_k, d_model = self.size
        distances = sinusoidal_positions(k.size(2), d_model, q.device, q.dtype).flip(0)  # of M - 1 to 0: (M, D)
        r = self.w_r(distances).view(-1, num_heads, d_k).transpose(0, 1)  # (H, M, d_k)
        by_distance = (q + self.v) @ r.mT  # (B, H, Q, M)
        return ((q + self.u) @ k.mT + shift(by_distance)) * (1 / math.sqrt(d_k))


def shift(by_distance: Tensor) -> Tensor:
    """From columns by distance, M - 1 to 0, to columns by key: row i of Q moves Q - 1 - i to the left."""
    *batch, num_queries, num_keys = by_distance.shape
    # With a column of zeros before each row and its rows read on as rows of M, every row begins a column later.
    padded = F.pad(by_distance, (1, 0)).view(*batch, num_keys + 1, num_queries)
    return padded[..., 1:, :].reshape(by_distance.shape)


class TransformerXL(nn.Module):
    """A causal language model whose layers attend to `memory`, their inputs of earlier segments."""

    def __init__(self, vocab_size: int, d_model: int, num_layers: int, num_heads: int, d_ff: int) -> None:
        super().__init__()
        self.embedding = SharedEmbedding(vocab_size, d_model)

        def attention() -> MultiHeadAttention:
            relative = RelativeAttention(num_heads, d_model // num_heads, d_model)
            return MultiHeadAttention(d_model, num_heads, attention=relative)

        layers = (Layer(attention(), FeedForward(d_model, d_ff), dropout=0.0) for _ in range(num_layers))
        self.layers: Collection[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]

    def forward(self, ids: Tensor, memory: list[Tensor], memory_length: int) -> tuple[Tensor, list[Tensor]]:
        """Logits of a segment's next ids, and the memory for the segment after it.

        Args:
            ids: (B, T) int64.
            memory: per layer (B, M, D); empty before the first segment.
            memory_length: so many positions, the last, are kept.
        """
        x, kept = self.embedding(ids), []  # (B, T, D)
        for number, layer in enumerate(self.layers):
            before = memory[number] if memory else x[:, :0]
            kept.append(torch.cat((before, x), dim=1)[:, max(0, before.size(1) + x.size(1) - memory_length) :].detach())
            past = layer.self_attention.project(before)
            x, _, _ = layer(x, causal_mask(x.size(1), before.size(1), x.device), past)
        return x @ self.embedding.output_weight.T, kept


def documentation() -> Tensor:
    """Python's documentation of its topics, as numbers of characters: (N,) int64."""
    text = "\n".join(topics[name] for name in sorted(topics))
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    return torch.tensor([numbers[character] for character in text])


@torch.no_grad()
def evaluate(model: TransformerXL, text: Tensor, segment: int, memory_length: int) -> Tensor:
    """Mean loss by position in the segment, in nats per character, of columns of text (B, N): (T,)."""
    memory: list[Tensor] = []
    losses = []
    for start in range(0, text.size(1) - segment, segment):
        part = text[:, start : start + segment + 1]
        logits, memory = model(part[:, :-1], memory, memory_length)
        losses.append(F.cross_entropy(logits.mT, part[:, 1:], reduction="none").mean(dim=0))
    return torch.stack(losses).mean(dim=0)


def main(argv: list[str] | None = None) -> None:
    options = read_options(__doc__, argv, updates=900, batch=16, segment=32, memory=96, d_model=96, layers=2)
    start, segment, first = time.perf_counter(), options.segment, max(1, options.segment // 8)
    demand(options.d_model % 4 == 0, f"--d-model {options.d_model} is not a multiple of 4, the heads")
    demand(segment < WINDOW, f"--segment {segment} does not fit into held-out texts of {WINDOW}")
    text = documentation()
    held_out = text[-(len(text) // 16) :].unfold(0, WINDOW, WINDOW)  # (B, WINDOW)
    rest = text[: -(len(text) // 16)]
    demand(len(rest) // options.batch > segment + 1, f"--batch {options.batch} cuts the text shorter than --segment")
    columns = rest[: len(rest) // options.batch * options.batch].view(
        options.batch, -1
    )  # each is read from left to right
    rows: list[tuple[object, ...]] = []
    lengths = (0, options.memory, 2 * options.memory, 4 * options.memory)
    for memory_length in (0, options.memory):
        torch.manual_seed(options.seed)
        d_model = options.d_model
        model = TransformerXL(int(text.max()) + 1, d_model, options.layers, 4, 4 * d_model)
        memory: list[Tensor] = []

        def loss(update: int, memory_length: int = memory_length, model: TransformerXL = model) -> Tensor:
            nonlocal memory
            begin = update * segment % (columns.size(1) - segment - 1)
            part = columns[:, begin : begin + segment + 1]
            logits, memory = model(part[:, :-1], memory, memory_length)
            return F.cross_entropy(logits.mT, part[:, 1:])

        fit(model, loss, options.updates, lr=3e-3, warmup_updates=options.updates // 20)
        found = [evaluate(model, held_out, segment, length) for length in lengths]
        start_of_segment = found[lengths.index(memory_length)][:first]
        rows.append((memory_length, *(f"{each.mean():.3f}" for each in (*found, start_of_segment))))
    header = ("trained with a memory of", *(f"read with {length}" for length in lengths))
    print_table((*header, f"first {first} characters of a segment"), rows)
    print_end(time.perf_counter() - start, model)


if __name__ == "__main__":
    run(main)

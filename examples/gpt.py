"""GPT-2 (Radford et al. 2019): a decoder alone, trained to predict the next token, is a language model that writes.

    python examples/gpt.py

It is the Transformer's decoder without cross-attention, here of pre-norm layers with GELU, learned positions and
biases. Beside it stand language models as they were before, by counts of the n - 1 characters in front (Witten and Bell
1991). Both write by the same `sample`, which asks a model for logits of the next token and a state, and nothing else.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, defaultdict
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from characters import reference_characters
from loop import fit
from options import demand, read_options, run
from report import print_end, print_table
from torch import Tensor, nn

from transformer import Decoder, DecoderState, DotProductAttention, FeedForward, MultiHeadAttention, sample
from transformer.model.alternatives.layers import PreNormLayer

# Layers, d_model and heads; all with 50,257 tokens and 1,024 positions.
SIZES = {"small": (12, 768, 12), "medium": (24, 1024, 16), "large": (36, 1280, 20), "xl": (48, 1600, 25)}


class GPT(nn.Module):
    """log P(x) = Σ_t log P(x_t | x_1 ... x_(t-1)), all terms in one pass: the decoder is causal."""

    def __init__(
        self, vocab_size: int, num_layers: int, d_model: int, num_heads: int, *, context: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, d_model), nn.Embedding(context, d_model)
        self.dropout = nn.Dropout(dropout)

        def layer() -> PreNormLayer:
            attention = MultiHeadAttention(d_model, num_heads, bias=True, attention=DotProductAttention(dropout))
            feed_forward = FeedForward(d_model, 4 * d_model, activation=partial(F.gelu, approximate="tanh"))
            return PreNormLayer(attention, feed_forward, dropout=dropout, norm_eps=1e-5)

        self.decoder = Decoder((layer() for _ in range(num_layers)), nn.LayerNorm(d_model, 1e-5))
        for name, weight in self.named_parameters():
            if weight.dim() == 2:  # the more layers add to the residual stream, the less each adds at first
                adds = name.endswith(("w_o.weight", "w_2.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * num_layers) if adds else 0.02)

    def forward(self, ids: Tensor, state: DecoderState | None = None) -> tuple[Tensor, DecoderState]:
        """From the next ids (B, T), logits (B, T, V) of what follows each, and the state after them, the KV cache."""
        state = DecoderState() if state is None else state
        positions = torch.arange(state.length, state.length + ids.size(1), device=ids.device)  # (T,)
        demand(state.length + ids.size(1) <= self.positions.num_embeddings, "more positions than the context has")
        hidden, state = self.decoder(self.dropout(self.tokens(ids) + self.positions(positions)), state)
        return hidden @ self.tokens.weight.T, state  # the matrix of the embedding, neither times √d_model

    def decode(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """What a search asks for: from the last tokens (R,), logits (R, V) of the next ones."""
        logits, state = self(tokens[:, None], state)
        return logits[:, -1], state

    def loss(self, ids: Tensor) -> Tensor:
        """Mean NLL in nats of all of ids (B, L) but the first, each given those before it."""
        logits, _ = self(ids[:, :-1])  # (B, L - 1, V)
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


class Recent(NamedTuple):
    """The state of an n-gram model: all tokens so far, (R, t)."""

    tokens: Tensor

    def select(self, rows: Tensor) -> Recent:
        return Recent(self.tokens[rows.flatten()])


class NGram:
    """P(x | h) = (c(hx) + u(h) P(x | h')) / (c(h) + u(h)): u(h) kinds were seen after h; h' is h without its first."""

    def __init__(self, ids: list[int], order: int, vocab_size: int) -> None:
        self.order, self.uniform = order, torch.full((vocab_size,), 1 / vocab_size)
        self.counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for end, token in enumerate(ids):
            for start in range(max(0, end - order + 1), end + 1):
                self.counts[tuple(ids[start:end])][token] += 1
        self.known: dict[tuple[int, ...], Tensor] = {}

    def probabilities(self, history: tuple[int, ...]) -> Tensor:
        """P(x | history) of each x: (V,)."""
        history = history[max(0, len(history) - self.order + 1) :]
        if history not in self.known:
            found = self.probabilities(history[1:]) if history else self.uniform
            if seen := self.counts.get(history):
                counts = torch.tensor([*seen.elements()]).bincount(minlength=len(found))
                found = (counts + len(seen) * found) / (counts.sum() + len(seen))
            self.known[history] = found
        return self.known[history]

    def decode(self, tokens: Tensor, state: Recent) -> tuple[Tensor, Recent]:
        """Log-probabilities are logits too."""
        state = Recent(torch.cat((state.tokens, tokens[:, None]), dim=1))  # (R, t + 1)
        return torch.stack([self.probabilities(tuple(row)) for row in state.tokens.tolist()]).log(), state  # (R, V)


@torch.no_grad()
def nll(decode: Any, state: Any, ids: Tensor) -> float:
    """Mean NLL in nats of all of ids (B, L) but the first, by one token after the other, as a search does."""
    total = 0.0
    for tokens, following in itertools.pairwise(ids.unbind(1)):
        logits, state = decode(tokens, state)
        total += float(F.cross_entropy(logits, following))
    return total / (ids.size(1) - 1)


def main(argv: list[str] | None = None) -> None:
    size = read_options(__doc__, argv, updates=2000, batch=12, context=64, num_layers=4, d_model=128, num_heads=4)
    start, prompt = time.perf_counter(), "The "
    demand(size.context > len(prompt), f"--context {size.context} has no place behind {prompt!r}")
    characters, ids = reference_characters()
    train, held_out = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :].unfold(0, size.context + 1, size.context)
    windows = train.unfold(0, size.context + 1, 1)  # (number of windows, L)

    def row(name: str, decode: Any, state: Any) -> tuple[str, str, str]:
        bos = [characters.index(character) for character in prompt]
        ((found,),) = sample(decode, state(1), [size.context - len(bos)], bos_id=[bos], eos_id=(), temperature=0.7)
        written = prompt + "".join(characters[token] for token in found.ids).replace("`", "'")
        return name, f"`{' '.join(written.split())}`", f"{nll(decode, state(len(held_out)), held_out):.3f}"

    rows = []
    for order in (1, 3, 5, 7):
        counts = NGram(train.tolist(), order, len(characters))
        rows.append(row(f"{order}-gram", counts.decode, lambda rows: Recent(held_out[:rows, :0])))
    model = GPT(len(characters), size.num_layers, size.d_model, size.num_heads, context=size.context, dropout=0.0)
    batches = (windows[torch.randint(len(windows), (size.batch,))] for _ in itertools.count())
    fit(model, lambda _: model.loss(next(batches)), size.updates, lr=3e-3, warmup_updates=100, weight_decay=0.1)
    rows.append(row("GPT", model.decode, lambda _: DecoderState()))
    print_table(["", "sampled at temperature 0.7", "nats per character"], rows, text_columns=2)
    print_end(time.perf_counter() - start, model)


if __name__ == "__main__":
    run(main)

"""Scaling laws (Kaplan et al. 2020; Hoffmann et al. 2022), measured on small language models.

The idea: the loss of a language model falls as a power of its size N (without embeddings), of its data D (tokens, each
seen once) and of its training computation C = 6ND. Both are seen at once in L(N, D) = E + A/N^α + B/D^β, where E is the
entropy of the text, below which nothing falls.

Shown: losses of 2-layer decoders on captions of the built-in grammar, the fit, and the slopes of the simple power laws.
The exponents belong to this grammar, to these sizes and to this schedule. They are not those of language, and where
one comes near a published figure, that is chance.

    python examples/scaling.py
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from captions import Vocabulary, english
from loop import fit
from options import demand, read_options, run
from report import count_parameters, print_end, print_table
from torch import Tensor, nn

from transformer import EOS_ID, Encoder, FeedForward, MultiHeadAttention, SharedEmbedding, causal_mask
from transformer.model.alternatives.layers import PreNormLayer

CONTEXT, BATCH_SIZE, NUM_LAYERS, D_K = 64, 8, 2, 8
EXPONENTS = np.linspace(0.02, 2, 100)
Array = np.ndarray


class LanguageModel(nn.Module):
    """A pre-norm decoder without cross-attention; d_k = 8, d_ff = 4 d_model."""

    def __init__(self, vocab_size: int, d_model: int, num_layers: int = NUM_LAYERS) -> None:
        super().__init__()
        self.embedding, self.positions = SharedEmbedding(vocab_size, d_model), nn.Embedding(CONTEXT, d_model)
        attention = partial(MultiHeadAttention, d_model, d_model // D_K)
        feed_forward = partial(FeedForward, d_model, 4 * d_model)
        layers = (PreNormLayer(attention(), feed_forward(), dropout=0.0) for _ in range(num_layers))
        self.decoder = Encoder(layers, nn.LayerNorm(d_model))

    def loss(self, ids: Tensor) -> Tensor:
        """Mean NLL of each id but the first given those before it: ids (B, L + 1)."""
        x = self.embedding(ids[:, :-1]) + self.positions.weight[: ids.size(1) - 1]  # (B, L, D)
        logits = self.decoder(x, causal_mask(x.size(1))) @ self.embedding.output_weight.T  # (B, L, V)
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def approximate_size(num_layers: int, d_model: int) -> int:
    """N = 12 n d²: 4d² in attention and 8d² in the feed-forward network; biases and norms are left out."""
    return 12 * num_layers * d_model**2


def sequences(tokens: Tensor) -> Tensor:
    """Cut a text (T,) into sequences of CONTEXT targets: (B, CONTEXT + 1)."""
    return tokens[: (len(tokens) - 1) // CONTEXT * CONTEXT + 1].unfold(0, CONTEXT + 1, CONTEXT)


def held_out_loss(d_model: int, vocab_size: int, train: Tensor, test: Tensor, seed: int) -> float:
    """Train once through a text; returns nats per token on another one."""
    torch.manual_seed(seed)
    model, batches = LanguageModel(vocab_size, d_model), sequences(train).split(BATCH_SIZE)
    fit(
        model, lambda i: model.loss(batches[i]), len(batches), lr=0.04 / d_model**0.5, warmup_updates=len(batches) // 10
    )
    with torch.inference_mode():
        return model.loss(sequences(test)).item()


def fit_law(n: Array, d: Array, loss: Array) -> Array:
    """E, A, α, B, β by least squares: (5,), none negative; a linear fit for each pair of exponents of a grid."""
    alpha, beta = (grid.ravel() for grid in np.meshgrid(EXPONENTS, EXPONENTS))  # (G,)
    n_0, d_0 = n.mean(), d.mean()  # as units, for the condition of the equations
    columns = (np.ones((len(alpha), len(n))), (n / n_0) ** -alpha[:, None], (d / d_0) ** -beta[:, None])
    x = np.stack(columns, axis=2)  # (G, runs, 3)
    best = (np.inf, np.zeros(5))
    for kept in ([0, 1, 2], [1, 2]):  # with and without E
        y, y_t, solved = x[:, :, kept], x[:, :, kept].transpose(0, 2, 1), np.zeros((len(alpha), 3))
        solved[:, kept] = np.linalg.solve(y_t @ y + 1e-12 * np.eye(len(kept)), y_t @ loss[:, None])[..., 0]
        errors = ((np.einsum("gri,gi->gr", x, solved) - loss) ** 2).sum(axis=1)
        errors[(solved < 0).any(axis=1)] = np.inf
        if errors[i := int(errors.argmin())] < best[0]:
            e, a, b = solved[i]
            best = (errors[i], np.array([e, a * n_0 ** alpha[i], alpha[i], b * d_0 ** beta[i], beta[i]]))
    return best[1]


def predicted(law: Array, n: Array, d: Array) -> Array:
    """L(N, D) of a fitted law."""
    e, a, alpha, b, beta = law
    return e + a / n**alpha + b / d**beta


def slope(x: Array, loss: Array) -> float:
    """α of the simple power law L = (x_0 / x)^α: minus the slope of logarithms."""
    return -float(np.polyfit(np.log(x), np.log(loss), 1)[0])


def frontier(c: Array, loss: Array) -> Array:
    """Which runs no run of at most their computation beats."""
    return np.array([not ((c <= c[i]) & (loss < loss[i])).any() for i in range(len(c))])


def estimates(n: Array, d: Array, loss: Array) -> Array:
    """E, α, β, and slopes: (6,). L(N) is at the most data, L(D) at the largest size, L(C) on the frontier."""
    e, _, alpha, _, beta = fit_law(n, d, loss)
    selections = ((n, d == d.max()), (d, n == n.max()), (6 * n * d, frontier(6 * n * d, loss)))
    return np.array([e, alpha, beta, *(slope(x[at], loss[at]) for x, at in selections)])


def bootstrap(n: Array, d: Array, loss: Array, size: int, seed: int) -> Array:
    """Estimates from fitted losses with residuals drawn at random: (size, 6)."""
    draw, fitted = np.random.default_rng(seed), predicted(fit_law(n, d, loss), n, d)
    return np.stack([estimates(n, d, fitted + draw.choice(loss - fitted, len(loss))) for _ in range(size)])


def main(argv: list[str] | None = None) -> None:
    """Train each size on each amount of data, then fit."""
    start, sizes = time.perf_counter(), (8, 16, 32, 64)
    args = read_options(__doc__, argv, log2_tokens=20, amounts=4, resamples=200)
    amounts = [2**i for i in range(args.log2_tokens - args.amounts + 1, args.log2_tokens + 1)]
    demand(args.amounts > 2 and amounts[0] >= CONTEXT, f"no law of {args.amounts} amounts up to 2^{args.log2_tokens}")
    texts = [english("train", amounts[-1] // 13), english("test", 1000)]  # of 14.7 tokens on average
    vocabulary = Vocabulary(texts[0])
    train, test = (torch.tensor([i for words in text for i in [*vocabulary.encode(words), EOS_ID]]) for text in texts)
    losses, rows = [], []
    for d_model in sizes:
        counted = count_parameters(LanguageModel(1, d_model).decoder)
        losses.append([held_out_loss(d_model, len(vocabulary), train[: d + 1], test, args.seed) for d in amounts])
        size = f"{approximate_size(NUM_LAYERS, d_model):,}"
        rows.append((f"{d_model}", size, f"{counted:,}", *(f"{loss:.3f}" for loss in losses[-1])))
    print_table(("d_model", "N = 12 n d²", "counted", *(f"L at D = {d:,}" for d in amounts)), rows)
    n = np.repeat([float(approximate_size(NUM_LAYERS, d_model)) for d_model in sizes], len(amounts))
    d, loss = np.tile(np.array(amounts, float), len(sizes)), np.array(losses).ravel()
    residual = np.abs(predicted(fit_law(n, d, loss), n, d) - loss).max()
    low, high = np.percentile(bootstrap(n, d, loss, args.resamples, args.seed), (5, 95), axis=0)
    names = ("E (nats)", "α of N", "β of D", "slope of L(N)", "slope of L(D)", "slope of L(C)")
    fitted = zip(names, estimates(n, d, loss), low, high, strict=True)
    laws = [(name, f"{value:.3f}", f"{a:.3f} to {b:.3f}") for name, value, a, b in fitted]
    print_table(("fitted", "value", "90 % by bootstrap"), [*laws, ("largest residual (nats)", f"{residual:.3f}", "")])
    print_end(time.perf_counter() - start)


if __name__ == "__main__":
    run(main)

"""WaveNet (van den Oord et al. 2016): audio sample by sample, by dilated causal convolutions.

The idea: p(x) = Π p(x_t | x_1, ..., x_{t-1}) over samples in 256 levels (μ-law), by a stack of convolutions that see
the past only. They have kernel 2 and double their dilation from layer to layer, 1, 2, 4, ...: L layers reach 2^L
samples, where undilated ones reach L + 1, for the same parameters and the same computation.

Shown: on sums of three sinusoids in noise, the loss of stacks that differ in their dilations only, beside the loss of a
predictor that knows the sinusoids and lacks the noise alone.

    python examples/wavenet.py
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from loop import fit
from options import read_options, run
from report import print_end, print_table
from torch import Tensor, nn

LEVELS, MU = 256, 255
NOISE = 0.03


def mu_law(x: Tensor) -> Tensor:
    """Samples in [-1, 1] to levels, int64: f(x) = sign(x) ln(1 + μ|x|) / ln(1 + μ), rounded."""
    compressed = x.sign() * torch.log1p(MU * x.abs()) / math.log1p(MU)
    return ((compressed + 1) / 2 * MU).round().long().clamp(0, MU)


def expand(level: Tensor) -> Tensor:
    """The samples of levels, f⁻¹; fractions are the bounds between levels."""
    compressed = 2 * level / MU - 1
    return compressed.sign() * torch.expm1(compressed.abs() * math.log1p(MU)) / MU


class Block(nn.Module):
    """z = tanh(W_f * x) ⊙ σ(W_g * x) (equation 2); x + W_r z goes on upwards, W_s z to the output (Figure 4).

    W * x at sample t is W_0 x_{t-d} + W_1 x_t (kernel 2, dilation d): one product, for all samples or for one.
    """

    def __init__(self, channels: int, skip_channels: int, dilation: int) -> None:
        super().__init__()
        self.filter_and_gate = nn.Linear(2 * channels, 2 * channels)
        self.residual_and_skip = nn.Linear(channels, channels + skip_channels)
        self.dilation, self.split = dilation, (channels, skip_channels)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Stream and skip connection: x (B, T, C) to (B, T, C) and (B, T, C'); `past` is x d samples earlier."""
        if past is None:  # x d samples ago
            past = F.pad(x, (0, 0, self.dilation, 0))[:, : x.size(1)]  # (B, T, C)
        filtered, gate = self.filter_and_gate(torch.cat((past, x), dim=2)).chunk(2, dim=2)  # (B, T, C) each
        residual, skip = self.residual_and_skip(filtered.tanh() * gate.sigmoid()).split(self.split, dim=2)
        return x + residual, skip


class WaveNet(nn.Module):
    """Levels so far to logits of the next one; the skip connections of all blocks are summed."""

    def __init__(self, dilations: Sequence[int], channels: int = 32, skip_channels: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LEVELS, channels)  # the paper's one-hot input, times its first weights
        with torch.no_grad():  # near levels start with near vectors: 3.72 nats after 300 updates, else 3.81
            self.embedding.weight.copy_(torch.outer(expand(torch.arange(LEVELS)), 2 * torch.randn(channels)))
        self.blocks = nn.ModuleList(Block(channels, skip_channels, dilation) for dilation in dilations)
        hidden, logits = nn.Linear(skip_channels, skip_channels), nn.Linear(skip_channels, LEVELS)
        self.output = nn.Sequential(nn.ReLU(), hidden, nn.ReLU(), logits)
        self.dilations, self.receptive_field = tuple(dilations), 1 + sum(dilations)

    def queues(self, batch_size: int) -> list[deque[Tensor]]:
        """The state of generation: per block its last d inputs (B, 1, C), at first zeros."""
        zero = self.embedding.weight.new_zeros(batch_size, 1, self.embedding.embedding_dim)
        return [deque([zero] * dilation) for dilation in self.dilations]

    def forward(self, levels: Tensor, queues: Sequence[deque[Tensor]] = ()) -> Tensor:
        """(B, T) int64 to logits (B, T, 256) of the next sample; with `queues`, of one sample (B, 1) behind those."""
        x, total = self.embedding(levels), 0  # (B, T, C)
        for block, queue in itertools.zip_longest(self.blocks, queues):
            if queue is not None:
                queue.append(x)
            x, skip = block(x, None if queue is None else queue.popleft())
            total = total + skip
        return self.output(total)


def sinusoids(batch_size: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sums of three sinusoids, without and with noise: (B, T) each; periods of 8 to 100 samples."""
    draw = torch.rand(3, batch_size, 3, 1, generator=generator)
    periods, phases, amplitudes = 8 * 12.5 ** draw[0], 2 * math.pi * draw[1], 0.1 + 0.15 * draw[2]
    clean = (amplitudes * torch.sin(2 * math.pi * torch.arange(length) / periods + phases)).sum(dim=1)  # (B, T)
    return clean, clean + NOISE * torch.randn(clean.shape, generator=generator)


def noise_loss(clean: Tensor, levels: Tensor) -> Tensor:
    """Mean NLL of levels (B, T) if the sinusoids are known: the bound that no predictor beats on average."""
    upper, lower = ((expand(levels + half) - clean) / NOISE for half in (0.5, -0.5))
    upper, lower = upper.masked_fill(levels == MU, math.inf), lower.masked_fill(levels == 0, -math.inf)
    return -(torch.special.ndtr(upper.double()) - torch.special.ndtr(lower.double())).log().mean()


def train(model: WaveNet, updates: int, batch_size: int, length: int, seed: int) -> None:
    """Maximise the likelihood of sinusoids in noise, always new ones."""
    generator = torch.Generator().manual_seed(seed)

    def loss(_: int) -> Tensor:
        levels = mu_law(sinusoids(batch_size, length + 1, generator)[1])
        return F.cross_entropy(model(levels[:, :-1]).flatten(0, 1), levels[:, 1:].flatten())

    fit(model, loss, updates, lr=1e-2, warmup_updates=updates // 20)


def main(argv: list[str] | None = None) -> None:
    """Train stacks of equal size with other dilations; print their losses."""
    args, start = read_options(__doc__, argv, updates=700, batch_size=8, length=512), time.perf_counter()
    clean, noisy = sinusoids(64, args.length + 1, torch.Generator().manual_seed(args.seed + 1))
    held_out, half = mu_law(noisy), args.length // 2
    rows: list[tuple[object, ...]] = []
    for dilations in ([1] * 8, [1, 2, 4, 8] * 2, [2**i for i in range(8)]):
        torch.manual_seed(args.seed)
        model = WaveNet(dilations)
        train(model, args.updates, args.batch_size, args.length, args.seed)
        with torch.inference_mode():
            logits = model(held_out[:, :-1])[:, half:]
        nll = F.cross_entropy(logits.flatten(0, 1), held_out[:, half + 1 :].flatten()).item()
        rows.append((", ".join(map(str, dilations)), model.receptive_field, f"{nll:.3f}"))
    bound = noise_loss(clean[:, half + 1 :], held_out[:, half + 1 :]).item()
    rows.append(("the sinusoids known", "–", f"{bound:.3f}"))
    print_table(("dilations", "receptive field", "NLL (nats per sample)"), rows)
    print_end(time.perf_counter() - start, model)


if __name__ == "__main__":
    run(main)

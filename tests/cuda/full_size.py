"""Kernels and memory of an update at full size, from shapes alone: python tests/cuda/full_size.py [CONFIG ...]

Real code runs on a pretended CUDA device, whose tensors have no values. Bytes are those of living tensors; what CUDA,
its libraries and the allocator need besides, about 1 GiB, is not in them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import torch
from pretended import PretendedCuda

from transformer.config import Config, load_config
from transformer.data.batching import Batch
from transformer.model.alternatives.build import build_model
from transformer.training.data import Update
from transformer.training.optimizer import MasterWeights, adam
from transformer.training.train_step import NonfiniteGuard, accumulate_gradients

LENGTH = 28  # pieces of an average sentence of WMT14 English-German, </s> included
CONFIGS = ("configs/base.yaml", "configs/big.yaml")
BATCHES = ((4096, 6), (8192, 3), (12500, 2), (25000, 1))  # padded tokens per side, and batches of an update


@dataclass(frozen=True)
class FullSizeUpdate:
    """An update: kernels, bytes that stay from update to update, and the most bytes at once."""

    num_kernels: int
    static_bytes: int
    peak_bytes: int


def measure(config: Config, tokens: int, num_batches: int, precision: torch.dtype = torch.bfloat16) -> FullSizeUpdate:
    """Do two updates of batches with so many padded tokens per side, and look at the second."""
    with PretendedCuda(has_values=False) as cuda:
        model = build_model(config.data.vocab_size, config.model).to("cuda")
        weights = MasterWeights(model, precision, recompute=config.train.gradient_checkpointing)
        weights.model.train()
        optimizer, guard = adam(model.parameters(), config.train), NonfiniteGuard(weights.loss_scale)
        ids = torch.full((tokens // LENGTH, LENGTH), 5)
        batch = Batch(ids, ids, ids, torch.arange(ids.numel())).to(torch.device("cuda"))

        def update() -> None:
            accumulate_gradients(weights, [batch] * num_batches, config.train.label_smoothing)
            guard.step(optimizer, list(model.parameters()), Update(1, 1, 1, []), config.train.clip_norm)
            optimizer.zero_grad(set_to_none=True)
            weights.refresh()

        update()
        cuda.reset()
        static_bytes = cuda.live_bytes
        update()
        return FullSizeUpdate(cuda.num_kernels, static_bytes, cuda.peak_bytes)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", metavar="CONFIG", nargs="*", default=CONFIGS, help=f"by default {' '.join(CONFIGS)}")
    arguments = parser.parse_args(argv)
    print("| configuration | batches | peak GiB | with gradient checkpointing | kernels |\n|---|---:|---:|---:|---:|")
    for path in arguments.configs:
        config = load_config(path)
        recomputing = replace(config, train=replace(config.train, gradient_checkpointing=True))
        for tokens, number in BATCHES:
            found, less = measure(config, tokens, number), measure(recomputing, tokens, number)
            gib = [f"{x.peak_bytes / 2**30:.1f}" for x in (found, less)]
            print(f"| {Path(path).name} | {number} x {tokens:,} | {gib[0]} | {gib[1]} | {found.num_kernels:,} |")


if __name__ == "__main__":
    main()

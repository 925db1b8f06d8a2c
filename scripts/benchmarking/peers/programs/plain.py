"""A plain training loop around torch.nn.Transformer."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from benchmarking.peers.programs.loop import PAD, the_task, train


class Plain(nn.Module):
    """torch.nn.Transformer with one matrix for both embeddings and the logits, and sinusoids."""

    sinusoids: Tensor

    def __init__(self, sizes: SimpleNamespace, max_length: int = 512) -> None:
        super().__init__()
        width = sizes.d_model
        self.embedding = nn.Embedding(sizes.vocab_size, width, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.transformer = nn.Transformer(
            width,
            sizes.num_heads,
            sizes.num_layers,
            sizes.num_layers,
            sizes.d_ff,
            sizes.dropout,
            batch_first=True,
        )
        self.dropout = nn.Dropout(sizes.dropout)
        angles = torch.arange(max_length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
        self.register_buffer("sinusoids", torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :width])

    def embed(self, ids: Tensor) -> Tensor:
        """(B, L) to (B, L, D)."""
        scaled = self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)
        return self.dropout(scaled + self.sinusoids[: ids.size(1)])

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        is_padding, length = src == PAD, tgt_in.size(1)
        hidden = self.transformer(
            self.embed(src),
            self.embed(tgt_in),
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=is_padding,
            memory_key_padding_mask=is_padding,
            tgt_is_causal=True,
        )
        return nn.functional.linear(hidden, self.embedding.weight)


def main() -> None:
    task = the_task()
    model = Plain(task.sizes)
    train(task, model, model)


if __name__ == "__main__":
    main()

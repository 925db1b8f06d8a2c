"""Positional encodings (section 3.5; row E of Table 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal_positions(length: int, d_model: int, *, device: torch.device | str | None = None) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos(the same); pos counts from 0.

    Returns (length, d_model) float32, sines and cosines interleaved as in the paper.
    """
    position = torch.arange(length, dtype=torch.float64, device=device)[:, None]
    even = torch.arange(0, d_model, 2, dtype=torch.float64, device=device)
    # float64 until the end: at position 10,000, float32 angles would be off by a thousandth.
    angles = position * torch.exp(even * (-math.log(10000.0) / d_model))  # (length, ceil(D / 2))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :d_model].float()


class SinusoidalPositions(nn.Module):
    """Adds the sinusoids to embeddings. There is no longest input: the table grows when a longer one comes."""

    table: Tensor
    max_length: int | None = None

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        # Not persistent: it is a formula, not something learned.
        self.register_buffer("table", sinusoidal_positions(256, d_model), persistent=False)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """Add positions offset, offset+1, ... to x (B, L, D)."""
        return x + self.rows(offset, offset + x.size(1))

    def rows(self, start: int, end: int) -> Tensor:
        """The sinusoids (end - start, D) of positions start, start+1, ..., end-1."""
        if end > self.table.size(0):
            # A table that grew in inference mode may still have a part in training.
            with torch.inference_mode(False):
                grown = sinusoidal_positions(max(end, 2 * self.table.size(0)), self.d_model, device=self.table.device)
                self.table = grown.to(self.table.dtype)
        return self.table[start:end]


class NoPositions(nn.Module):
    """Adds nothing to embeddings: positions come in by attention, or not at all."""

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:  # noqa: ARG002
        """x (B, L, D) as it is."""
        return x


class LearnedPositions(nn.Module):
    """Adds a learned vector per position (Gehring et al. 2017): row E of Table 3.

    Args:
        max_positions: how many positions there are; a longer input is an error.
        d_model: width of an embedding.
    """

    def __init__(self, max_positions: int, d_model: int) -> None:
        super().__init__()
        self.max_length = max_positions
        self.table = nn.Parameter(torch.empty(max_positions, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 1/2): the same root mean square, √(1/2), as the sinusoids that it stands in for."""
        nn.init.normal_(self.table, std=math.sqrt(0.5))

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """Add positions offset, offset+1, ... to x (B, L, D). ValueError past `max_positions`."""
        end = offset + x.size(1)
        if end > self.table.size(0):
            raise ValueError(
                f"position {end} is past max_positions={self.max_length}; raise it or use sinusoidal positions"
            )
        return x + self.table[offset:end]

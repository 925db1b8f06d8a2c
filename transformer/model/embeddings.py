"""Embeddings and output projection (section 3.4), positional encoding (section 3.5)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model.kernels import table_rows


class SharedEmbedding(nn.Module):
    """One (V, D) matrix for both embedding layers and the pre-softmax linear transformation (section 3.4)."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 1/d_model): embeddings times √d_model, and the first logits, have unit variance."""
        for weight in self.parameters():
            nn.init.normal_(weight, std=weight.size(1) ** -0.5)

    def forward(self, ids: Tensor, *, is_target: bool = False) -> Tensor:  # noqa: ARG002
        """Embed ids (B, L) int64, times √d_model: (B, L, D). `is_target` is for matrices that are not shared."""
        return F.embedding(ids, self.weight) * math.sqrt(self.weight.size(1))

    @property
    def output_weight(self) -> Tensor:
        """(V, D), the matrix before the softmax: logits are x @ output_weight.T."""
        return self.weight


def sinusoidal_positions(
    length: int, d_model: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos(same): (length, d_model)."""
    # float64, which Apple GPUs lack, until the end: at position 10,000, float32 angles would be off by a thousandth.
    place = "cpu" if getattr(device, "type", device) == "mps" else device
    position, even = (torch.arange(*x, dtype=torch.float64, device=place) for x in ((0, length), (0, d_model, 2)))
    angles = position[:, None] * torch.exp(even * (-math.log(10000.0) / d_model))  # (length, ceil(D / 2))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :d_model].to(device, dtype)


class SinusoidalPositions(nn.Module):
    """Adds the sinusoids to embeddings, at any position (section 3.5)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model  # no buffer: one that grows breaks DDP and EMA, and stays unfilled after `to_empty`

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add positions start, start + 1, ... to x (B, L, D)."""
        return x + self.rows(start, start + x.size(1), x)

    def rows(self, start: int, end: int, like: Tensor) -> Tensor:
        """Sinusoids (end - start, D) of positions start to end - 1, on the device and in the dtype of `like`."""
        return table_rows(sinusoidal_positions, self.d_model, start, end, like)

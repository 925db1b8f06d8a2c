"""Singular spectra of weight matrices: how many directions they use.

Effective rank exp(H(σ / Σσ)) (Roy and Vetterli 2007), stable rank ‖W‖_F² / σ_1², beside the effective rank of a random
matrix of the same shape, with which it has to be compared.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Spectrum:
    """The singular values of one matrix.

    Attributes:
        name, shape: of the parameter.
        largest, smallest: singular values.
        norm: ‖W‖_F, the root of the sum of their squares.
        stable_rank, effective_rank: between 1 and the smaller side.
        random_effective_rank: of a Gaussian matrix of this shape.
        for_90_percent: how many of the largest have nine tenths of ‖W‖_F².
        values: all of them, largest first.
    """

    name: str
    shape: tuple[int, int]
    largest: float
    smallest: float
    norm: float
    stable_rank: float
    effective_rank: float
    random_effective_rank: float
    for_90_percent: int
    values: list[float]


def weight_spectra(model: nn.Module) -> list[Spectrum]:
    """Spectra of all matrices among a model's parameters, in their order; a shared one is there once."""
    return [spectrum(x, name) for name, x in model.named_parameters() if x.dim() == 2 and min(x.shape) > 0]


@torch.no_grad()
def spectrum(matrix: Tensor, name: str = "") -> Spectrum:
    """The spectrum of a matrix, computed in float64."""
    values = torch.linalg.svdvals(matrix.double().cpu())  # (smaller side,)
    squares = values.square()
    energy = squares.cumsum(0) / squares.sum().clamp_min(torch.finfo(torch.float64).tiny)
    rows, columns = matrix.shape
    return Spectrum(
        name,
        (rows, columns),
        float(values[0]),
        float(values[-1]),
        float(squares.sum().sqrt()),
        stable_rank(values),
        effective_rank(values),
        _random_effective_rank(*sorted((rows, columns))),
        min(int((energy < 0.9).sum()) + 1, len(values)),
        values.tolist(),
    )


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of singular values as shares of their sum; 0 of a zero matrix."""
    total = values.sum()
    if not total > 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def stable_rank(values: Tensor) -> float:
    """‖W‖_F² / σ_1² from singular values, largest first; 0 of a zero matrix."""
    return float(values.square().sum() / values[0].square()) if values[0] > 0 else 0.0


@functools.cache
def _random_effective_rank(small: int, large: int) -> float:
    # By the Gram matrix, which takes a fraction of the time for a vocabulary; its values are far from 0.
    x = torch.randn(large, small, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return effective_rank(torch.linalg.eigvalsh(x.T @ x).clamp_min(0).sqrt())

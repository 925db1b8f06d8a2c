"""Principal components of token embeddings and of positions.

Of rows X, centred: the eigenvectors of C = XᵀX / (n - 1) are the components, an eigenvalue λ_i is the variance along
one, λ_i / Σλ its share; by the singular values s_i of X, λ_i = s_i² / (n - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer.data.tokenizer import PAD_ID
from transformer.model.transformer import Transformer

_NUM_SHOWN = 10
_LEVELS = (0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Components:
    """Principal components of n rows.

    Attributes:
        mean: (D,).
        directions: (k, D), orthonormal, the one of the greatest variance first; k is the smaller of n and D.
        variances: (k,), λ_i.
        coordinates: (n, k), the centred rows along the directions.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor
    coordinates: Tensor

    @property
    def shares(self) -> Tensor:
        """(k,), λ_i / Σλ; zeros if all rows are equal."""
        return self.variances / self.variances.sum().clamp_min(torch.finfo(self.variances.dtype).tiny)


@dataclass(frozen=True)
class ComponentsRow:
    """Principal components of a table of vectors in numbers.

    Attributes:
        name, rows, size: of the table; `size` is D.
        shares: of the total variance, of the first ten components.
        needed: how many components have 90, 95 and 99 % of it.
        participation: (Σλ)² / Σλ², the number of components that the variance is spread over.
        mean_norm: norm of the mean row over the root mean square of the norms of rows; 1 if all rows are equal.
        crossings: how often each of the first ten components changes its sign from row to row, for positions.
        coordinates: of each row along the first two components.
        cumulative: shares, added up.
    """

    name: str
    rows: int
    size: int
    shares: list[float]
    needed: list[int]
    participation: float
    mean_norm: float
    crossings: list[int] | None
    coordinates: list[list[float]]
    cumulative: list[float]


def principal_components(rows: Tensor) -> Components:
    """Principal components of rows (n, D), n at least 2 (else ValueError), in float64."""
    if rows.dim() != 2 or len(rows) < 2:
        raise ValueError(f"expected at least two rows (n, D), got {tuple(rows.shape)}")
    x = rows.detach().double().cpu()
    mean = x.mean(dim=0)
    left, values, directions = torch.linalg.svd(x - mean, full_matrices=False)
    # Without this the sign of each component would be that of the library.
    signs = torch.sign(directions.gather(1, directions.abs().argmax(dim=1, keepdim=True)))  # (k, 1)
    return Components(mean, directions * signs, values.square() / (len(x) - 1), left * values * signs.T)


@torch.no_grad()
def component_rows(model: Transformer, *, num_positions: int = 512) -> list[ComponentsRow]:
    """Components of embedding tables and of the vectors for positions, each distinct table once.

    Embeddings are the rows of the matrices, without padding and before they are multiplied by √d_model. Positions that
    enter in attention, or not at all, add no vectors and have no row.
    """
    length = min(num_positions, model.max_length or num_positions)
    rows = [_row(name, table[torch.arange(len(table)) != PAD_ID], False) for name, table in _tables(model)]
    source, target = (position_vectors(model, side, length) for side in ("source", "target"))
    if torch.equal(source, target):
        tables = {"positions": source}
    else:
        tables = {"source positions": source, "target positions": target}
    return [*rows, *(_row(name, vectors, True) for name, vectors in tables.items() if vectors.any())]


@torch.no_grad()
def position_vectors(model: Transformer, side: str, length: int) -> Tensor:
    """The vectors (length, D) that a side, source or target, adds to its embeddings from position 0 on."""
    positions = model.source_positions if side == "source" else model.target_positions
    weight = model.embedding.output_weight
    return positions(weight.new_zeros(1, length, weight.size(1)))[0]


def _tables(model: Transformer) -> list[tuple[str, Tensor]]:
    """The matrices of source, target and output, by their uses; one that is shared is there once."""
    embedding = model.embedding
    found: list[tuple[str, Tensor]] = []
    for use, table in (
        ("source", embedding.weight),
        ("target", getattr(embedding, "target_weight", embedding.weight)),
        ("output", embedding.output_weight),
    ):
        place = next((i for i, (_, other) in enumerate(found) if other is table), None)
        if place is None:
            found.append((use, table))
        else:
            found[place] = (f"{found[place][0]}, {use}", table)
    return [(f"embedding ({uses})", table) for uses, table in found]


def _row(name: str, rows: Tensor, is_sequence: bool) -> ComponentsRow:
    found = principal_components(rows)
    cumulative = found.shares.cumsum(0)
    return ComponentsRow(
        name,
        len(rows),
        rows.size(1),
        found.shares[:_NUM_SHOWN].tolist(),
        [min(int((cumulative < level).sum()) + 1, len(cumulative)) for level in _LEVELS],
        float(found.variances.sum().square() / found.variances.square().sum()),
        float(found.mean.norm() / rows.double().square().sum(dim=1).mean().sqrt()),
        sign_changes(found.coordinates[:, :_NUM_SHOWN]) if is_sequence else None,
        found.coordinates[:, :2].tolist(),
        cumulative.tolist(),
    )


def sign_changes(curves: Tensor) -> list[int]:
    """How often each column of (n, k) changes its sign from row to row."""
    signs = curves > 0
    changes: Sequence[int] = (signs[1:] != signs[:-1]).sum(dim=0).tolist()
    return list(changes)

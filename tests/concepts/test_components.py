"""Principal components: which directions they keep, the price of dropping the others, and the blindness to labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.inspection.components import Components, principal_components

N, D = 101, 7


@pytest.fixture
def rows() -> Tensor:
    """Correlated columns with a mean far from 0."""
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(N, D, generator=generator) @ torch.randn(D, D, generator=generator) + 11).double()


def rebuilt(found: Components, num_directions: int) -> Tensor:
    """Rows from their coordinates along the first directions."""
    return found.mean + found.coordinates[:, :num_directions] @ found.directions[:num_directions]


@pytest.mark.parametrize("num_directions", [1, 3, 6])
def test_dropped_components_cost_their_variances_and_no_other_directions_cost_less(
    rows: Tensor, num_directions: int
) -> None:
    found = principal_components(rows)
    cost = (rows - rebuilt(found, num_directions)).square().sum() / (N - 1)
    assert_close(cost, found.variances[num_directions:].sum())
    centred = rows - found.mean
    for seed in range(23):
        basis, _ = torch.linalg.qr(
            torch.randn(D, num_directions, generator=torch.Generator().manual_seed(seed)).double()
        )
        assert (centred - centred @ basis @ basis.T).square().sum() / (N - 1) > cost


def test_coordinates_are_uncorrelated_and_their_variances_are_the_eigenvalues(rows: Tensor) -> None:
    found = principal_components(rows)
    assert_close(found.coordinates.T.cov(), found.variances.diag())
    assert (rows.T.cov() - rows.T.cov().diag().diag()).abs().max() > 0.1  # before, columns are correlated


def test_the_mean_has_no_part_in_components_and_a_large_one_would_be_the_first_direction_otherwise(
    rows: Tensor,
) -> None:
    found, shifted = principal_components(rows), principal_components(rows + 1000)
    assert_close(shifted.variances, found.variances)
    assert_close(shifted.coordinates, found.coordinates)
    small = rows - found.mean + 0.1
    for not_centred, expected in ((rows, True), (small, False)):
        _, _, directions = torch.linalg.svd(not_centred)
        assert (torch.cosine_similarity(directions[0], not_centred.mean(0), dim=0).abs() > 0.9) == expected


def test_a_direction_of_little_variance_may_carry_the_label() -> None:
    generator = torch.Generator().manual_seed(3)
    label = torch.arange(N) % 2
    noise = 10 * torch.randn(N, D - 1, generator=generator)
    found = principal_components(torch.cat((noise, 0.2 * (label[:, None] - 0.5)), dim=1))
    assert found.shares[-1] < 1e-4
    accuracy = [
        ((coordinate > coordinate.mean()) == label.bool()).double().mean() for coordinate in found.coordinates.T
    ]
    accuracy = [max(share, 1 - share).item() for share in accuracy]
    assert max(accuracy[:-1]) < 0.65 and accuracy[-1] > 0.99

"""Principal components are those of numpy and scikit-learn; those of the sinusoids are slow waves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from transformer.inspection.components import (
    component_rows,
    position_vectors,
    principal_components,
    sign_changes,
)
from transformer.model.embeddings import sinusoidal_positions
from transformer.model.transformer import Transformer

Make = Callable[..., Transformer]


@pytest.fixture
def rows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(53, 11, generator=generator) @ torch.randn(11, 11, generator=generator) + 3


def test_components_are_the_eigenvectors_of_the_covariance(rows: torch.Tensor) -> None:
    found = principal_components(rows)
    covariance = np.cov(rows.double().numpy(), rowvar=False)
    values, vectors = np.linalg.eigh(covariance)
    assert found.variances.numpy() == pytest.approx(values[::-1])
    assert np.abs((found.directions.numpy() * vectors.T[::-1]).sum(1)) == pytest.approx(np.ones(11))
    assert_close(found.directions @ found.directions.T, torch.eye(11, dtype=torch.float64))
    assert_close(found.coordinates, (rows.double() - found.mean) @ found.directions.T)
    assert float(found.shares.sum()) == pytest.approx(1)


def test_components_are_scikit_learns(rows: torch.Tensor) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = decomposition.PCA().fit(rows.double().numpy())
    found = principal_components(rows)
    assert found.shares.numpy() == pytest.approx(theirs.explained_variance_ratio_)
    signs = np.sign((found.directions.numpy() * theirs.components_).sum(1, keepdims=True))
    assert found.directions.numpy() == pytest.approx(signs * theirs.components_)


def test_each_direction_has_its_largest_entry_positive(rows: torch.Tensor) -> None:
    for table in (rows, -rows):
        directions = principal_components(table).directions
        assert bool((directions.gather(1, directions.abs().argmax(1, keepdim=True)) > 0).all())


def test_one_row_has_no_components_and_equal_rows_no_variance() -> None:
    with pytest.raises(ValueError, match=r"^expected at least two rows \(n, D\), got \(1, 7\)$"):
        principal_components(torch.zeros(1, 7))
    assert float(principal_components(torch.ones(3, 7)).shares.sum()) == 0


def test_components_of_the_sinusoids_are_waves_each_faster_than_the_one_before() -> None:
    found = principal_components(sinusoidal_positions(512, 512))
    assert sign_changes(found.coordinates[:, :8]) == [1, 2, 3, 4, 5, 6, 7, 8]
    correlation = np.corrcoef(found.coordinates[:, 0], np.arange(512))[0, 1]
    assert abs(correlation) > 0.95, "the first component is nearly the position itself"


def test_rows_say_what_the_components_are(make_model: Make) -> None:
    model = make_model()
    embedding, positions = component_rows(model, num_positions=37)
    assert (embedding.name, embedding.rows, embedding.size) == ("embedding (source, target, output)", 30, 22)
    table = model.embedding.weight[1:].detach()  # without padding
    variances = principal_components(table).variances
    assert embedding.participation == pytest.approx(float(variances.sum() ** 2 / variances.square().sum()))
    assert embedding.cumulative == pytest.approx((variances.cumsum(0) / variances.sum()).tolist())
    assert embedding.needed == [1 + sum(x < level for x in embedding.cumulative) for level in (0.9, 0.95, 0.99)]
    norms = table.norm(dim=1)
    assert embedding.mean_norm == pytest.approx(float(table.mean(0).norm() / norms.square().mean().sqrt()))
    assert (embedding.crossings, positions.name, positions.rows) == (None, "positions", 37)
    assert positions.crossings is not None and positions.crossings[:2] == [1, 2]
    assert len(positions.coordinates) == 37


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("untied", ["embedding (source)", "embedding (target)", "embedding (output)", "positions"]),
        ("learned", ["embedding (source)", "embedding (target, output)", "source positions", "target positions"]),
        ("rotary", ["embedding (source, target, output)"]),
        ("t5", ["embedding (source, target, output)"]),
    ],
)
def test_each_table_is_there_once_and_no_positions_where_none_are_added(
    make_model: Make, variant: str, names: list[str]
) -> None:
    found = component_rows(make_model(variant), num_positions=512)
    assert [row.name for row in found] == names
    assert all(row.rows == (17 if variant == "learned" else 512) for row in found if "positions" in row.name)


def test_position_vectors_are_what_is_added_to_embeddings(any_model: Transformer) -> None:
    for side, positions in (("source", any_model.source_positions), ("target", any_model.target_positions)):
        x = torch.randn(1, 13, 22, dtype=torch.float64)
        assert_close(position_vectors(any_model, side, 13), (positions(x) - x)[0])

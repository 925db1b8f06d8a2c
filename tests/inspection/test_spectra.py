"""Spectra of weights: singular values as numpy's, ranks of matrices whose ranks are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transformer.inspection.spectra import effective_rank, spectrum, stable_rank, weight_spectra
from transformer.model.transformer import Transformer


def test_singular_values_and_norm_are_numpys() -> None:
    matrix = torch.randn(11, 17, generator=torch.Generator().manual_seed(3))
    found, expected = spectrum(matrix, "x"), np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    assert found.values == pytest.approx(expected)
    assert (found.largest, found.smallest) == pytest.approx((expected[0], expected[-1]))
    assert found.norm == pytest.approx(np.linalg.norm(matrix.numpy()))
    assert found.stable_rank == pytest.approx((expected**2).sum() / expected[0] ** 2)
    shares = expected / expected.sum()
    assert found.effective_rank == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
    energy = np.cumsum(expected**2) / (expected**2).sum()
    assert found.for_90_percent == 1 + int((energy < 0.9).sum())
    assert (found.name, found.shape) == ("x", (11, 17))


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_a_projection_has_its_rank(rank: int) -> None:
    basis, _ = torch.linalg.qr(torch.randn(7, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    found = spectrum(5 * basis @ basis.T)
    assert (found.effective_rank, found.stable_rank) == pytest.approx((rank, rank))
    assert found.for_90_percent == math.ceil(0.9 * rank)


def test_ranks_do_not_depend_on_scale_and_those_of_a_zero_matrix_are_0() -> None:
    values = torch.tensor([5.0, 3.0, 2.0], dtype=torch.float64)
    assert effective_rank(7 * values) == pytest.approx(effective_rank(values))
    assert stable_rank(7 * values) == pytest.approx(38 / 25)
    zero = spectrum(torch.zeros(3, 5))
    assert (zero.effective_rank, zero.stable_rank, zero.largest, zero.norm) == (0, 0, 0, 0)


def test_a_random_matrix_has_the_effective_rank_that_it_is_compared_with() -> None:
    for shape in ((64, 64), (31, 128), (128, 31)):
        found = spectrum(torch.randn(shape, generator=torch.Generator().manual_seed(9)))
        assert found.effective_rank == pytest.approx(found.random_effective_rank, rel=0.03)
        assert found.random_effective_rank <= min(shape)


def test_every_matrix_of_any_model_is_there_once(any_model: Transformer) -> None:
    found = {row.name: row.shape for row in weight_spectra(any_model)}
    assert found == {name: tuple(x.shape) for name, x in any_model.named_parameters() if x.dim() == 2}
    assert len(found) == len(weight_spectra(any_model))


def test_an_untrained_model_has_no_preferred_direction() -> None:
    torch.manual_seed(5)
    model = Transformer(211, d_model=64, num_layers=1, num_heads=4, d_ff=256)
    for row in weight_spectra(model):
        assert row.effective_rank == pytest.approx(row.random_effective_rank, rel=0.05), row.name

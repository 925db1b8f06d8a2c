"""Singular values by products are those of the whole Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import jacrev
from torch.testing import assert_close

from transformer.data.batching import Batch
from transformer.inspection.examples import batch_of
from transformer.inspection.jacobians import jacobian_rows, layer_map, singular_values, stack_map
from transformer.inspection.stacks import record_stacks
from transformer.model.transformer import Transformer

Make = Callable[..., Transformer]
TINY = {"d_model": 6, "d_ff": 7, "d_k": 2, "num_layers": 2}


def exact(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Singular values of the whole Jacobian at x, the only sentence of a batch."""
    return torch.linalg.svdvals(jacrev(f)(x).reshape(x.numel(), x.numel()))


def all_pieces(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("variant", ["paper", "window"])
@pytest.mark.parametrize("stack", [0, 1])
@torch.no_grad()
def test_the_largest_is_that_of_the_whole_jacobian(
    make_model: Make, pairs: list[Batch], variant: str, stack: int
) -> None:
    call = record_stacks(make_model(variant, **TINY), pairs[2 - stack])[stack]
    for f, x in ((layer_map(call.layers[1]), call.states[1]), (stack_map(call, 2), call.states[0])):
        values = exact(f, x)
        found = singular_values(f, x, all_pieces(x), iterations=30, probes=25)
        assert float(found.largest) == pytest.approx(float(values[0]), rel=0.03)
        assert float(found.largest) <= float(values[0]) * (1 + 1e-12)
        assert float(found.rms) == pytest.approx(float(values.square().mean().sqrt()), rel=0.3)


@torch.no_grad()
def test_power_iteration_comes_as_near_as_one_likes(make_model: Make, pairs: list[Batch]) -> None:
    call, _ = record_stacks(make_model("pre", **TINY), pairs[2])
    f, x = layer_map(call.layers[0]), call.states[0]
    found = [float(singular_values(f, x, all_pieces(x), iterations=n, probes=1).largest) for n in (1, 5, 20, 100)]
    assert found == sorted(found), "each iteration comes nearer from below"
    assert found[-1] == pytest.approx(float(exact(f, x)[0]), rel=1e-4)


def test_hutchinsons_estimate_is_exact_for_a_diagonal_jacobian() -> None:
    gains = torch.randn(1, 5, 7, dtype=torch.float64)
    found = singular_values(lambda x: gains * x, torch.randn_like(gains), all_pieces(gains), iterations=300, probes=1)
    assert_close(found.rms, gains.square().mean((1, 2)).sqrt())
    assert_close(found.largest, gains.abs().amax((1, 2)), rtol=1e-4, atol=0)


def test_hutchinsons_estimate_has_no_bias() -> None:
    matrix = torch.randn(35, 35, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = torch.zeros(1, 5, 7, dtype=torch.float64)
    f: Callable[[Tensor], Tensor] = lambda y: (matrix @ y.flatten()).view(y.shape)  # noqa: E731
    squares = [float(singular_values(f, x, all_pieces(x), iterations=1, probes=1, seed=i).rms) ** 2 for i in range(400)]
    mean, error = sum(squares) / 400, float(torch.tensor(squares).std()) / 20
    assert abs(mean - float(matrix.square().sum()) / 35) < 4 * error


@torch.no_grad()
def test_padding_and_other_sentences_do_not_change_the_values(
    make_model: Make, pairs: list[Batch], batch: Batch
) -> None:
    model = make_model("pre", **TINY)
    padded, alone = record_stacks(model, batch)[0], record_stacks(model, pairs[1])[0]
    options = {"iterations": 60, "probes": 30}
    of_all = singular_values(stack_map(padded, 2), padded.states[0], padded.is_piece, **options)
    of_one = singular_values(stack_map(alone, 2), alone.states[0], alone.is_piece, **options)
    assert_close(of_all.largest[1], of_one.largest[0], rtol=0.02, atol=0)
    assert_close(of_all.rms[1], of_one.rms[0], rtol=0.25, atol=0)


def test_rows_are_those_of_every_layer_of_any_model(any_model: Transformer, batch: Batch) -> None:
    rows = jacobian_rows(any_model, batch, iterations=3, probes=2)
    assert [(row.stack, row.layer) for row in rows] == [(x, i) for x in ("encoder", "decoder") for i in (1, 2, 3)]
    for row in rows:
        assert 0 < row.rms <= row.largest * 1.5
        first = (row.largest_from_input, row.rms_from_input) == (row.largest, row.rms)
        assert first == (row.layer == 1)


def test_rows_are_means_over_sentences(make_model: Make) -> None:
    model = make_model(**TINY)
    batch = batch_of([[5, 17, 3], [9, 4, 3]], [[7, 3], [6, 3]])
    rows = jacobian_rows(model, batch, iterations=5, probes=3, seed=11)
    call = record_stacks(model, batch)[1]
    options = {"iterations": 5, "probes": 3, "seed": 11}
    alone = singular_values(layer_map(call.layers[1]), call.states[1], call.is_piece, **options)
    whole = singular_values(stack_map(call, 2), call.states[0], call.is_piece, **options)
    expected = [float(x.mean().detach()) for x in (*alone, *whole)]
    assert [rows[3].largest, rows[3].rms, rows[3].largest_from_input, rows[3].rms_from_input] == pytest.approx(expected)


@torch.no_grad()
def test_a_final_linear_layer_has_the_singular_values_of_its_matrix() -> None:
    weight = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x = torch.zeros(2, 5, 7, dtype=torch.float64)
    values = torch.linalg.svdvals(weight)
    found = singular_values(lambda y: y @ weight.T, x, all_pieces(x), iterations=300, probes=400)
    assert_close(found.largest, values[:1].expand(2), rtol=1e-6, atol=0)
    assert_close(found.rms, values.square().mean().sqrt().expand(2), rtol=0.05, atol=0)

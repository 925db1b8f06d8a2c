"""The training loop of the examples."""

from __future__ import annotations

import pytest
import torch
from loop import fit, learning_rate_factor
from torch import nn

from transformer import UserError


def test_the_learning_rate_rises_linearly_and_falls_as_a_half_cosine() -> None:
    factors = [learning_rate_factor(update, 11, 3) for update in range(12)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert factors[3] == 1 and factors[7] == pytest.approx(1 / 2) and factors[11] == pytest.approx(0, abs=1e-12)
    assert factors[3:] == sorted(factors[3:], reverse=True)


def test_a_quadratic_is_minimised() -> None:
    layer = nn.Linear(3, 1, bias=False)
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])
    losses = fit(layer, lambda _: (layer(x) - y).square().mean(), 307, lr=0.1, warmup_updates=11)
    assert len(losses) == 307 and losses[-1] < 1e-6 * losses[0]
    assert not layer.training


def test_only_matrices_decay() -> None:
    layer = nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    fit(layer, lambda _: 0 * layer(torch.ones(1, 3)).sum(), 1, lr=0.1, weight_decay=0.5)
    torch.testing.assert_close(layer.weight, 0.95 * weight)
    assert torch.equal(layer.bias, bias)


def test_large_gradients_are_clipped_before_the_moments() -> None:
    """One update of Adam does not show the size of a gradient, but the second one does: its moments have both."""
    steps = []
    for max_norm in (1.0, 1e9):
        weight = nn.Parameter(torch.zeros(1, 1))
        model = nn.Module()
        model.register_parameter("weight", weight)
        fit(model, lambda update, w=weight: (1000.0 if update == 0 else 1.0) * w.sum(), 2, lr=0.1, max_norm=max_norm)
        steps.append(weight.item())
    assert steps[0] < steps[1]


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training(factor: float) -> None:
    """Or its weights would be NaN, and a table of them would be printed as any other."""
    layer = nn.Linear(3, 1)
    with pytest.raises(UserError, match=r"the loss of update 3 is (nan|inf)"):
        fit(layer, lambda update: layer(torch.ones(1, 3)).square().sum() * (factor if update == 2 else 1), 5, lr=0.1)

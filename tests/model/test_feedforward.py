"""Equation 2, by hand and as printed."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.testing import assert_close

from transformer.model.feedforward import FeedForward

D, F = 13, 29


def random_feed_forward(dropout: float = 0.0) -> FeedForward:
    """In float64, with random biases: initial ones are zero and would hide mistakes."""
    torch.manual_seed(3)
    module = FeedForward(D, F, dropout=dropout).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def test_equation_2_gives_the_numbers_worked_out_by_hand() -> None:
    module = FeedForward(2, 3)
    with torch.no_grad():
        module.w_1.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
        module.w_1.bias.copy_(torch.tensor([1.0, 0, -5]))
        module.w_2.weight.copy_(torch.tensor([[1.0, 10, 100], [2, 20, 200]]))
        module.w_2.bias.copy_(torch.tensor([0.5, -0.5]))
    # Inner: max(0, [2 + 1, -7, -5 - 5]) = [3, 0, 0], and max(0, [5, 3, 2]).
    assert_close(module(torch.tensor([[2.0, -7], [4, 3]])), torch.tensor([[3.5, 5.5], [235.5, 469.5]]))


def test_equation_2_is_as_printed() -> None:
    module, x = random_feed_forward(), torch.randn(2, 7, D).double()
    inner = torch.maximum(torch.zeros(()).double(), x @ module.w_1.weight.T + module.w_1.bias)
    assert_close(module(x), inner @ module.w_2.weight.T + module.w_2.bias)


def test_every_position_is_treated_alike_and_alone() -> None:
    module, x = random_feed_forward(), torch.randn(3, 7, D).double()
    whole = module(x)
    for b in range(3):
        for position in range(7):
            assert_close(whole[b, position], module(x[b, position]))


def test_dropout_of_inner_activations_keeps_the_mean_in_training_and_is_off_in_eval() -> None:
    module, num_draws = random_feed_forward(dropout=0.3), 2003
    x = torch.randn(D).double()
    expected = random_feed_forward()(x)
    assert_close(module.eval()(x), expected)
    draws = module.train()(x.expand(num_draws, -1))
    deviation = draws.std(0) / math.sqrt(num_draws)
    assert (deviation > 0).all()
    assert ((draws.mean(0) - expected).abs() < 5 * deviation).all()
    # It is the inner activations that are dropped: outputs are never zero, as w_2 mixes what is left.
    assert (draws != 0).all()


def test_without_dropout_training_and_eval_are_the_same() -> None:
    module, x = random_feed_forward(), torch.randn(2, D).double()
    assert torch.equal(module.train()(x), module.eval()(x))


def test_weights_start_within_the_glorot_bound_and_biases_at_zero() -> None:
    torch.manual_seed(3)
    module = FeedForward(47, 101)
    bound = math.sqrt(6 / (47 + 101))
    for linear in (module.w_1, module.w_2):
        assert 0.9 * bound < linear.weight.abs().max() <= bound
        assert_close(linear.weight.var().item(), bound**2 / 3, rtol=0.1, atol=0.0)
        assert_close(linear.bias, torch.zeros_like(linear.bias))

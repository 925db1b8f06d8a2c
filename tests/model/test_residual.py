"""Residual connections and where LayerNorm stands, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model.options import NormPlacement
from transformer.model.residual import Residual, final_norm

D = 13


def random_residual(norm: NormPlacement, dropout: float = 0.0) -> Residual:
    """In float64, with a random affine part in its LayerNorm."""
    torch.manual_seed(3)
    residual = Residual(D, dropout=dropout, norm=norm).double()
    for parameter in residual.parameters():
        nn.init.normal_(parameter)
    return residual


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + eps), with the variance of a whole population."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def test_post_norm_gives_the_numbers_worked_out_by_hand() -> None:
    residual = Residual(2, dropout=0.0)
    # x + x² = [2, 6], whose mean is 4 and deviation 2.
    assert_close(residual(torch.tensor([1.0, 2.0]), torch.square), torch.tensor([-1.0, 1.0]))


def test_pre_norm_gives_the_numbers_worked_out_by_hand() -> None:
    residual = Residual(2, dropout=0.0, norm="pre")
    # LayerNorm([1, 5]) = [-1, 1]; times 3 and added: [-2, 8].
    assert_close(residual(torch.tensor([1.0, 5.0]), lambda y: 3 * y), torch.tensor([-2.0, 8.0]), rtol=0, atol=1e-5)


def test_the_norms_epsilon_is_added_to_the_variance_inside_the_root() -> None:
    # Deviation 0.001, so the variance equals the paper code's 1e-6, and the result is 1 / √2.
    x = torch.tensor([0.001, -0.001])
    half = torch.tensor([math.sqrt(0.5), -math.sqrt(0.5)])
    assert_close(Residual(2, dropout=0.0)(x, torch.zeros_like), half)
    assert_close(Residual(2, dropout=0.0, norm_eps=3e-6)(x, torch.zeros_like), half / math.sqrt(2))


def test_post_norm_is_the_norm_of_the_sum_as_printed() -> None:
    residual, x = random_residual("post"), torch.randn(2, 5, D).double()
    assert_close(residual(x, torch.sin), layer_norm(residual.norm, x + x.sin()))


def test_pre_norm_adds_the_sublayer_of_the_norm() -> None:
    residual, x = random_residual("pre"), torch.randn(2, 5, D).double()
    assert_close(residual(x, torch.sin), x + layer_norm(residual.norm, x).sin())


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_dropout_leaves_the_residual_path_alone(norm: NormPlacement) -> None:
    residual, x = random_residual(norm, dropout=0.7).train(), torch.randn(2, 5, D).double()
    expected = x if norm == "pre" else layer_norm(residual.norm, x)
    assert_close(residual(x, torch.zeros_like), expected)


def test_dropout_is_of_the_sublayers_output_before_the_sum() -> None:
    residual, x = random_residual("pre", dropout=0.5).train(), torch.randn(101, D).double()
    added = residual(x, torch.ones_like) - x
    dropped = added.abs() < 1e-9
    assert_close(added, torch.where(dropped, 0.0, 2.0).double())
    assert 0.4 < dropped.double().mean() < 0.6


def test_post_norm_normalises_after_dropout() -> None:
    residual = Residual(D, dropout=0.5).double().train()
    y = residual(torch.randn(101, D).double(), torch.sin)
    assert_close(y.mean(-1), torch.zeros(101).double(), rtol=0, atol=1e-9)
    assert_close(y.square().mean(-1), torch.ones(101).double(), rtol=0, atol=1e-4)
    assert (y != 0).all()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_in_eval_nothing_is_dropped(norm: NormPlacement) -> None:
    x = torch.randn(2, 5, D).double()
    dropping, clean = random_residual(norm, dropout=0.7).eval(), random_residual(norm)
    assert torch.equal(dropping(x, torch.sin), clean(x, torch.sin))


def test_an_unknown_norm_placement_is_an_error() -> None:
    with pytest.raises(ValueError, match="norm='middle' is not one of 'post', 'pre'"):
        Residual(D, norm="middle")


def test_a_stack_ends_with_a_norm_only_if_its_layers_do_not() -> None:
    x = torch.randn(5, D)
    assert final_norm({"d_model": D, "norm": "post"})(x) is x
    assert final_norm({})(x) is x  # the paper's
    norm = final_norm({"d_model": D, "norm": "pre", "norm_eps": 1e-3})
    assert_close(norm(x), layer_norm(norm, x))
    assert norm.eps == 1e-3


def test_the_final_norm_takes_the_defaults_of_the_layers() -> None:
    norm = final_norm({"norm": "pre"})
    assert norm.normalized_shape == (512,)
    assert norm.eps == 1e-6

"""Dropout by packed 16-bit words: the laws of dropout, within the bounds of chance."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from transformer.model.dropout import dropout

NUM = 1_000_003  # a prime: no multiple of the four elements that share a word


def rounded(p: float) -> float:
    """The multiple of 1/65536 that stands in for p."""
    return round(p * 65536) / 65536


def assert_binomial(count: int, num: int, p: float) -> None:
    """Within five standard deviations of what `num` draws with probability p give: one false alarm in 1.7 million."""
    assert abs(count - num * p) <= 5 * math.sqrt(num * p * (1 - p)), (count / num, p)


@pytest.mark.parametrize("p", [1e-5, 0.1, 0.3, 1 / 3, 0.5, 0.9, 0.9999])  # of these, only 0.5 is a multiple of 1/65536
def test_the_fraction_dropped_is_p_and_the_rest_is_scaled(p: float) -> None:
    torch.manual_seed(3)
    y = dropout(torch.ones(NUM), p)
    assert_binomial(int((y == 0).sum()), NUM, rounded(p))
    kept = y[y != 0]
    assert_close(kept, torch.full_like(kept, 1 / (1 - rounded(p))))


@pytest.mark.parametrize("p", [0.1, 1 / 3, 0.5])
def test_the_mean_stays(p: float) -> None:
    torch.manual_seed(3)
    x = torch.rand(NUM, dtype=torch.float64)
    # A kept element varies by x² p / (1 - p).
    deviation = (x.square().sum() * p / (1 - p)).sqrt()
    assert (dropout(x, p).sum() - x.sum()).abs() < 5 * deviation


def test_the_four_elements_of_a_word_are_dropped_independently() -> None:
    torch.manual_seed(3)
    p, num_words = 0.3, 250_007
    dropped = (dropout(torch.ones(num_words, 4), p) == 0).double()
    together = dropped.T @ dropped  # [i, j]: how often both are dropped
    for i in range(4):
        for j in range(4):
            assert_binomial(int(together[i, j]), num_words, rounded(p) if i == j else rounded(p) ** 2)
    next_word = (dropped[:-1].T @ dropped[1:]).flatten()
    for count in next_word:
        assert_binomial(int(count), num_words - 1, rounded(p) ** 2)


def test_the_same_seed_gives_the_same_mask_and_another_seed_another() -> None:
    x = torch.ones(7, 11)
    draws = []
    for seed in (3, 3, 5):
        torch.manual_seed(seed)
        draws.append(dropout(x, 0.5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(dropout(x, 0.5), draws[2])  # and the next call goes on


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True), (0.0, False)])
def test_dropout_is_the_identity_out_of_training_or_without_p(p: float, training: bool) -> None:
    x = torch.randn(5, 7)
    state = torch.get_rng_state()
    assert dropout(x, p, training) is x
    assert torch.equal(torch.get_rng_state(), state)  # and draws nothing


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3,), (5,), (2, 3, 5), (7, 11), (3, 0, 5)])
def test_any_shape_is_kept_and_each_element_is_zero_or_scaled(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    x = torch.rand(shape) + 1
    y = dropout(x, 0.25)
    assert y.shape == x.shape
    assert_close(y, torch.where(y == 0, 0.0, x * 4 / 3))


def test_the_last_elements_of_a_shape_that_is_no_multiple_of_four_are_dropped_as_often_as_others() -> None:
    torch.manual_seed(3)
    p, num_draws = 0.3, 2003
    dropped = sum((dropout(torch.ones(7), p) == 0).long() for _ in range(num_draws))
    for count in dropped:
        assert_binomial(int(count), num_draws, rounded(p))


def test_elements_that_are_not_contiguous_are_handled() -> None:
    torch.manual_seed(3)
    x = (torch.rand(11, 7) + 1).T
    y = dropout(x, 0.5)
    assert_close(y, torch.where(y == 0, 0.0, 2 * x))
    assert 0 < (y == 0).sum() < y.numel()


def test_the_gradient_goes_through_the_same_mask() -> None:
    torch.manual_seed(3)
    x = torch.rand(7, 11, requires_grad=True)
    upstream = torch.randn(7, 11)
    y = dropout(x, 0.25)
    y.backward(upstream)
    assert_close(x.grad, torch.where(y == 0, 0.0, upstream * 4 / 3))
    assert 0 < (y == 0).sum() < y.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    y = dropout(torch.ones(NUM, dtype=dtype), 0.1)
    assert y.dtype == dtype
    kept = y[y != 0]
    assert_close(kept, torch.full_like(kept, 1 / (1 - rounded(0.1))))


def test_a_p_below_half_of_the_smallest_step_drops_nothing() -> None:
    x = torch.randn(NUM)
    assert torch.equal(dropout(x, 1e-6), x)


def test_a_p_that_rounds_to_one_is_still_a_probability() -> None:
    # p in [0, 1) is allowed up to its end, where 65536 p rounds to 65536.
    torch.manual_seed(3)
    y = dropout(torch.ones(NUM), 1 - 1e-6)
    assert_binomial(int((y != 0).sum()), NUM, 1 / 65536)
    assert y.isfinite().all()


def test_other_devices_use_the_dropout_of_torch() -> None:
    y = dropout(torch.empty(7, 11, device="meta"), 0.1)
    assert y.shape == (7, 11)
    assert y.device.type == "meta"

"""Positional encodings, against sines and cosines of single angles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.model.positions import LearnedPositions, SinusoidalPositions, sinusoidal_positions


def as_printed(position: int, d_model: int) -> Tensor:
    """The formula of section 3.5 for one position, number by number, in float64."""
    angle = [position / 10000 ** (2 * (dimension // 2) / d_model) for dimension in range(d_model)]
    return torch.tensor(
        [math.cos(a) if dimension % 2 else math.sin(a) for dimension, a in enumerate(angle)], dtype=torch.float64
    )


def test_sines_and_cosines_alternate_with_the_values_of_a_pocket_calculator() -> None:
    # d_model = 4: angles pos and pos / 100.
    expected = [
        [0.0, 1.0, 0.0, 1.0],
        [0.8414710, 0.5403023, 0.0099998, 0.9999500],
        [0.9092974, -0.4161468, 0.0199987, 0.9998000],
    ]
    assert_close(sinusoidal_positions(3, 4), torch.tensor(expected), rtol=0, atol=1e-7)


@pytest.mark.parametrize("d_model", [1, 2, 7, 15, 22, 512])
def test_every_number_is_that_of_the_formula(d_model: int) -> None:
    table = sinusoidal_positions(13, d_model)
    assert table.dtype == torch.float32
    assert_close(table, torch.stack([as_printed(position, d_model) for position in range(13)]).float())


def test_an_odd_width_ends_with_a_sine() -> None:
    last = [math.sin(position / 10000 ** (4 / 5)) for position in range(7)]
    assert_close(sinusoidal_positions(7, 5)[:, 4], torch.tensor(last))


def test_position_ten_thousand_is_as_exact_as_float32_can_be() -> None:
    d_model = 62
    table = sinusoidal_positions(10_008, d_model)
    for position in (4999, 9973, 10_000, 10_007):
        # Half a unit in the last place of numbers below 1; a float32 angle of 10,000 would be off by 5e-4.
        assert_close(table[position].double(), as_printed(position, d_model), rtol=0, atol=2.0**-25 + 1e-11)


def test_a_shift_of_positions_is_a_rotation_that_does_not_depend_on_the_position() -> None:
    # Section 3.5: PE(pos + k) is a linear function of PE(pos).
    table, shift, d_model = sinusoidal_positions(101, 22).double(), 7, 22
    sine, cosine = table[:-shift, 0::2], table[:-shift, 1::2]
    angle = shift / 10000 ** (torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    assert_close(table[shift:, 0::2], sine * angle.cos() + cosine * angle.sin(), rtol=0, atol=1e-6)
    assert_close(table[shift:, 1::2], cosine * angle.cos() - sine * angle.sin(), rtol=0, atol=1e-6)


def test_positions_are_added_and_the_same_for_every_sentence() -> None:
    torch.manual_seed(3)
    x = torch.randn(3, 7, 22)
    expected = x + torch.stack([as_printed(position, 22) for position in range(7)]).float()
    assert_close(SinusoidalPositions(22)(x), expected)


def test_an_offset_counts_from_later() -> None:
    torch.manual_seed(3)
    x, positions = torch.randn(2, 13, 22), SinusoidalPositions(22)
    whole = positions(x)
    for offset in (0, 1, 5, 12):
        assert torch.equal(positions(x[:, offset:], offset), whole[:, offset:])


@pytest.mark.parametrize(("offset", "length"), [(0, 257), (0, 1009), (251, 7), (5003, 1)])
def test_a_table_that_grew_equals_one_that_was_big_from_the_start(offset: int, length: int) -> None:
    positions = SinusoidalPositions(15)
    before = positions.table.clone()
    y = positions(torch.zeros(1, length, 15), offset)
    assert torch.equal(y[0], sinusoidal_positions(offset + length, 15)[offset:])
    assert positions.table.size(0) >= offset + length
    assert torch.equal(positions.table[: before.size(0)], before)


def test_the_table_doubles_so_that_long_inputs_do_not_rebuild_it_at_each_step() -> None:
    positions, sizes = SinusoidalPositions(3), set()
    for offset in range(1031):
        positions(torch.zeros(1, 1, 3), offset)
        sizes.add(positions.table.size(0))
    assert len(sizes) <= 4


def test_a_table_that_grew_keeps_its_dtype() -> None:
    positions = SinusoidalPositions(22).bfloat16()
    y = positions(torch.zeros(1, 1, 22, dtype=torch.bfloat16), offset=300)
    assert y.dtype == positions.table.dtype == torch.bfloat16
    assert_close(y[0, 0], as_printed(300, 22).bfloat16())


def test_a_table_that_grew_while_translating_can_be_used_in_training() -> None:
    positions = SinusoidalPositions(22)
    with torch.inference_mode():
        positions(torch.zeros(1, 307, 22))
    x = torch.randn(1, 307, 22, requires_grad=True)
    positions(x).square().sum().backward()
    assert_close(x.grad, 2 * (x + sinusoidal_positions(307, 22)).detach())


def test_sinusoids_are_neither_learned_nor_saved_and_have_no_longest_input() -> None:
    positions = SinusoidalPositions(22)
    assert list(positions.parameters()) == []
    assert positions.state_dict() == {}
    assert positions.max_length is None


def test_learned_positions_add_a_row_per_position_from_the_offset() -> None:
    torch.manual_seed(3)
    positions, x = LearnedPositions(13, 22), torch.randn(2, 5, 22)
    assert_close(positions(x), x + positions.table[:5])
    assert_close(positions(x, offset=8), x + positions.table[8:])
    assert positions.max_length == 13


def test_a_learned_position_gets_the_sum_of_the_gradients_of_its_uses() -> None:
    positions = LearnedPositions(7, 3)
    upstream = torch.randn(2, 5, 3)
    positions(torch.zeros(2, 5, 3), offset=1).backward(upstream)
    expected = torch.zeros(7, 3)
    expected[1:6] = upstream.sum(0)
    assert_close(positions.table.grad, expected)


@pytest.mark.parametrize(("offset", "length"), [(0, 14), (13, 1), (10, 4)])
def test_a_learned_position_past_the_last_is_an_error(offset: int, length: int) -> None:
    positions = LearnedPositions(13, 22)
    with pytest.raises(ValueError, match="position 14 is past max_positions=13; raise it or use sinusoidal positions"):
        positions(torch.zeros(1, length, 22), offset)


def test_learned_positions_start_with_the_root_mean_square_of_the_sinusoids() -> None:
    torch.manual_seed(3)
    # sin² + cos² = 1 per pair.
    sinusoids = sinusoidal_positions(307, 22).square().mean()
    assert_close(sinusoids, torch.tensor(0.5))
    learned = LearnedPositions(307, 22).table
    assert_close(learned.square().mean(), sinusoids, rtol=0.07, atol=0.0)  # 4 standard deviations of 6754 numbers
    assert learned.mean().abs() < 4 * math.sqrt(0.5 / learned.numel())

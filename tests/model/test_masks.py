"""The two masks, against tables written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.model.masks import causal_mask, lineage_mask, padding_mask


def table(*rows: str) -> Tensor:
    """A bool matrix from rows of 0 and 1."""
    return torch.tensor([[character == "1" for character in row] for row in rows])


def test_the_padding_mask_is_true_at_real_tokens_and_broadcasts_over_heads_and_queries() -> None:
    ids = torch.tensor([[5, 3, 2, 0, 0], [7, 2, 0, 0, 0], [4, 4, 4, 4, 2]])
    mask = padding_mask(ids)
    assert mask.shape == (3, 1, 1, 5)
    assert_close(mask[:, 0, 0], table("11100", "11000", "11111"))


def test_the_padding_mask_takes_any_pad_id() -> None:
    assert_close(padding_mask(torch.tensor([[0, 3, 7, 7]]), pad_id=7)[:, 0, 0], table("1100"))


def test_the_causal_mask_lets_a_query_see_itself_and_what_is_before() -> None:
    mask = causal_mask(5)
    assert mask.shape == (1, 1, 5, 5)
    assert_close(mask[0, 0], table("10000", "11000", "11100", "11110", "11111"))


def test_the_causal_mask_lets_every_query_see_the_past() -> None:
    mask = causal_mask(3, num_past=2)
    assert mask.shape == (1, 1, 3, 5)
    assert_close(mask[0, 0], table("11100", "11110", "11111"))


def test_a_causal_mask_with_a_past_is_the_last_rows_of_a_longer_one() -> None:
    for num_past in range(7):
        assert_close(causal_mask(7 - num_past, num_past), causal_mask(7)[:, :, num_past:])


def test_the_causal_mask_is_made_on_the_device_that_is_asked_for() -> None:
    assert causal_mask(3, device="meta").device.type == "meta"
    assert causal_mask(3).dtype == torch.bool


def test_the_lineage_mask_shows_a_hypothesis_its_own_past_and_its_own_new_positions() -> None:
    # Two sentences of two hypotheses; three past positions, the first of which is both's.
    lineage = torch.stack([table("110", "101"), table("100", "111")])
    mask = lineage_mask(lineage, 1)
    assert mask.shape == (2, 1, 2, 5)
    assert_close(mask[0, 0], table("11010", "10101"))
    assert_close(mask[1, 0], table("10010", "11101"))
    mask = lineage_mask(lineage, 2)
    assert mask.shape == (2, 1, 4, 7)
    assert_close(mask[0, 0], table("1101000", "1101100", "1010010", "1010011"))


@pytest.mark.parametrize(("num_past", "num_new"), [(0, 5), (3, 1), (3, 2)])
def test_the_lineage_mask_of_one_hypothesis_is_causal(num_past: int, num_new: int) -> None:
    lineage = torch.ones(2, 1, num_past, dtype=torch.bool)
    assert_close(lineage_mask(lineage, num_new), causal_mask(num_new, num_past).expand(2, -1, -1, -1))

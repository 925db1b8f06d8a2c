"""The fast search for the most probable tokens, against sorting."""

from __future__ import annotations

import math

import pytest
import torch

from transformer.inference.topk import grouped_topk, log_softmax_topk


@pytest.mark.parametrize("vocab_size", [1, 7, 8, 16, 24, 88, 89, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_most_probable_tokens_are_those_that_sorting_finds(vocab_size: int, dtype: torch.dtype) -> None:
    torch.manual_seed(vocab_size)
    logits = (3 * torch.randn(131, vocab_size)).to(dtype)
    logits[1, vocab_size // 2 + 1 :] = -math.inf  # tokens may be forbidden, but not all
    expected = logits.float().log_softmax(dim=-1)
    for k in {1, min(3, vocab_size), min(11, vocab_size), vocab_size}:
        top, tokens = log_softmax_topk(logits, k)
        assert top.dtype == torch.float32
        torch.testing.assert_close(top, expected.sort(descending=True).values[:, :k])
        torch.testing.assert_close(expected.gather(1, tokens), top)
        assert all(len(set(row)) == k for row in tokens.tolist())


def test_what_is_forbidden_comes_last() -> None:
    x = torch.arange(131.0 * 24).view(131, 24)
    x[:, 3:] = -math.inf
    top, tokens = grouped_topk(x, 3)
    assert torch.equal(tokens, torch.tensor([2, 1, 0]).expand(131, 3))
    assert torch.equal(top, x.gather(1, tokens))

"""Sentences end to end on a CPU: padded in groups of similar length for attention, and for nothing else.

Dimension key: N tokens of all sentences; of a group B sentences, L its longest; H heads; d size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transformer.model.attention import DotProductAttention, causal_mask

Ints = npt.NDArray[np.integer[Any]]


class Places:
    """Where one side's tokens, end to end, stand in padded groups.

    Args:
        lengths: of the sentences of each group, integers of at least 1, in the order of the sentences; else ValueError.

    Attributes:
        lengths: per group, of its sentences (B,).
        num_tokens: N, of all groups.
        masks: per group, True at tokens and False at padding (B, 1, 1, L); None for a group without padding.
    """

    def __init__(self, lengths: Sequence[Ints]) -> None:
        self.lengths = [_checked(group) for group in lengths]
        if not self.lengths:
            raise ValueError("there are no groups of sentences; there must be at least one")
        self._is_token = [np.arange(group.max()) < group[:, None] for group in self.lengths]  # (B, L)
        with torch.inference_mode(False):  # usable in training too
            self.masks = [None if x.all() else torch.from_numpy(x)[:, None, None, :] for x in self._is_token]
        self.num_tokens = sum(int(group.sum()) for group in self.lengths)
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}

    def spread(self, x: Tensor) -> Iterator[Tensor]:
        """Heads of tokens (1, H, N, d) to those of each padded group (B, H, L, d)."""
        num_heads, size = x.size(1), x.size(3)
        index, inverse = self._rows_of(num_heads)
        rows = _Spread.apply(x.transpose(1, 2).reshape(-1, size), index, inverse)
        shapes = [(len(x), num_heads, x.shape[1]) for x in self._is_token]
        groups = rows.split([b * h * length for b, h, length in shapes])
        return (group.view(*shape, size) for group, shape in zip(groups, shapes, strict=True))

    def gather(self, groups: Sequence[Tensor]) -> Tensor:
        """The inverse of `spread`, without the padding."""
        num_heads, size = groups[0].size(1), groups[0].size(3)
        _, inverse = self._rows_of(num_heads)
        rows = _Gather.apply(torch.cat([group.reshape(-1, size) for group in groups]), inverse)
        return rows.view(1, self.num_tokens, num_heads, size).transpose(1, 2)

    def _rows_of(self, num_heads: int) -> tuple[Tensor, Tensor]:
        """For each row (group, sentence, head, place) its row (token, head); and the inverse."""
        if num_heads not in self._rows:
            heads, index, first_token, first_row = np.arange(num_heads)[:, None], [], 0, 0
            inverse = np.empty((self.num_tokens, num_heads), np.int64)
            for is_token in self._is_token:
                lengths, (size, longest) = is_token.sum(axis=1), is_token.shape
                begin = first_token + (lengths.cumsum() - lengths)[:, None]  # (B, 1)
                # In place of padding, the first token of the sentence: no query attends to it, no loss sees it.
                tokens = np.where(is_token, begin + np.arange(longest), begin)  # (B, L)
                rows = first_row + (np.arange(size)[:, None, None] * num_heads + heads) * longest + np.arange(longest)
                index.append((tokens[:, None] * num_heads + heads).ravel())  # of (B, H, L)
                inverse[tokens[is_token]] = rows.transpose(0, 2, 1)[is_token]
                first_token, first_row = first_token + int(lengths.sum()), first_row + rows.size
            with torch.inference_mode(False):
                self._rows[num_heads] = torch.from_numpy(np.concatenate(index)), torch.from_numpy(inverse.ravel())
        return self._rows[num_heads]


def _checked(lengths: Ints) -> npt.NDArray[np.int64]:
    array = np.asarray(lengths)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or not array.size or array.min() < 1:
        raise ValueError(f"lengths of a group's sentences are {lengths}; they must be integers of at least 1")
    return array.astype(np.int64)


@dataclass(frozen=True)
class Grouping:
    """Stands where a mask does, for x of shape (1, N, D): attention within each of N tokens' sentences.

    Any `DotProductAttention` that needs no positions attends in each group as in a padded batch, with its own dropout.
    ValueError unless the groups of both sides are as large, and if `is_causal` of the same lengths.
    """

    queries: Places
    keys: Places
    is_causal: bool = False  # of self-attention

    def __post_init__(self) -> None:
        sizes, key_sizes = ([len(group) for group in side.lengths] for side in (self.queries, self.keys))
        if sizes != key_sizes:
            raise ValueError(f"groups of {sizes} sentences of queries and {key_sizes} of keys; each needs its own")
        pairs = zip(self.queries.lengths, self.keys.lengths, strict=True)
        if self.is_causal and not all(np.array_equal(*pair) for pair in pairs):
            raise ValueError("causal attention in groups has keys of other lengths than its queries")

    @cached_property
    def _masks(self) -> list[Tensor | None]:
        """Causal masks hide padding too, which is at the end."""
        with torch.inference_mode(False):
            return [causal_mask(int(x.max())) for x in self.queries.lengths] if self.is_causal else self.keys.masks

    def check(self, shape: tuple[int, ...]) -> None:
        """ValueError unless these are the tokens of one row of queries and keys, (1, H, Q, M)."""
        expected = (1, shape[1], self.queries.num_tokens, self.keys.num_tokens)
        if shape != expected:
            raise ValueError(f"sentences in groups are for (1, H, Q, M) = {expected}, not {shape}")

    def attend(self, attention: DotProductAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (1, H, Q, d_k), keys (1, H, M, d_k) and values (1, H, M, d_v) to (1, H, Q, d_v)."""
        groups = zip(self.queries.spread(q), self.keys.spread(k), self.keys.spread(v), self._masks, strict=True)
        return self.queries.gather([attention(*group) for group in groups])


class _Spread(torch.autograd.Function):
    """Rows by number, of which all but padding occur once: the gradient is another selection, not a sum."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:  # noqa: ARG004
        return x.index_select(0, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return _Gather.apply(grad, inverse), None, None  # padding has no gradient: it is masked or left out


class _Gather(torch.autograd.Function):
    """Rows by number, which occur at most once."""

    @staticmethod
    def forward(x: Tensor, index: Tensor) -> Tensor:
        return x.index_select(0, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])
        ctx.num_rows = len(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grad.new_zeros((ctx.num_rows, grad.size(1))).index_copy_(0, index, grad), None

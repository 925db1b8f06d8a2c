"""Batches of about equal length, bounded in padded tokens (section 5.1). The only place that pads and shifts.

Dimension key: B sentences, S source length, T target length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.tokenizer import BOS_ID, PAD_ID


@dataclass(frozen=True)
class Batch:
    """Padded ids. The decoder reads tgt_in and is to predict tgt_out, which is tgt_in one position later."""

    src: Tensor  # (B, S) int64, ends with </s>
    tgt_in: Tensor  # (B, T) int64, begins with <s>
    tgt_out: Tensor  # (B, T) int64, ends with </s>
    real: Tensor  # (N,) int64: where tgt_out, flattened, is not padding

    @property
    def num_tokens(self) -> int:
        """N: real target tokens."""
        return len(self.real)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; does not wait for the copy."""
        if device.type == "cpu":
            return self
        tensors = (self.src, self.tgt_in, self.tgt_out, self.real)
        return Batch(*(x.pin_memory().to(device, non_blocking=True) for x in tensors))


def plan_batches(src_lengths: Ints, tgt_lengths: Ints, max_tokens: int, rng: np.random.Generator) -> list[Ints]:
    """Partition sentence pairs into batches of similar lengths, in random order.

    Neither side of a batch, padding included, has more than `max_tokens` ids, unless one pair alone has.
    Returns the indices of each batch.
    """
    pairs = _by_length(rng.permutation(len(src_lengths)), src_lengths, tgt_lengths)
    batches = _cut(pairs, src_lengths, tgt_lengths, max_tokens)
    rng.shuffle(batches)
    return batches


def share_update(
    update: Sequence[Ints], src_lengths: Ints, tgt_lengths: Ints, *, max_tokens: int, rank: int, size: int
) -> list[Ints]:
    """The part of an update that one of `size` processes does, in batches of its own, none if there are fewer pairs.

    Pairs are dealt out in order of length, so that all have about as much to do.
    """
    pairs = _by_length(np.concatenate(update), src_lengths, tgt_lengths)[rank::size]
    return _cut(pairs, src_lengths, tgt_lengths, max_tokens)


def _by_length(pairs: Ints, src_lengths: Ints, tgt_lengths: Ints) -> Ints:
    """The same pairs in the order in which batches are cut; equal ones stay as they are because the sort is stable."""
    src, tgt = src_lengths[pairs].astype(np.int64), tgt_lengths[pairs].astype(np.int64)
    longest = np.maximum(src, tgt)
    # By what the budget counts, the longer side; among equals by which side that is, there and back again, so that a
    # batch across two lengths stays alike.
    return pairs[np.lexsort(((src - tgt) * np.where(longest % 2, -1, 1), longest))]


def _cut(pairs: Ints, src_lengths: Ints, tgt_lengths: Ints, max_tokens: int) -> list[Ints]:
    """Pairs in the order of `_by_length`, as many in a batch as the budget lets."""
    longest = np.maximum(src_lengths[pairs], tgt_lengths[pairs]).astype(np.int64)
    batches: list[Ints] = []
    start = 0
    while start < len(pairs):
        # No batch can hold more sentences than would fit if all were as short as its shortest.
        window = longest[start : start + max(1, max_tokens // int(longest[start]))]
        padded = window * np.arange(1, len(window) + 1)
        size = max(1, int(np.searchsorted(padded, max_tokens, side="right")))
        batches.append(pairs[start : start + size])
        start += size
    return batches


def plan_updates(
    src_lengths: Ints, tgt_lengths: Ints, *, max_tokens: int, tokens_per_update: int, seed: int, epoch: int
) -> list[list[Ints]]:
    """The updates of an epoch: for each, the batches whose gradients it sums.

    A pure function of its arguments, so that a position in the data is two integers: epoch and update. An update has
    as close to `tokens_per_update` real target tokens as whole batches come; a remainder of under half of that joins
    the last update.

    Args:
        src_lengths, tgt_lengths: of every pair, </s> included.
        max_tokens: per batch and side, padding included.
        tokens_per_update: real target tokens per update.
        seed, epoch: name the shuffle.
    """
    rng = np.random.default_rng((seed, epoch))
    updates: list[list[Ints]] = []
    current: list[Ints] = []
    num_tokens = 0
    for batch in plan_batches(src_lengths, tgt_lengths, min(max_tokens, tokens_per_update), rng):
        batch_tokens = int(tgt_lengths[batch].sum())
        if current and num_tokens + batch_tokens / 2 > tokens_per_update:
            updates.append(current)
            current, num_tokens = [], 0
        current.append(batch)
        num_tokens += batch_tokens
    if updates and num_tokens < tokens_per_update / 2:
        updates[-1].extend(current)
    elif current:
        updates.append(current)
    return updates


def pad(sentences: Sequence[Sequence[int]]) -> Tensor:
    """Ids of unequal length as (B, longest) int64, padded at the end."""
    padded = torch.full((len(sentences), max(map(len, sentences), default=0)), PAD_ID)
    for row, ids in zip(padded, sentences, strict=True):
        row[: len(ids)] = torch.as_tensor(ids)
    return padded


def collate(dataset: PairDataset, indices: Ints) -> Batch:
    """Make a batch of the pairs with these indices."""
    tgt_out = _gather(dataset.tgt, indices)
    # Shift right: the last column can only be </s> or padding, which predict nothing. Rows that end earlier keep
    # their </s> as an input; its output is padding, which the loss leaves out.
    tgt_in = torch.cat((torch.full((len(indices), 1), BOS_ID), tgt_out[:, :-1]), dim=1)
    real = (tgt_out.flatten() != PAD_ID).nonzero().flatten()
    return Batch(_gather(dataset.src, indices), tgt_in, tgt_out, real)


def _gather(side: Side, indices: Ints) -> Tensor:
    lengths = side.lengths[indices]
    columns = np.arange(lengths.max())
    is_real = columns < lengths[:, None]  # (B, L)
    padded = np.full(is_real.shape, PAD_ID, dtype=np.int64)
    padded[is_real] = side.ids[(side.starts[indices][:, None] + columns)[is_real]]
    return torch.from_numpy(padded)

"""Updates and their batches of at most `max_tokens` padded tokens (section 5.1); padding and shifting.

Dimension key: B sentences, S source length, T target length, N target tokens without padding.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.tokenizer import BOS_ID, PAD_ID

# In tokens of padding: on a CPU, a further batch costs calls and the gradients of all weights, whatever its size.
_BATCH_COST = 256


@dataclass(frozen=True)
class Batch:
    """Padded token ids; the decoder reads tgt_in and predicts tgt_out."""

    src: Tensor  # (B, S) int64, ends with </s>
    tgt_in: Tensor  # (B, T) int64, tgt_out shifted right, begins with <s>
    tgt_out: Tensor  # (B, T) int64, ends with </s>
    target_positions: Tensor  # (N,) int64: positions in tgt_out.flatten() that are not padding

    @property
    def num_tokens(self) -> int:
        """N, the number of target tokens without padding."""
        return len(self.target_positions)

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, to CUDA asynchronously from pinned memory."""
        if device.type == "cpu":
            return self
        tensors = (self.src, self.tgt_in, self.tgt_out, self.target_positions)
        if device.type != "cuda":
            return Batch(*(x.to(device) for x in tensors))
        return Batch(*(x.pin_memory().to(device, non_blocking=True) for x in tensors))


def bucket_by_length(src_lengths: Ints, tgt_lengths: Ints, max_tokens: int, rng: np.random.Generator) -> list[Ints]:
    """Partition sentence pairs into batches of similar length, in random order.

    Each side of a batch has at most `max_tokens` ids, padding included, except for a single pair that is longer.
    Returns the indices of each batch.
    """
    pairs = sort_by_length(rng.permutation(len(src_lengths)), src_lengths, tgt_lengths)
    batches = _split_by_tokens(pairs, src_lengths, tgt_lengths, max_tokens)
    rng.shuffle(batches)
    return batches


def shard_update(
    update: Sequence[Ints], src_lengths: Ints, tgt_lengths: Ints, *, max_tokens: int, rank: int, size: int
) -> list[Ints]:
    """Batches of one of `size` processes; none if there are fewer pairs.

    Pairs are assigned round-robin in order of length, which balances the load. They are split where padding and the
    batches themselves cost least.
    """
    pairs = sort_by_length(np.concatenate(update), src_lengths, tgt_lengths)[rank::size]
    return split_by_cost(pairs, src_lengths, tgt_lengths, max_tokens)


def sort_by_length(pairs: Ints, src_lengths: Ints, tgt_lengths: Ints) -> Ints:
    src, tgt = src_lengths[pairs].astype(np.int64), tgt_lengths[pairs].astype(np.int64)
    longest = np.maximum(src, tgt)
    # Sort by max(src, tgt); ties by src - tgt, alternating direction (boustrophedon) to keep neighbours similar. The
    # sort is stable: equal pairs stay shuffled.
    return pairs[np.lexsort(((src - tgt) * np.where(longest % 2, -1, 1), longest))]


def _split_by_tokens(pairs: Ints, src_lengths: Ints, tgt_lengths: Ints, max_tokens: int) -> list[Ints]:
    """Split sorted pairs into consecutive batches of at most `max_tokens`."""
    longest = np.maximum(src_lengths[pairs], tgt_lengths[pairs]).astype(np.int64)
    batches: list[Ints] = []
    start = 0
    while start < len(pairs):
        # Upper bound of the batch size: as if all pairs were as short as the first.
        window = longest[start : start + max(1, max_tokens // int(longest[start]))]
        padded = window * np.arange(1, len(window) + 1)
        size = max(1, int(np.searchsorted(padded, max_tokens, side="right")))
        batches.append(pairs[start : start + size])
        start += size
    return batches


def split_by_cost(
    pairs: Ints, src_lengths: Ints, tgt_lengths: Ints, max_tokens: int | None = None, *, cost: int = _BATCH_COST
) -> list[Ints]:
    """Split pairs, in order of length, into batches of at most `max_tokens`, at the least cost of all splits.

    The cost of a batch is its tokens, padding included, and `cost`. Pairs whose longer sides are equally long stay
    together, unless they exceed `max_tokens`.
    """
    if not len(pairs):
        return []
    pairs = sort_by_length(pairs, src_lengths, tgt_lengths)
    limit = sys.maxsize if max_tokens is None else max_tokens
    src, tgt = src_lengths[pairs].astype(np.int64), tgt_lengths[pairs].astype(np.int64)
    longest = np.maximum(src, tgt)
    ends = np.flatnonzero(np.append(longest[1:] != longest[:-1], True)) + 1  # of groups of one length
    starts = np.concatenate(([0], ends[:-1]))
    src, tgt = np.maximum.reduceat(src, starts), np.maximum.reduceat(tgt, starts)
    total, first = np.zeros(len(ends) + 1), np.zeros(len(ends) + 1, np.int64)
    for last, end in enumerate(ends, start=1):  # the best split of the first `last` groups ends with the batch [i:last]
        widths = [np.maximum.accumulate(side[:last][::-1])[::-1] for side in (src, tgt)]
        rows = end - starts[:last]
        num_batches = -(-rows // np.maximum(1, limit // np.maximum(*widths)))
        totals = total[:last] + rows * (widths[0] + widths[1]) / 2 + cost * num_batches
        first[last] = totals.argmin()
        total[last] = totals[first[last]]
    batches: list[Ints] = []
    last = len(ends)
    while last:
        batch = slice(starts[first[last]], ends[last - 1])
        size = max(1, limit // int(longest[batch].max()))
        batches[:0] = np.array_split(pairs[batch], -(-len(pairs[batch]) // size))
        last = first[last]
    return batches


def draw_updates(tgt_lengths: Ints, *, tokens_per_update: int, seed: int, epoch: int) -> list[list[Ints]]:
    """Split an epoch's pairs at random into updates of equally many target tokens, about `tokens_per_update`.

    An update is one array of indices, to be split into batches by `shard_update`. Like `group_into_updates`, it is a
    pure function of its arguments.
    """
    if not len(tgt_lengths):
        return []
    order = np.random.default_rng((seed, epoch)).permutation(len(tgt_lengths))
    ends = tgt_lengths[order].cumsum(dtype=np.int64)
    number = max(1, round(int(ends[-1]) / tokens_per_update))
    cuts = np.searchsorted(ends, np.arange(1, number) * ends[-1] / number) + 1
    return [[update] for update in np.split(order, cuts) if len(update)]


def group_into_updates(
    src_lengths: Ints, tgt_lengths: Ints, *, max_tokens: int, tokens_per_update: int, seed: int, epoch: int
) -> list[list[Ints]]:
    """Group an epoch's batches into updates of about `tokens_per_update` target tokens.

    A pure function of its arguments, so a position in the data is two integers, epoch and update. The size of an
    update is as close to `tokens_per_update` as whole batches allow; a remainder of less than half joins the last one.
    Lengths include </s>. `max_tokens` is per batch and side and includes padding, `tokens_per_update` does not.
    """
    rng = np.random.default_rng((seed, epoch))
    updates: list[list[Ints]] = []
    current: list[Ints] = []
    num_tokens = 0
    for batch in bucket_by_length(src_lengths, tgt_lengths, min(max_tokens, tokens_per_update), rng):
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
    """Pad ids at the end to (B, longest) int64."""
    padded = torch.full((len(sentences), max(map(len, sentences), default=0)), PAD_ID)  # (B, longest)
    for row, ids in zip(padded, sentences, strict=True):
        row[: len(ids)] = torch.as_tensor(ids)
    return padded


def collate(dataset: PairDataset, indices: Ints) -> Batch:
    """Pad and shift the pairs with these indices."""
    tgt_out = _gather(dataset.tgt, indices)  # (B, T)
    # The last column holds only </s> and padding, which predict nothing. Shorter rows feed their </s> to the decoder;
    # its output there is padding, which the loss ignores.
    tgt_in = torch.cat((torch.full((len(indices), 1), BOS_ID), tgt_out[:, :-1]), dim=1)  # (B, T)
    target_positions = (tgt_out.flatten() != PAD_ID).nonzero().flatten()  # (N,)
    return Batch(_gather(dataset.src, indices), tgt_in, tgt_out, target_positions)


def _gather(side: Side, indices: Ints) -> Tensor:
    lengths = side.lengths[indices]  # (B,)
    columns = np.arange(lengths.max())  # (L,)
    is_token = columns < lengths[:, None]  # (B, L)
    padded = np.full(is_token.shape, PAD_ID, dtype=np.int64)  # (B, L)
    padded[is_token] = side.ids[(side.starts[indices][:, None] + columns)[is_token]]
    return torch.from_numpy(padded)

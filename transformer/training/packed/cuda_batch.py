"""Packed batches on CUDA: all of one shape, with flash attention within sentences.

Dimension key: S source tokens, T target tokens, padding included; N target tokens without it; D model size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.tokenizer import BOS_ID, PAD_ID
from transformer.model.packed_attention import Packing
from transformer.model.transformer import Transformer
from transformer.training.loss import output_loss
from transformer.training.packed.end_to_end import hidden_states, ids_and_positions, position_tables


class Shape(NamedTuple):
    """The sizes of a packed batch; batches of one shape look alike to a compiler and an allocator.

    Tokens after the last sentence are padding: `num_padding` sentences of their own, which the loss leaves out.
    No sentence of it is empty, so that each has a key, nor longer than `longest`, beyond which flash attention computes
    nothing and leaves what was in memory, possibly NaN.
    """

    src: int  # S
    tgt: int  # T
    sentences: int
    longest: int  # at least as many tokens as the longest sentence has

    @property
    def num_padding(self) -> int:
        """Sentences of padding."""
        return -(-max(self.src, self.tgt) // self.longest)

    def holds(self, src: int, tgt: int, sentences: int, longest: int) -> bool:
        """Whether sentences of so many tokens, the longest of so many, fit beside the padding."""
        used = max(src - self.src, tgt - self.tgt, sentences - self.sentences)
        return used + self.num_padding <= 0 and longest <= self.longest


# Computes hidden states (T, D) from a model, the numbers of a batch, its shape, and positions of source and target.
States = Callable[[Transformer, Tensor, Shape, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PackedBatch:
    """Sentences end to end; the decoder reads targets shifted right and predicts them.

    All numbers stand in one tensor, which one copy brings to a device: source ids and positions (S,), target ids
    shifted right, positions and ids (T,), and where source and target sentences start (sentences + 1,).
    """

    numbers: Tensor  # (2 S + 3 T + 2 (sentences + 1),) int32
    shape: Shape
    lengths: tuple[Ints, Ints]  # of source and target sentences, on the host
    num_tokens: int  # N
    states: States | None = None  # instead of `packed_states`

    def to(self, device: torch.device) -> PackedBatch:
        """Copy to a device, to CUDA asynchronously from pinned memory."""
        if device.type == "cpu":
            return self
        if device.type != "cuda":
            return replace(self, numbers=self.numbers.to(device))
        return replace(self, numbers=self.numbers.pin_memory().to(device, non_blocking=True))

    def loss(self, model: Transformer, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """Smoothed loss and NLL, summed over target tokens, in nats, as of a padded batch."""
        tables = position_tables(model, self.shape.longest, self.lengths)
        hidden = (self.states or packed_states)(model, self.numbers, self.shape, *tables)  # (T, D)
        _, _, _, _, target, _, _ = _parts(self.numbers, self.shape)
        rows = slice(self.num_tokens)
        return output_loss(model, hidden[rows], target[rows].long(), label_smoothing)


def collate_packed(dataset: PairDataset, indices: Ints, shape: Shape, states: States | None = None) -> PackedBatch:
    """Put the pairs with these indices end to end. ValueError without pairs, or if the shape does not hold them."""
    lengths = dataset.src.lengths[indices], dataset.tgt.lengths[indices]
    num_source, num_tokens = (int(side.sum()) for side in lengths)
    longest = max(int(side.max(initial=0)) for side in lengths)
    if not shape.holds(num_source, num_tokens, len(indices), longest):
        raise ValueError(
            f"{shape} does not hold {len(indices)} pairs of {num_source} source and {num_tokens} target tokens, the "
            f"longest of {longest}, beside {shape.num_padding} sentences of padding"
        )
    src, src_positions, src_starts = _with_padding(dataset.src, indices, shape.src, shape)
    tgt, tgt_positions, tgt_starts = _with_padding(dataset.tgt, indices, shape.tgt, shape)
    tgt_in = np.full_like(tgt, PAD_ID)
    tgt_in[1:num_tokens] = tgt[: num_tokens - 1]
    tgt_in[tgt_starts[: len(indices)]] = BOS_ID
    numbers = np.concatenate((src, src_positions, tgt_in, tgt_positions, tgt, src_starts, tgt_starts))
    return PackedBatch(torch.from_numpy(numbers), shape, lengths, num_tokens, states)


def _with_padding(side: Side, indices: Ints, size: int, shape: Shape) -> tuple[npt.NDArray[np.int32], ...]:
    """Ids and positions (size,), and starts (sentences + 1,)."""
    found = ids_and_positions(side, indices)
    ends = side.lengths[indices].cumsum()
    number = len(found[0])
    ids, positions = np.full(size, PAD_ID, np.int32), np.zeros(size, np.int32)
    ids[:number], positions[:number] = found
    starts = np.full(shape.sentences + 1, size, np.int32)  # sentences beyond the padding are empty
    starts[0], starts[1 : len(ends) + 1] = 0, ends
    padding = number + np.arange(1, shape.num_padding + 1) * (size - number) // shape.num_padding
    starts[len(ends) + 1 : len(ends) + 1 + len(padding)] = padding
    return ids, positions, starts


def _parts(numbers: Tensor, shape: Shape) -> tuple[Tensor, ...]:
    src, tgt, starts = shape.src, shape.tgt, shape.sentences + 1
    return numbers.split((src, src, tgt, tgt, tgt, starts, starts))


def packed_states(
    model: Transformer, numbers: Tensor, shape: Shape, src_positions: Tensor, tgt_positions: Tensor
) -> Tensor:
    """Hidden states (T, D), those of padding included: one graph for a compiler."""
    src, src_at, tgt, tgt_at, _, src_starts, tgt_starts = _parts(numbers, shape)
    longest = (shape.longest, shape.longest)
    within_source = Packing(src_starts, src_starts, *longest)
    within_target = Packing(tgt_starts, tgt_starts, *longest, is_causal=True)
    to_source = Packing(tgt_starts, src_starts, *longest)
    masks = within_source, within_target, to_source
    return hidden_states(model, (src, src_at, tgt, tgt_at), masks, src_positions, tgt_positions)

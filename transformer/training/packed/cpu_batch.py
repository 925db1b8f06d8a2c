"""Packed batches on a CPU: sentences end to end, padded for attention only, in groups of similar length.

Dimension key: S source tokens, T target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transformer.data.batching import split_by_cost
from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.tokenizer import BOS_ID
from transformer.model.padded_groups import Grouping, Places
from transformer.model.transformer import Transformer
from transformer.training.loss import output_loss
from transformer.training.packed.end_to_end import hidden_states, ids_and_positions, position_tables

# In tokens of padding: attention in a further group costs calls of small kernels, whatever its size.
_GROUP_COST = 512


@dataclass(frozen=True)
class GroupedBatch:
    """Sentences end to end; the decoder reads targets shifted right and predicts them."""

    src: Tensor  # (S,) int64
    src_positions: Tensor  # (S,)
    tgt_in: Tensor  # (T,) targets shifted right
    tgt_out: Tensor  # (T,)
    tgt_positions: Tensor  # (T,)
    lengths: tuple[Ints, Ints]  # of source and target sentences
    groups: tuple[Places, Places]

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.tgt_out)

    @property
    def shape(self) -> tuple[int, int]:
        """S and T."""
        return len(self.src), len(self.tgt_out)

    def to(self, device: torch.device) -> GroupedBatch:
        """The same on a CPU; ValueError for another device."""
        if device.type != "cpu":
            raise ValueError(f"a batch in groups is for a CPU, not for {device}; `collate_packed` makes one for CUDA")
        return self

    def loss(self, model: Transformer, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """Smoothed loss and NLL, summed over target tokens, in nats, as of a padded batch."""
        longest = max(int(side.max()) for side in self.lengths)
        src, tgt = self.groups
        masks = Grouping(src, src), Grouping(tgt, tgt, is_causal=True), Grouping(tgt, src)
        tokens = self.src, self.src_positions, self.tgt_in, self.tgt_positions
        hidden = hidden_states(model, tokens, masks, *position_tables(model, longest, self.lengths))  # (T, D)
        return output_loss(model, hidden, self.tgt_out, label_smoothing)


def collate_grouped(dataset: PairDataset, indices: Ints) -> GroupedBatch:
    """Put the pairs with these indices end to end, in groups of similar length. ValueError without pairs."""
    groups = split_by_cost(indices, dataset.src.lengths, dataset.tgt.lengths, cost=_GROUP_COST)
    src, src_positions, src_lengths = _side(dataset.src, groups)
    tgt, tgt_positions, tgt_lengths = _side(dataset.tgt, groups)
    tgt_in = torch.where(tgt_positions == 0, BOS_ID, tgt.roll(1))
    places = Places(src_lengths), Places(tgt_lengths)
    lengths = np.concatenate(src_lengths), np.concatenate(tgt_lengths)
    return GroupedBatch(src, src_positions, tgt_in, tgt, tgt_positions, lengths, places)


def _side(side: Side, groups: Sequence[Ints]) -> tuple[Tensor, Tensor, list[Ints]]:
    """Ids and positions, and the lengths of the sentences of each group."""
    ids, positions = ids_and_positions(side, np.concatenate([np.zeros(0, np.int64), *groups]))
    lengths: list[Ints] = [side.lengths[group].astype(np.int64) for group in groups]
    return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(positions), lengths

"""Batches without padding: all sentences of a side end to end, through the layers as they are.

Dimension key: S source tokens, T target tokens, padding included; N target tokens without it; D model size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.data.dataset import Ints, PairDataset, Side
from transformer.data.tokenizer import BOS_ID, PAD_ID
from transformer.model.attention import KeyValue, MultiHeadAttention
from transformer.model.packed_attention import Packing
from transformer.model.transformer import Transformer
from transformer.training.loss import linear_cross_entropy
from transformer.training.recomputation import is_recomputed


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
    states: States | None = None  # instead of `hidden_states`

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
        hidden = (self.states or hidden_states)(model, self.numbers, self.shape, *tables)  # (T, D)
        _, _, _, _, target, _, _ = _parts(self.numbers, self.shape)
        rows = slice(self.num_tokens)
        return linear_cross_entropy(hidden[rows], model.embedding.output_weight, target[rows].long(), label_smoothing)


def end_to_end(side: Side, indices: Ints) -> tuple[Ints, Ints]:
    """Ids of these sentences, one after the other, and the position of each within its sentence.

    ValueError if there is none.
    """
    if not len(indices):
        raise ValueError("a batch needs a pair")
    lengths = side.lengths[indices].astype(np.int64)
    positions = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    return side.ids[np.repeat(side.starts[indices], lengths) + positions], positions


def collate_packed(dataset: PairDataset, indices: Ints, shape: Shape, states: States | None = None) -> PackedBatch:
    """Put the pairs with these indices end to end; the shape `holds` them. ValueError without pairs."""
    src, src_positions, src_starts = _with_padding(dataset.src, indices, shape.src, shape)
    tgt, tgt_positions, tgt_starts = _with_padding(dataset.tgt, indices, shape.tgt, shape)
    lengths = dataset.src.lengths[indices], dataset.tgt.lengths[indices]
    num_tokens = int(lengths[1].sum())
    tgt_in = np.full_like(tgt, PAD_ID)
    tgt_in[1:num_tokens] = tgt[: num_tokens - 1]
    tgt_in[tgt_starts[: len(indices)]] = BOS_ID
    numbers = np.concatenate((src, src_positions, tgt_in, tgt_positions, tgt, src_starts, tgt_starts))
    return PackedBatch(torch.from_numpy(numbers), shape, lengths, num_tokens, states)


def _with_padding(side: Side, indices: Ints, size: int, shape: Shape) -> tuple[npt.NDArray[np.int32], ...]:
    """Ids and positions (size,), and starts (sentences + 1,)."""
    found = end_to_end(side, indices)
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


def position_tables(model: Transformer, longest: int, lengths: tuple[Ints, Ints]) -> tuple[Tensor, Tensor]:
    """What is added to the embeddings of a long sentence of each side: (rows, D)."""
    if model.max_length is not None:  # a sentence beyond it is the module's error, as in a padded batch
        longest = max(min(longest, model.max_length), *(int(side.max()) for side in lengths))
    weight = model.embedding.output_weight
    x = torch.zeros(1, longest, weight.size(1), dtype=weight.dtype, device=weight.device)
    return model.source_positions(x).squeeze(0), model.target_positions(x).squeeze(0)


def hidden_states(
    model: Transformer, numbers: Tensor, shape: Shape, src_positions: Tensor, tgt_positions: Tensor
) -> Tensor:
    """Hidden states (T, D), those of padding included: one graph for a compiler."""
    src, src_at, tgt, tgt_at, _, src_starts, tgt_starts = _parts(numbers, shape)
    longest = (shape.longest, shape.longest)
    within_source = Packing(src_starts, src_starts, *longest)
    within_target = Packing(tgt_starts, tgt_starts, *longest, is_causal=True)
    to_source = Packing(tgt_starts, src_starts, *longest)
    masks = within_source, within_target, to_source
    return states_of(model, (src, src_at, tgt, tgt_at), masks, src_positions, tgt_positions)


def states_of(
    model: Transformer,
    tokens: tuple[Tensor, Tensor, Tensor, Tensor],
    masks: tuple[Any, Any, Any],
    src_positions: Tensor,
    tgt_positions: Tensor,
) -> Tensor:
    """Hidden states (T, D).

    Args:
        tokens: source ids and positions (S,), target ids, shifted right, and positions (T,).
        masks: of self-attention of encoder and decoder and of cross-attention, such as `Packing`.
        src_positions, tgt_positions: the rows that are added at each position, (rows, D).
    """
    src, src_at, tgt, tgt_at = tokens
    within_source, within_target, to_source = masks
    x = model.dropout(model.embedding(src[None]) + F.embedding(src_at, src_positions))  # (1, S, D)
    memory = model.encoder(x, within_source)  # (1, S, D)
    x = model.dropout(model.embedding(tgt[None], is_target=True) + F.embedding(tgt_at, tgt_positions))  # (1, T, D)
    memories: Sequence[Tensor | KeyValue] = [memory] * len(model.decoder.layers)
    # Not on a CPU, where recomputation changes no bit of a run.
    if memories and not memory.is_cpu and not is_recomputed(model):
        memories = _keys_and_values([layer.cross_attention for layer in model.decoder.layers], memory)  # type: ignore[misc]
    for layer, layer_memory in zip(model.decoder.layers, memories, strict=True):
        x, _, _ = layer(x, within_target, None, layer_memory, to_source)
    hidden: Tensor = model.decoder.norm(x)
    return hidden.squeeze(0)


def _keys_and_values(attentions: Sequence[MultiHeadAttention], memory: Tensor) -> list[KeyValue]:
    """The memory's keys and values for each attention, if possible by one product, which reads the memory once."""
    linears = [linear for attention in attentions for linear in (attention.w_k, attention.w_v)]
    are_linear = all(isinstance(linear, nn.Linear) for linear in linears)
    if not are_linear or len({linear.bias is None for linear in linears}) > 1:
        return [attention.project(memory) for attention in attentions]
    weights: list[Tensor] = [linear.weight for linear in linears]
    biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    projected = F.linear(memory, torch.cat(weights), torch.cat(biases) if biases else None)
    parts = projected.split([linear.out_features for linear in linears], dim=-1)
    found = []
    for attention, k, v in zip(attentions, parts[::2], parts[1::2], strict=True):
        k, v = attention._split_heads(k, attention.d_k), attention._split_heads(v, attention.d_v)
        found.append(KeyValue(attention.attention.keys(k, 0), v))
    return found

"""Sentences end to end: their ids, and their hidden states by the layers as they are.

Dimension key: S source tokens, T target tokens; D model size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.data.dataset import Ints, Side
from transformer.model.attention import KeyValue, MultiHeadAttention
from transformer.model.kernels import PackedMask
from transformer.model.transformer import Transformer
from transformer.training.recomputation import is_recomputed


def ids_and_positions(side: Side, indices: Ints) -> tuple[Ints, Ints]:
    """Ids of these sentences, one after the other, and the position of each within its sentence.

    ValueError if there is none.
    """
    if not len(indices):
        raise ValueError("a batch needs a pair")
    return side.end_to_end(indices)


def position_tables(model: Transformer, longest: int, lengths: tuple[Ints, Ints]) -> tuple[Tensor, Tensor]:
    """What is added to the embeddings of a long sentence of each side: (rows, D)."""
    if model.max_length is not None:  # a sentence beyond it is the module's error, as in a padded batch
        longest = max(min(longest, model.max_length), *(int(side.max()) for side in lengths))
    weight = model.embedding.output_weight
    x = torch.zeros(1, longest, weight.size(1), dtype=weight.dtype, device=weight.device)
    return model.source_positions(x).squeeze(0), model.target_positions(x).squeeze(0)


def hidden_states(
    model: Transformer,
    tokens: tuple[Tensor, Tensor, Tensor, Tensor],
    masks: tuple[PackedMask, PackedMask, PackedMask],
    src_positions: Tensor,
    tgt_positions: Tensor,
) -> Tensor:
    """Hidden states (T, D) of sentences end to end, by the layers as they are.

    Args:
        tokens: source ids and positions (S,), target ids, shifted right, and positions (T,).
        masks: of self-attention of encoder and decoder and of cross-attention.
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

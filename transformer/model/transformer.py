"""The Transformer (section 3, Figure 1). docs/PAPER.md lists every deviation from the paper.

Shapes: B sentences, W beam hypotheses of each, R = B·W, S source and T target positions, D d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import _register_namedtuple, tree_map_only

from transformer.model.attention import KeyValue, MultiHeadAttention, causal_mask, padding_mask
from transformer.model.embeddings import SharedEmbedding, SinusoidalPositions
from transformer.model.kernels import Dropout, check_decoder_mask
from transformer.model.layers import FeedForward, Layer


class Encoder(nn.Module):
    """A stack of N identical layers (Figure 1, left); a pre-norm stack ends with a `norm`."""

    def __init__(self, layers: Iterable[Layer], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers: Collection[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.norm = nn.Identity() if norm is None else norm

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, S, D) to (B, S, D); `mask` is broadcastable to (B, H, S, S)."""
        for layer in self.layers:
            x, _, _ = layer(x, mask)
        return self.norm(x)


@dataclass(frozen=True)
class DecoderState:
    """The KV cache, as a value: the decoder returns it extended, beam search reordered."""

    # The encoder's output (B, S, D), which the first step projects to the layers' keys and values (B, H, S, ·).
    memory: Tensor | tuple[KeyValue, ...] | None = None
    memory_mask: Tensor | None = None  # (B, 1, 1, S), True at real tokens
    past: tuple[KeyValue, ...] = ()  # per layer, self-attention keys and values (R, H, t, ·)

    @property
    def length(self) -> int:
        """t, the number of positions decoded so far."""
        return self.past[0].keys.size(2) if self.past else 0

    def select(self, rows: Tensor) -> DecoderState:
        """Keep, repeat or reorder hypotheses of sentences in order: (i, j) continues row rows[i, j]; (B', W') int64."""
        index = rows.flatten()
        past = tuple(KeyValue(k.index_select(0, index), v.index_select(0, index)) for k, v in self.past)
        first = self.memory[0].keys if isinstance(self.memory, tuple) else self.memory
        if first is None or first.size(0) == rows.size(0):  # all sentences stay, in order: their memory is not copied
            return replace(self, past=past)
        beam_size = self.past[0].keys.size(0) // first.size(0) if self.past else 1
        keep = partial(torch.index_select, dim=0, index=rows[:, 0] // beam_size)
        return replace(tree_map_only(Tensor, keep, replace(self, past=())), past=past)

    def to(self, device: torch.device | str) -> DecoderState:
        """Move all tensors to a device."""
        return tree_map_only(Tensor, partial(Tensor.to, device=device), self)


torch.export.register_dataclass(DecoderState, serialized_type_name="transformer.DecoderState")  # a pytree, for export
_register_namedtuple(KeyValue, serialized_type_name="transformer.KeyValue")


class Decoder(nn.Module):
    """A stack of N identical layers (Figure 1, right). Training decodes all positions at once from a fresh state."""

    def __init__(self, layers: Iterable[Layer], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers: Collection[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.norm = nn.Identity() if norm is None else norm

    def forward(self, x: Tensor, state: DecoderState, mask: Tensor | None = None) -> tuple[Tensor, DecoderState]:
        """Decode the next T positions x (R, T, D); returns (R, T, D) and the state after them.

        `mask`, broadcastable to (R, H, T, t + T), hides more than subsequent positions do, such as left padding.
        """
        check_decoder_mask(mask, state.length + x.size(1))
        if x.size(1) > 1:  # a single position may attend to all before it
            causal = causal_mask(x.size(1), state.length, x.device)
            mask = causal if mask is None else mask & causal
        past: Any = state.past or (None,) * len(self.layers)
        memory: Any = state.memory if isinstance(state.memory, tuple) else (state.memory,) * len(self.layers)
        cache = []
        for layer, layer_past, layer_memory in zip(self.layers, past, memory, strict=True):
            x, *kv = layer(x, mask, layer_past, layer_memory, state.memory_mask)
            cache.append(kv)
        past, memory = zip(*cache, strict=True)
        return self.norm(x), DecoderState(None if state.memory is None else memory, state.memory_mask, past)


class Transformer(nn.Module):
    """The encoder-decoder of Figure 1; the defaults are the paper's base model.

    Args:
        vocab_size: V, of source and target together.
        d_model, num_layers, num_heads, d_ff: 512, N = 6 (the decoder's is `num_decoder_layers`, if given), h = 8, 2048.
        d_k, d_v: size of a key and of a value per head; by default d_model / h (else ValueError), and d_k.
        dropout, pad_id: P_drop, in [0, 1); the id that fills up batches and is never attended to.
    """

    max_length: int | None = None  # of input and output; the sinusoids set no limit

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        d_ff: int = 2048,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        num_decoder_layers: int | None = None,
        dropout: float = 0.1,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        attention = partial(MultiHeadAttention, d_model, num_heads, d_k=d_k, d_v=d_v)
        feed_forward = partial(FeedForward, d_model, d_ff)
        self.embedding = SharedEmbedding(vocab_size, d_model)
        self.source_positions, self.target_positions = SinusoidalPositions(d_model), SinusoidalPositions(d_model)
        self.dropout, self.pad_id = Dropout(dropout), pad_id
        self.encoder = Encoder(Layer(attention(), feed_forward(), dropout=dropout) for _ in range(num_layers))
        self.decoder = Decoder(
            Layer(attention(), cross_attention=attention(), feed_forward=feed_forward(), dropout=dropout)
            for _ in range(num_layers if num_decoder_layers is None else num_decoder_layers)
        )

    def encode(self, src: Tensor) -> DecoderState:
        """Read source ids (B, S) int64; returns the state from which decoding starts."""
        mask = padding_mask(src, self.pad_id)
        x = self.dropout(self.source_positions(self.embedding(src)))  # (B, S, D)
        return DecoderState(self.encoder(x, mask), mask)

    def decode(self, tgt: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read the next target ids (R, T) int64; returns hidden states (R, T, D) and the state after them."""
        x = self.dropout(self.target_positions(self.embedding(tgt, is_target=True), state.length))  # (R, T, D)
        return self.decoder(x, state)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., V)."""
        return hidden @ self.embedding.output_weight.T

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Teacher forcing: logits (B, T, V) of the token after each of tgt (B, T)."""
        hidden, _ = self.decode(tgt, self.encode(src))
        return self.logits(hidden)

"""The decoder stack (section 3.1, right half of figure 1), made so that training is decoding from an empty state.

Dimension key: B sentences, W hypotheses per sentence (1 in training), R = B·W hypotheses, those of a sentence side by
side; S source length, T new target positions, t past ones, H heads, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from transformer.model.attention import KeysValues, MultiHeadAttention
from transformer.model.feedforward import FeedForward
from transformer.model.masks import causal_mask, lineage_mask
from transformer.model.options import LayerOptions, NormPlacement
from transformer.model.relative import Place, Positional, Relation, causal_offsets, make_relative_positions
from transformer.model.residual import Residual, final_norm
from transformer.model.scores import AttentionScore

# Past positions are dropped when at most this share of them belongs to a hypothesis.
_FULL_ENOUGH = 0.75


@dataclass(frozen=True)
class DecoderState:
    """All that the decoder remembers between two calls: a value, extended by the decoder and reordered by the search.

    The hypotheses of a sentence share its past as they share its memory: a position once decoded stays where it is,
    once for all hypotheses that go on from it. To reorder hypotheses is to say anew which positions are whose; keys and
    values move only when so many are nobody's that it pays to drop them.

    Attributes:
        memory: per layer, cross-attention keys and values (B, H, S, ...), projected once per sentence.
        memory_mask: (B, 1, 1, S) bool, True at real source tokens; None hides nothing.
        past: per layer, self-attention keys and values (B, H, M, ...) of the positions so far, of all hypotheses that
            the sentence has had; None before the first.
        lineage: (R, M) bool, True where a past position belongs to the hypothesis; None if all do.
        length: t, how many target positions each hypothesis has.
    """

    memory: tuple[KeysValues, ...]
    memory_mask: Tensor | None = None
    past: tuple[KeysValues, ...] | None = None
    lineage: Tensor | None = None
    length: int = 0

    def select(self, rows: Tensor) -> DecoderState:
        """Make hypothesis i the continuation of old hypothesis rows[i]. `rows` is (R',) int64, sentences in order."""
        if self.past is None or self.lineage is None or not len(rows):
            return self
        lineage = self.lineage.index_select(0, rows)  # (R', M)
        num_sentences, _, num_past, _ = self.past[0].keys.shape
        is_alive = lineage.view(num_sentences, -1, num_past).any(dim=1)  # (B, M)
        num_alive = int(is_alive.sum(dim=1).max())
        if num_alive > num_past * _FULL_ENOUGH:
            return replace(self, lineage=lineage)
        alive = is_alive.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :num_alive]
        lineage = lineage.gather(1, alive.repeat_interleave(len(rows) // num_sentences, dim=0))
        return replace(self, past=tuple(_take(kv, alive) for kv in self.past), lineage=lineage)

    def keep_sentences(self, sentences: Tensor) -> DecoderState:
        """Forget all sentences but these, (B',) int64 ascending; a `select` that drops their hypotheses must follow."""
        return replace(
            self,
            memory=tuple(_index(kv, sentences) for kv in self.memory),
            memory_mask=None if self.memory_mask is None else self.memory_mask[sentences],
            past=None if self.past is None else tuple(_index(kv, sentences) for kv in self.past),
        )


def _index(kv: KeysValues, sentences: Tensor) -> KeysValues:
    return KeysValues(kv.keys.index_select(0, sentences), kv.values.index_select(0, sentences))


def _take(kv: KeysValues, positions: Tensor) -> KeysValues:
    """Of each sentence these positions, (B, M')."""
    num_sentences, num_heads, num_past, _ = kv.keys.shape
    starts = torch.arange(num_sentences * num_heads, device=positions.device) * num_past
    rows = (starts.view(num_sentences, num_heads, 1) + positions[:, None]).flatten()
    return KeysValues(*(x.flatten(0, 2).index_select(0, rows).view(*x.shape[:2], -1, x.size(3)) for x in kv))


class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention, feed-forward network, each inside a residual connection.

    The keyword arguments are described, one by one, in `LayerOptions`.
    """

    def __init__(
        self,
        d_model: int = 512,
        num_heads: int = 8,
        d_ff: int = 2048,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        attention_bias: bool = False,
        attention_score: AttentionScore = "scaled_dot",
        attention_temperature: float = 1.0,
        max_positions: int = 512,
        norm: NormPlacement = "post",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.self_attention, self.cross_attention = (
            MultiHeadAttention(
                d_model,
                num_heads,
                d_k=d_k,
                d_v=d_v,
                bias=attention_bias,
                dropout=attention_dropout,
                score=attention_score,
                temperature=attention_temperature,
                max_positions=max_positions,
            )
            for _ in range(2)
        )
        self.feed_forward = FeedForward(d_model, d_ff, dropout=activation_dropout)
        self.residual_1, self.residual_2, self.residual_3 = (
            Residual(d_model, dropout=dropout, norm=norm, norm_eps=norm_eps) for _ in range(3)
        )

    def forward(
        self,
        x: Tensor,
        memory: KeysValues,
        past: KeysValues | None = None,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        relation: Relation | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """Decode Q positions of each sentence: W·T, if it has W hypotheses.

        Args:
            x: (B, Q, D).
            memory: cross-attention keys and values (B, H, S, ...), from `cross_attention.keys_values`.
            past: self-attention keys and values (B, H, M, ...) of earlier positions.
            mask: bool, broadcastable to (B, H, Q, M + Q): which positions each new one may attend to.
            memory_mask: bool (B, 1, 1, S), True at real source tokens.
            relation: how positions enter self-attention, if they do so there.

        Returns:
            (B, Q, D), and the self-attention keys and values (B, H, M + Q, ...) to hand in next time.
        """
        extended = past

        def self_attention(y: Tensor) -> Tensor:
            nonlocal extended
            extended = self._extend(past, y, relation)
            return self.self_attention.attend(y, extended, mask, relation)

        x = self.residual_1(x, self_attention)
        x = self.residual_2(x, lambda y: self.cross_attention.attend(y, memory, memory_mask))
        x = self.residual_3(x, self.feed_forward)
        assert extended is not None
        return x, extended

    def attention_weights(
        self,
        x: Tensor,
        memory: KeysValues,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        relation: Relation | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The self-attention (B, H, T, T) and cross-attention (B, H, T, S) weights of `forward` without a past."""
        y = self.residual_1.norm(x) if self.residual_1.is_pre_norm else x
        kv = self.self_attention.keys_values(y, relation)
        self_weights = self.self_attention.weights(y, kv, mask, relation)
        x = self.residual_1(x, lambda y: self.self_attention.attend(y, kv, mask, relation))
        y = self.residual_2.norm(x) if self.residual_2.is_pre_norm else x
        return self_weights, self.cross_attention.weights(y, memory, memory_mask)

    def _extend(self, past: KeysValues | None, y: Tensor, relation: Relation | None) -> KeysValues:
        new = self.self_attention.keys_values(y, relation)
        if past is None:
            return new
        # What is contiguous is copied in long runs.
        return KeysValues(
            torch.cat((past.keys, new.keys.contiguous()), 2), torch.cat((past.values, new.values.contiguous()), 2)
        )


class Decoder(nn.Module):
    """A stack of decoder layers; with pre-norm, one more LayerNorm on top.

    Args:
        num_layers: N.
        positional: "shaw", "t5" and "rotary" positions enter here, in self-attention; others do not.
        max_relative_position: of "shaw" only.
        options: keyword arguments of `DecoderLayer`.
    """

    def __init__(
        self,
        num_layers: int = 6,
        *,
        positional: Positional = "sinusoidal",
        max_relative_position: int = 20,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__()
        layers = [DecoderLayer(**options) for _ in range(num_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = final_norm(options)
        self.relative = make_relative_positions(
            positional,
            [layer.self_attention for layer in layers],
            attention_score=options.get("attention_score", "scaled_dot"),
            max_relative_position=max_relative_position,
            bidirectional=False,
        )

    def start(self, memory: Tensor, memory_mask: Tensor | None = None) -> DecoderState:
        """The state before the first position, from the encoder's output (B, S, D) and its padding mask."""
        layers = cast("list[DecoderLayer]", self.layers)
        projected = (layer.cross_attention.keys_values(memory) for layer in layers)
        # Contiguous once, or every step would copy them for its matrix products.
        return DecoderState(tuple(KeysValues(k.contiguous(), v.contiguous()) for k, v in projected), memory_mask)

    def forward(self, x: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Decode the next T positions, embedded as x (R, T, D); returns (R, T, D) and the state after them."""
        num_sentences = state.memory[0].keys.size(0)
        width, num_new = x.size(0) // num_sentences, x.size(1)
        num_past = 0 if state.past is None else state.past[0].keys.size(2)
        mask, lineage = None, state.lineage
        if width > 1 or lineage is not None:
            if lineage is None:
                lineage = torch.ones((x.size(0), num_past), dtype=torch.bool, device=x.device)
            mask = lineage_mask(lineage.view(num_sentences, width, -1), num_new)
            # The last new position of a hypothesis sees all that is its own.
            lineage = mask[:, 0, num_new - 1 :: num_new].flatten(0, 1)
        elif num_new > 1:  # one new position may attend to everything so far: nothing to hide
            mask = causal_mask(num_new, state.length, x.device)
        # The hypotheses of a sentence end to end: they attend to the same keys and values.
        y = x.reshape(num_sentences, width * num_new, -1)
        relations = self._relations(state.length, num_new, width, mask, num_past + y.size(1), x.device)
        past: list[KeysValues] = []
        for i, layer in enumerate(self.layers):
            layer_past = state.past[i] if state.past else None
            y, kv = layer(y, state.memory[i], layer_past, mask, state.memory_mask, relations[i])
            past.append(kv)
        state = replace(state, past=tuple(past), lineage=lineage, length=state.length + num_new)
        return self.norm(y).view_as(x), state

    def attention_weights(self, x: Tensor, state: DecoderState) -> list[tuple[Tensor, Tensor]]:
        """Per layer, the self- and cross-attention weights with which `forward` decodes x (B, T, D) from the start."""
        mask = causal_mask(x.size(1), device=x.device)
        relations = self._relations(0, x.size(1), 1, mask, x.size(1), x.device)
        weights = []
        for layer, memory, relation in zip(
            cast("list[DecoderLayer]", self.layers), state.memory, relations, strict=True
        ):
            weights.append(layer.attention_weights(x, memory, mask, state.memory_mask, relation))
            x, _ = layer(x, memory, None, mask, state.memory_mask, relation)
        return weights

    def _relations(
        self, start: int, num_new: int, width: int, mask: Tensor | None, num_keys: int, device: torch.device
    ) -> Sequence[Relation | None]:
        """Per layer, how the positions of one call enter its attention."""
        if self.relative is None:
            return [None] * len(self.layers)
        return self.relative(Place(start, num_new, width, lambda: causal_offsets(mask, num_keys, device)))

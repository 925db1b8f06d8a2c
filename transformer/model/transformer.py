"""The whole model (section 3, figure 1).

How it differs from most implementations that go by the paper's name: post-norm without a final LayerNorm, dropout on
sub-layer outputs and embeddings only, one matrix for both embeddings and the output projection, attention projections
without biases, interleaved sinusoids of any length. docs/PAPER.md lists every deviation from the paper.

Dimension key: B sentences, S source length, T target length, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from transformer.model.decoder import Decoder, DecoderState
from transformer.model.dropout import dropout as apply_dropout
from transformer.model.embeddings import SharedEmbeddings, Tying
from transformer.model.encoder import Encoder
from transformer.model.masks import padding_mask
from transformer.model.options import LayerOptions, NormPlacement
from transformer.model.positions import LearnedPositions, NoPositions, SinusoidalPositions
from transformer.model.relative import Positional
from transformer.model.scores import AttentionScore


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights of every layer and head, first layer first; each row sums to 1."""

    encoder: list[Tensor]  # N x (B, H, S, S)
    decoder: list[Tensor]  # N x (B, H, T, T)
    cross: list[Tensor]  # N x (B, H, T, S)


class Transformer(nn.Module):
    """An encoder-decoder of token ids; the defaults are the paper's base model.

    Args:
        vocab_size: V, of the joint source and target vocabulary.
        d_model: width of every sub-layer's input and output.
        num_layers: N, of the encoder and of the decoder.
        num_heads: h.
        d_ff: inner width of the feed-forward networks.
        d_k, d_v: size of a key and of a value per head; by default d_model / num_heads, and d_k.
        dropout: P_drop, on each sub-layer's output and on embeddings plus positions.
        attention_dropout, activation_dropout: on attention weights and on inner activations; the paper has neither.
        attention_bias: biases in the attention projections; the paper writes none.
        attention_score: what the softmax of every attention is of: the paper's "scaled_dot", or "dot", "general",
            "additive", "cosine" or "location".
        attention_temperature: by which scores are divided.
        attention_window: r, odd: how many positions around itself one sees in the encoder; None: all.
        norm: "post" (the paper) or "pre"; norm_eps is added to the variance.
        tie: which of source embedding, target embedding and output share a matrix: "all", "decoder" or "none".
        positional: "sinusoidal" or "learned", added to embeddings; "shaw", "t5" or "rotary", in self-attention; "none".
        max_positions: of "learned" positions and of the score "location".
        max_relative_position: at which "shaw" positions clip distances.
        pad_id: the id that fills a batch; never attended to.

    Attributes:
        max_length: the longest input and output; None if there is no limit.

    Raises:
        ValueError: an option is none of these, `num_heads` does not divide `d_model` and there is no `d_k`, or options
            do not go together: the message says which.
    """

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
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        attention_bias: bool = False,
        attention_score: AttentionScore = "scaled_dot",
        attention_temperature: float = 1.0,
        attention_window: int | None = None,
        norm: NormPlacement = "post",
        norm_eps: float = 1e-6,
        tie: Tying = "all",
        positional: Positional = "sinusoidal",
        max_positions: int = 512,
        max_relative_position: int = 20,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        if positional not in get_args(Positional):
            accepted = ", ".join(map(repr, get_args(Positional)))
            raise ValueError(f"positional={positional!r} is not one of {accepted}")
        options: LayerOptions = {
            "d_model": d_model,
            "num_heads": num_heads,
            "d_ff": d_ff,
            "d_k": d_k,
            "d_v": d_v,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
            "activation_dropout": activation_dropout,
            "attention_bias": attention_bias,
            "attention_score": attention_score,
            "attention_temperature": attention_temperature,
            "max_positions": max_positions,
            "norm": norm,
            "norm_eps": norm_eps,
        }
        self.vocab_size = vocab_size
        self.pad_id = pad_id
        self.dropout = dropout
        self.embeddings = SharedEmbeddings(vocab_size, d_model, tie=tie)
        self.max_length = max_positions if positional == "learned" or attention_score == "location" else None
        self.source_positions, self.target_positions = (
            _added_positions(positional, max_positions, d_model) for _ in range(2)
        )
        self.encoder = Encoder(
            num_layers,
            attention_window=attention_window,
            positional=positional,
            max_relative_position=max_relative_position,
            **options,
        )
        self.decoder = Decoder(
            num_layers, positional=positional, max_relative_position=max_relative_position, **options
        )

    def encode(self, src: Tensor) -> DecoderState:
        """Read source ids (B, S) int64; returns the state from which decoding starts."""
        mask = padding_mask(src, self.pad_id)
        return self.decoder.start(self.encoder(self._embed_source(src), mask), mask)

    def decode(self, tgt: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Decode the next T positions, whose inputs are the target ids (R, T) int64.

        R is B, or B·W for W hypotheses per sentence side by side. Returns hidden vectors (R, T, D), which `logits`
        projects, and the state after these positions. Positions see only those before them, in this call and earlier.
        """
        return self.decoder(self._embed_target(tgt, state.length), state)

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden vectors (..., D) to unnormalised log-probabilities (..., V)."""
        return self.embeddings.logits(hidden)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Teacher forcing: logits (B, T, V) of the token after each of tgt (B, T), given src (B, S)."""
        hidden, _ = self.decode(tgt, self.encode(src))
        return self.logits(hidden)

    def attention_maps(self, src: Tensor, tgt: Tensor) -> AttentionMaps:
        """The weights of all heads for src (B, S) and tgt (B, T); without dropout in `eval` mode."""
        mask = padding_mask(src, self.pad_id)
        x = self._embed_source(src)
        state = self.decoder.start(self.encoder(x, mask), mask)
        decoder = self.decoder.attention_weights(self._embed_target(tgt, 0), state)
        return AttentionMaps(
            encoder=self.encoder.attention_weights(x, mask),
            decoder=[self_weights for self_weights, _ in decoder],
            cross=[cross_weights for _, cross_weights in decoder],
        )

    def _embed_source(self, src: Tensor) -> Tensor:
        x = self.source_positions(self.embeddings.source(src))  # (B, S, D)
        return apply_dropout(x, self.dropout, self.training)

    def _embed_target(self, tgt: Tensor, offset: int) -> Tensor:
        x = self.target_positions(self.embeddings.target(tgt), offset)  # (R, T, D)
        return apply_dropout(x, self.dropout, self.training)


def _added_positions(positional: Positional, max_positions: int, d_model: int) -> nn.Module:
    """What is added to embeddings: nothing, if positions enter attention or not at all."""
    match positional:
        case "sinusoidal":
            return SinusoidalPositions(d_model)
        case "learned":
            return LearnedPositions(max_positions, d_model)
    return NoPositions()

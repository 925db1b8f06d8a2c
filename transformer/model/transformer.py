"""The whole model (section 3, figure 1).

How it differs from most implementations that go by the paper's name: post-norm without a final LayerNorm, dropout on
sub-layer outputs and embeddings only, one matrix for both embeddings and the output projection, attention projections
without biases, interleaved sinusoids of any length. docs/PAPER.md lists every deviation from the paper.

Dimension key: B sentences, S source length, T target length, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from transformer.model.decoder import Decoder, DecoderState
from transformer.model.dropout import dropout as apply_dropout
from transformer.model.embeddings import SharedEmbeddings, Tying
from transformer.model.encoder import Encoder
from transformer.model.masks import padding_mask
from transformer.model.options import LayerOptions, NormPlacement
from transformer.model.positions import LearnedPositions, SinusoidalPositions

Positional = Literal["sinusoidal", "learned"]


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
        norm: "post" (the paper) or "pre"; norm_eps is added to the variance.
        tie: which of source embedding, target embedding and output share a matrix: "all", "decoder" or "none".
        positional: "sinusoidal" or "learned", the latter up to `max_positions`.
        pad_id: the id that fills a batch; never attended to.

    Raises:
        ValueError: `norm`, `tie` or `positional` is none of these, or `num_heads` does not divide `d_model` and there
            is no `d_k`.
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
        norm: NormPlacement = "post",
        norm_eps: float = 1e-6,
        tie: Tying = "all",
        positional: Positional = "sinusoidal",
        max_positions: int = 512,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        if positional not in ("sinusoidal", "learned"):
            raise ValueError(f"positional={positional!r} is not one of 'sinusoidal', 'learned'")
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
            "norm": norm,
            "norm_eps": norm_eps,
        }
        self.vocab_size = vocab_size
        self.pad_id = pad_id
        self.dropout = dropout
        self.embeddings = SharedEmbeddings(vocab_size, d_model, tie=tie)
        self.source_positions, self.target_positions = (
            SinusoidalPositions(d_model) if positional == "sinusoidal" else LearnedPositions(max_positions, d_model)
            for _ in range(2)
        )
        self.encoder = Encoder(num_layers, **options)
        self.decoder = Decoder(num_layers, **options)

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

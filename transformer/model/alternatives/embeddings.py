"""Embeddings that share less than the paper's (section 3.4), output biases, learned positions (Table 3, row E)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model.embeddings import SharedEmbedding
from transformer.model.transformer import Transformer


class DecoderTiedEmbedding(SharedEmbedding):
    """One matrix for target embedding and output, another for the source, of the same vocabulary or its own."""

    def __init__(self, vocab_size: int, d_model: int, *, source_vocab_size: int | None = None) -> None:
        super().__init__(vocab_size if source_vocab_size is None else source_vocab_size, d_model)
        self.target_weight = nn.Parameter(nn.init.normal_(torch.empty(vocab_size, d_model), std=d_model**-0.5))

    def forward(self, ids: Tensor, *, is_target: bool = False) -> Tensor:
        if not is_target:
            return super().forward(ids)
        return F.embedding(ids, self.target_weight) * math.sqrt(self.target_weight.size(1))

    @property
    def output_weight(self) -> Tensor:
        return self.target_weight


class UntiedEmbedding(DecoderTiedEmbedding):
    """Three matrices."""

    def __init__(self, vocab_size: int, d_model: int, *, source_vocab_size: int | None = None) -> None:
        super().__init__(vocab_size, d_model, source_vocab_size=source_vocab_size)
        self.projection_weight = nn.Parameter(nn.init.normal_(torch.empty(vocab_size, d_model), std=d_model**-0.5))

    @property
    def output_weight(self) -> Tensor:
        return self.projection_weight


class BiasedEmbedding(SharedEmbedding):
    """As `SharedEmbedding`, with a bias of each output, for `BiasedTransformer`; the paper has none."""

    def __init__(self, vocab_size: int, d_model: int, **options: Any) -> None:
        super().__init__(vocab_size, d_model, **options)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))

    def reset_parameters(self) -> None:
        """Matrices as without a bias; biases 0."""
        for weight in self.parameters():
            if weight.dim() == 1:
                nn.init.zeros_(weight)
            else:
                nn.init.normal_(weight, std=weight.size(1) ** -0.5)


class BiasedDecoderTiedEmbedding(BiasedEmbedding, DecoderTiedEmbedding):
    """As `DecoderTiedEmbedding`, with a bias of each output."""


class BiasedUntiedEmbedding(BiasedEmbedding, UntiedEmbedding):
    """As `UntiedEmbedding`, with a bias of each output."""


class BiasedTransformer(Transformer):
    """A Transformer whose `embedding` has an `output_bias` (V,), as Marian's models have."""

    embedding: BiasedEmbedding

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.output_weight, self.embedding.output_bias)


class LearnedPositions(nn.Module):
    """Adds a learned vector per position (Gehring et al. 2017); ValueError past `max_positions`."""

    def __init__(self, max_positions: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(max_positions, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 1/2): the root mean square of the sinusoids that it stands in for."""
        nn.init.normal_(self.table, std=math.sqrt(0.5))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        end, limit = start + x.size(1), self.table.size(0)
        if end > limit:
            raise ValueError(f"position {end} is past max_positions={limit}; raise it or use sinusoidal positions")
        return x + self.table[start:end]


class NoPositions(nn.Module):
    """Adds nothing: positions enter in attention, or not at all."""

    def forward(self, x: Tensor, start: int = 0) -> Tensor:  # noqa: ARG002
        return x

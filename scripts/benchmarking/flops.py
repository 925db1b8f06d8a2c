"""FLOPs of matrix products, from the sizes of the model (sections 3.2 and 3.3) and the number of tokens.

Padding is not counted: it is avoidable work. A multiplication and an addition are two operations. A backward pass costs
twice its forward pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from transformer.config import ModelConfig
from transformer.data.batching import Batch
from transformer.data.tokenizer import PAD_ID
from transformer.errors import ConfigError
from transformer.training.train_step import AnyBatch


class Product(NamedTuple):
    """A weight matrix shape, and how many products with it a source and a target token need."""

    inputs: int
    outputs: int
    per_source: int
    per_target: int


@dataclass(frozen=True)
class Work:
    """Non-padding tokens, </s> included, and query-key pairs, masked or not."""

    sentences: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    source_pairs: int = 0  # encoder self-attention: sum of S²
    target_pairs: int = 0  # decoder self-attention: sum of T²
    cross_pairs: int = 0  # sum of T·S

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + yours for mine, yours in zip(astuple(self), astuple(other), strict=True)))


def key_sizes(model: ModelConfig) -> tuple[int, int]:
    """d_k and d_v, with their defaults."""
    d_k = model.d_model // model.num_heads if model.d_k is None else model.d_k
    return d_k, d_k if model.d_v is None else model.d_v


def weight_products(model: ModelConfig, vocab_size: int) -> list[Product]:
    """Every distinct weight shape with its uses in all layers; the output projection comes last.

    ConfigError if attention is not a single product of all queries and keys, or heads or layers differ in number.
    """
    for name in ("num_kv_heads", "num_decoder_layers"):
        if getattr(model, name) is not None:
            raise ConfigError(f"operations are not counted for models with model.{name}={getattr(model, name)}")
    is_product = model.attention_score in ("scaled_dot", "dot", "cosine")
    if not is_product or model.attention_window is not None or model.positional == "shaw":
        raise ConfigError(
            "operations are counted only for attention by a single product of all queries and keys, not for "
            f"model.attention_score={model.attention_score}, model.attention_window={model.attention_window}, "
            f"model.positional={model.positional}"
        )
    d, n = model.d_model, model.num_layers
    keys, values = (model.num_heads * size for size in key_sizes(model))
    source: Counter[tuple[int, int]] = Counter()
    target: Counter[tuple[int, int]] = Counter()
    # The encoder's self-attention and the keys and values of the decoder's cross-attention.
    for shape, uses in (((d, keys), 3), ((d, values), 2), ((values, d), 1), ((d, model.d_ff), 1), ((model.d_ff, d), 1)):
        source[shape] += uses * n
    # The decoder's self-attention and the queries and outputs of its cross-attention.
    for shape, uses in (((d, keys), 3), ((d, values), 1), ((values, d), 2), ((d, model.d_ff), 1), ((model.d_ff, d), 1)):
        target[shape] += uses * n
    products = [Product(*shape, source[shape], target[shape]) for shape in source]
    return [*products, Product(d, vocab_size, 0, 1)]


def forward_flops(model: ModelConfig, vocab_size: int, work: Work) -> int:
    """FLOPs of the matrix products of one forward pass, including the logits of all target tokens."""
    weights = sum(
        2 * p.inputs * p.outputs * (p.per_source * work.source_tokens + p.per_target * work.target_tokens)
        for p in weight_products(model, vocab_size)
    )
    # Queries times keys, and weights times values.
    per_pair = 2 * model.num_heads * sum(key_sizes(model))
    return weights + model.num_layers * per_pair * (work.source_pairs + work.target_pairs + work.cross_pairs)


def batch_work(batches: Iterable[AnyBatch]) -> Work:
    """The work in some batches."""
    return sum((_work(*_lengths(batch)) for batch in batches), Work())


def num_padded(batches: Iterable[AnyBatch]) -> tuple[int, int]:
    """Source and target positions, padding included."""
    sizes = [
        (batch.src.numel(), batch.tgt_out.numel()) if isinstance(batch, Batch) else batch.shape[:2] for batch in batches
    ]
    return sum(src for src, _ in sizes), sum(tgt for _, tgt in sizes)


def _lengths(batch: AnyBatch) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, Batch):
        src, tgt = (torch.from_numpy(lengths).long() for lengths in batch.lengths)
    else:
        src, tgt = ((ids != PAD_ID).sum(dim=1) for ids in (batch.src, batch.tgt_out))
    return src, tgt


def _work(s: Tensor, t: Tensor) -> Work:
    return Work(len(s), *(int(x.sum()) for x in (s, t, s * s, t * t, t * s)))

"""What attention heads look at: entropy, distance, and shares of their weights on certain keys.

Row i of the weights is query i. In the decoder it reads piece i - 1 of the translation, <s> at first, and predicts
piece i. Dimension key: B sentences, H heads, Q queries, M keys.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transformer.data.batching import Batch
from transformer.data.tokenizer import Tokenizer
from transformer.inspection.examples import is_source, is_target
from transformer.inspection.recording import attention_maps
from transformer.model.transformer import Transformer

USES = ("encoder self-attention", "decoder self-attention", "encoder-decoder attention")
_CAUSAL = USES[1]
_WORD_START = "\u2581"  # SentencePiece's mark


@dataclass(frozen=True)
class HeadStatistics:
    """Means over the queries of all sentences; a share is the weight on some keys, between 0 and 1.

    Attributes:
        use, layer, head: one of `USES`; the others count from 1.
        entropy: of a row of weights, in nats.
        relative_entropy: entropy over its largest value, the logarithm of the number of keys, where that is over 1.
        largest: the largest weight of a row.
        distance: Σ_j weight_ij |i - j|, in positions.
        diagonal, previous, next: shares of the keys i, i - 1, i + 1, of queries that have such a key.
        first, last: shares of the first and the last key.
        punctuation: share of the keys that are punctuation marks, of queries that have such a key.

    None where it says nothing: `next` and `last` of the decoder's self-attention, which sees no later key.
    """

    use: str
    layer: int
    head: int
    entropy: float
    relative_entropy: float
    largest: float
    distance: float
    diagonal: float
    previous: float
    next: float | None
    first: float
    last: float | None
    punctuation: float | None


def head_statistics(model: Transformer, batches: Sequence[Batch], tokenizer: Tokenizer) -> list[HeadStatistics]:
    """Statistics of every head of a model on some batches, encoder first; ValueError as of `attention_maps`."""
    source_marks, target_marks = is_punctuation(tokenizer.source), is_punctuation(tokenizer)
    totals: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    for batch in batches:
        maps = attention_maps(model, batch.src, batch.tgt_in)
        src, tgt = is_source(batch).cpu(), is_target(batch).cpu()
        of_src, of_tgt = source_marks[batch.src.cpu()] & src, target_marks[batch.tgt_in.cpu()] & tgt
        for use, layers, queries, keys, marks in (
            (USES[0], maps.encoder, src, src, of_src),
            (USES[1], maps.decoder, tgt, tgt, of_tgt),
            (USES[2], maps.cross, tgt, src, of_src),
        ):
            for layer, weights in enumerate(layers, start=1):
                found = _sums(weights.double().cpu(), queries, keys, marks, is_causal=use == _CAUSAL)
                old = totals.get((use, layer))
                totals[use, layer] = found if old is None else (old[0] + found[0], old[1] + found[1])
    order = sorted(totals, key=lambda place: (USES.index(place[0]), place[1]))
    return [
        HeadStatistics(use, layer, head, *_means(sums, totals[use, layer][1], is_causal=use == _CAUSAL))
        for use, layer in order
        for head, sums in enumerate(totals[use, layer][0], start=1)
    ]


def is_punctuation(tokenizer: Tokenizer) -> Tensor:
    """Which pieces consist of punctuation marks only: (V,) bool."""
    texts = (piece.removeprefix(_WORD_START) for piece in tokenizer.pieces(range(len(tokenizer))))
    return torch.tensor([bool(x) and all(unicodedata.category(c).startswith("P") for c in x) for x in texts])


def _sums(weights: Tensor, queries: Tensor, keys: Tensor, marks: Tensor, *, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Sums over queries, (H, 10) in the order of `HeadStatistics`, and the number of queries in each, (10,)."""
    num_queries, num_keys = weights.shape[-2:]
    i, j = torch.arange(num_queries)[:, None], torch.arange(num_keys)  # (Q, 1), (M,)
    visible = queries[:, :, None] & keys[:, None, :]  # (B, Q, M)
    if is_causal:
        visible = visible & (j <= i)
    choices = visible.sum(-1).clamp_min(1).double()  # (B, Q)
    last = keys.sum(1)[:, None, None] - 1  # (B, 1, 1)
    entropy = torch.special.entr(weights).sum(-1)  # (B, H, Q)
    relative = entropy / choices.log().clamp_min(1e-9)[:, None]
    kinds: list[Callable[[], Tensor]] = [
        lambda: j == i,
        lambda: j == i - 1,
        lambda: j == i + 1,
        lambda: j == 0,
        lambda: j == last,
        lambda: marks[:, None],
    ]
    found = [(entropy, queries), (relative, queries & (choices > 1)), (weights.amax(-1), queries)]
    found.append(((weights * (i - j).abs()).sum(-1), queries))
    for kind in kinds:
        chosen = visible & kind()  # (B, Q, M)
        found.append(((weights * chosen[:, None]).sum(-1), chosen.any(-1)))
    sums = [(values * counted[:, None]).sum(dim=(0, 2)) for values, counted in found]  # (H,) each
    return torch.stack(sums, dim=1), torch.stack([counted.sum() for _, counted in found])


def _means(sums: Tensor, counts: Tensor, *, is_causal: bool) -> list[Any]:
    """The statistics of one head, from sums (10,) over so many queries each; None where there were none."""
    means: list[float | None] = [
        total / count if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True)
    ]
    if is_causal:
        means[6] = means[8] = None
    return means

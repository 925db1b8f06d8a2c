"""Sentence pairs as batches on which a model is inspected, by teacher forcing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transformer.data.batching import Batch, pad
from transformer.data.tokenizer import BOS_ID, PAD_ID
from transformer.errors import DataError
from transformer.inference.forced import EncodedPair, PairNotes, encode_pairs, length_batches
from transformer.inference.translator import Translator


def example_batches(
    translator: Translator, sources: Sequence[str], targets: Sequence[str], *, batch_tokens: int = 2048
) -> list[Batch]:
    """Encode pairs as training does and batch them, longest first, on the device of the model.

    Pairs with an empty side, and those beyond the limits of `translate`, are left out. Each side of a batch has at most
    `batch_tokens` ids, padding included, unless it is one pair.

    Raises:
        DataError: no pair is left.
        ValueError: there are more sources than targets, or fewer.
    """
    kept = [pair for pair in _encode(translator, sources, targets) if _is_usable(pair)]
    if not kept:
        raise DataError("there is no sentence pair to look at: sides are empty or beyond the limits")
    src, tgt = [pair.src for pair in kept], [pair.tgt for pair in kept]
    return [
        batch_of([src[i] for i in indices], [tgt[i] for i in indices]).to(translator.device)
        for indices in length_batches(src, tgt, batch_tokens)
    ]


def usable_pairs(translator: Translator, sources: Sequence[str], targets: Sequence[str]) -> list[int]:
    """The places, from 0, of the pairs that `example_batches` does not leave out; ValueError as there."""
    return [i for i, pair in enumerate(_encode(translator, sources, targets)) if _is_usable(pair)]


def _encode(translator: Translator, sources: Sequence[str], targets: Sequence[str]) -> list[EncodedPair]:
    return encode_pairs(translator, sources, targets, too_long="skip", notes=PairNotes())


def _is_usable(pair: EncodedPair) -> bool:
    return bool(pair.src) and len(pair.tgt) > 1


def batch_of(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
    """Pad and shift pairs of ids, </s> included: (B, S) and (B, T)."""
    tgt_out = pad(targets)  # (B, T)
    tgt_in = pad([[BOS_ID, *ids[:-1]] for ids in targets])  # (B, T)
    return Batch(pad(sources), tgt_in, tgt_out, (tgt_out.flatten() != PAD_ID).nonzero().flatten())


def is_source(batch: Batch) -> Tensor:
    """Where the source has pieces: (B, S) bool."""
    return batch.src != PAD_ID


def is_target(batch: Batch) -> Tensor:
    """Where the target has pieces: (B, T) bool."""
    flat = torch.zeros(batch.tgt_out.numel(), dtype=torch.bool, device=batch.tgt_out.device)
    return flat.index_fill(0, batch.target_positions, True).view(batch.tgt_out.shape)  # (B, T)

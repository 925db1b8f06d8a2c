"""Alignments of pieces and words, from encoder-decoder attention (section 3.2.3).

A decoder input is one position: row t of the weights belongs to the step that reads piece t - 1 (<s> at first) and
predicts piece t. Dimension key: B pairs, T target and S source pieces, I and J target and source words.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.data.batching import pad
from transformer.data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from transformer.errors import ConfigError
from transformer.inference.arguments import check_count, text_list
from transformer.inference.forced import PairNotes, TooLongPair, check_same_number, encode_pairs, length_batches
from transformer.inference.prepacked import ready_model
from transformer.inference.translator import Translation, Translator
from transformer.model.transformer import Transformer

Links = list[tuple[int, int]]  # (source, target) positions from 0
# Whose weights align a piece: those of the step that predicts it (Garg et al. 2019), or of the step that reads it, its
# decoder input (Chen et al. 2020).
Step = Literal["predicting", "reading"]
STEPS: tuple[Step, ...] = get_args(Step)


def align(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    layer: int | None = None,
    step: Step = "predicting",
    batch_tokens: int = 4096,
) -> list[Links]:
    """Align each target piece with the source piece it attends to most.

    Attention is that of one decoder layer, averaged over its heads.

    Args:
        sources, targets: ids of each side, with </s> or without; </s> has no link.
        layer: of the decoder, from 1; by default the last, which docs/SCORING.md finds the best.
        step: of the decoder: the one that predicts the piece, or the one that reads it.
        batch_tokens: ids computed at a time on either side, padding included.

    Returns:
        Per pair (source, target) positions, in order of the target; none if a side is empty.

    Raises:
        ConfigError: there is no such layer or step, or `batch_tokens` is out of range.
        ValueError: there are more sources than targets, or fewer.
    """
    check_same_number(sources, targets)
    layer, step = checked_layer(model, layer), checked_step(step)
    links: list[Links] = [[] for _ in sources]
    for batch in _batches(sources, targets, batch_tokens):
        for i, (weights,) in attention_weights(model, sources, targets, batch, [layer]):
            links[i] = argmax_links(rows_of(step, weights, len(_without_end(targets[i]))))
    return links


def word_alignment(
    translator: Translator,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    layer: int | None = None,
    step: Step = "predicting",
    too_long: TooLongPair = "error",
    batch_tokens: int = 4096,
    numbers: Sequence[int] | None = None,
    notes: PairNotes | None = None,
) -> list[Links]:
    """Align each target word with the source word it attends to most.

    Words are what white space separates. The attention of a word is that of its first piece, with which the model
    chooses it; that to a word is the sum over its pieces. A word without pieces, such as one of control characters, has
    no link, nor has a tag.

    Args:
        layer, step: as for `align`.
        translator, too_long, batch_tokens, numbers, notes: as for `score_translations`.

    Errors as of `align` and `score_translations`.

    Returns:
        Per pair (source, target) word positions from 0, in order of the target; none if a side is empty.
    """
    layer, step = checked_layer(single_model(translator), layer), checked_step(step)
    notes = PairNotes() if notes is None else notes
    sources, targets = text_list(sources, "sources"), text_list(targets, "targets")
    pairs = encode_pairs(translator, sources, targets, too_long=too_long, numbers=numbers, notes=notes)
    reader = translator.source_reader()
    # Of pairs that are not scored, no words.
    tags_and_words = [reader.encode_words(x if pair.tgt else "") for x, pair in zip(sources, pairs, strict=True)]
    words = [
        (source, split_words(translator.tokenizer, target) if pair.tgt else [])
        for (_, source), target, pair in zip(tags_and_words, targets, pairs, strict=True)
    ]
    src = [[*tag, *itertools.chain(*source)] for tag, source in tags_and_words]
    tgt = [[*itertools.chain(*target)] for _, target in words]
    mine: dict[int, Links] = {}
    for batch in translator.context.shard(_batches(src, tgt, batch_tokens)):
        for i, (weights,) in attention_weights(translator.model, src, tgt, batch, [layer]):
            of_words = weights[:, len(tags_and_words[i][0]) :]
            mine[i] = argmax_links(merge_words(rows_of(step, of_words, len(tgt[i])), *words[i]))
    found = {i: links for part in translator.context.all_gather(mine) for i, links in part.items()}
    return [found.get(i, []) for i in range(len(pairs))]


def align_translations(
    translator: Translator,
    lines: Sequence[str],
    translations: Sequence[Sequence[Translation]],
    *,
    layer: int | None = None,
) -> list[list[Links]]:
    """Word alignments of each translation of each line, as of `word_alignment`.

    No links where nothing was searched, as of a copied line, and where line or translation is beyond the limits.
    """
    pairs = [(line, one.text) for line, found in zip(lines, translations, strict=True) for one in found if one.ids]
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    links = iter(word_alignment(translator, sources, targets, layer=layer, too_long="skip"))
    return [[next(links) if one.ids else [] for one in found] for found in translations]


def attention_weights(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    batch: Sequence[int],
    layers: Sequence[int],
) -> Iterator[tuple[int, list[Tensor]]]:
    """Attention weights of each pair of a batch.

    Yields the number of the pair and, per layer, (T + 1, S) without </s>.

    A target beyond the positions of the model loses its last rows.
    """
    src = [[*_without_end(sources[i]), EOS_ID] for i in batch]
    tgt = [[BOS_ID, *_without_end(targets[i])][: model.max_length] for i in batch]
    device = model.embedding.weight.device
    found = cross_attention(model, pad(src).to(device), pad(tgt).to(device), layers)
    for row, i in enumerate(batch):
        yield i, [weights[row, : len(tgt[row]), : len(src[row]) - 1].cpu() for weights in found]


@torch.no_grad()
def cross_attention(model: Transformer, src: Tensor, tgt: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """Encoder-decoder attention of some decoder layers, averaged over heads.

    Args:
        src: (B, S) ids with </s>, padded.
        tgt: (B, T) decoder inputs, <s> first, padded.
        layers: from 1.

    Returns:
        Per layer (B, T, S), in float32 at least; rows sum to 1.
    """
    found: dict[int, Tensor] = {}
    thread = threading.get_ident()
    with contextlib.ExitStack() as stack:  # removes the hooks, after an exception too
        for number, layer in enumerate(model.decoder.layers, start=1):
            if number in layers and layer.cross_attention is not None:
                attention = layer.cross_attention.attention

                def record(attention: Any, inputs: tuple[Any, ...], _: Tensor, number: int = number) -> None:
                    if threading.get_ident() != thread:  # another one uses the model at the same time
                        return
                    q, k, _values, mask = inputs
                    weights = attention.weights(q, k, mask)  # (B, H, T, S)
                    found[number] = weights.to(torch.promote_types(weights.dtype, torch.float32)).mean(dim=1)

                stack.callback(attention.register_forward_hook(record).remove)
        ready_model(model).decode(tgt, model.encode(src))
    return [found[number] for number in layers]


def split_words(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """Ids of each word of a text, split at white space.

    Joined they are those of the text, unless the tokenizer has pieces with spaces inside.
    """
    return tokenizer.encode_words(text)


def rows_of(step: Step, weights: Tensor, num_pieces: int) -> Tensor:
    """The rows by which a step aligns: (T, S) of weights (T + 1, S). Zeros where some are missing."""
    rows = weights[:num_pieces] if step == "predicting" else weights[1:]
    return F.pad(rows, (0, 0, 0, num_pieces - len(rows)))


def merge_words(weights: Tensor, src_words: Sequence[Sequence[int]], tgt_words: Sequence[Sequence[int]]) -> Tensor:
    """Weights of pieces (T, S) to those of words (I, J).

    Those of a target word's first piece, summed over the pieces of a source word.
    """
    lengths = [len(word) for word in src_words]
    owners = torch.repeat_interleave(torch.arange(len(src_words)), torch.tensor(lengths))  # (S,)
    to_words = weights.new_zeros(len(weights), len(src_words)).index_add(1, owners, weights)  # (T, J)
    merged = weights.new_zeros(len(tgt_words), len(src_words))  # (I, J)
    first = 0
    for row, word in zip(merged, tgt_words, strict=True):
        if word:
            row.copy_(to_words[first])
        first += len(word)
    return merged


def argmax_links(weights: Tensor) -> Links:
    """Link each row of (I, J) with its largest column. None for a row of zeros."""
    if not weights.numel():
        return []
    top, index = weights.max(dim=1)
    return [(j, i) for i, (j, weight) in enumerate(zip(index.tolist(), top.tolist(), strict=True)) if weight > 0]


def _batches(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], batch_tokens: int) -> list[list[int]]:
    """Batches of pairs that have pieces on both sides."""
    check_count("batch_tokens", batch_tokens)
    some = [i for i, pair in enumerate(zip(sources, targets, strict=True)) if all(_without_end(ids) for ids in pair)]
    batches = length_batches([sources[i] for i in some], [targets[i] for i in some], batch_tokens)
    return [[some[i] for i in batch] for batch in batches]


def _without_end(ids: Sequence[int]) -> Sequence[int]:
    return ids[:-1] if ids and ids[-1] == EOS_ID else ids


def has_attention(translator: Translator) -> bool:
    """Whether it has one model of this project, and so attention to align by; an ensemble or another engine has not."""
    return len(translator.members) == 1 and hasattr(translator, "model")


def single_model(translator: Translator) -> Transformer:
    """The model of a translator. ConfigError for an ensemble and for another engine, which have no attention."""
    if len(translator.members) > 1:
        raise ConfigError(f"an ensemble of {len(translator.members)} models has no attention: take one of its members")
    if not has_attention(translator):
        raise ConfigError("another engine gives no attention: take the model that was exported for it")
    return translator.model


def checked_layer(model: Transformer, layer: int | None, name: str = "layer") -> int:
    """The layer to align by. ConfigError, with the argument's `name`, if there is no such decoder layer."""
    num_layers = len(model.decoder.layers)
    if layer is None:
        return num_layers
    check_count(name, layer, num_layers, "num_decoder_layers")
    return layer


def checked_step(step: Step) -> Step:
    """ConfigError unless it is one of `STEPS`."""
    if step not in STEPS:
        raise ConfigError(f"step={step!r} must be one of {', '.join(STEPS)}")
    return step

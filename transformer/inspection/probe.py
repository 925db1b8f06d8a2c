"""A linear probe: can the sense of a word be read off the hidden states of the encoder, layer by layer?

Softmax regression on the states of one word, trained on some sentences and tested on others. A static embedding is the
same in every sentence, so that it cannot tell senses apart; what rises above it comes from the context. Dimension key:
n occurrences, D d_model, C senses.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.data.tokenizer import EOS_ID
from transformer.errors import DataError
from transformer.inference.alignment import single_model
from transformer.inference.translator import Translator
from transformer.inspection.examples import batch_of
from transformer.inspection.stacks import record_stacks
from transformer.model.transformer import Transformer

_BATCH_SIZE = 64  # sentences
_MARKS = string.punctuation + "„“”‚‘’«»…"


@dataclass(frozen=True)
class ProbeRow:
    """Accuracy on held-out occurrences, from 0 to 1.

    Attributes:
        states: static embedding, or the layer of the encoder; layer 0 is the embedding with its position.
        accuracy: of all occurrences, each predicted by the probe that has not seen it.
        control: the same with shuffled senses: what a probe of this size finds in nothing.
    """

    states: str
    accuracy: float
    control: float


@dataclass(frozen=True)
class Probe:
    """Results for one word.

    Attributes:
        counts: occurrences by sense.
        majority: accuracy of always guessing the most frequent sense.
        skipped: sentences without the word, beyond the limits of `translate`, and repeated ones.
    """

    word: str
    counts: dict[str, int]
    majority: float
    skipped: int
    rows: list[ProbeRow]


def probe_word(
    translator: Translator, word: str, sentences: Sequence[tuple[str, str]], *, folds: int = 5, seed: int = 0
) -> Probe:
    """Probe the encoder of a model for the sense of a word.

    Args:
        translator: of a single model; `Translator.load(..., prepack=False)`.
        word: as it is written, case aside, between white space and punctuation marks; its first occurrence counts.
        sentences: pairs of a sense and a sentence in the source language. Of those that the model reads as the same
            ids, the first is taken: others would be in training and test.
        folds: of cross-validation.
        seed: of folds and of the control.

    Raises:
        ConfigError: the translator is an ensemble.
        DataError: there are fewer than two senses, or fewer sentences of one than folds, or a sentence has two.
    """
    model = single_model(translator)
    found = _distinct(translator, word, sentences)
    senses = sorted({sense for sense, *_ in found})
    counts = {sense: sum(one[0] == sense for one in found) for sense in senses}
    if len(senses) < 2 or min(counts.values()) < folds:
        numbers = ", ".join(f"{count} of {sense}" for sense, count in counts.items()) or "none"
        raise DataError(f"the probe needs two senses, each with {folds} sentences that have {word!r}; found {numbers}")
    labels = torch.tensor([senses.index(sense) for sense, *_ in found])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    # Folds of each: where a sense is rarer in training than held out, what knows nothing is below chance.
    tasks = [(y, _folds(y, order, folds)) for y in (labels, labels[order])]
    rows = [
        ProbeRow(name, *(held_out_accuracy(x, y, fold_of) for y, fold_of in tasks))
        for name, x in _states(translator, model, [one[1:] for one in found])
    ]
    return Probe(word, counts, max(counts.values()) / len(labels), len(sentences) - len(found), rows)


def _distinct(
    translator: Translator, word: str, sentences: Sequence[tuple[str, str]]
) -> list[tuple[str, list[int], range]]:
    """Sense, ids and positions of the word of each sentence that has it, each sequence of ids once."""
    distinct: dict[tuple[int, ...], tuple[str, list[int], range]] = {}
    limit = min(translator.search.max_source_length, translator.max_length)
    for sense, text in sentences:
        place = _find(translator, word, text)
        if place is None or len(place[0]) > limit:
            continue
        first = distinct.setdefault(tuple(place[0]), (sense, *place))
        if first[0] != sense:
            raise DataError(f"a sentence has two senses, {first[0]} and {sense}: {text}")
    return [*distinct.values()]


def fit_softmax_regression(x: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and biases (C,) that minimise the sum of cross-entropies + ½‖W‖², in float64.

    Args:
        x: (n, D).
        labels: (n,) int64 in [0, num_classes).
    """
    x = x.double()
    weight = torch.zeros(num_classes, x.size(1), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, labels, reduction="sum") + weight.square().sum() / 2
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()


def held_out_accuracy(x: Tensor, labels: Tensor, fold_of: Tensor) -> float:
    """The share of rows of x (n, D) that a probe trained on the other folds labels correctly."""
    x, right = x.double(), 0
    for fold in fold_of.unique().tolist():
        held = fold_of == fold
        mean, scale = x[~held].mean(0), x[~held].std(0, correction=0)
        scaled = (x - mean) / torch.where(scale > 1e-9 * mean.abs().max().clamp_min(1e-9), scale, torch.inf)
        weight, bias = fit_softmax_regression(scaled[~held], labels[~held], int(labels.max()) + 1)
        right += int(((scaled[held] @ weight.T + bias).argmax(1) == labels[held]).sum())
    return right / len(labels)


def _folds(labels: Tensor, order: Tensor, folds: int) -> Tensor:
    """The fold of each row, (n,): of every sense about equally many, in a random order."""
    fold_of = torch.empty_like(labels)
    for label in labels.unique():
        rows = order[labels[order] == label]
        fold_of[rows] = torch.arange(len(rows)) % folds
    return fold_of


def _find(translator: Translator, word: str, text: str) -> tuple[list[int], range] | None:
    """Source ids with </s>, and the positions of the word's pieces among them."""
    tag, words = translator.source_reader().encode_words(text)
    start = len(tag)
    found = None
    for written, ids in zip(text.split(), words, strict=True):
        if found is None and ids and written.strip(_MARKS).lower() == word.lower():
            found = range(start, start + len(ids))
        start += len(ids)
    if found is None:
        return None
    return [*tag, *(i for ids in words for i in ids), EOS_ID], found


@torch.no_grad()
def _states(
    translator: Translator, model: Transformer, found: Sequence[tuple[list[int], range]]
) -> list[tuple[str, Tensor]]:
    """The states of each occurrence, the mean over its pieces, (n, D): static embedding first, then by layer."""
    by_name: dict[str, list[Tensor]] = {}
    for start in range(0, len(found), _BATCH_SIZE):
        part = found[start : start + _BATCH_SIZE]
        batch = batch_of([ids for ids, _ in part], [[EOS_ID]] * len(part)).to(translator.device)
        states = record_stacks(model, batch)[0].states
        named = {"static embedding": model.embedding(batch.src)}
        named |= {f"layer {number}": x for number, x in enumerate(states)}
        for name, x in named.items():
            of_each = [x[row, places.start : places.stop].mean(0) for row, (_, places) in enumerate(part)]
            by_name.setdefault(name, []).append(torch.stack(of_each).double().cpu())
    return [(name, torch.cat(parts)) for name, parts in by_name.items()]

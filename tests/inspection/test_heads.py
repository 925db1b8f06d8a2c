"""Statistics of heads are those of their weights, query by query."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from transformer.data.batching import Batch
from transformer.inspection import attention_maps
from transformer.inspection.heads import USES, HeadStatistics, head_statistics, is_punctuation
from transformer.model.transformer import Transformer

Make = Callable[..., Transformer]
MARKS = {7, 17, 23}


class Pieces:
    """A tokenizer of which some pieces are punctuation marks."""

    source = property(lambda self: self)

    def __len__(self) -> int:
        return 31

    def pieces(self, ids: range) -> list[str]:
        return [{7: "\u2581,", 17: "...", 23: "\u2581„"}.get(i, "\u2581a," if i % 2 else "x") for i in ids]


def by_loops(
    weights: list[torch.Tensor], queries: list[list[int]], keys: list[list[int]], causal: bool
) -> dict[str, Any]:
    """The statistics of one head from weights (Q, M) of each sentence and the ids of its queries and keys."""
    found: dict[str, list[float]] = {name: [] for name in HeadStatistics.__annotations__}
    for rows, query, key in zip(weights, queries, keys, strict=True):
        for i in range(len(query)):
            seen = range(i + 1) if causal else range(len(key))
            p = {j: float(rows[i, j]) for j in seen}
            entropy = -sum(x * math.log(x) for x in p.values() if x)
            found["entropy"].append(entropy)
            if len(seen) > 1:
                found["relative_entropy"].append(entropy / math.log(len(seen)))
            found["largest"].append(max(p.values()))
            found["distance"].append(sum(x * abs(i - j) for j, x in p.items()))
            places = {"diagonal": i, "previous": i - 1, "next": i + 1, "first": 0, "last": len(key) - 1}
            for name, j in places.items():
                if j in p:
                    found[name].append(p[j])
            marks = [x for j, x in p.items() if key[j] in MARKS]
            if marks:
                found["punctuation"].append(sum(marks))
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def test_statistics_are_those_of_every_query_one_by_one(any_model: Transformer, batch: Batch) -> None:
    maps = attention_maps(any_model, batch.src, batch.tgt_in)
    src = [[i for i in row if i] for row in batch.src.tolist()]
    tgt = [[2, *ids[:-1]] for ids in ([i for i in row if i] for row in batch.tgt_out.tolist())]
    rows = head_statistics(any_model, [batch], Pieces())  # type: ignore[arg-type]
    assert len(rows) == 3 * 3 * 2
    for row in rows:
        layers, queries, keys = {
            USES[0]: (maps.encoder, src, src),
            USES[1]: (maps.decoder, tgt, tgt),
            USES[2]: (maps.cross, tgt, src),
        }[row.use]
        weights = list(layers[row.layer - 1][:, row.head - 1])
        expected = by_loops(weights, queries, keys, causal=row.use == USES[1])
        if row.use == USES[1]:
            expected |= {"next": None, "last": None}
        for name, value in expected.items():
            assert getattr(row, name) == pytest.approx(value, abs=1e-9), (row.use, name)


def test_equal_weights_have_the_largest_entropy(make_model: Make, pairs: list[Batch]) -> None:
    model = make_model()
    with torch.no_grad():
        for layer in [*model.encoder.layers, *model.decoder.layers]:
            layer.self_attention.w_q.weight.zero_()
    rows = head_statistics(model, pairs[1:2], Pieces())  # type: ignore[arg-type]
    for row in rows:
        if row.use == USES[2]:
            continue
        assert row.relative_entropy == pytest.approx(1)
        sizes = [3] * 3 if row.use == USES[0] else range(1, 6)
        assert row.entropy == pytest.approx(sum(math.log(n) for n in sizes) / len(sizes))
        assert row.largest == row.diagonal == pytest.approx(sum(1 / n for n in sizes) / len(sizes))


def test_batching_and_padding_do_not_change_the_statistics(make_model: Make, batch: Batch, pairs: list[Batch]) -> None:
    model = make_model()
    for a, b in zip(*(head_statistics(model, x, Pieces()) for x in ([batch], pairs)), strict=True):  # type: ignore[arg-type]
        assert [*vars(a).values()] == [x if isinstance(x, str) else pytest.approx(x) for x in vars(b).values()]


def test_without_a_mark_there_is_no_share_of_marks(make_model: Make, pairs: list[Batch]) -> None:
    rows = head_statistics(make_model(), pairs[2:], Pieces())  # type: ignore[arg-type]
    assert {row.punctuation for row in rows} == {None}


def test_a_mark_is_a_piece_of_punctuation_only() -> None:
    texts = ["\u2581", "\u2581.", "a.", "„“", "\u2581–", "", "3", "+", "</s>"]
    tokenizer: Any = SimpleNamespace(pieces=lambda ids: [texts[i] for i in ids])
    tokenizer = type("T", (), {"__len__": lambda _: len(texts), "pieces": staticmethod(tokenizer.pieces)})()
    assert is_punctuation(tokenizer).tolist() == [False, True, False, True, True, False, False, False, False]

"""Batches of examples are the pairs as training encodes them, padded and shifted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from transformer.data.batching import Batch
from transformer.data.builtin import builtin_pairs
from transformer.errors import DataError
from transformer.inference.translator import Translator
from transformer.inspection.examples import batch_of, example_batches, is_source, is_target


@pytest.fixture(scope="module")
def translator(trained_run: Path) -> Translator:
    return Translator.load(trained_run, device="cpu", precision="fp32", prepack=False)


def rows(batches: list[Batch]) -> list[tuple[list[int], list[int], list[int]]]:
    return sorted(
        (src[src != 0].tolist(), tgt_in[real].tolist(), tgt_out[real].tolist())
        for batch in batches
        for src, tgt_in, tgt_out, real in zip(batch.src, batch.tgt_in, batch.tgt_out, is_target(batch), strict=True)
    )


def test_every_pair_is_in_one_batch_as_it_is_encoded_and_shifted(translator: Translator) -> None:
    sources, targets = zip(*builtin_pairs("test", 23), strict=True)
    batches = example_batches(translator, sources, targets, batch_tokens=97)
    assert len(batches) > 3
    assert all(max(batch.src.numel(), batch.tgt_out.numel()) <= 97 for batch in batches)
    encoded = zip(translator.encode(sources), translator.tokenizer.encode(targets), strict=True)
    assert rows(batches) == sorted((src, [2, *tgt], [*tgt, 3]) for src, tgt in encoded)


def test_pairs_without_text_or_beyond_the_limits_are_left_out(translator: Translator) -> None:
    long = "A man. " * 600
    sources, targets = ["A man.", "", "A man.", long, "A man."], ["Ein Mann.", "x", "", "x", long]
    assert rows(example_batches(translator, sources, targets)) == rows(
        example_batches(translator, ["A man."], ["Ein Mann."])
    )
    with pytest.raises(
        DataError, match=r"^there is no sentence pair to look at: sides are empty or beyond the limits$"
    ):
        example_batches(translator, ["", long], ["x", "x"])


def test_target_positions_are_those_of_the_pieces(batch: Batch) -> None:
    assert_close(is_target(batch), batch.tgt_out != 0)
    assert_close(is_source(batch).sum(1), torch.tensor([7, 3, 4]))
    assert batch.num_tokens == int(is_target(batch).sum()) == 11
    assert batch_of([[5, 3]], [[4, 3]]).tgt_in.tolist() == [[2, 4]]

"""Without a head means that its output is zero, as if its rows of Wᴼ were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from transformer.data.batching import Batch
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError
from transformer.inference.scoring import Scorer
from transformer.inference.significance import paired_bootstrap
from transformer.inference.translator import Translator
from transformer.inspection.ablation import HeadName, ablate_heads, list_heads, without_head
from transformer.inspection.heads import USES
from transformer.model.attention import MultiHeadAttention
from transformer.model.transformer import Transformer

Make = Callable[..., Transformer]


def attention_of(model: Transformer, name: HeadName) -> MultiHeadAttention:
    stack = model.encoder if name.use == USES[0] else model.decoder
    layer = list(stack.layers)[name.layer - 1]
    found = layer.cross_attention if name.use == USES[2] else layer.self_attention
    assert found is not None
    return found


@torch.no_grad()
def test_it_is_as_if_the_heads_part_of_the_output_projection_were_zero(any_model: Transformer, batch: Batch) -> None:
    whole = any_model(batch.src, batch.tgt_in)
    names = list_heads(any_model)
    assert len(names) == len({*names}) == 3 * 3 * 2
    for name in names:
        with without_head(any_model, name):
            found = any_model(batch.src, batch.tgt_in)
        attention = attention_of(any_model, name)
        kept = attention.w_o.weight.clone()
        attention.w_o.weight[:, (name.head - 1) * attention.d_v : name.head * attention.d_v] = 0
        assert_close(found, any_model(batch.src, batch.tgt_in), rtol=0, atol=1e-12)
        attention.w_o.weight.copy_(kept)
        assert not torch.allclose(found, whole)
    assert_close(any_model(batch.src, batch.tgt_in), whole, rtol=0, atol=0)


def test_the_head_is_back_after_an_exception(make_model: Make, batch: Batch) -> None:
    model = make_model()
    whole = model(batch.src, batch.tgt_in)
    with pytest.raises(IndexError), without_head(model, HeadName(USES[0], 1, 1)):
        model(batch.src + 99, batch.tgt_in)
    assert_close(model(batch.src, batch.tgt_in), whole, rtol=0, atol=0)


@pytest.mark.parametrize("name", [HeadName(USES[0], 4, 1), HeadName(USES[1], 1, 3), HeadName(USES[2], 0, 1)])
def test_a_head_that_is_not_there_is_an_error(make_model: Make, name: HeadName) -> None:
    with (
        pytest.raises(ConfigError, match=rf"^{name.use}, layer {name.layer}, head {name.head}: the model has no such"),
        without_head(make_model(), name),
    ):
        pass
    with pytest.raises(ConfigError, match=r"^'self' is not one of the uses of attention: encoder self-attention, "):
        without_head(make_model(), HeadName("self", 1, 1)).__enter__()


def test_scores_are_those_of_the_translations_without_each_head(babbler: Path) -> None:
    translator = Translator.load(babbler, device="cpu", precision="fp32", prepack=False)
    sources, references = zip(*builtin_pairs("test", 11), strict=True)
    names = [HeadName(USES[2], 2, 1), HeadName(USES[0], 1, 2)]
    advances: list[int] = []
    options = {"beam": 1, "max_length_offset": 3}
    found = ablate_heads(translator, sources, [references], heads=names, advance=advances.append, **options)
    whole = translator.translate(sources, beam=1, max_length_offset=3)
    assert (found.bleu, found.sentences) == (Scorer().score(whole, [references])["bleu"].score, 11)
    assert advances == [1, 1]
    for row, name in zip(found.heads, names, strict=True):
        with without_head(translator.model, name):
            translations = translator.translate(sources, beam=1, max_length_offset=3)
        assert (row.use, row.layer, row.head) == (name.use, name.layer, name.head)
        assert row.bleu == Scorer().score(translations, [references])["bleu"].score
        pair = {"a": whole, "b": translations}
        assert row.p == paired_bootstrap(pair, [references], metrics=["bleu"])["bleu"].systems[1].p
        assert row.difference == row.bleu - found.bleu
        assert row.changed == sum(a != b for a, b in zip(whole, translations, strict=True)) / 11
    assert found.heads[0].changed > 0


def test_a_head_that_writes_nothing_changes_nothing(babbler: Path) -> None:
    translator = Translator.load(babbler, device="cpu", precision="fp32", prepack=False)
    name = HeadName(USES[0], 2, 2)
    attention = attention_of(translator.model, name)
    with torch.no_grad():
        attention.w_o.weight[:, attention.d_v :] = 0
    sources, references = zip(*builtin_pairs("test", 5), strict=True)
    found = ablate_heads(translator, sources, [references], heads=[name], beam=1, max_length_offset=3)
    assert (found.heads[0].difference, found.heads[0].changed, found.heads[0].p) == (0, 0, 1)
    with pytest.raises(ConfigError, match="1 systems cannot be compared"):
        ablate_heads(translator, sources, [references], heads=[], beam=1, max_length_offset=3)
    assert len(list_heads(translator.model)) == 2 * 3 * 2

"""Alignments from attention: those of a model that attends where it is told to, and laws of all kinds of models."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.config import SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference.alignment import (
    STEPS,
    align,
    argmax_links,
    attention_weights,
    cross_attention,
    merge_words,
    rows_of,
    split_words,
    word_alignment,
)
from transformer.inference.ensemble import Ensemble
from transformer.inference.forced import PairNotes
from transformer.inference.prepacked import can_prepack
from transformer.inference.score_lines import WordLinks
from transformer.inference.translator import Translator
from transformer.inspection.attention import sentence_attention
from transformer.inspection.recording import attention_maps
from transformer.model.attention import DotProductAttention

PAIRS = list(builtin_pairs("test", 7))
SOURCES, TARGETS = [pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS]


class Diagonal(DotProductAttention):
    """Attends from position i to position i, as long as there is one."""

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        num_queries, num_keys = q.size(2), k.size(2)
        return torch.eye(num_queries, num_keys).expand(q.size(0), q.size(1), -1, -1)


# Laws


def test_weights_are_the_mean_over_heads_of_what_is_recorded_of_the_whole_model(
    make_translator: Any, kind: str
) -> None:
    model = make_translator(kind, torch.float64).model
    src = torch.tensor([[5, 7, 11, EOS_ID], [13, EOS_ID, 0, 0]])
    tgt = torch.tensor([[BOS_ID, 17, 19, 23, 29], [BOS_ID, 31, 37, 0, 0]])
    num_layers = len(model.decoder.layers)
    found = cross_attention(model, src, tgt, [num_layers, 1])
    maps = attention_maps(model, src, tgt).cross
    for weights, expected in zip(found, (maps[-1], maps[0]), strict=True):
        assert_close(weights, expected.mean(dim=1))
        assert_close(weights.sum(dim=2), torch.ones(2, 5, dtype=torch.float64))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_pair_is_aligned_alike_alone_and_in_a_batch(make_translator: Any, kind: str) -> None:
    translator = make_translator(kind)
    for step in STEPS:
        together = word_alignment(translator, SOURCES, TARGETS, step=step, batch_tokens=61)
        alone = [word_alignment(translator, [a], [b], step=step)[0] for a, b in PAIRS]
        # Rounding may decide between words of equal weight.
        both = [links for pair in zip(together, alone, strict=True) for links in zip(*pair, strict=True)]
        differing = sum(one != other for one, other in both)
        assert differing <= 1
        for links, source, target in zip(together, SOURCES, TARGETS, strict=True):
            assert [i for _, i in links] == list(range(len(target.split())))
            assert all(0 <= j < len(source.split()) for j, _ in links)


def test_prepacked_weights_align_alike(make_translator: Any) -> None:
    plain, packed = make_translator("paper"), make_translator("paper")
    if not can_prepack(packed.model.embedding.output_weight):
        pytest.skip("this torch has no such kernels")
    packed.prepack()
    sources, targets = [[5, 7, 11, 13]], [[17, 19, 23]]
    (_, (one,)), (_, (other,)) = (
        next(attention_weights(made.model, sources, targets, [0], [2])) for made in (plain, packed)
    )
    assert_close(one, other)


def test_hooks_are_removed_after_an_error(translator: Translator) -> None:
    with pytest.raises(IndexError):
        cross_attention(translator.model, torch.tensor([[5, 1 << 40]]), torch.tensor([[BOS_ID]]), [1])
    assert not any(module._forward_hooks for module in translator.model.modules())


def test_another_thread_that_uses_the_model_meanwhile_changes_no_weights(translator: Translator) -> None:
    ids = [one.encode([texts[0]])[0] for one, texts in ((translator, SOURCES), (translator.tokenizer, TARGETS))]
    src, tgt = torch.tensor([ids[0]]), torch.tensor([[BOS_ID, *ids[1]]])
    expected = cross_attention(translator.model, src, tgt, [1, 2])
    calls = Counter[str]()

    def meanwhile(*_: Any) -> None:
        """Right after each call of this thread, a call of another."""
        if threading.current_thread() is threading.main_thread():
            calls["of this thread"] += 1
            other = threading.Thread(target=translator.translate, args=(["Two dogs."],), kwargs={"beam": 1})
            other.start()
            other.join()

    layer = translator.model.decoder.layers[1]
    handle = layer.register_forward_hook(meanwhile)
    try:
        found = cross_attention(translator.model, src, tgt, [1, 2])
    finally:
        handle.remove()
    assert calls["of this thread"] == 1
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=0, atol=0)


# By hand


@pytest.mark.parametrize("with_end", [True, False])
def test_the_steps_differ_by_a_position(make_translator: Any, with_end: bool) -> None:
    model = make_translator().model
    for layer in model.decoder.layers:
        layer.cross_attention.attention = Diagonal()
    end = [EOS_ID] * with_end
    src, tgt = [[5, 7, 11, 13, *end], [5, *end], []], [[17, 19, 23, *end], [], [7, *end]]
    # Input t reads piece t - 1 and predicts piece t.
    assert align(model, src, tgt) == [[(0, 0), (1, 1), (2, 2)], [], []]
    assert align(model, src, tgt, step="reading") == [[(1, 0), (2, 1), (3, 2)], [], []]


def test_words_have_the_weights_of_their_first_piece_to_all_pieces_of_a_word() -> None:
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.6, 0.2, 0.1, 0.1], [0.3, 0.3, 0.4, 0.0]])
    src_words: list[Sequence[int]] = [[5], [], [7, 7, 7]]
    merged = merge_words(weights, src_words, [[11, 11], [], [13]])
    assert_close(merged, torch.tensor([[0.1, 0.0, 0.9], [0.0, 0.0, 0.0], [0.3, 0.0, 0.7]]))
    assert argmax_links(merged) == [(2, 0), (2, 2)]
    assert argmax_links(torch.zeros(3, 0)) == []


def test_rows_that_a_model_has_no_positions_for_are_zeros() -> None:
    weights = torch.ones(3, 2)  # of <s> and two of four pieces
    assert_close(rows_of("predicting", weights, 4), torch.tensor([[1.0, 1], [1, 1], [1, 1], [0, 0]]))
    assert_close(rows_of("reading", weights, 4), torch.tensor([[1.0, 1], [1, 1], [0, 0], [0, 0]]))


def test_words_are_split_as_the_text_is(tokenizer: Tokenizer) -> None:
    for text in (*SOURCES, *TARGETS, "  two  wide\tspaces ", ""):
        joined = [id_ for word in split_words(tokenizer, text) for id_ in word]
        assert joined == tokenizer.encode([text])[0]


# Unusual pairs


def test_texts_that_can_be_read_once_are_aligned(translator: Translator) -> None:
    sources, targets = ["A man is sleeping.", "Two dogs."], ["Ein Mann schläft.", "Zwei Hunde."]
    once: Any = (iter(sources), iter(targets))
    assert word_alignment(translator, *once, numbers=iter((7, 9))) == word_alignment(translator, sources, targets)  # type: ignore[arg-type]


def test_empty_sides_have_no_links(translator: Translator) -> None:
    assert word_alignment(translator, ["", SOURCES[0], ""], ["", "", TARGETS[0]]) == [[], [], []]
    assert word_alignment(translator, [], []) == []


def test_a_word_without_pieces_has_no_link(translator: Translator) -> None:
    links = word_alignment(translator, ["A \u200b\x00 man"], ["Ein \u200b Mann"])
    pieces = [bool(word) for word in split_words(translator.tokenizer, "Ein \u200b Mann")]
    assert [i for _, i in links[0]] == [i for i, some in enumerate(pieces) if some]


def test_pairs_that_are_too_long_are_an_error_or_have_no_links(make_translator: Any) -> None:
    translator = make_translator()
    translator.search = SearchConfig(max_source_length=23)
    with pytest.raises(DataError, match=r"^source 5 has "):
        word_alignment(translator, [" ".join(SOURCES)], ["x"], numbers=[5])
    notes = PairNotes()
    found = word_alignment(translator, [" ".join(SOURCES), "A man."], ["x", "x"], too_long="skip", notes=notes)
    assert [len(links) for links in found] == [0, 1]
    assert notes.skipped == [1]


def test_a_translation_that_was_cut_at_the_last_position_is_aligned(make_translator: Any) -> None:
    model = make_translator("learned", max_positions=5).model
    assert len(align(model, [[7, 11, EOS_ID]], [[13, 17, 19, 23, 29]])[0]) == 5


# Arguments


@pytest.mark.parametrize("layer", [0, 3, -1, 1.5])
def test_a_layer_that_does_not_exist_is_an_error(translator: Translator, layer: Any) -> None:
    message = rf"^layer={layer} must be a whole number between 1 and num_decoder_layers=2$"
    with pytest.raises(ConfigError, match=message):
        align(translator.model, [[5]], [[7]], layer=layer)
    with pytest.raises(ConfigError, match=message):
        word_alignment(translator, ["A"], ["B"], layer=layer)


def test_other_arguments_are_checked(translator: Translator) -> None:
    with pytest.raises(ConfigError, match=r"^step='after' must be one of predicting, reading$"):
        align(translator.model, [[5]], [[7]], step="after")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_tokens=0"):
        align(translator.model, [[5]], [[7]], batch_tokens=0)
    with pytest.raises(ValueError, match="1 sources and 0 targets"):
        align(translator.model, [[5]], [])


# Tags and ensembles


def test_a_tag_has_no_link_and_shifts_no_word(make_translator: Any) -> None:
    """Any word can be a tag here, so that the tagged source is also a text."""
    plain, tagged = make_translator(), make_translator()
    tagged.tag, tagged.tags = "We", ("Two", "We")
    source, target = "dogs are sleeping", "Hunde schlafen hier"
    ids = [one.encode([text])[0] for one, text in ((plain.tokenizer, f"We {source}"), (plain.tokenizer, target))]
    ((_, (weights,)),) = attention_weights(plain.model, ids[:1], ids[1:], [0], [2])
    words = [split_words(plain.tokenizer, text) for text in (source, target)]
    num_tag = len(plain.tokenizer.encode(["We"])[0])
    expected = argmax_links(merge_words(rows_of("predicting", weights[:, num_tag:], len(ids[1])), *words))
    assert word_alignment(tagged, [source], [target]) == [expected]
    # A tag in the line is its first word.
    shifted = [(j + 1, i) for j, i in expected]
    assert word_alignment(tagged, [f"We {source}", "Two "], [target, target]) == [shifted, []]


def test_an_ensemble_has_no_attention(translator: Translator) -> None:
    ensemble = Ensemble([translator, translator])
    options: Any = {"layer": None, "step": "predicting", "reverse": False, "too_long": "error", "as_json": False}
    for look in (
        lambda: word_alignment(ensemble, ["A"], ["B"]),
        lambda: WordLinks(ensemble, **options),
        lambda: sentence_attention(ensemble, "A"),
    ):
        with pytest.raises(ConfigError, match=r"^an ensemble of 2 models has no attention: take one of its members$"):
            look()
    assert word_alignment(Ensemble([translator]), SOURCES, TARGETS) == word_alignment(translator, SOURCES, TARGETS)

"""Figures and pages show all weights and pieces, and pages run no other code."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.config import ModelConfig, SearchConfig
from transformer.data.tokenizer import BOS_ID, EOS_ID
from transformer.errors import DataError
from transformer.inference.translator import Translator
from transformer.inspection import attention_maps
from transformer.inspection.attention import Use, as_json, draw, from_json, page, sentence_attention, word_starts, words
from transformer.inspection.canvas import THEMES, theme
from transformer.model.alternatives.build import build_model

SENTENCE = "Two small dogs are playing in the park."
TRANSLATION = "Zwei kleine Hunde spielen im Park."


@pytest.fixture(scope="module")
def translator(trained_run: Path) -> Translator:
    return Translator.load(trained_run, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def uses(translator: Translator) -> list[Use]:
    return sentence_attention(translator, SENTENCE, TRANSLATION)


class Scripts(HTMLParser):
    """The text of script elements, by their id, as a browser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[list[str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.found.append([dict(attrs).get("id"), ""])

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.found[-1][1] = f"{self.found[-1][1]}{data}"


def page_data(text: str) -> dict[str, Any]:
    (data, _) = Scripts(text).found  # and the program
    assert data[0] == "data"
    parsed: dict[str, Any] = json.loads(str(data[1]))
    return parsed


def some_uses(*pieces: str) -> list[Use]:
    weights = torch.rand(2, 3, len(pieces), len(pieces)).softmax(-1)
    return [Use(name, [*pieces], [*pieces], weights) for name in ("a", "b", "c")]


def test_all_maps_of_the_model_are_looked_at(translator: Translator, uses: list[Use]) -> None:
    tokenizer = translator.tokenizer
    src, tgt = (tokenizer.encode([text])[0] for text in (SENTENCE, TRANSLATION))
    source, target = [*tokenizer.pieces(src), "</s>"], ["<s>", *tokenizer.pieces(tgt)]
    maps = attention_maps(translator.model, torch.tensor([[*src, EOS_ID]]), torch.tensor([[BOS_ID, *tgt]]))
    assert [(use.queries, use.keys) for use in uses] == [(source, source), (target, target), (target, source)]
    for use, layers in zip(uses, (maps.encoder, maps.decoder, maps.cross), strict=True):
        torch.testing.assert_close(use.weights, torch.stack([layer[0] for layer in layers]), rtol=0, atol=0)
        assert use.weights.shape == (2, 2, len(use.queries), len(use.keys))


def test_rows_of_weights_sum_to_1(uses: list[Use]) -> None:
    for use in uses:
        torch.testing.assert_close(use.weights.sum(-1), torch.ones(use.weights.shape[:-1]))


def test_the_models_own_translation_is_the_default(translator: Translator) -> None:
    _, decoder, _ = sentence_attention(translator, SENTENCE)
    (translation,) = translator.translate([SENTENCE])
    assert decoder.queries == ["<s>", *translator.tokenizer.pieces(translator.tokenizer.encode([translation])[0])]


def test_a_translation_cut_at_the_last_position_is_shown(translator: Translator) -> None:
    model = build_model(
        len(translator.tokenizer), ModelConfig(d_model=22, num_heads=2, d_ff=29, positional="learned", max_positions=11)
    )
    limited = Translator(model, translator.tokenizer)
    _, decoder, cross = sentence_attention(limited, "We", "Zwei kleine Hunde spielen im Park. Zwei kleine Hunde.")
    assert len(decoder.queries) == len(cross.queries) == 11
    with pytest.raises(DataError, match=r"sentence 1 has .* more than the limit of 3"):
        sentence_attention(Translator(model, translator.tokenizer, SearchConfig(max_source_length=3)), SENTENCE)


@pytest.mark.parametrize(
    ("text", "translation", "message"),
    [
        ("", None, "the sentence is empty: there is nothing to attend to"),
        ("  ", "ein Hund", "the sentence is empty"),
        ("a " * 1031, "", r"sentence 1 has \d{4} pieces, more than the limit of 1024"),
        ("a " * 100, "", "the sentence has 101 pieces; at most 100 can be drawn: shorten it"),
        ("a", "a " * 100, "the translation has 101 pieces; at most 100 can be drawn: shorten it"),
    ],
)
def test_empty_and_too_long_sentences_are_errors(
    translator: Translator, text: str, translation: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        sentence_attention(translator, text, translation)


def test_a_page_holds_exactly_the_pieces_and_weights(uses: list[Use]) -> None:
    data = page_data(page(uses))
    assert [use["name"] for use in data["uses"]] == [use.name for use in uses]
    for shown, use in zip(data["uses"], uses, strict=True):
        assert (shown["queries"], shown["keys"]) == (use.queries, use.keys)
        weights = torch.tensor(shown["weights"])
        torch.testing.assert_close(weights / data["unit"], use.weights, rtol=0, atol=0.5001 / data["unit"])
        assert (weights.sum(-1) - data["unit"]).abs().max() <= len(use.keys) / 2, "but for rounding, rows sum to 1"


@pytest.mark.parametrize(
    "piece",
    ["<script>", "</script><script>alert(1)</script>", "<!--<script>", "<img onerror=alert(1)>", "&lt;", '"'],
)
def test_pieces_are_escaped(piece: str) -> None:
    text = page(some_uses(piece, "a"))
    assert page_data(text)["uses"][2]["keys"] == [piece, "a"]
    if "<" in piece:
        assert piece not in text.replace("<script>\n", "")


def test_a_page_is_self_contained(uses: list[Use]) -> None:
    text = page(uses)
    assert "//" not in re.sub(r"^\s*// .*$|; // .*$", "", text, flags=re.MULTILINE), "an address, but for comments"
    assert not re.search(r"src=|href=|url\(|\b(import|fetch|XMLHttpRequest|innerHTML)\b", text)
    assert "default-src 'none'" in text
    assert "{{" not in text


def test_a_page_has_both_themes(uses: list[Use]) -> None:
    light, dark = page(uses).split("@media (prefers-color-scheme: dark)")
    for text, name in ((light, "light"), (dark.split("}")[0], "dark")):
        background, ink, _, colours = THEMES[name]
        expected = [f"--background: {background};", f"--text: {ink};"]
        assert all(value in text for value in [*expected, *(f"{colour};" for colour in colours)])


def test_json_keeps_pieces_and_weights_to_four_decimals(uses: list[Use]) -> None:
    text = as_json(uses)
    kept = from_json(text)
    assert [use[:3] for use in kept] == [use[:3] for use in uses]
    for use, before in zip(kept, uses, strict=True):
        torch.testing.assert_close(use.weights, before.weights, rtol=0, atol=0.5001e-4)
    assert not re.search(r"\d\.\d{5}", text)
    assert as_json(kept) == text


def test_pieces_are_shown_as_words() -> None:
    pieces = ["<s>", "▁Zwei", "▁Hun", "de", ".", "▁", "</s>"]
    assert words(pieces) == ["<s>", "Zwei", "Hun", "de", ".", "▁", "</s>"]
    assert word_starts(pieces) == [1, 2, 5, 6]
    assert word_starts(["<s>", "也", "▁x"]) == [1, 2]
    assert word_starts(["▁a"]) == []


def test_a_figure_has_every_head_with_its_weights_and_labels(uses: list[Use]) -> None:
    pytest.importorskip("matplotlib")
    figure = draw(uses)
    heads = [axes for axes in figure.axes if axes.get_position().height > 0.02]
    assert len(heads) == 3 * 2 * 2
    for i, axes in enumerate(heads):
        use, layer, head = uses[i // 4], i // 2 % 2, i % 2
        torch.testing.assert_close(torch.tensor(axes.images[0].get_array()), use.weights[layer, head])
        ticks = axes.get_yticklabels(), axes.get_xticklabels()
        rows, columns = ([label.get_text() for label in labels] for labels in ticks)
        assert rows == (words(use.queries) if head == 0 else [])
        assert columns == (words(use.keys) if layer == 1 else [])
        between, across = ([path.vertices[0] for path in lines.get_paths()] for lines in axes.collections)
        assert [y + 0.5 for _, y in between] == word_starts(use.queries)
        assert [x + 0.5 for x, _ in across] == word_starts(use.keys)
        assert axes.get_xlim() == (-0.5, len(use.keys) - 0.5), "lines do not widen the panel"
    texts = [text.get_text() for text in figure.texts]
    assert [texts.count(text) for text in ("query", "key", "attention weight  0", "1")] == [3] * 4
    assert [use.name in texts for use in uses] == [True] * 3


@pytest.mark.parametrize("pieces", [("▁Donaudampfschifffahrt", "W" * 11, "i", "$_$"), ("a",), ["▁piece"] * 30])
def test_labels_and_heads_of_a_figure_do_not_overlap(pieces: Sequence[str]) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with theme():
        figure = draw(some_uses(*pieces))
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [part.get_tightbbox(renderer) for part in (*figure.axes, *figure.texts)]
    whole = figure.bbox
    for i, box in enumerate(boxes):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_a_piece_with_dollar_signs_is_not_a_formula() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw(some_uses("$\\frac$", "a"))
    FigureCanvasAgg(figure).draw()

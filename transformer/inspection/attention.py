"""Attention maps of a sentence, all layers and heads: as a figure, or as an interactive HTML page.

The page also draws them as figures 3 to 5 of the paper do: lines between the words of two columns, heads in colours.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from transformer.data.batching import pad
from transformer.data.tokenizer import BOS_ID
from transformer.errors import DataError
from transformer.inference.translator import Translator
from transformer.inspection.canvas import COLOURS, new_figure
from transformer.inspection.recording import attention_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With the base model, 100 on either side make a page of 5 MB and an image of 200 million pixels.
_MAX_PIECES = 100
# The page has weights as integers, which take half as many characters.
_PAGE_UNIT = 10_000
# Sizes in the figure, in inches; the font's in points.
_PIECE, _CHARACTER, _GAP, _LINE = 0.13, 0.07, 0.1, 0.25
_FONT_SIZE = 7.5


class Use(NamedTuple):
    """One of the three uses of attention (section 3.2.3)."""

    name: str
    queries: list[str]  # the piece of each row
    keys: list[str]  # the piece of each column
    weights: Tensor  # (N, H, rows, columns) float32, on the CPU; rows sum to 1


def sentence_attention(translator: Translator, text: str, translation: str | None = None) -> list[Use]:
    """Attention weights of all three uses for a sentence and a translation, by default the model's own.

    The decoder's pieces are its inputs, <s> first. DataError if a side is empty or too long for the model or a figure.
    """
    if translation is not None:  # checked before weights of its length squared are computed
        _check_number("translation", len(translator.tokenizer.encode([translation])[0]))
    (src,) = translator.encode([text])
    _check_number("sentence", len(src))
    if not src:
        raise DataError("the sentence is empty: there is nothing to attend to")
    if translation is None:
        (translation,) = translator.translate([text])
    tgt = [BOS_ID, *translator.tokenizer.encode([translation])[0]][: translator.model.max_length]
    _check_number("translation", len(tgt))
    device = translator.model.embedding.weight.device
    maps = attention_maps(translator.model, pad([src]).to(device), pad([tgt]).to(device))
    source, target = translator.tokenizer.pieces(src), translator.tokenizer.pieces(tgt)
    return [
        Use(name, queries, keys, torch.cat(layers).float().cpu())
        for name, queries, keys, layers in (
            ("encoder self-attention", source, source, maps.encoder),
            ("decoder self-attention", target, target, maps.decoder),
            ("encoder-decoder attention", target, source, maps.cross),
        )
    ]


def _check_number(name: str, num_pieces: int) -> None:
    if num_pieces > _MAX_PIECES:
        raise DataError(f"the {name} has {num_pieces} pieces; at most {_MAX_PIECES} can be drawn: shorten it")


def page(uses: Sequence[Use]) -> str:
    """A self-contained HTML page: pick use, layer and heads; as a heat map, or as lines between the words."""
    data = {
        "colours": COLOURS,
        "unit": _PAGE_UNIT,
        "uses": [{**use._asdict(), "weights": (use.weights * _PAGE_UNIT).round().int().tolist()} for use in uses],
    }
    # Inside a script element only "<" has to be escaped.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    template = resources.files("transformer.inspection").joinpath("attention.html").read_text(encoding="utf-8")
    return template.replace("{{data}}", text)


def draw(uses: Sequence[Use]) -> Figure:
    """Every head as a heat map, layers from top to bottom, a block per use. ConfigError without matplotlib."""
    blocks = [_Block(use) for use in uses]
    figure = new_figure(max(block.width for block in blocks), sum(block.height for block in blocks))
    figure.set_layout_engine("none")  # blocks place their panels themselves
    top = figure.get_figheight()
    for block in blocks:
        block.draw(figure, top)
        top -= block.height
    return figure


class _Block:
    """The panels of one use, a head each, with all sizes in inches."""

    def __init__(self, use: Use) -> None:
        self.use = use
        self.num_layers, self.num_heads, num_queries, num_keys = use.weights.shape
        # At least as wide and high as its labels, "head 8" and "layer 6".
        self.panel = (max(num_keys * _PIECE, 6 * _CHARACTER), max(num_queries * _PIECE, 6 * _CHARACTER))
        self.left = _LINE + _CHARACTER * max(map(len, use.queries)) + _GAP
        self.above = 2 * _LINE + _GAP
        self.width = self.left + self.num_heads * (self.panel[0] + _GAP) + _GAP
        below = _CHARACTER * max(map(len, use.keys)) + 2 * _GAP
        self.height = self.above + self.num_layers * (self.panel[1] + _GAP) + below

    def draw(self, figure: Figure, top: float) -> None:
        """Draw it with its upper edge `top` inches above the lower edge of the figure."""
        width, height = figure.get_size_inches()
        figure.text(_GAP / width, (top - _GAP) / height, f"{self.use.name} (white: 0, darkest: 1)", va="top")
        # A piece with dollar signs is not a formula.
        labels: dict[str, Any] = {"fontsize": _FONT_SIZE, "parse_math": False}
        for layer, head in itertools.product(range(self.num_layers), range(self.num_heads)):
            x = self.left + head * (self.panel[0] + _GAP)
            y = top - self.above - layer * (self.panel[1] + _GAP) - self.panel[1]
            axes = figure.add_axes((x / width, y / height, self.panel[0] / width, self.panel[1] / height))
            axes.imshow(self.use.weights[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
            axes.set(xticks=[], yticks=[])
            if layer == 0:
                axes.set_title(f"head {head + 1}", fontsize=_FONT_SIZE, pad=3)
            if layer == self.num_layers - 1:
                axes.set_xticks(range(len(self.use.keys)), self.use.keys, rotation=90, **labels)
            if head == 0:
                axes.set_ylabel(f"layer {layer + 1}", fontsize=_FONT_SIZE)
                axes.set_yticks(range(len(self.use.queries)), self.use.queries, **labels)
            axes.tick_params(length=0, pad=2)

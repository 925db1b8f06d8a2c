"""Who attends to whom: the weights of all layers and heads as one figure, or as a page to explore.

The page also draws them as figures 3 to 5 of the paper do: lines between the words of two columns, heads in colours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from transformer.errors import DataError
from transformer.inference.translator import Translator
from transformer.inspection.canvas import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# So many on both sides are a page of 5 MB and an image of 200 million pixels, of the base model.
_MAX_PIECES = 100
# A page holds whole numbers: they take half as many characters.
_PAGE_UNIT = 10_000

# Of the figure, in inches.
_PIECE = 0.13
_CHARACTER = 0.07
_GAP = 0.1
_LINE = 0.25
_FONT_SIZE = 7.5  # points


class Use(NamedTuple):
    """One of the three uses of attention (section 3.2.3)."""

    name: str
    queries: list[str]  # a piece per row
    keys: list[str]  # a piece per column
    weights: Tensor  # (N, H, rows, columns) float32, on the CPU; rows sum to 1


def sentence_attention(translator: Translator, text: str, translation: str | None = None) -> list[Use]:
    """All attention in translating a sentence: within it, within its translation, and from this to that.

    Args:
        translator: whose model is looked at.
        text: a sentence.
        translation: by default the translator's own. The decoder's pieces are those it reads, from <s> on.

    Raises:
        DataError: the sentence is empty or too long for the model, or either of them too long to be drawn.
    """
    if translation is not None:  # before its square is computed
        _check_number("translation", len(translator.tokenizer.encode([translation])[0]))
    source, target, maps = translator.attention(text, translation)
    _check_number("sentence", len(source))
    _check_number("translation", len(target))
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
    """One HTML file that needs no other: pick use, layer and head; as a square, or as lines between the words."""
    data = {
        "colours": COLOURS,
        "unit": _PAGE_UNIT,
        "uses": [{**use._asdict(), "weights": (use.weights * _PAGE_UNIT).round().int().tolist()} for use in uses],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # The data stand in a script element, where only "<" means anything; JSON has another way to write it.
    text = text.replace("<", "\\u003c")
    template = resources.files("transformer.inspection").joinpath("attention.html").read_text(encoding="utf-8")
    return template.replace("{{data}}", text)


def draw(uses: Sequence[Use]) -> Figure:
    """Every head as a rectangle, layers from top to bottom, a block per use. ConfigError without matplotlib."""
    blocks = [_Block(use) for use in uses]
    figure = new_figure(max(block.width for block in blocks), sum(block.height for block in blocks))
    figure.set_layout_engine("none")  # everything has its place already
    top = figure.get_figheight()
    for block in blocks:
        block.draw(figure, top)
        top -= block.height
    return figure


class _Block:
    """Where everything of one use stands, in inches from its upper left corner."""

    def __init__(self, use: Use) -> None:
        self.use = use
        self.num_layers, self.num_heads, num_queries, num_keys = use.weights.shape
        # Not narrower than the words above and beside it.
        self.panel = (max(num_keys * _PIECE, 6 * _CHARACTER), max(num_queries * _PIECE, 6 * _CHARACTER))
        self.left = _LINE + _CHARACTER * max(map(len, use.queries)) + _GAP
        self.above = 2 * _LINE + _GAP
        self.width = self.left + self.num_heads * (self.panel[0] + _GAP) + _GAP
        below = _CHARACTER * max(map(len, use.keys)) + 2 * _GAP
        self.height = self.above + self.num_layers * (self.panel[1] + _GAP) + below

    def draw(self, figure: Figure, top: float) -> None:
        """Draw it with its upper edge `top` inches above the lower edge of the figure."""
        width, height = figure.get_size_inches()
        title = f"{self.use.name} (white: 0, darkest: 1)"
        figure.text(_GAP / width, (top - _GAP) / height, title, va="top")
        for layer in range(self.num_layers):
            for head in range(self.num_heads):
                x = self.left + head * (self.panel[0] + _GAP)
                y = top - self.above - layer * (self.panel[1] + _GAP) - self.panel[1]
                axes = figure.add_axes((x / width, y / height, self.panel[0] / width, self.panel[1] / height))
                self._draw_head(axes, layer, head)

    def _draw_head(self, axes: Axes, layer: int, head: int) -> None:
        axes.imshow(self.use.weights[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set(xticks=[], yticks=[])
        # Pieces are no formulas, whatever dollar signs they have.
        if layer == 0:
            axes.set_title(f"head {head + 1}", fontsize=_FONT_SIZE, pad=3)
        if layer == self.num_layers - 1:
            axes.set_xticks(
                range(len(self.use.keys)), self.use.keys, rotation=90, fontsize=_FONT_SIZE, parse_math=False
            )
        if head == 0:
            axes.set_ylabel(f"layer {layer + 1}", fontsize=_FONT_SIZE)
            axes.set_yticks(range(len(self.use.queries)), self.use.queries, fontsize=_FONT_SIZE, parse_math=False)
        axes.tick_params(length=0, pad=2)

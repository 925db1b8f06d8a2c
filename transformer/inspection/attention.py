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
from transformer.inference.alignment import single_model
from transformer.inference.translator import Translator
from transformer.inspection.canvas import THEMES, colour_map, new_figure
from transformer.inspection.recording import attention_maps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# With the base model, 100 on either side make a page of 5 MB and an image of 200 million pixels.
_MAX_PIECES = 100
# Weights are kept to four decimals; the page has them as integers, which take half as many characters.
_UNIT = 10_000
# Sizes in the figure, in inches; the font's in points.
_PIECE, _LABEL, _GAP, _LINE = 0.135, 0.42, 0.1, 0.25
_HEADER = 4.5  # a block's title and colour bar
_FONT_SIZE = 8
_WORD_START = "\u2581"  # SentencePiece's mark


class Use(NamedTuple):
    """One of the three uses of attention (section 3.2.3)."""

    name: str
    queries: list[str]  # the piece of each row
    keys: list[str]  # the piece of each column
    weights: Tensor  # (N, H, rows, columns) float32, on the CPU; rows sum to 1


def sentence_attention(translator: Translator, text: str, translation: str | None = None) -> list[Use]:
    """Attention weights of all three uses for a sentence and a translation, by default the model's own.

    The decoder's pieces are its inputs, <s> first. DataError if a side is empty or too long for the model or a figure,
    ConfigError for an ensemble.
    """
    model = single_model(translator)
    if translation is not None:  # checked before weights of its length squared are computed
        _check_number("translation", len(translator.tokenizer.encode([translation])[0]))
    (src,) = translator.encode([text])
    _check_number("sentence", len(src))
    if not src:
        raise DataError("the sentence is empty: there is nothing to attend to")
    if translation is None:
        (translation,) = translator.translate([text])
    tgt = [BOS_ID, *translator.tokenizer.encode([translation])[0]][: model.max_length]
    _check_number("translation", len(tgt))
    device = translator.device
    maps = attention_maps(model, pad([src]).to(device), pad([tgt]).to(device))
    source, target = translator.tokenizer.source.pieces(src), translator.tokenizer.pieces(tgt)
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


def as_json(uses: Sequence[Use]) -> str:
    """Pieces and weights, rounded to four decimals."""
    rounded = [((use.weights.cpu().double() * _UNIT).round() / _UNIT).tolist() for use in uses]
    data = [{**use._asdict(), "weights": weights} for use, weights in zip(uses, rounded, strict=True)]
    return json.dumps(data, ensure_ascii=False) + "\n"


def from_json(text: str) -> list[Use]:
    """The uses written by `as_json`."""
    return [Use(**{**use, "weights": torch.tensor(use["weights"])}) for use in json.loads(text)]


def weights_json(uses: Sequence[Use]) -> str:
    """Pieces and weights as a page reads them: weights are integers, in units of 0.0001."""
    shown = [{**use._asdict(), "weights": (use.weights * _UNIT).round().int().tolist()} for use in uses]
    return json.dumps({"unit": _UNIT, "uses": shown}, ensure_ascii=False, separators=(",", ":"))


def page(uses: Sequence[Use]) -> str:
    """A self-contained HTML page: all uses, layers and heads, as lines between words or as matrices."""
    template = resources.files("transformer.inspection").joinpath("attention.html").read_text(encoding="utf-8")
    return fill_page(template, weights_json(uses))


def fill_page(template: str, data: str) -> str:
    """A page with the drawing of attention maps.

    Args:
        template: HTML with `{{style}}` and `{{script}}`, where the drawing goes, and `{{data}}`.
        data: JSON, for a script element.
    """
    directory = resources.files("transformer.inspection")
    files = ("attention.css", "drawing.js", "attention.js")
    style, *scripts = (directory.joinpath(name).read_text(encoding="utf-8") for name in files)
    for name, colours in THEMES.items():
        values = {"background": colours.background, "text": colours.text, "faint": colours.faint}
        values |= {f"colour-{i}": colour for i, colour in enumerate(colours.colours)}
        style = style.replace(f"{{{{{name}}}}}", " ".join(f"--{key}: {value};" for key, value in values.items()))
    # The data comes last, for it may contain anything. Inside a script element only "<" has to be escaped.
    filled = template.replace("{{style}}", style).replace("{{script}}", "\n".join(scripts))
    return filled.replace("{{data}}", data.replace("<", "\\u003c"))


def draw(uses: Sequence[Use]) -> Figure:
    """Every head as a heat map, layers from top to bottom, a block per use. ConfigError without matplotlib."""
    blocks = [_Block(use) for use in uses]
    figure = new_figure(max(block.width for block in blocks), sum(block.height for block in blocks) + _LINE)
    figure.set_layout_engine("none")  # blocks place their panels themselves
    top = figure.get_figheight()
    for block in blocks:
        block.draw(figure, top)
        top -= block.height
    return figure


def words(pieces: Sequence[str]) -> list[str]:
    """The text of pieces, without the marks of word starts."""
    return [piece[1:] if piece.startswith(_WORD_START) and len(piece) > 1 else piece for piece in pieces]


def word_starts(pieces: Sequence[str]) -> list[int]:
    """The indices of pieces that start a word, the first left out; </s> and what follows <s> do."""
    starts = [piece.startswith(_WORD_START) or piece == "</s>" for piece in pieces]
    return [i for i in range(1, len(pieces)) if starts[i] or pieces[i - 1] == "<s>"]


def _widest(labels: Sequence[str]) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=_FONT_SIZE)
    return max(text_to_path.get_text_width_height_descent(label, font, ismath=False)[0] for label in labels) / 72


class _Block:
    """The panels of one use, a head each, with all sizes in inches."""

    def __init__(self, use: Use) -> None:
        self.use = use
        self.num_layers, self.num_heads, num_queries, num_keys = use.weights.shape
        self.queries, self.keys = words(use.queries), words(use.keys)
        # At least as wide and high as its labels, "head 8" and "layer 6".
        self.panel = (max(num_keys * _PIECE, _LABEL), max(num_queries * _PIECE, _LABEL))
        self.left = 2 * _LINE + _widest(self.queries) + _GAP
        self.above = 2 * _LINE + 2 * _GAP
        self.right = self.left + self.num_heads * (self.panel[0] + _GAP) - _GAP
        self.width = max(self.right, _HEADER) + 3 * _GAP
        self.below = _widest(self.keys)
        self.height = self.above + self.num_layers * (self.panel[1] + _GAP) + self.below + _LINE + _GAP

    def draw(self, figure: Figure, top: float) -> None:
        """Draw it with its upper edge `top` inches above the lower edge of the figure."""
        width, height = figure.get_size_inches()
        middle, right = (self.left + self.right) / 2, max(self.right, _HEADER)
        title, bottom = top - _LINE, top - self.height + _GAP
        figure.text(_GAP / width, title / height, self.use.name, size=10, weight="bold", va="center")
        figure.text(middle / width, bottom / height, "key", va="bottom", ha="center")
        rows = (title + bottom + self.below) / 2
        figure.text(1.2 * _GAP / width, rows / height, "query", va="center", ha="left", rotation=90)
        for layer, head in itertools.product(range(self.num_layers), range(self.num_heads)):
            x = self.left + head * (self.panel[0] + _GAP)
            y = top - self.above - layer * (self.panel[1] + _GAP) - self.panel[1]
            axes = figure.add_axes((x / width, y / height, self.panel[0] / width, self.panel[1] / height))
            self._draw_head(axes, layer, head)
        bar = figure.add_axes(((right - 1.0) / width, (title - 0.04) / height, 1.0 / width, 0.08 / height))
        figure.colorbar(axes.images[0], cax=bar, orientation="horizontal", ticks=[])
        for x, text, side in ((right - 1.05, "attention weight  0", "right"), (right + 0.05, "1", "left")):
            figure.text(x / width, title / height, text, size=_FONT_SIZE, va="center_baseline", ha=side)

    def _draw_head(self, axes: Axes, layer: int, head: int) -> None:
        from matplotlib import rcParams

        # A piece with dollar signs is not a formula.
        labels: dict[str, Any] = {"fontsize": _FONT_SIZE, "parse_math": False}
        weights = self.use.weights[layer, head].numpy()
        axes.imshow(weights, cmap=colour_map(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        rows, columns = ([i - 0.5 for i in word_starts(pieces)] for pieces in (self.use.queries, self.use.keys))
        axes.hlines(rows, -0.5, weights.shape[1] - 0.5, rcParams["grid.color"], linewidth=0.5)
        axes.vlines(columns, -0.5, weights.shape[0] - 0.5, rcParams["grid.color"], linewidth=0.5)
        if layer == 0:
            axes.set_title(f"head {head + 1}", fontsize=_FONT_SIZE, pad=3)
        if layer == self.num_layers - 1:
            axes.set_xticks(range(len(self.keys)), self.keys, rotation=90, **labels)
        if head == 0:
            axes.set_ylabel(f"layer {layer + 1}", fontsize=_FONT_SIZE)
            axes.set_yticks(range(len(self.queries)), self.queries, **labels)
        axes.tick_params(length=0, pad=2)

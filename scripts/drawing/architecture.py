"""A drawing of the model (Figure 1 of the paper) with this package's names and shapes, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformer.inspection.canvas import new_figure, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]

# All sizes are in inches, with the origin at the lower left.
_WIDTH, _HEIGHT = 9.4, 8.5
_BOX, _LOW, _WIDE, _GAP = 0.5, 0.32, 1.75, 0.17
_RADIUS, _SKIP = 0.09, 0.2
_INSIDE = 0.3  # from the upper edge of a stack to its first sub-layer
_ENCODER, _DECODER, _DETAIL = 1.6, 4.55, 7.75  # the middle of each column
_FONT, _SMALL = 8.6, 7.4


def draw_architecture() -> Figure:
    """Encoder and decoder, and beside them the insides of their sub-layers."""
    figure = new_figure(_WIDTH, _HEIGHT)
    figure.set_layout_engine("none")
    drawing = _Drawing(figure.add_axes((0, 0, 1, 1)))
    memory = _draw_encoder(drawing)
    _draw_decoder(drawing, memory)
    _draw_details(drawing)
    return figure


class _Drawing:
    """Boxes, sums and arrows on axes in inches."""

    def __init__(self, axes: Axes) -> None:
        from matplotlib import rcParams

        self.axes = axes
        self.ink, self.paper = rcParams["text.color"], rcParams["figure.facecolor"]
        attention, feed_forward, embedding, output, *_ = palette()
        self.colours = {
            "attention": attention,
            "feed_forward": feed_forward,
            "embedding": embedding,
            "output": output,
            "norm": self.ink,
        }
        axes.set(xlim=(0, _WIDTH), ylim=(0, _HEIGHT))
        axes.axis("off")

    def box(self, x: float, top: float, lines: Sequence[str], kind: str, width: float = _WIDE) -> float:
        """A box with its top edge in the middle at (x, top); the first line is a name. Returns the lower edge."""
        from matplotlib.patches import FancyBboxPatch

        height = _LOW if len(lines) == 1 else _BOX if len(lines) == 2 else _BOX + 0.15
        colour = self.colours[kind]
        style = "round,pad=0,rounding_size=0.06"
        for face, edge, alpha in ((self.paper, "none", 1.0), (colour, colour, 0.14), ("none", colour, 1.0)):
            corner = (x - width / 2, top - height)
            self.axes.add_patch(FancyBboxPatch(corner, width, height, style, fc=face, ec=edge, alpha=alpha, lw=1))
        step = 0.155
        for i, line in enumerate(lines):
            y = top - height / 2 + step * ((len(lines) - 1) / 2 - i)
            if i == 0:
                self.text(x, y, line, family="DejaVu Sans Mono", size=_FONT)
            else:
                self.text(x, y, line, size=_SMALL)
        return top - height

    def frame(self, x: float, top: float, width: float, bottom: float, name: str, count: str = "") -> None:
        """A frame around a module, with the name above its upper left corner and a count on the right."""
        from matplotlib.patches import FancyBboxPatch

        style = "round,pad=0,rounding_size=0.1"
        corner = (x - width / 2, bottom)
        self.axes.add_patch(
            FancyBboxPatch(corner, width, top - bottom, style, fc="none", ec=self.ink, alpha=0.55, ls=(0, (4, 2)))
        )
        self.text(x - width / 2 + 0.08, top - 0.13, name, ha="left", size=_FONT, weight="bold")
        if count:
            self.text(x + width / 2 - 0.08, top - 0.13, count, ha="right", size=_FONT, weight="bold")

    def sum(self, x: float, top: float) -> float:
        """A circled plus; returns its lower edge."""
        from matplotlib.patches import Circle

        y = top - _RADIUS
        self.axes.add_patch(Circle((x, y), _RADIUS, fc=self.paper, ec=self.ink, lw=1, zorder=3))
        half = 0.055
        for xs, ys in (((x - half, x + half), (y, y)), ((x, x), (y - half, y + half))):
            self.axes.plot(xs, ys, color=self.ink, linewidth=1, zorder=4)
        return top - 2 * _RADIUS

    def line(self, *points: Point, colour: str) -> None:
        self.axes.plot(*zip(*points, strict=True), color=colour, lw=1, zorder=2, solid_joinstyle="round")

    def arrow(self, *points: Point, colour: str | None = None) -> None:
        """A line through points, whose tip touches the last one."""
        colour = self.ink if colour is None else colour
        (x, y), (end_x, end_y) = points[-2:]
        length, half = 0.08, 0.035
        along = ((end_x > x) - (end_x < x), (end_y > y) - (end_y < y))
        base = (end_x - length * along[0], end_y - length * along[1])
        self.line(*points[:-1], base, colour=colour)
        across = (half * along[1], half * along[0])
        corners = [(base[0] + sign * across[0], base[1] + sign * across[1]) for sign in (1, -1)]
        self.axes.fill(*zip(points[-1], *corners, strict=True), color=colour, lw=0, zorder=3)

    def down(self, x: float, y: float, length: float = _GAP, label: str = "") -> float:
        """An arrow down, with a label on its right; returns the end."""
        self.arrow((x, y), (x, y - length))
        if label:
            self.text(x + 0.07, y - length / 2 + 0.02, label, ha="left", size=_SMALL)
        return y - length

    def text(self, x: float, y: float, text: str, **options: object) -> None:
        place = {"ha": "center", "va": "center_baseline", "zorder": 5, "parse_math": False}
        self.axes.text(x, y, text, **{**place, **options})  # type: ignore[arg-type]


def _draw_input(drawing: _Drawing, x: float, name: str, length: str, positions: str) -> float:
    """Ids, embedding and positions, and the arrow into the stack; returns where it enters."""
    y = _HEIGHT - 0.2
    drawing.text(x, y, f"{name} (B, {length})", family="DejaVu Sans Mono", size=_FONT)
    y = drawing.down(x, y - 0.1, label="token ids")
    y = drawing.box(x, y, ["embedding", "SharedEmbedding: weight[ids] · √D"], "embedding", width=2.1)
    y = drawing.down(x, y)
    plus = y - _RADIUS
    left = x - 1.0
    drawing.text(left - 0.02, plus + 0.085, positions, size=_SMALL, family="DejaVu Sans Mono", ha="center")
    drawing.text(left - 0.02, plus - 0.085, "SinusoidalPositions", size=_SMALL)
    drawing.arrow((x - 0.38, plus), (x - _RADIUS, plus))
    top = drawing.down(x, drawing.sum(x, y), 0.2, label=f"dropout; (B, {length}, D)")
    drawing.line((x, top), (x, top - _INSIDE), colour=drawing.ink)
    return top


def _draw_sub_layer(
    drawing: _Drawing, x: float, y: float, lines: Sequence[str], kind: str, norm: str, *, side: int
) -> float:
    """norm(x + dropout(sub-layer(x))), the residual connection on the left (side -1) or right; returns the end."""
    start = y
    y = drawing.down(x, y, 0.24)
    y = drawing.box(x, y, lines, kind)
    y = drawing.down(x, y, 0.2, label="dropout")
    plus = y - _RADIUS
    edge = x + side * (_WIDE / 2 + _SKIP)
    branch = start - 0.07
    drawing.arrow((x, branch), (edge, branch), (edge, plus), (x + side * _RADIUS, plus))
    y = drawing.sum(x, y)
    y = drawing.down(x, y, 0.12)
    return drawing.box(x, y, [f"{norm}: LayerNorm"], "norm")


def _draw_encoder(drawing: _Drawing) -> Point:
    """The encoder's column; returns the point where the memory leaves it."""
    x = _ENCODER
    top = _draw_input(drawing, x, "src", "S", "source_positions")
    y = top - _INSIDE
    for lines, kind, norm in (
        (["self_attention", "MultiHeadAttention", "mask: padding_mask"], "attention", "norm_1"),
        (["feed_forward", "FeedForward"], "feed_forward", "norm_2"),
    ):
        y = _draw_sub_layer(drawing, x, y, lines, kind, norm, side=-1)
    bottom = y - 0.14
    drawing.frame(x, top, 2.5, bottom, "Encoder", "N × Layer")
    return x, y


def _draw_decoder(drawing: _Drawing, memory: Point) -> None:
    x = _DECODER
    top = _draw_input(drawing, x, "tgt", "T", "target_positions")
    y = top - _INSIDE
    y = _draw_sub_layer(
        drawing, x, y, ["self_attention", "MultiHeadAttention", "mask: causal_mask"], "attention", "norm_1", side=1
    )
    cross = y - 0.24 - (_BOX + 0.15) / 2
    lines = ["cross_attention", "MultiHeadAttention", "mask: padding_mask of src"]
    y = _draw_sub_layer(drawing, x, y, lines, "attention", "norm_cross", side=1)
    y = _draw_sub_layer(drawing, x, y, ["feed_forward", "FeedForward"], "feed_forward", "norm_2", side=1)
    bottom = y - 0.14
    drawing.frame(x, top, 2.5, bottom, "Decoder", "N × Layer")
    # The memory goes down the channel between the columns and up to the attention that reads it.
    channel, low = (_ENCODER + _DECODER) / 2, memory[1] - 0.36
    path = (memory, (memory[0], low), (channel, low), (channel, cross), (x - _WIDE / 2, cross))
    drawing.arrow(*path, colour=drawing.colours["attention"])
    for i, line in enumerate(("memory (B, S, D),", "read by every layer's", "cross_attention")):
        drawing.text(memory[0] + 0.1, low - 0.14 - 0.15 * i, line, ha="left", size=_SMALL + 0.4)
    y = drawing.down(x, y, 0.14 + 0.22)
    drawing.text(x + 0.07, bottom - 0.1, "hidden (B, T, D)", ha="left", size=_SMALL)
    y = drawing.box(x, y, ["logits", "hidden @ embedding.output_weight.T"], "output", width=2.3)
    y = drawing.down(x, y, 0.2)
    drawing.text(x, y - 0.09, "(B, T, V)", family="DejaVu Sans Mono", size=_FONT)
    loss = (x - 2.55, y + 0.2 + _BOX / 2)
    drawing.box(
        loss[0], loss[1] + _BOX / 2, ["linear_cross_entropy", "logits and loss in chunks, in training"], "output", 2.3
    )
    branch = y + 0.2 + _BOX + 0.12
    drawing.arrow((x, branch), (loss[0], branch), (loss[0], loss[1] + _BOX / 2))


def _draw_details(drawing: _Drawing) -> None:
    y = _draw_attention(drawing, _DETAIL, _HEIGHT - 0.2, 2.6)
    _draw_feed_forward(drawing, _DETAIL, y - 0.22, 2.6)
    letters = (
        "B sentences",
        "S, T source and target positions",
        "Q, M queries and keys",
        "D d_model",
        "H num_heads",
        "V vocabulary",
        "N num_layers",
    )
    drawing.text(_WIDTH / 2, 0.2, "    ".join(letters), size=_SMALL + 0.4)


def _draw_attention(drawing: _Drawing, x: float, top: float, wide: float) -> float:
    """Inside MultiHeadAttention; returns the lower edge of its frame."""
    columns = [x - 0.82, x, x + 0.82]
    y = top - 0.36
    drawing.text(columns[0], y, "x (B, Q, D)", size=_SMALL)
    middle = (columns[1] + columns[2]) / 2
    drawing.text(middle, y, "memory (B, M, D)", size=_SMALL)
    y -= 0.09
    fork = y - 0.1
    drawing.arrow((columns[0], y), (columns[0], y - 0.24))
    for column in columns[1:]:
        drawing.arrow((middle, y), (middle, fork), (column, fork), (column, y - 0.24))
    y -= 0.24
    for column, name in zip(columns, ("w_q", "w_k", "w_v"), strict=True):
        drawing.box(column, y, [name, "Linear"], "norm", width=0.68)
    y -= _BOX
    for column, shape in zip(columns, ("(B,H,Q,d_k)", "(B,H,M,d_k)", "(B,H,M,d_v)"), strict=True):
        if column is columns[2]:
            drawing.line((column, y), (column, y - 0.36), colour=drawing.ink)
        else:
            drawing.arrow((column, y), (column, y - 0.58))
        drawing.text(column, y - 0.13, shape, size=_SMALL - 0.6, bbox={"fc": drawing.paper, "ec": "none", "pad": 1})
    y -= 0.36
    scores, width = x - 0.41, 1.6  # the values pass on the right
    inner = y + 0.02
    y = drawing.box(scores, y - 0.22, ["q @ k.mT / √d_k", "scores (B, H, Q, M)"], "attention", width)
    y = drawing.down(scores, y)
    y = drawing.box(
        scores, y, ["masked_softmax", "weights (B, H, Q, M)", "True in mask: may attend"], "attention", width
    )
    y = drawing.down(scores, y)
    drawing.arrow((columns[2], inner), (columns[2], y - _LOW / 2), (scores + width / 2, y - _LOW / 2))
    y = drawing.box(scores, y, ["weights @ v"], "attention", width)
    drawing.frame(x, inner, wide, y - 0.3, "")
    drawing.text(x + wide / 2 - 0.06, y - 0.17, "DotProductAttention", ha="right", size=_FONT - 0.4, weight="bold")
    y = drawing.down(scores, y, 0.56)
    drawing.text(scores + 0.07, y + 0.15, "heads side by side (B, Q, H·d_v)", ha="left", size=_SMALL)
    y = drawing.box(scores, y, ["w_o", "Linear"], "norm", width=0.68)
    y = drawing.down(scores, y, 0.2)
    drawing.text(scores, y - 0.09, "(B, Q, D)", size=_SMALL)
    bottom = y - 0.22
    drawing.frame(x, top + 0.05, wide + 0.2, bottom, "MultiHeadAttention")
    return bottom


def _draw_feed_forward(drawing: _Drawing, x: float, top: float, wide: float) -> None:
    """Inside FeedForward."""
    y = drawing.down(x, top - 0.25, 0.2, label="(…, D)")
    y = drawing.box(x, y, ["w_1", "Linear"], "norm", width=0.9)
    y = drawing.down(x, y, 0.2, label="(…, d_ff)")
    y = drawing.box(x, y, ["relu"], "feed_forward", width=0.9)
    y = drawing.down(x, y, 0.16)
    y = drawing.box(x, y, ["w_2", "Linear"], "norm", width=0.9)
    y = drawing.down(x, y, 0.2, label="(…, D)")
    drawing.frame(x, top, wide + 0.2, y - 0.08, "FeedForward")

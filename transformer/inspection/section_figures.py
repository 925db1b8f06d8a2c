"""The sections of `transformer inspect` as figures, from their data as it stands in JSON.

ConfigError without matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformer.inspection.attention import words
from transformer.inspection.canvas import colour_map, new_figure, palette
from transformer.inspection.heads import USES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Data = Mapping[str, Any]

_PARTS = ("self_attention", "cross_attention", "feed_forward")
_STACKS = ("encoder", "decoder")
_STATISTICS = ("relative_entropy", "largest", "diagonal", "previous", "next", "first", "last", "punctuation")
_MAX_PIECES = 60  # of the sentence that is drawn


def lens(data: Data) -> Figure:
    """Probabilities by layer, and the first choices of every layer in one sentence."""
    example = data["example"]
    number = min(len(example["read"]), _MAX_PIECES)
    figure = new_figure(max(7.0, 1.5 + 0.42 * number), 5.6)
    above, below = figure.subplots(2, 1, height_ratios=[3, 2])
    layers = [depth["layer"] for depth in data["depths"]]
    for of, label in (("final", "the final choice"), ("reference", "the reference"), ("current", "the piece read")):
        above.plot(layers, [depth[of]["probability"] for depth in data["depths"]], marker="o", label=label)
    above.set(xlabel="after layer", ylabel="mean probability of", xticks=layers, ylim=(-0.02, 1.02))
    above.grid()
    above.legend()
    values = [layer["probabilities"][:number] for layer in example["layers"]]
    shown = below.imshow(values, cmap=colour_map(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    _write_choices(below, [words(layer["choices"][:number]) for layer in example["layers"]], values)
    below.set_xticks(range(number), words(example["read"][:number]), rotation=90, parse_math=False)
    below.set(yticks=range(len(values)), ylabel="after layer", xlabel="the decoder reads")
    figure.colorbar(shown, ax=below, label="probability")
    return figure


def stream(data: Data) -> Figure:
    """The size of the state and of the writes by sub-layer, and the shares of the final state."""
    figure = new_figure(9, 6)
    panels = figure.subplots(2, 2, sharex="col")
    for column, stack in enumerate(_STACKS):
        rows = [row for row in data["rows"] if row["stack"] == stack]
        labels = [_short(row) for row in rows]
        places = range(len(rows))
        sizes, shares = panels[0][column], panels[1][column]
        sizes.plot(places, [_or_nan(row["stream"]) for row in rows], marker="o", label="state")
        sizes.bar(places, [row["write"] for row in rows], color=palette()[1], width=0.5, label="write")
        sizes.set(title=stack, ylabel="root mean square")
        sizes.legend()
        shares.bar(places, [row["share"] for row in rows], color=palette()[0], width=0.7)
        shares.set(ylabel="share of the final state")
        shares.set_xticks(places, labels, rotation=90)
        for axes in (sizes, shares):
            axes.grid(axis="y")
            axes.set_axisbelow(True)
    return figure


def gradients(data: Data) -> Figure:
    """Gradient norms by layer, of parameters and of hidden states, on a logarithmic scale."""
    figure = new_figure(9, 3.4)
    for axes, stack in zip(figure.subplots(1, 2, sharey=True), _STACKS, strict=True):
        rows = [row for row in data["layers"] if row["stack"] == stack]
        for part, colour in zip(_PARTS, palette(), strict=False):
            points = [(row["layer"], row["parts"][part]) for row in rows if part in row["parts"]]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", label=part.replace("_", "-"))
        style: dict[str, Any] = {"color": palette()[len(_PARTS)], "linestyle": "--", "marker": "s"}
        axes.plot([row["layer"] for row in rows], [row["state"] for row in rows], label="state x", **style)
        _by_layer(axes, stack, [row["layer"] for row in rows])
        axes.set(ylabel="norm of the gradient", yscale="log")
        axes.legend()
    return figure


def jacobians(data: Data) -> Figure:
    """Largest and root mean square singular values by layer."""
    figure = new_figure(9, 3.4)
    names = {
        "largest": "largest, of the layer",
        "rms": "root mean square, of the layer",
        "largest_from_input": "largest, from the input",
        "rms_from_input": "root mean square, from the input",
    }
    for axes, stack in zip(figure.subplots(1, 2, sharey=True), _STACKS, strict=True):
        rows = [row for row in data["rows"] if row["stack"] == stack]
        for number, (name, label) in enumerate(names.items()):
            style: dict[str, Any] = {"linestyle": "-" if number < 2 else "--", "color": palette()[number % 2]}
            axes.plot([row["layer"] for row in rows], [row[name] for row in rows], marker="o", label=label, **style)
        _by_layer(axes, stack, [row["layer"] for row in rows])
        axes.set(ylabel="singular value", yscale="log")
    axes.legend()
    return figure


def spectra(data: Data) -> Figure:
    """Singular values over the largest, a panel for each kind of matrix, a line for each layer."""
    kinds: dict[str, list[Data]] = {}
    for row in data["rows"]:
        name = row["name"].removesuffix(".weight").split(".")
        kinds.setdefault(".".join(part for part in name if not part.isdigit() and part != "layers"), []).append(row)
    columns = 4
    figure = new_figure(11, 2.2 * (-(-len(kinds) // columns)))
    panels = list(figure.subplots(-(-len(kinds) // columns), columns, sharey=True, squeeze=False).flat)
    for axes in panels[len(kinds) :]:
        axes.remove()
    for axes, (kind, rows) in zip(panels, kinds.items(), strict=False):
        for number, row in enumerate(rows):
            values = [value / (row["largest"] or 1) for value in row["values"]]
            axes.plot([i / len(values) for i in range(len(values))], values, color=palette()[number % len(palette())])
        axes.set_title(kind, fontsize=7)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid()
    figure.supxlabel("place among the singular values")
    figure.supylabel("singular value / largest")
    return figure


def components(data: Data) -> Figure:
    """Variance by the number of components, and all rows along the first two."""
    rows = data["rows"]
    figure = new_figure(3.2 * (len(rows) + 1), 3.2)
    panels = figure.subplots(1, len(rows) + 1)
    for row in rows:
        panels[0].plot(range(1, len(row["cumulative"]) + 1), row["cumulative"], label=row["name"])
    panels[0].set(xlabel="components", ylabel="share of the variance", ylim=(0, 1.02))
    panels[0].grid()
    panels[0].legend()
    for axes, row in zip(panels[1:], rows, strict=True):
        x, y = zip(*row["coordinates"], strict=True)
        colours = range(len(x)) if row["crossings"] else [1] * len(x)
        axes.scatter(x, y, s=4, c=colours, cmap=colour_map(), vmin=-len(x) / 2 if row["crossings"] else 0)
        axes.set(title=row["name"], xlabel="component 1", ylabel="component 2")
    return figure


def heads(data: Data) -> Figure:
    """Every head as a row of shares, a panel for each use of attention."""
    figure = new_figure(11, 1.2 + 0.24 * max(sum(row["use"] == use for row in data["rows"]) for use in USES))
    for axes, use in zip(figure.subplots(1, 3), USES, strict=True):
        rows = [row for row in data["rows"] if row["use"] == use]
        values = [[_or_nan(row[name]) for name in _STATISTICS] for row in rows]
        shown = axes.imshow(values, cmap=colour_map(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(_STATISTICS)), [name.replace("_", " ") for name in _STATISTICS], rotation=90)
        axes.set_yticks(range(len(rows)), [f"{row['layer']}.{row['head']}" for row in rows])
        axes.set(title=use, ylabel="layer.head")
    figure.colorbar(shown, ax=axes)
    return figure


def ablation(data: Data) -> Figure:
    """The difference in BLEU without each head: layers by heads, a panel for each use."""
    figure = new_figure(10, 1.4 + 0.4 * max(row["layer"] for row in data["heads"]))
    limit = max(0.1, *(abs(row["difference"]) for row in data["heads"]))
    for axes, use in zip(figure.subplots(1, 3), USES, strict=True):
        rows = [row for row in data["heads"] if row["use"] == use]
        width = max(row["head"] for row in rows)
        grid = [[row["difference"] for row in rows][start : start + width] for start in range(0, len(rows), width)]
        colours = colour_map(diverging=True)
        shown = axes.imshow(grid, cmap=colours, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        for row in rows:
            axes.text(row["head"] - 1, row["layer"] - 1, f"{row['difference']:+.1f}", ha="center", va="center", size=7)
        axes.set_xticks(range(width), range(1, width + 1))
        axes.set_yticks(range(len(grid)), range(1, len(grid) + 1))
        axes.set(title=use, xlabel="head", ylabel="layer")
    figure.colorbar(shown, ax=axes, label="BLEU")
    return figure


def probe(data: Data) -> Figure:
    """Held-out accuracy by layer, beside that with shuffled senses and that of the more frequent sense."""
    figure = new_figure(6, 3.2)
    axes = figure.subplots()
    places = range(len(data["rows"]))
    for name, label in (("accuracy", "senses"), ("control", "shuffled senses")):
        axes.plot(places, [row[name] for row in data["rows"]], marker="o", label=label)
    axes.axhline(data["majority"], linestyle=":", color=palette()[2], label="always the more frequent")
    axes.set_xticks(places, [row["states"] for row in data["rows"]])
    axes.set(title=data["word"], ylabel="held-out accuracy", ylim=(0, 1.02))
    axes.grid(axis="y")
    axes.legend()
    return figure


FIGURES: dict[str, Callable[[Data], Figure]] = {
    section.__name__: section
    for section in (lens, stream, gradients, jacobians, spectra, components, heads, ablation, probe)
}


def _write_choices(axes: Axes, texts: Sequence[Sequence[str]], values: Sequence[Sequence[float]]) -> None:
    """Texts in the cells of a matrix, readable on its colours."""
    from matplotlib import rcParams

    for row, (line, shades) in enumerate(zip(texts, values, strict=True)):
        for column, (text, shade) in enumerate(zip(line, shades, strict=True)):
            colour = rcParams["figure.facecolor" if shade > 0.35 else "text.color"]
            options: dict[str, Any] = {"ha": "center", "va": "center", "rotation": 90, "size": 6, "color": colour}
            axes.text(column, row, text, parse_math=False, **options)


def _short(row: Data) -> str:
    name = row["name"].replace("_", "-")
    return f"{row['layer']} {name}" if row["layer"] else name


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _by_layer(axes: Axes, title: str, layers: Sequence[int]) -> None:
    axes.set(title=title, xlabel="layer")
    axes.set_xticks(layers)
    axes.grid()

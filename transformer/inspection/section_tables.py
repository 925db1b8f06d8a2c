"""The sections of `transformer inspect` as Markdown tables, from their data as it stands in JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Data = Mapping[str, Any]

_NAMES = {
    "self_attention": "self-attention",
    "cross_attention": "cross-attention",
    "feed_forward": "feed-forward",
    "norm_biases": "biases of the norms",
}
_NO_POSITIONS = "No vectors stand for positions in this model: they enter in attention, or not at all."
_STREAM = {
    True: "Pre-norm: the final state is the sum of these writes, to {error:.1e} of its largest component.",
    False: "Post-norm: the final state is the sum of these writes, each rescaled by the norms behind it, to "
    "{error:.1e} of its largest component.",
}


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, text_columns: int = 1) -> str:
    """A Markdown table; numbers have three digits, and all but the first columns are aligned to the right."""
    lines: list[Sequence[object]] = [header, ["---" if i < text_columns else "---:" for i in range(len(header))]]
    texts = ([cell(value) for value in cells] for cells in [*lines, *rows])
    return "".join(f"|{'|'.join(f' {text} ' if text else ' ' for text in cells)}|\n" for cells in texts)


def cell(value: object) -> str:
    """A value in a table: nothing for None, three digits of a fraction, text with its bars escaped."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 or value == 0 else f"{value:#.3g}".removesuffix(".")
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def lens(data: Data) -> str:
    def rows() -> Iterator[Sequence[object]]:
        for depth in data["depths"]:
            rated = [depth[of][name] for of in ("final", "reference", "current") for name in ("first", "probability")]
            yield (
                depth["layer"],
                *rated,
                depth["final"]["median_rank"],
                depth["nll"],
                depth["divergence"],
                depth["entropy"],
            )

    tokens = ("final choice", "reference", "token read")
    header = [f"{token}: {what}" for token in tokens for what in ("first", "probability")]
    header = ["after layer", *header, "rank of the final choice, median", "NLL", "KL", "entropy"]
    norm = "The norm that ends the stack is applied to every layer.\n\n" if data["is_pre_norm"] else ""
    return f"{norm}{table(header, rows(), text_columns=0)}\n{_reading(data['example'])}"


def _reading(example: Data) -> str:
    """What each depth would choose at each position of a sentence, with the rank that the final choice has there."""
    layers = example["layers"]

    def rows() -> Iterator[Sequence[object]]:
        for position, (read, reference) in enumerate(zip(example["read"], example["reference"], strict=True)):
            found = (f"{layer['choices'][position]} ({layer['final_ranks'][position]})" for layer in layers)
            yield read, *found, reference

    header = ["reads", *(f"after layer {layer['layer']} (rank of the final choice)" for layer in layers), "reference"]
    return f"{example['source']}\n\n{table(header, rows(), text_columns=len(header))}"


def stream(data: Data) -> str:
    def rows() -> Iterator[Sequence[object]]:
        for row in data["rows"]:
            name = _NAMES.get(row["name"], row["name"])
            yield row["stack"], row["layer"] or "", name, row["write"], row["stream"], row["cosine"], row["share"]

    header = ["stack", "layer", "writes", "size of the write", "state behind it", "cosine", "share of the final state"]
    return f"{table(header, rows(), text_columns=3)}\n{_STREAM[data['is_pre_norm']].format(error=data['error'])}\n"


def gradients(data: Data) -> str:
    def rows() -> Iterator[Sequence[object]]:
        for row in data["layers"]:
            parts = [row["parts"].get(name) for name in ("self_attention", "cross_attention", "feed_forward", "norms")]
            yield row["stack"], row["layer"], row["state"], *parts

    header = ["stack", "layer", "∂L/∂x", "self-attention", "cross-attention", "feed-forward", "norms"]
    others = {name: norm for name, norm in data["parameters"].items() if ".layers." not in name}
    lines = "".join(f"{name}: {cell(norm)}\n" for name, norm in others.items())
    total = f"all parameters: {cell(data['total'])}; loss {cell(data['loss'])} per token\n"
    return f"{table(header, rows(), text_columns=2)}\n{lines}{total}"


def jacobians(data: Data) -> str:
    def rows() -> Iterator[Sequence[object]]:
        for row in data["rows"]:
            names = ("largest", "rms", "largest_from_input", "rms_from_input")
            yield row["stack"], row["layer"], *(row[name] for name in names)

    header = ["stack", "layer", "largest", "root mean square", "from the input: largest", "root mean square"]
    return table(header, rows(), text_columns=2)


def spectra(data: Data) -> str:
    def rows() -> Iterator[Sequence[object]]:
        for row in data["rows"]:
            numbers = ("largest", "smallest", "norm", "stable_rank", "effective_rank", "random_effective_rank")
            shape = " × ".join(f"{size:,}" for size in row["shape"])
            yield row["name"].removesuffix(".weight"), shape, *(row[x] for x in numbers), row["for_90_percent"]

    header = [
        "matrix",
        "shape",
        "σ_1",
        "smallest σ",
        "norm",
        "stable rank",
        "effective rank",
        "of a random matrix",
        "90 %",
    ]
    return table(header, rows())


def components(data: Data) -> str:
    def rows() -> Iterator[Sequence[object]]:
        for row in data["rows"]:
            shares = " ".join(f"{share:.3f}" for share in row["shares"][:5])
            size = f"{row['rows']:,} × {row['size']:,}"
            crossings = " ".join(map(str, row["crossings"][:5])) if row["crossings"] else ""
            yield row["name"], size, shares, *row["needed"], row["participation"], row["mean_norm"], crossings

    header = ["", "size", "first shares", "90 %", "95 %", "99 %", "participation", "mean", "sign changes"]
    note = "" if any(row["crossings"] for row in data["rows"]) else f"\n{_NO_POSITIONS}\n"
    return f"{table(header, rows())}{note}"


def heads(data: Data) -> str:
    names = ("entropy", "relative_entropy", "largest", "distance", "diagonal", "previous", "next", "first", "last")

    def rows() -> Iterator[Sequence[object]]:
        for row in data["rows"]:
            yield row["use"], row["layer"], row["head"], *(row[name] for name in (*names, "punctuation"))

    header = ["", "layer", "head", *(name.replace("_", " ") for name in names), "punctuation"]
    return table(header, rows())


def ablation(data: Data) -> str:
    def rows() -> Iterator[Sequence[object]]:
        for row in data["heads"]:
            bleu = (
                f"{row['bleu']:.2f}",
                f"{round(row['difference'], 2) + 0.0:+.2f}",
                f"{row['p']:.3f}",
                f"{row['changed']:.0%}",
            )
            yield row["use"], row["layer"], row["head"], *bleu

    bleu, texts = f"{data['bleu']:.2f} ± {data['ci']:.2f}", f"{data['sentences']:,} sentences, beam {data['beam']}"
    whole = f"Of the whole model: BLEU {bleu} (95 %; {texts})\n\n"
    return whole + table(["without", "layer", "head", "BLEU", "difference", "p", "other translations"], rows())


def probe(data: Data) -> str:
    counts = ", ".join(f"{count} × {sense}" for sense, count in data["counts"].items())
    head = f"{data['word']}: {counts}; always the more frequent: {data['majority']:.3f}\n\n"
    if data["skipped"]:
        what = "is 1 sentence" if data["skipped"] == 1 else f"are {data['skipped']:,} sentences"
        head += f"Left out {what} without the word, repeated or too long.\n\n"
    rows = ((row["states"], row["accuracy"], row["control"]) for row in data["rows"])
    return head + table(["states of the encoder", "held-out accuracy", "with shuffled senses"], rows)


TABLES: dict[str, Callable[[Data], str]] = {
    section.__name__: section
    for section in (lens, stream, gradients, jacobians, spectra, components, heads, ablation, probe)
}

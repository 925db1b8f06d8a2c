"""The tables of docs/results, a function each, by the names of their places in the documents."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ablation.report import table as ablation_table
from benchmarking.peers import table as peers_table
from engines import markdown as engines_markdown
from finetuning import markdown
from norm_depth import initial_table, trained_table

from transformer.inspection.section_tables import TABLES
from transformer.inspection.sections import CHEAP
from transformer.progress import duration
from transformer.training.display import metric_parts
from transformer.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
# Of what the quickstart prints; the configuration and the progress are left out.
_QUICKSTART_LINES = (
    r"(parameters|peak learning rate|training pairs|validation pairs|device|step \d+|best checkpoint|time): "
    r"|.* on builtin test|BLEU|chrF2"
)

# Of `benchmark.py data`.
_STAGES = {
    "fingerprint": "fingerprint the corpus",
    "tokenizer": "train the tokenizer",
    "encode": "encode",
    "plan": "plan an epoch",
    "start": "program start to first update, all cached",
}

# Of each layer: sequential operations in Table 1, the longest path as a formula, the longest path in Table 1.
_TABLE_1 = {
    "self-attention": ("O(1)", "1", "O(1)"),
    "recurrent": ("O(n)", "n", "O(n)"),
    "convolutional": ("O(1)", "⌈log_k n⌉", "O(log_k n)"),
    "contiguous": ("O(1)", "⌈(n − 1) / (k − 1)⌉", "O(n/k)"),
    "separable": ("O(1)", "⌈log_k n⌉", "O(log_k n)"),
    "restricted": ("O(1)", "⌈2 (n − 1) / (r − 1)⌉", "O(n/r)"),
}


def table(header: Sequence[str], rows: Iterator[Sequence[Any]], *, text_columns: int = 1) -> str:
    """A Markdown table; all but the first columns are aligned to the right."""
    lines = [header, ["---" if i < text_columns else "---:" for i in range(len(header))], *rows]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines).replace("|  |", "| |")


def load(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def quickstart() -> str:
    lines = (RESULTS / "quickstart" / "output.txt").read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if re.match(_QUICKSTART_LINES, line)]
    return "\n".join(["```", *shown, lines[-1], "```", ""])


def training_lines() -> str:
    """What the quickstart shows before and at its first validation."""
    records = read_metrics(RESULTS / "quickstart")
    at = next(number for number, record in enumerate(records) if record["kind"] == "validation")
    step, values = records[at - 1]["step"], records[at - 1]
    left = values["elapsed_s"] / step * (records[-1]["step"] - step)
    parts = [f"step {step}", *(part.text for part in metric_parts(values)), f"{duration(left)} left"]
    output = (RESULTS / "quickstart" / "output.txt").read_text(encoding="utf-8")
    validation = next(line for line in output.splitlines() if line.startswith("step "))
    return "\n".join(["```", "  ".join(parts), validation, "```", ""])


def alignment() -> str:
    rates = load("quickstart/alignment.json")["aer"]
    rows = ([layer, *(f"{rate:.3f}" for rate in row)] for layer, row in enumerate(zip(*rates.values(), strict=True), 1))
    return table(["layer", *rates], rows, text_columns=0)


def multi30k() -> str:
    def rows() -> Iterator[Sequence[Any]]:
        for split in ("test_2016_flickr", "val"):
            for alpha in (1.0, 1.5, 2.0):
                kept = load(f"multi30k_tiny/{split}_alpha_{alpha:g}.json")
                bleu = f"{kept['bleu']:.2f}"
                is_reported = (split, alpha) == ("test_2016_flickr", 1.5)
                yield split, kept["sentences"], kept["beam"], f"{alpha:g}", f"**{bleu}**" if is_reported else bleu

    return table(["split", "sentences", "beam", "α", "BLEU"], rows())


def multi30k_curve() -> str:
    records = [record for record in read_metrics(RESULTS / "multi30k_tiny") if record["kind"] == "validation"]

    def rows() -> Iterator[Sequence[Any]]:
        for record in records[1::2]:
            yield f"{record['step']:,}", f"{record['nll']:.3f}", f"{record['ppl']:.2f}", f"{record['bleu']:.1f}"

    return table(["update", "validation NLL", "perplexity", "greedy BLEU"], rows(), text_columns=0)


def engines() -> str:
    """Runs beside their exports."""
    reports = [load(f"engines/{path.name}") for path in sorted(RESULTS.glob("engines/*.json"))]
    return "\n\n".join(map(engines_markdown, reports)) + "\n"


def batching() -> str:
    found = {
        name: {one["step"]: one for one in read_metrics(RESULTS / "batching" / name) if one["kind"] == "validation"}
        for name in ("mixed_1", "mixed_2", "bucketed_1", "bucketed_2")
    }

    def rows() -> Iterator[Sequence[Any]]:
        for step in sorted(found["mixed_1"])[1::2]:
            records = [records[step] for records in found.values()]
            yield f"{step:,}", *(f"{record['nll']:.3f}, {record['bleu']:.1f}" for record in records)

    header = [f"{kind}, seed {seed}" for kind in ("mixed", "bucketed") for seed in (1, 2)]
    return table(["update", *header], rows(), text_columns=0)


def multi30k_seeds() -> str:
    return compared("multi30k_seeds.json")


def multi30k_half() -> str:
    return compared("multi30k_half.json")


def compared(name: str) -> str:
    """The systems of a `transformer compare --json`."""

    def rows() -> Iterator[Sequence[Any]]:
        for system in load(name)["systems"]:
            bleu, chrf = system["bleu"], f"{system['chrf']['score']:.2f}"
            against = (f"{bleu['difference']:+.2f}", f"{bleu['p']:.3f}") if "p" in bleu else ("", "")
            yield system["name"], f"{bleu['score']:.2f}", f"± {bleu['ci']:.2f}", *against, chrf

    return table(["system", "BLEU", "95 %", "difference", "p", "chrF"], rows())


def finetuning() -> str:
    return f"{markdown(load('finetuning.json'))}\n"


def table3() -> str:
    return ablation_table(load("table3.json"))


def scaling() -> str:
    def rows() -> Iterator[Sequence[Any]]:
        for against in ("length", "d_model", "batch", "beam", "threads"):
            kept = load(f"scaling_{against}.json")
            sizes = [point["size"] for point in kept["points"]]
            for number, curve in enumerate(kept["exponents"]):
                first = (against, f"{min(sizes):,} to {max(sizes):,}") if number == 0 else ("", "")
                names = ("measured", "predicted", "measured_at_the_end", "predicted_at_the_end")
                yield *first, curve["of"], *(f"{curve[name]:.2f}" for name in names)

    header = ["against", "sizes", "of", "measured", "predicted", "at the end", "predicted"]
    return table(header, rows(), text_columns=3)


def table1() -> str:
    kept = load("table1.json")
    curves = [{curve["of"]: curve for curve in kept[f"against_{letters}"]["exponents"]} for letters in ("n", "d", "rk")]

    def rows() -> Iterator[Sequence[Any]]:
        for name in curves[0]:
            cells: list[str] = []
            for of_letters in curves:
                curve = of_letters.get(name)
                measured = curve and f"{curve['measured']:.2f} / {curve['measured_at_the_end']:.2f}"
                cells += [measured or "", f"{curve['predicted']:.2f}" if curve else ""]
            yield name, *cells

    ranges = (f"{sorted({point['size'] for point in kept[f'against_{x}']['points']})}" for x in ("n", "d", "rk"))
    (n, d, rk) = (re.sub(r"\[(\d+), .*?(\d+)\]", r"\1 to \2", sizes) for sizes in ranges)
    return table(
        ["", f"against n, {n}", "Table 1", f"against d, {d}", "Table 1", f"against r or k, {rk}", "Table 1"], rows()
    )


def table1_paths() -> str:
    counted = load("table1.json")["counted"]

    def rows() -> Iterator[Sequence[Any]]:
        for short, long in zip(counted[::2], counted[1::2], strict=True):
            sequential, path = (f"{short[name]:,} / {long[name]:,}" for name in ("sequential", "path"))
            order, formula, path_order = _TABLE_1[short["of"]]
            yield short["of"], sequential, order, path, formula, path_order

    lengths = f"n = {counted[0]['n']} / {counted[1]['n']}"
    names = (f"sequential operations, {lengths}", "Table 1", f"longest path, {lengths}", "as a formula", "Table 1")
    return table(["", *names], rows())


def training_ceiling() -> str:
    def rows() -> Iterator[Sequence[Any]]:
        for size in ("small", "base"):
            for precision in ("bf16", "fp32"):
                kept = load(f"training/{size}_{precision}.json")
                speeds = (f"{kept[name]:,.0f}" for name in ("tokens_per_s", "peak_tokens_per_s"))
                share, memory = f"{kept['fraction_of_peak']:.0%}", f"{kept['peak_memory_gib']:.2f}"
                yield size, kept["precision"], *speeds, share, memory

    header = ["", "precision", "tokens/s", "if products were all, tokens/s", "share", "peak memory, GiB"]
    return table(header, rows(), text_columns=2)


def loss() -> str:
    def rows() -> Iterator[Sequence[Any]]:
        for row in load("loss.json")["losses"]:
            sizes = (f"{row[name]:,}" for name in ("vocab_size", "d_model", "tokens"))
            yield row["precision"], *sizes, *(f"{row[name]:,.0f}" for name in ("ms", "torch_ms")), f"{row['ratio']:.2f}"

    return table(["precision", "vocabulary", "d_model", "tokens", "ms", "torch, ms", "ratio"], rows())


def data_at_scale() -> str:
    kept = load("data_at_scale.json")
    sizes = sorted({row["pairs"] for row in kept["stages"]})
    tenth, whole = ({row["stage"]: row for row in kept["stages"] if row["pairs"] == size} for size in sizes)

    def rows() -> Iterator[Sequence[Any]]:
        for stage, row in ((stage, whole[stage]) for stage in _STAGES):
            speed = f"{row['pairs'] / row['cpu_seconds']:,.0f}"
            memory = f"{tenth[stage]['peak_memory_mib']:,.0f} and {row['peak_memory_mib']:,.0f} MiB"
            yield _STAGES[stage], f"{row['seconds']:.1f}", "" if stage == "start" else speed, memory

    less, more = (f"{number / 1e6:g}" for number in sizes)
    header = ["stage", "seconds", "pairs per CPU second", f"peak memory at {less} and {more} million pairs"]
    return table(header, rows())


def peers_training() -> str:
    return _peers("peers.json", peers_table.training, peers_table.training_ratios)


def peers_decoding() -> str:
    return _peers("peers.json", peers_table.decoding, peers_table.decoding_ratios)


def peers_single() -> str:
    return _peers("peers_single.json", peers_table.decoding, peers_table.decoding_ratios)


def _peers(name: str, rows_of: Callable[[Any], peers_table.Table], ratios_of: Callable[[Any], Iterator[str]]) -> str:
    """A comparison by toolkit, from a `benchmark.py peers --json`."""
    kept = load(name)
    header, rows = rows_of(kept)
    return "\n".join([peers_table.machine(kept), table(header, iter(rows)), "".join(ratios_of(kept))])


def marian() -> str:
    kept = load("marian.json")
    base = {row["beam"]: row for row in kept["rows"] if row["engine"] == "transformers"}

    def rows() -> Iterator[Sequence[Any]]:
        for row in kept["rows"]:
            title = f"{row['title']}, {peers_table.PRECISIONS[row['precision']]}"
            against = peers_table.times(row, base[row["beam"]]) if row["beam"] in base else ""
            memory = f"{row['peak_memory_gib']:.1f}"
            yield title, row["beam"], peers_table.figure(row), "" if row in base.values() else against, memory

    header = ["", "beam", "sentences/s", "against Hugging Face", "peak memory, GiB"]
    return "\n".join([peers_table.machine(kept), table(header, rows())])


def norm_depth_initial() -> str:
    return initial_table(load("norm_depth.json")["initial"])


def norm_depth_trained() -> str:
    return trained_table(load("norm_depth.json")["trained"])


def inspection(file: str, section: str) -> str:
    """A section of a `transformer inspect --json`."""
    return TABLES[section](load(f"inspection/{file}.json")[section])


def example(name: str) -> str:
    """What an example printed, as it is kept."""
    return f"\n{(RESULTS / 'examples' / f'{name}.md').read_text(encoding='utf-8')}\n"


BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__: block
    for block in (
        quickstart,
        training_lines,
        alignment,
        multi30k,
        multi30k_curve,
        batching,
        multi30k_seeds,
        multi30k_half,
        finetuning,
        table3,
        scaling,
        table1,
        table1_paths,
        peers_training,
        peers_decoding,
        peers_single,
        training_ceiling,
        loss,
        data_at_scale,
        marian,
        norm_depth_initial,
        norm_depth_trained,
        engines,
    )
} | {
    f"inspection_{file if section == 'probe' else section}": functools.partial(inspection, file, section)
    for file, section in (
        *(("layers", section) for section in CHEAP),
        *(("ablation", "ablation"), ("probe_looking", "probe"), ("probe_eating", "probe")),
    )
}
BLOCKS |= {
    f"examples/{path.stem}": functools.partial(example, path.stem) for path in sorted(RESULTS.glob("examples/*.md"))
}

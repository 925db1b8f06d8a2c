"""Results beside those of the paper, as a Markdown table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablation.rows import PUBLISHED, Published, sort_key
from ablation.runs import Result
from transformer.config import Config
from transformer.training.run_keys import FREE_KEYS, yaml_value

BASE = "base"


def _with_sd(mean: float, sd: float | None) -> str:
    return f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")


@dataclass(frozen=True)
class Spread:
    """A score over seeds: mean and standard deviation."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The sample standard deviation; None for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        return _with_sd(self.mean, self.sd)


@dataclass(frozen=True)
class Row:
    """The results of one row, all seeds, and the published ones, if any."""

    name: str
    results: tuple[Result, ...]

    @property
    def ppl(self) -> Spread:
        return Spread(tuple(result.ppl for result in self.results))

    @property
    def bleu(self) -> Spread:
        return Spread(tuple(result.bleu for result in self.results))

    @property
    def published(self) -> Published | None:
        return PUBLISHED.get(self.name)


def as_rows(results: Sequence[Result]) -> list[Row]:
    """Group results by row, in the paper's order."""
    names = sorted({result.row for result in results}, key=sort_key)
    return [Row(name, tuple(result for result in results if result.row == name)) for name in names]


def noise(base: Spread, number: int) -> float | None:
    """Two standard errors of the difference between `base` and a mean over `number` seeds.

    Uses the standard deviation of the base row; None if it has a single seed.
    """
    return None if base.sd is None else two_standard_errors(base.sd, len(base.values), number)


def two_standard_errors(sd: float, number: int, other: int) -> float:
    """Of the difference between two means over so many seeds, with the same standard deviation."""
    return 2 * sd * math.sqrt(1 / number + 1 / other)


def verdict(here: float, published: float | None, limit: float | None, *, better: int) -> str:
    """Whether a row and the base row are ordered as in the paper.

    Args:
        here: the row minus the base row.
        published: the same in the paper; None if the paper has no such row.
        limit: differences up to this are noise; None if unknown.
        better: 1 where more is better, -1 where less is.
    """
    is_noise = limit is not None and abs(here) <= limit
    if published == 0:
        return "equal in the paper" if limit is None else "holds" if is_noise else "differs"
    if is_noise:
        return "within noise"
    if here == 0:
        return "equal"
    if published is None:
        return "better" if here * better > 0 else "worse"
    return "holds" if here * published > 0 else "reversed"


def markdown(rows: Sequence[Row]) -> str:
    """The table, followed by counts of verdicts, the noise level and the BLEU signature."""
    found = records(rows)
    base = next((record for record in found if record["row"] == BASE), None)
    others = [record for record in found if record is not base and record["paper_ppl"] is not None]
    orders = [] if base is None else [_verdicts(record, base) for record in others]
    verdicts = {name: [order[i] for order in orders] for i, name in enumerate(("PPL", "BLEU"))}
    for row, record in zip(rows, found, strict=True):
        record["updates"] = "/".join(str(steps) for steps in sorted({result.steps for result in row.results}))
    return "\n".join([table(found), *_notes(rows, base_row(rows), verdicts)])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown table of `records`."""
    base = next((row for row in rows if row["row"] == BASE), None)
    lines = [
        "| row | differs from base in | params ×10⁶ | updates | min | PPL | BLEU | paper: PPL | BLEU | params ×10⁶ "
        "| PPL against base | BLEU against base |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in rows:
        paper = ["", "", ""]
        if row["paper_ppl"] is not None:
            paper = [f"{row['paper_ppl']:.2f}", f"{row['paper_bleu']:.1f}", str(row["paper_parameters"])]
        cells = [
            *(row["row"], row["differs_in"], f"{row['parameters']:.2f}", str(row["updates"]), f"{row['minutes']:.1f}"),
            *(_with_sd(row[score], row[f"{score}_sd"]) for score in ("ppl", "bleu")),
            *paper,
            *(("", "") if base is None or row is base else _verdicts(row, base)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def base_row(rows: Sequence[Row]) -> Row | None:
    """The row that all others are compared with, if it has a result."""
    return next((row for row in rows if row.name == BASE), None)


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The numbers of the table, for JSON; parameters are in millions."""
    base = base_row(rows)
    return [
        {
            "row": row.name,
            "differs_in": "" if base is None else _differences(row, base),
            "parameters": row.results[0].parameters / 1e6,
            "updates": max(result.steps for result in row.results),
            "minutes": statistics.fmean(result.minutes for result in row.results),
            "seeds": len(row.results),
            "ppl": row.ppl.mean,
            "ppl_sd": row.ppl.sd,
            "bleu": row.bleu.mean,
            "bleu_sd": row.bleu.sd,
            "paper_ppl": None if row.published is None else row.published.ppl,
            "paper_bleu": None if row.published is None else row.published.bleu,
            "paper_parameters": None if row.published is None else _millions(row.published),
        }
        for row in rows
    ]


def _millions(paper: Published) -> int | None:
    return PUBLISHED[BASE].millions if paper.millions is None else paper.millions


def _verdicts(row: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Of PPL and BLEU, for rows of `records`."""
    found = []
    for score, better in (("ppl", -1), ("bleu", 1)):
        there, sd = row[f"paper_{score}"], base[f"{score}_sd"]
        published = None if there is None else there - base[f"paper_{score}"]
        limit = None if sd is None else two_standard_errors(sd, base["seeds"], row["seeds"])
        found.append(verdict(row[score] - base[score], published, limit, better=better))
    return found


def _differences(row: Row, base: Row) -> str:
    """Keys that affect the result and differ from the base row, with their values."""
    before, now = map(_with_defaults, (base, row))
    keys = [key for key in now if key.startswith("search.") or (key not in FREE_KEYS and key != "seed")]
    return ", ".join(f"{key.split('.')[-1]} {yaml_value(now[key])}" for key in keys if now[key] != before.get(key))


def _with_defaults(row: Row) -> dict[str, Any]:
    """The configuration of a row's first run; keys that are newer than the run have their defaults."""
    return {**Config().flat(), **row.results[0].config}


def _notes(rows: Sequence[Row], base: Row | None, verdicts: dict[str, list[str]]) -> list[str]:
    notes = []
    if base is None:
        notes.append("The base row has no result yet, so there is nothing to compare with.")
    else:
        config = _with_defaults(base)
        shape = {"N": "num_layers", "d_model": "d_model", "d_ff": "d_ff", "h": "num_heads"}
        sizes = ", ".join(f"{symbol} {config[f'model.{name}']}" for symbol, name in shape.items())
        notes.append(
            f"Base: {sizes}, vocabulary {config['data.vocab_size']}, {config['train.tokens_per_update']} target tokens "
            f"an update; {config['data.validation_split']} of {config['data.corpus']}, beam {config['search.beam']}, "
            f"alpha {config['search.alpha']}, no averaging of checkpoints."
        )
        number = len(base.results)
        if number > 1:
            notes.append(
                f"±: standard deviation over seeds. Noise: up to {noise(base.ppl, 1):.2f} PPL and "
                f"{noise(base.bleu, 1):.2f} BLEU between one run and the mean of the {number} of base "
                "(two standard errors)."
            )
        else:
            notes.append("The noise level is unknown: the base row has a single seed.")
        for name, orders in verdicts.items():
            counts = {order: orders.count(order) for order in dict.fromkeys(sorted(orders))}
            notes.append(
                f"{name} against base, of {len(orders)} rows of the paper: "
                + (", ".join(f"{count} {order}" for order, count in counts.items()) or "none yet")
                + "."
            )
    signatures = sorted({result.signature for row in rows for result in row.results})
    notes.append(f"BLEU: {' and '.join(signatures)}{'; not comparable' if len(signatures) > 1 else ''}")
    return notes

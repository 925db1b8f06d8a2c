"""Reports of measurements, as text and as JSON with the same numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from transformer.config import ModelConfig
from transformer.model.transformer import Transformer

# Maps names to numbers, strings, nested reports or rows, which are a list of mappings with the same keys.
Report = Mapping[str, Any]
_SIGNIFICANT_DIGITS = 5


def rounded(value: Any) -> Any:
    """The report with floats rounded to a few significant digits."""
    if isinstance(value, Mapping):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def as_json(report: Report | Sequence[Report]) -> str:
    """One line of JSON."""
    return json.dumps(rounded(report), ensure_ascii=False)


def as_text(report: Report) -> str:
    """A line per number with dotted names, then a table for each list of rows."""
    scalars, tables = _split(rounded(report))
    width = max(map(len, scalars), default=0)
    blocks = ["\n".join(f"{name:{width}}  {_show(value)}" for name, value in scalars.items())] if scalars else []
    blocks += [f"{name}\n{_table(rows)}" for name, rows in tables.items()]
    return "\n\n".join(blocks)


def describe_model(options: ModelConfig, model: Transformer) -> Report:
    """The sizes of the measured model."""
    return {
        "model": f"d_model {options.d_model}, {options.num_heads} heads, d_ff {options.d_ff}, "
        f"{options.num_layers} layers",
        "vocab_size": len(model.embedding.output_weight),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def dtype_name(dtype: torch.dtype) -> str:
    """Such as bfloat16."""
    return str(dtype).removeprefix("torch.")


def _split(report: Report, prefix: str = "") -> tuple[dict[str, Any], dict[str, list[Mapping[str, Any]]]]:
    scalars: dict[str, Any] = {}
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for name, value in report.items():
        if isinstance(value, Mapping):
            nested, below = _split(value, f"{prefix}{name}.")
            scalars |= nested
            tables |= below
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables[f"{prefix}{name}"] = value
        else:
            scalars[f"{prefix}{name}"] = value
    return scalars, tables


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [list(rows[0]), *([_show(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(_line(line, widths) for line in cells)


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(_show, value))
    if isinstance(value, float):
        return f"{value:,.10g}"
    return f"{value:,}" if type(value) is int else str(value)

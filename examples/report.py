"""What the examples print: a table in Markdown, and below it what it took."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]], *, text_columns: int = 1) -> None:
    """Print a Markdown table; all but the first columns are aligned to the right.

    Args:
        rows: their cells as they are to be read; bars in them are escaped.
        text_columns: how many columns are aligned to the left.
    """
    rule = ["---" if column < text_columns else "---:" for column in range(len(header))]
    for cells in (header, rule, *rows):
        print("|", " | ".join(str(cell).replace("|", r"\|") for cell in cells), "|")
    print()


def print_end(seconds: float, *models: nn.Module) -> None:
    """Print the last line: parameters of each model, seconds, processor, threads."""
    counts = " and ".join(f"{count_parameters(model):,}" for model in models)
    threads = torch.get_num_threads()
    size = f"{counts} parameters; " if models else ""
    print(f"{size}{seconds:.0f} s on {processor()}, {threads} thread{'s' if threads > 1 else ''}")


def count_parameters(model: nn.Module) -> int:
    """The number of weights; one that is used twice counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the processor; where Linux does not tell, its architecture."""
    try:
        found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()

"""What the examples print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report
import torch
from markdown_it import MarkdownIt
from torch import nn


def test_a_table_is_markdown_whatever_is_in_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_table(["", "text", "number"], [["a", "x | y", 3], ["b", "||", 0.5]], text_columns=2)
    html = MarkdownIt("commonmark").enable("table").render(capsys.readouterr().out)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in html.split("<tr>")[2:]]
    assert cells == [["a", "x | y", "3"], ["b", "||", "0.5"]]
    assert html.count("text-align:right") == 3, "the last column, with its header"


def test_the_last_line_has_sizes_time_processor_and_threads(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_end(61.6, nn.Linear(30, 50), nn.Linear(2, 3, bias=False))
    report.print_end(0.4)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"1,550 and 6 parameters; 62 s on {second.removeprefix('0 s on ')}"
    assert re.fullmatch(rf"0 s on .+, {torch.get_num_threads()} threads?", second)


def test_a_shared_weight_counts_once() -> None:
    layer = nn.Linear(5, 7, bias=False)
    assert report.count_parameters(nn.ModuleList([layer, layer])) == 35


def test_the_processor_has_a_name_also_where_linux_does_not_tell(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t: fpu\n")
    assert report.processor(told) == "Some CPU @ 3 GHz"
    assert report.processor(tmp_path / "missing")

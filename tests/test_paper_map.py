"""docs/PAPER.md names symbols, tests, configurations, keys and commands: each must exist."""

from __future__ import annotations

import re

import pytest
from documented import ROOT
from named import problems, table_rows

PAGE = (ROOT / "docs" / "PAPER.md").read_text(encoding="utf-8")
CHECKED_COLUMNS = ("Code", "Test", "Key", "Run")
CLAIMS = (
    *(f"§3.{n}" for n in range(1, 6)),
    "§4",
    *(f"§5.{n}" for n in range(1, 5)),
    *(f"§6.{n}" for n in range(1, 4)),
    *(f"Eq. {n}" for n in range(1, 4)),
    *(f"Table {n}" for n in range(1, 5)),
    *(f"Fig. {n}" for n in range(1, 6)),
)


def test_every_name_on_the_page_exists() -> None:
    assert problems(PAGE, CHECKED_COLUMNS) == []


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_part_of_the_paper_has_a_row(claim: str) -> None:
    rows = [row for row in table_rows(PAGE) if re.search(rf"{re.escape(claim)}(?!\d)", row.get("Where", ""))]
    assert rows, f"no row of docs/PAPER.md is about {claim}"
    assert any(re.search("`", row["Code"] + row["Test"] + row["Run"]) for row in rows)


@pytest.mark.parametrize(
    ("column", "broken"),
    [
        ("Code", "`model.attention.no_such_function`"),
        ("Code", "`model.attention.MultiHeadAttention.no_such_method`"),
        ("Code", "`no_such_module.attention`"),
        ("Code", "`scripts.benchmarking.table1.no_such_function`"),
        ("Code", "`scripts.no_such_module.scale_layers`"),
        ("Code", "`benchmarking.table1.scale_layers`"),
        ("Code", "`model.attention.F.softmax`"),
        ("Code", "`model.attention.math`"),
        ("Test", "`tests/model/test_no_such_file.py`"),
        ("Test", "`tests/model/test_attention.py::test_that_is_not_there`"),
        ("Test", "`tests/model/test_attention.py::random_attention`"),
        ("Run", "`configs/no_such.yaml`"),
        ("Run", "`model.no_such_key`"),
        ("Run", "`model.norm=between`"),
        ("Run", "`python scripts/no_such.py`"),
        ("Run", "`transformer no_such --out`"),
        ("Run", "`transformer plot --no-such-option`"),
        ("Run", "`--no-such-option`"),
        ("Run", "`transfomer plot --out`"),
        ("Run", "`anything`"),
    ],
)
def test_a_broken_row_is_found(column: str, broken: str) -> None:
    row = {"Where": "§0", "The paper says": "", "Code": "", "Test": "", "Run": ""} | {column: broken}
    table = f"| {' | '.join(row)} |\n|---|---|---|---|---|\n| {' | '.join(row.values())} |\n"
    assert len(problems(table, CHECKED_COLUMNS)) == 1


def test_a_correct_row_is_accepted() -> None:
    table = (
        "| Where | Code | Test | Run |\n|---|---|---|---|\n"
        "| §0 | `model.attention.MultiHeadAttention.project` | `tests/test_config.py` "
        "| `python scripts/benchmark.py`, `transformer train base`, `model.norm=pre`, `--tokenize` |\n"
    )
    assert problems(table, CHECKED_COLUMNS) == []

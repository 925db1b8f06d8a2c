"""docs/PAPER.md names symbols, tests, configurations, keys and commands: each must exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from transformer.config import load_config
from transformer.errors import ConfigError

ROOT = Path(__file__).parents[1]
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


def table_rows(page: str) -> Iterator[dict[str, str]]:
    """Each row of each table, by column."""
    header: list[str] = []
    for line in page.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not header:
            header = cells
        elif not set(line) <= set("|-: "):
            yield dict(zip(header, cells, strict=True))


def problems(page: str) -> list[str]:
    """Names on the page that do not exist."""
    return [
        f"{column} of {next(iter(row.values()))!r}: {name}: {problem}"
        for row in table_rows(page)
        for column in CHECKED_COLUMNS
        for name in re.findall(r"`([^`]+)`", row.get(column, ""))
        if (problem := _problem(column, name))
    ]


def _problem(column: str, name: str) -> str | None:
    if column == "Code":
        return _symbol_problem(name)
    if column == "Test":
        return _test_problem(name)
    program, *arguments = name.split()
    if program == "transformer":
        return _subcommand_problem(*arguments)
    for part in name.removeprefix("python ").split():
        if problem := _command_problem(part):
            return problem
    return None


def _symbol_problem(name: str) -> str | None:
    """Check a dotted name in the package, such as `model.attention.causal_mask`, or in `scripts`."""
    parts = name.split(".") if name.startswith("scripts.") else ["transformer", *name.split(".")]
    for end in range(len(parts), 1, -1):
        # pyproject.toml puts scripts/ on sys.path, as running a script does.
        module = ".".join(parts[:end]).removeprefix("scripts.")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if part in getattr(found, "__annotations__", {}):
                return None  # a field without a default
            if not hasattr(found, part):
                return "no such symbol"
            found = getattr(found, part)
        return None
    return "no such module"


def _test_problem(name: str) -> str | None:
    file, _, test = name.partition("::")
    path = ROOT / file
    if not file.startswith("tests/") or not path.exists():
        return "no such test file"
    names = {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}
    return "no such test" if test and test not in names else None


def _subcommand_problem(command: str, *arguments: str) -> str | None:
    if not (ROOT / "transformer" / "commands" / f"{command}.py").is_file():
        return f"no such command {command}"
    return next((problem for part in arguments if (problem := _command_problem(part))), None)


def _command_problem(part: str) -> str | None:
    if "/" in part:
        if not (ROOT / part).exists():
            return f"no such file {part}"
        if part.endswith(".yaml"):
            load_config(ROOT / part)
        return None
    if part.startswith("--"):
        files = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "transformer" / "commands").glob("*.py")]
        sources = (path.read_text("utf-8") for path in files)
        return None if any(f'"{part}"' in source for source in sources) else f"no such option {part}"
    if "." in part:
        key, _, value = part.partition("=")
        flat = load_config(ROOT / "configs" / "base.yaml").flat()
        if key not in flat:
            return f"no such key {key}"
        try:
            load_config(ROOT / "configs" / "base.yaml", [part] if value else [])
        except ConfigError as error:
            return str(error)
    return None


def test_every_name_on_the_page_exists() -> None:
    assert problems(PAGE) == []


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
        ("Test", "`tests/model/test_no_such_file.py`"),
        ("Test", "`tests/model/test_attention.py::test_that_is_not_there`"),
        ("Run", "`configs/no_such.yaml`"),
        ("Run", "`model.no_such_key`"),
        ("Run", "`model.norm=between`"),
        ("Run", "`python scripts/no_such.py`"),
        ("Run", "`transformer no_such --out`"),
        ("Run", "`transformer plot --no-such-option`"),
        ("Run", "`--no-such-option`"),
    ],
)
def test_a_broken_row_is_found(column: str, broken: str) -> None:
    row = {"Where": "§0", "The paper says": "", "Code": "", "Test": "", "Run": ""} | {column: broken}
    table = f"| {' | '.join(row)} |\n|---|---|---|---|---|\n| {' | '.join(row.values())} |\n"
    assert len(problems(table)) == 1


def test_a_correct_row_is_accepted() -> None:
    table = (
        "| Where | Code | Test | Run |\n|---|---|---|---|\n"
        "| §0 | `model.attention.MultiHeadAttention.project` | `tests/test_config.py` "
        "| `python scripts/benchmark.py`, `transformer train base`, `model.norm=pre`, `--tokenize` |\n"
    )
    assert problems(table) == []

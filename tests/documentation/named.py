"""Names in the tables of a page: symbols, tests, configurations, keys, commands and links, and which do not exist."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from documented import ROOT

from transformer.config import load_config
from transformer.errors import ConfigError

# Their directories are on sys.path (pyproject.toml), as when their programs run.
PROGRAMS = ("scripts.", "examples.")


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


def problems(page: str, columns: Sequence[str]) -> list[str]:
    """Names in these columns that do not exist: symbols in "Code", tests in "Test", commands and keys in others."""
    return [
        f"{column} of {next(iter(row.values()))!r}: {name}: {problem}"
        for row in table_rows(page)
        for column in columns
        for name in re.findall(r"`([^`]+)`", row.get(column, ""))
        if (problem := _problem(column, name))
    ]


@functools.cache
def _problem(column: str, name: str) -> str | None:
    if column == "Code":
        return _symbol_problem(name)
    if column == "Test":
        return _test_problem(name)
    program, *arguments = name.split()
    if program == "transformer":
        return _subcommand_problem(*arguments)
    if program != "python" and not re.match(r"--|[\w/]*[/.]", program):
        return "neither a command, a file, a key nor an option"
    if program == "python" and arguments[0].startswith("examples/"):
        return _example_problem(*arguments)
    for part in name.removeprefix("python ").split():
        if problem := _command_problem(part):
            return problem
    return None


def _symbol_problem(name: str) -> str | None:
    """Check a dotted name in the package, such as `model.attention.causal_mask`, in `scripts` or in `examples`."""
    program = next((prefix for prefix in PROGRAMS if name.startswith(prefix)), None)
    parts = name.split(".") if program else ["transformer", *name.split(".")]
    for end in range(len(parts), 1, -1):
        module = ".".join(parts[:end]).removeprefix(program or "")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if part in getattr(found, "__annotations__", {}):
                return None  # a field without a default
            if not hasattr(found, part):
                return "no such symbol"
            found, owner = getattr(found, part), found
            if inspect.ismodule(owner) and _is_foreign(found):
                return "a symbol of another library"
        return None
    return "no such module"


def _is_foreign(found: object) -> bool:
    """Whether it is a module of another library, or defined in one."""
    module = found if inspect.ismodule(found) else inspect.getmodule(found)
    top = module.__name__.partition(".")[0] if module else "transformer"
    places = [ROOT / program.removesuffix(".") / top for program in PROGRAMS]
    return top != "transformer" and not any(path.is_dir() or path.with_suffix(".py").is_file() for path in places)


def _test_problem(name: str) -> str | None:
    file, _, test = name.partition("::")
    path = ROOT / file
    if not file.startswith("tests/") or not path.exists():
        return "no such test file"
    return "no such test" if test and test not in _tests(path) else None


@functools.cache
def _tests(path: Path) -> set[str]:
    """Functions that pytest collects; not helpers, fixtures and methods, which prove nothing by themselves."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def _subcommand_problem(command: str, *arguments: str) -> str | None:
    if not (ROOT / "transformer" / "commands" / f"{command}.py").is_file():
        return f"no such command {command}"
    if command == "inspect":
        known = importlib.import_module("transformer.inspection.sections").SECTIONS
        if unknown := [part for part in arguments if re.fullmatch(r"[a-z_]+", part) and part not in known]:
            return f"no such section {unknown[0]}"
    return next((problem for part in arguments if (problem := _command_problem(part))), None)


def _example_problem(file: str, *arguments: str) -> str | None:
    if not (ROOT / file).is_file():
        return f"no such file {file}"
    source = (ROOT / file).read_text("utf-8")
    absent = [part for part in arguments if part.startswith("--") and f'"{part}"' not in source]
    return f"no such option {absent[0]}" if absent else None


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

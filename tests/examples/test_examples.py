"""Every example is short, imports public names only, and has its section in docs/EXAMPLES.md with a kept result."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import transformer

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "examples").glob("*.py"))
PAGE = ROOT / "docs" / "EXAMPLES.md"
LIBRARIES = {"torch", "numpy", "tqdm", "sklearn"}
ALTERNATIVES = "transformer.model.alternatives"


def is_example(path: Path) -> bool:
    """Whether a file is an example; the others are what examples share."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in body)


EXAMPLES = [path for path in FILES if is_example(path)]
files = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
examples = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def names_beyond_all() -> dict[str, set[str]]:
    """By module, the names in the table of docs/CODE.md after "Beyond `__all__`"."""
    text = (ROOT / "docs" / "CODE.md").read_text(encoding="utf-8").partition("\nBeyond `__all__`")[2]
    table = text.partition("\n## ")[0]
    rows = re.findall(r"^\| `(transformer[\w.]+)` \| (.*) \|$", table, re.MULTILINE)
    return {module: set(re.findall(r"`(\w+)", names)) for module, names in rows}


def is_public(module: str, name: str) -> bool:
    if module == "transformer":
        return name in transformer.__all__
    if module.startswith(f"{ALTERNATIVES}."):
        found = getattr(importlib.import_module(module), name, None)
        return inspect.isclass(found) and found.__module__ == module
    return name in names_beyond_all().get(module, ())


def not_public(source: str) -> Iterator[str]:
    """What a program imports beside public names, the standard library, `LIBRARIES` and other files of examples/."""
    known = {*sys.stdlib_module_names, *LIBRARIES, *(path.stem for path in FILES)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] not in known)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module.partition(".")[0] not in known:
                yield from (f"{module}.{alias.name}" for alias in node.names if not is_public(module, alias.name))


def sections() -> dict[str, str]:
    """The second-level headings of docs/EXAMPLES.md, with the text below each."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@files
def test_a_file_has_at_most_150_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150


@files
def test_no_package_is_taken_for_a_file(path: Path) -> None:
    """Examples come first on the path of imports, also where a library looks for another that it may use."""
    optional = pytest.importorskip("pandas.compat._optional").VERSIONS  # `bottleneck` is one
    assert path.stem not in {*importlib.metadata.packages_distributions(), *optional, *sys.stdlib_module_names}


@files
def test_imports_are_public_names(path: Path) -> None:
    assert list(not_public(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("import transformer", ["transformer"]),
        ("import transformer.model.attention", ["transformer.model.attention"]),
        ("import transformers, math", ["transformers"]),
        ("from transformer import Encoder, no_such", ["transformer.no_such"]),
        ("from transformer import model", ["transformer.model"]),
        ("from transformer.model.layers import Layer", ["transformer.model.layers.Layer"]),
        ("from transformer.data.builtin import builtin_pairs, pick", ["transformer.data.builtin.pick"]),
        (f"from {ALTERNATIVES}.layers import PreNormLayer, Layer", [f"{ALTERNATIVES}.layers.Layer"]),
        ("from . import loop", [".loop"]),
        ("def f():\n    from transformer.data.builtin import tidy", ["transformer.data.builtin.tidy"]),
    ],
)
def test_an_import_that_is_not_public_is_found(line: str, names: list[str]) -> None:
    assert list(not_public(line)) == names


def test_the_names_of_the_table_in_code_md_exist() -> None:
    found = names_beyond_all()
    assert "transformer.data.builtin" in found
    missing = [
        f"{module}.{name}"
        for module, names in found.items()
        for name in names
        if not hasattr(importlib.import_module(module), name)
    ]
    assert missing == []


@examples
def test_an_example_says_on_top_from_which_paper_it_is_and_how_it_is_run(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert re.search(r"\b(19|20)\d\d\b", doc), "the year of the paper"
    assert f"python examples/{path.name}" in doc


@examples
def test_an_example_has_its_section_with_command_and_result(path: Path) -> None:
    block = f"<!-- results: examples/{path.stem} -->"
    found = [text for text in sections().values() if block in text]
    assert len(found) == 1, f"docs/EXAMPLES.md needs a section with {block}"
    assert f"python examples/{path.name}" in found[0]
    assert f"(../examples/{path.name})" in found[0], "a link to the code"
    assert f"(../tests/examples/test_{path.stem}.py)" in found[0], "a link to the tests"


@examples
def test_an_example_has_a_kept_result(path: Path) -> None:
    lines = (ROOT / "docs" / "results" / "examples" / f"{path.stem}.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| ") and re.fullmatch(r"\|( -+:? \|)+", lines[1]), "a table"
    assert re.search(r"\d s on .+, \d+ threads?$", lines[-1]), "what it took"


def test_the_first_table_lists_every_example_in_the_order_of_the_sections() -> None:
    listed = re.findall(r"^\| \[.+?\]\(#([\w-]+)\) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in sections()]
    assert [slug for slug in slugs if slug in listed] == listed
    assert len(listed) == len(EXAMPLES)


@examples
def test_an_example_has_tests_and_its_defaults_are_the_full_run(path: Path) -> None:
    assert (ROOT / "tests" / "examples" / f"test_{path.stem}.py").is_file()
    main = importlib.import_module(path.stem).main
    (argument,) = inspect.signature(main).parameters.values()
    assert argument.default is None


def test_every_kept_result_is_of_an_example() -> None:
    # Of other data than the example's own: NAME_multi30k.
    kept = {path.stem.removesuffix("_multi30k") for path in (ROOT / "docs" / "results" / "examples").glob("*")}
    assert kept == {path.stem for path in EXAMPLES}

"""Blocks of the documentation: a test runs each Python block, and programs accept the commands as they stand."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documented import PAGES, ROOT, TEXT, blocks, commands_of_blocks, python_blocks

from transformer.commands.two_files import config_and_overrides
from transformer.config import load_config
from transformer.errors import UserError
from transformer.shipped import shipped_configs

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
# The files whose tests run the Python blocks of each page, together all of them. Those of CODE.md are signatures, which
# are compared.
RUN_BY = {
    "README.md": "tests/documentation/test_blocks.py",
    "CONTRIBUTING.md": "tests/test_docs.py",
    "docs/CODE.md": "tests/test_docs.py",
    "docs/DOCUMENTS.md": "tests/test_docs.py",
    "docs/EVALUATION.md": "tests/test_docs.py",
    "docs/FAQ.md": "tests/test_docs.py",
    "docs/INSPECTION.md": "tests/inspection/test_page.py",
    "docs/INTEROP.md": "tests/interop/test_commands.py tests/interop/test_usage.py",
    "docs/LOGGING.md": "tests/test_logging_recipes.py",
    "docs/PORTING.md": "tests/reuse/test_porting.py",
    "docs/RECIPES.md": "tests/test_recipes.py",
    "docs/SCORING.md": "tests/test_docs.py",
    "docs/SEARCH.md": "tests/test_docs.py",
    "docs/SERVING.md": "tests/serving/test_app.py",
    "docs/TRAINING.md": "tests/test_docs.py",
    "docs/WALKTHROUGH.md": "tests/website/test_whole_site.py",
}
SIGNATURES = "docs/CODE.md"
# In commands, words that stand for what the reader has.
PLACEHOLDERS = ("REPOSITORY", "$")
WRONG_ON_PURPOSE = "model.dropuot=0.2"  # the README shows its message
OWN = ("data.corpus=my/{split}.{lang}", "data.src_lang=en", "data.tgt_lang=de")  # what a reader's my.yaml has


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_the_python_blocks_of_every_page_are_run_by_a_test() -> None:
    with_programs = {name_of(page) for page in PAGES if any(lang == "python" for lang, _ in blocks(TEXT[page]))}
    assert with_programs == RUN_BY.keys(), "run the blocks of a page in a test, and name it in RUN_BY"
    for page, tests in RUN_BY.items():
        for test in tests.split():
            assert Path(page).name in (ROOT / test).read_text(encoding="utf-8"), test


@pages
def test_python_blocks_are_python(page: Path) -> None:
    for program in python_blocks(name_of(page)):
        if name_of(page) != SIGNATURES:
            ast.parse(program)


def test_the_program_of_the_readme_runs_after_the_quickstart(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(trained_run)
    (program,) = python_blocks("README.md")
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["logits"].shape == (2, 13, 37000)
    assert names["next_logits"].shape == (2, 37000)
    assert sum(parameter.numel() for parameter in names["model"].parameters()) == 63_045_632
    assert names["state"].past[0].keys.size(0) == 4
    assert f"{names['lr']:.2e}" == "6.99e-04"
    assert len(ast.literal_eval(capsys.readouterr().out)) == 1


# Commands


class Parsed(Exception):  # noqa: N818 (no error)
    """The arguments of a program that has accepted them: it does not run."""


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], str | None]:
    """Why the program of a command refuses its words, or None; overrides of configuration keys are loaded, too."""
    depth = 0

    def wrapped(original: Any) -> Any:
        def parse(self: argparse.ArgumentParser, *args: Any, **options: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                parsed = original(self, *args, **options)
            finally:
                depth -= 1
            if depth:  # called by another of them, or by the parser of a command of which it is a part
                return parsed
            raise Parsed(parsed)

        return parse

    for name in ("parse_args", "parse_known_args", "parse_intermixed_args", "parse_known_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, wrapped(getattr(argparse.ArgumentParser, name)))

    def problem(words: list[str]) -> str | None:
        program, *arguments = words
        if program == "transformer":
            program, *arguments = arguments
        is_command = words[0] == "transformer"
        main = importlib.import_module(f"transformer.commands.{program}" if is_command else Path(program).stem).main
        err = io.StringIO()
        try:
            with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err):
                main(arguments)
        except Parsed as accepted:
            return _problem_of_overrides(accepted.args[0]) if is_command else None
        except SystemExit:
            return err.getvalue().strip().splitlines()[-1]
        return "has run"

    return problem


def _problem_of_overrides(parsed: Any) -> str | None:
    arguments, unknown = parsed if isinstance(parsed, tuple) else (parsed, [])
    if unknown:
        return f"unknown: {unknown}"
    if not hasattr(arguments, "overrides"):
        return None
    try:
        config, overrides = config_and_overrides(arguments)
        known = [override for override in overrides if "$" not in override]
        is_shipped = config in shipped_configs()
        load_config(config if is_shipped else "small", known if is_shipped else [*OWN, *known])
    except UserError as error:
        return str(error)
    return None


def copied_commands() -> Iterator[Any]:
    for page in PAGES:
        for words in commands_of_blocks(TEXT[page]):
            if words[0].startswith("tests/") or WRONG_ON_PURPOSE in words:
                continue
            if not any(word.startswith(PLACEHOLDERS) for word in words):
                yield pytest.param(words, id=f"{page.stem}: {' '.join(words)}"[:90])


@pytest.mark.parametrize("words", [*copied_commands()])
def test_a_command_is_accepted_as_it_stands(parses: Callable[[list[str]], str | None], words: list[str]) -> None:
    assert parses(words) is None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("transformer translate runs/my --beam four", "argument --beam: invalid int value: 'four'"),
        ("transformer translate", "the following arguments are required: "),
        ("transformer evaluate runs/my --precision fp7", "argument --precision: invalid choice: 'fp7'"),
        ("transformer average runs/my runs/other", "unrecognized arguments: runs/other"),
        ("transformer train base train.max_steps=many", "train.max_steps"),
        ("transformer train base --no-such", "--no-such"),
        ("python scripts/figures.py --out", "argument --out: expected one argument"),
    ],
)
def test_a_command_that_would_fail_is_found(
    parses: Callable[[list[str]], str | None], command: str, message: str
) -> None:
    (words,) = commands_of_blocks(f"```\n{command}\n```")
    problem = parses(words)
    assert problem is not None and message in problem

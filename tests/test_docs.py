"""The documentation against the project: links, commands with their options, keys, public names, and code that runs."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from documented import PAGES, ROOT, TEXT, blocks, broken_links, command_lines, python_blocks, spans

import transformer
from transformer.config import Config, DataConfig, load_config
from transformer.data import corpus
from transformer.inference.translator import Translator

# Sections of the configuration, and names of files that look like keys.
KEY = re.compile(r"(?<![\w./{}-])((?:model|data|train|search)\.[a-z]\w*)(?![\w.(/*])")
SUFFIXES = {"py", "en", "de", "trees", "pairs", "csv", "tsv", "jsonl", "parquet", "safetensors", "out"}
SEARCHED = (
    *("fine-tuning", "early stopping", "patience", "gradient accumulation", "mixed precision", "out of memory"),
    *("BPE", "throughput", "notebook", "checkpoint averaging"),
)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


# Links


@pages
def test_links_and_their_anchors_exist(page: Path) -> None:
    assert broken_links(page, TEXT[page]) == []


@pytest.mark.parametrize("link", ["[x](no/such.md)", "[x](PAPER.md#no-such)", "[x](#no-such)", '<img src="no.svg">'])
def test_a_broken_link_is_found(link: str) -> None:
    assert len(broken_links(ROOT / "docs" / "FAQ.md", link)) == 1


# Commands


@functools.cache
def help_of(program: str, *subcommand: str) -> str:
    """What `--help` prints; KeyError if there is no such program or subcommand."""
    name = program if program.startswith("transformer.") else Path(program).stem
    try:
        main = importlib.import_module(name).main
    except ModuleNotFoundError:
        raise KeyError(name) from None
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            main([*subcommand, "--help"])
    except SystemExit as error:
        if error.code:  # before it came to --help: the subcommand is unknown
            raise KeyError(" ".join((name, *subcommand))) from None
    return out.getvalue()


def wrong_command(words: list[str]) -> str | None:
    """Why a command of the documentation cannot be run, or None."""
    program, *arguments = words
    subcommand: list[str] = []
    try:
        if program == "transformer":
            program, *arguments = arguments
            if program.startswith("-") or program.isupper():  # transformer --help, transformer NAME
                return None
            if program == "configs":  # which the dispatcher answers itself
                sources = (path.read_text("utf-8") for path in (ROOT / "transformer" / "commands").glob("*.py"))
                return None if any('"configs"' in source for source in sources) else "no command configs"
            if program == "train" and arguments and not _is_config(arguments[0]):
                return f"no configuration {arguments[0]}"
            program = f"transformer.commands.{program}"
            subcommand = arguments[:1] if "ACTION" in help_of(program) else []
        elif arguments and not arguments[0].startswith("-") and ("COMMAND" in help_of(program) or "soak" in program):
            subcommand = arguments[:1]
        text = help_of(program, *subcommand)
    except KeyError as error:
        return f"no program {error}"
    options = {word.partition("=")[0] for word in arguments if re.match(r"--[a-z]", word)}
    missing = {option for option in options if not re.search(rf"{option}(?![\w-])", text)}
    return f"no such option {missing}" if missing else None


def _is_config(name: str) -> bool:
    """Whether it is a shipped configuration, an option, a placeholder, or the example of the page."""
    shipped = (ROOT / "configs", ROOT / "transformer" / "configs")
    is_shipped = any((directory / f"{name}.yaml").is_file() for directory in shipped) or (ROOT / name).is_file()
    return is_shipped or name.startswith("-") or name.isupper() or Path(name).name in ("my.yaml", "mine.yaml")


@pages
def test_commands_and_their_options_exist(page: Path) -> None:
    found = [(words, problem) for words in command_lines(TEXT[page]) if (problem := wrong_command(words))]
    assert found == []


@pytest.mark.parametrize(
    "command",
    [
        "transformer evaluate RUN --no-such",
        "transformer train no_such_configuration",
        "transformer no_such_command RUN",
        "python scripts/benchmark.py train configs/base.yaml --no-such 3",
        "python scripts/benchmark.py table9",
        "torchrun --nproc-per-node=8 -m transformer.commands train base --no-such",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    (words,) = command_lines(f"```\n{command}   # comment\n```")
    assert wrong_command(words) is not None


# Configuration keys


def mentioned_keys(text: str) -> set[str]:
    code = [body for lang, body in blocks(text) if lang != "python"] + spans(text)
    found = {key for part in code for key in KEY.findall(part)}
    return {key for key in found if key.partition(".")[2] not in SUFFIXES}


@pages
def test_configuration_keys_exist(page: Path) -> None:
    modules = {
        f"{path.parent.name}.{path.stem}" for path in (ROOT / "transformer").rglob("*.py") if path.stem != "__init__"
    }
    modules |= {"model.alternatives"}
    wrong = mentioned_keys(TEXT[page]) - set(Config().flat()) - modules
    assert {key for key in wrong if "dropuot" not in key} == set(), "the one wrong key shows the message for it"


def test_a_wrong_key_is_found() -> None:
    assert mentioned_keys("`train.no_such=1` and `data.corpus` in `my/train.en`") == {"train.no_such", "data.corpus"}


@pages
def test_yaml_examples_load(page: Path, tmp_path: Path) -> None:
    for lang, body in blocks(TEXT[page]):
        if lang == "yaml":
            path = tmp_path / "my.yaml"
            path.write_text("\n".join(line for line in body.splitlines() if not line.strip().startswith("base:")))
            load_config(path)


# Names and words


def test_code_md_has_every_public_name_with_its_arguments() -> None:
    text = TEXT[ROOT / "docs" / "CODE.md"]
    absent = [name for name in transformer.__all__ if not re.search(rf"\b{name}\b", text)]
    assert absent == []
    signatures = "\n".join(body for lang, body in blocks(text) if lang == "python")
    for name, arguments in re.findall(r"^([\w.]+)\(([^)]*)\)", signatures, re.MULTILINE):
        target: Any = functools.reduce(getattr, name.split("."), transformer)
        known = inspect.signature(target).parameters
        for argument in filter(None, re.split(r",\s*", arguments.replace("*, ", ""))):
            key, _, default = argument.partition("=")
            assert key in known, f"{name} has no argument {key}"
            assert not default or known[key].default == ast.literal_eval(default), f"{name}({argument})"


def files_in_the_list(text: str) -> set[str]:
    """The modules of the package that CODE.md lists, as paths; rooms are told by the indent."""
    found, rooms = set(), [""]
    for line in text.partition("\ntransformer/\n")[2].partition("\ntests/")[0].splitlines():
        level = (len(line) - len(line.lstrip())) // 2
        head = line.split()[0]
        if head.endswith("/"):
            rooms[level:] = [head]
        found |= {"".join(rooms[1:level]) + name for name in re.findall(r"\w+\.py\b", line)}
    return found


def test_code_md_lists_every_module_and_no_other() -> None:
    listed = files_in_the_list(TEXT[ROOT / "docs" / "CODE.md"])
    package = ROOT / "transformer"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if path.stem[:2] != "__"}
    assert listed - files == set()
    # These rooms have a line each, and `transformer --help` lists the commands.
    described = {name for name in files if name.startswith(("parsing/", "sections/"))}
    commands = [name for name in files if name.startswith("commands/")]
    described |= {name for name in commands if "def main(" in (package / name).read_text("utf-8")}
    assert files - listed - described == set()


@pytest.mark.parametrize("word", SEARCHED)
def test_a_word_that_users_search_for_is_found(word: str) -> None:
    assert any(word.lower() in text.lower() for page, text in TEXT.items() if page.parent.name == "docs")


def test_the_citation_file_names_the_software_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "type"} <= citation.keys()
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", transformer.__version__)
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors", "year"} <= paper.keys()
    assert (paper["year"], paper["volume"], len(paper["authors"])) == (2017, 30, 8)
    assert "1706.03762" in paper["url"]


# Python examples


def test_the_fine_tuning_example_trains_a_finished_run(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = python_blocks("docs/TRAINING.md")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "my").mkdir(parents=True)
    (best,) = (trained_run / "best").iterdir()
    (tmp_path / "runs" / "my" / "averaged").symlink_to(best)
    names: dict[str, Any] = {}
    exec(
        program.replace("for step in range", "losses = []\nfor step in range").replace(
            "    optimizer.step()", "    losses.append(nll.item())\n    optimizer.step()"
        ),
        names,
    )
    assert names["losses"][-1] < names["losses"][0]
    assert len(Translator.load("runs/tuned", device="cpu").translate(["A man is walking."])) == 1


@pytest.fixture
def finished_run(trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current directory in which runs/my is a finished run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "my").symlink_to(trained_run)


@pytest.mark.usefixtures("finished_run")
def test_the_examples_of_the_questions_run_on_a_finished_run(capsys: pytest.CaptureFixture[str]) -> None:
    for program in (*python_blocks("docs/FAQ.md"), *python_blocks("docs/SEARCH.md")):
        exec(program, {})
    assert capsys.readouterr().out.count("[") > 7


@pytest.mark.usefixtures("finished_run")
def test_the_example_of_scoring_runs_on_a_finished_run(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = python_blocks("docs/SCORING.md")
    exec(program, {})
    log_prob, perplexity, *ranks = capsys.readouterr().out.split()
    assert float(log_prob) < 0 < float(perplexity)
    assert len(ranks) > 3


@pytest.mark.usefixtures("finished_run")
def test_the_examples_of_documents_run_on_a_finished_run(capsys: pytest.CaptureFixture[str]) -> None:
    for program in python_blocks("docs/DOCUMENTS.md"):
        exec(program, {})
    assert capsys.readouterr().out.endswith("<p>A <b>MAN</b> IS SLEEPING.</p>\n")


def test_the_examples_of_new_parts_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alternative, reader, start = python_blocks("CONTRIBUTING.md")
    names: dict[str, Any] = {}
    exec(alternative, names)
    ids = torch.randint(4, 1000, (2, 7))
    assert names["model"](ids, ids).shape == (2, 7, 1000)
    monkeypatch.setattr(corpus, "_READERS", dict(corpus._READERS))
    exec(reader, names)
    (tmp_path / "train.pairs").write_text("a cat\neine Katze\ntwo dogs\nzwei Hunde\n")
    found = corpus.load_split(DataConfig(corpus=f"{tmp_path}/{{split}}.pairs"), "train")
    assert list(found) == [("a cat", "eine Katze"), ("two dogs", "zwei Hunde")]
    compile(start, "CONTRIBUTING.md", "exec")


def test_the_commands_and_the_example_of_evaluation_run_in_their_order(
    trained_run: Path, tiny_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(trained_run)
    (tmp_path / "runs" / "other").symlink_to(min((trained_run / "checkpoints").iterdir()))
    for lang in ("en", "de"):
        text = Path(tiny_corpus.format(split="test", lang=lang)).read_text(encoding="utf-8")
        (tmp_path / f"newstest.{lang}").write_text(text, encoding="utf-8")
    text = TEXT[ROOT / "docs" / "EVALUATION.md"]
    lines = [line for lang, body in blocks(text) if lang == "" for line in body.splitlines()]
    assert len(lines) == 8
    for line in lines:
        _, name, *arguments = shlex.split(line)
        fast = ["--samples", "3"] if name == "compare" else []
        assert importlib.import_module(f"transformer.commands.{name}").main([*arguments, *fast]) == 0
    assert {path.name for path in tmp_path.glob("*.*")} >= {"beam.de", "length.svg", "comparison.html"}
    (program,) = python_blocks("docs/EVALUATION.md")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program.replace("1000", "3"), {})
    assert re.match(r"bleu [+-]\d+\.\d\d, p = [01]\.\d{4}; ", out.getvalue())

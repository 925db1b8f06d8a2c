"""Names that are imported when they are first used, and what commands leave unimported."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import transformer
from transformer import inspection
from transformer.lazy import lazy_names

ROOT = Path(__file__).parents[1]
# Each takes a tenth of a second to seconds. Of torch's own, the last two are imported by arithmetic without data.
HEAVY = ("datasets", "pandas", "pyarrow", "tensorboard", "torch.utils.tensorboard", "huggingface_hub", "matplotlib")
HEAVY_FOR_ALL = (*HEAVY, "sacrebleu", "transformers", "torch._dynamo", "sympy")


@pytest.mark.parametrize("package", ["transformer", "transformer.inspection"])
def test_type_checkers_and_programs_see_the_same_names(package: str) -> None:
    module = importlib.import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    (choice,) = [node for node in tree.body if isinstance(node, ast.If)]
    checked = {
        alias.name: node.module for node in choice.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    (call,) = [node for node in ast.walk(choice) if isinstance(node, ast.Call)]
    table = ast.literal_eval(call.args[1])
    assert checked == {name: origin for origin, names in table.items() for name in names.split()}
    assert {*checked} <= {*module.__all__}
    for name, origin in checked.items():
        assert getattr(module, name) is getattr(importlib.import_module(str(origin)), name)


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.splitlines()[-1]


def test_packages_are_attributes_before_a_name_of_theirs_is_used() -> None:
    program = "import transformer\nprint(transformer.model.attention.__name__, transformer.training.loss.__name__)"
    assert run(program) == "transformer.model.attention transformer.training.loss"


def test_all_names_are_imported_by_a_star_and_listed() -> None:
    assert run("from transformer import *\nprint(Transformer.__name__, sample.__name__)") == "Transformer sample"
    for module in (transformer, inspection):
        assert {*module.__all__} <= {*dir(module)}


def test_threads_may_use_names_for_the_first_time_together() -> None:
    # Modules that import torch in different ways, and torch itself, as a program that has it anyway.
    program = """
import importlib, threading, transformer, transformer.inspection
uses = [lambda name=name: getattr(transformer, name) for name in ("Layer", "sinusoidal_positions", "Translator")]
uses += [lambda: transformer.inspection.attention_maps, lambda: importlib.import_module("torch")]
together, done = threading.Barrier(len(uses)), []
def use(one):
    together.wait()
    done.append(one().__name__)
threads = [threading.Thread(target=use, args=(one,)) for one in uses]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*sorted(done))
"""
    assert run(program) == "Layer Translator attention_maps sinusoidal_positions torch"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'transformer' has no attribute 'nonsense'$"):
        getattr(transformer, "nonsense")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec("from transformer import nonsense")
    with pytest.raises(AttributeError, match=r"^module 'json' has no attribute 'x'$"):
        lazy_names("json", {"json.decoder": "JSONDecoder"})("x")


def test_the_package_imports_no_numpy() -> None:
    assert run("import sys, transformer; print('numpy' in sys.modules)") == "False"


@pytest.mark.parametrize("arguments", [["--help"], ["configs"], ["plot", "{run}"]], ids=str)
def test_commands_that_only_print_import_no_torch(trained_run: Path, arguments: list[str]) -> None:
    assert imported(arguments, trained_run, "torch", *HEAVY_FOR_ALL) == []


@pytest.mark.parametrize("arguments", [["translate", "{run}", "--text", "A man."], ["train", "--help"]], ids=str)
def test_commands_import_no_library_that_they_do_not_use(trained_run: Path, arguments: list[str]) -> None:
    unused = HEAVY_FOR_ALL if arguments[0] == "translate" else tuple(x for x in HEAVY_FOR_ALL if x != "sacrebleu")
    assert imported(arguments, trained_run, *unused) == []


def imported(arguments: list[str], run_dir: Path, *names: str) -> object:
    """Which of the modules are imported by a command."""
    argv = ["transformer", *(argument.format(run=run_dir) for argument in arguments)]
    program = f"""
import sys
sys.argv = {argv}
from transformer.commands.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {names} if name in sys.modules])
"""
    return ast.literal_eval(run(program))


def test_the_outline_of_every_configuration_imports_no_compiler() -> None:
    program = """
import sys
from transformer.config import load_config
from transformer.shipped import shipped_configs
from transformer.training.description import outline
for name in shipped_configs():
    outline((53, None), load_config(name).model)
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    assert ast.literal_eval(run(program)) == []

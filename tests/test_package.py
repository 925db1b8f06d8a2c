"""What is installed: every package and configuration, nothing that only measures or attacks."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def packages() -> set[str]:
    modules = {path.parent for path in (ROOT / "transformer").rglob("*.py")}
    configs = {"transformer" / path.parent.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    return {".".join(path.parts) for path in {module.relative_to(ROOT) for module in modules} | configs}


def test_every_package_is_installed() -> None:
    assert SETUPTOOLS["packages"] == sorted(packages())


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_library_that_is_imported_is_a_dependency() -> None:
    names = {name for path in (ROOT / "transformer").rglob("*.py") for name in imported(path)}
    # Triton comes with torch's CUDA builds, and training/loss.py does without it elsewhere.
    others = names - sys.stdlib_module_names - {"transformer", "triton"}
    distributions = {"yaml": "pyyaml", "pydantic_core": "pydantic"}  # where the names differ
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *(line for name in extras if name != "dev" for line in extras[name])]
    assert {distributions.get(name, name) for name in others} <= {re.split(r"[>\[]", line)[0] for line in lines}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, built from a copy: builds in one folder disturb each other and keep what was deleted."""
    directory = tmp_path_factory.mktemp("wheel")
    for name in ("transformer", "configs"):
        shutil.copytree(ROOT / name, directory / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, directory / "source")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, directory / "source"]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = directory.glob("attention_is_all_you_need-*.whl")
    zipfile.ZipFile(wheel).extractall(directory / "site")
    return directory / "site"


@pytest.mark.slow
def test_the_wheel_has_the_configurations_and_nothing_that_measures_or_attacks(installed: Path) -> None:
    shipped = {path.relative_to(installed / "transformer") for path in (installed / "transformer/configs").rglob("*.*")}
    here = {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.*") if "benchmark" not in path.name}
    assert shipped == here
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == {"transformer"}
    files = {path.relative_to(installed) for path in (installed / "transformer").rglob("*.py")}
    assert files == {path.relative_to(ROOT) for path in (ROOT / "transformer").rglob("*.py")}


@pytest.mark.slow
def test_the_wheel_trains_evaluates_and_translates_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def transformer(*arguments: str) -> str:
        command = [sys.executable, "-m", "transformer.commands", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ("model.d_model=12", "model.d_ff=17", "data.builtin_size=397", "data.vocab_size=307", "train.device=cpu")
    few = ("train.max_steps=3", "train.validate_steps=3", "train.tokens_per_update=211", "train.max_tokens=211")
    transformer("train", "quickstart", *few, *small)
    assert "BLEU = " in transformer("evaluate", "runs/quickstart", "--beam", "1")
    assert transformer("translate", "runs/quickstart", "--text", "A cat.").count("\n") == 1
    assert transformer("plot", "runs/quickstart").startswith("| step |")
    assert "quickstart" in transformer("configs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]

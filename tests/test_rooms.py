"""Imports between the rooms of the package point down only, and the core knows of no alternative."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "transformer"
# From the top: a room may import those below it, and modules of its own.
ROOMS = [
    "commands",
    "serving",
    "inspection",
    "documents",
    "inference",
    "interop",
    "training",
    "interop.readers",
    "parsing",
    "data",
    "model.alternatives",
    "model",
    "hub",
    "config",
    "sections",
    "config_file",
    "config_errors",
    "config_hints",
    "config_values",
    "shipped",
    "files",
    "progress",
    "cli",
    "errors",
    "machine",
    "lazy",
]
CORE = ("attention", "layers", "embeddings", "transformer")


# Of `interop`: what reads models from elsewhere, of which training is one user. The others write or convert models.
READERS = {
    *("foreign", "generation_settings", "local_files", "opus_release"),
    *("marian_directory", "marian_model", "marian_vocabulary", "marian_weights"),
}


def room_of(module: str) -> str:
    """The room of transformer.ROOM..., such as transformer.model.alternatives.build."""
    path = module.split(".")[1:]
    if path[:2] == ["model", "alternatives"]:
        return "model.alternatives"
    return "interop.readers" if path[0] == "interop" and path[-1] in READERS else path[0]


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "transformer")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "transformer":
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                is_module = (PACKAGE.parent / Path(*submodule.split("."))).with_suffix("").is_dir() or (
                    PACKAGE.parent / Path(*submodule.split(".")).with_suffix(".py")
                ).is_file()
                yield submodule if is_module else node.module


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_every_module_is_in_a_room_of_the_list() -> None:
    assert {room_of(module_of(path)) for path in FILES} == set(ROOMS)


def test_imports_point_down_the_list() -> None:
    climbing = [
        f"{module_of(path)} imports {module}"
        for path in FILES
        for module in imported(path)
        if module == "transformer" or ROOMS.index(room_of(module)) < ROOMS.index(room_of(module_of(path)))
    ]
    assert climbing == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module_of(path): set(imported(path)) - {module_of(path)} for path in FILES}
    while leaves := {module for module, needed in graph.items() if not needed & graph.keys()}:
        graph = {module: needed for module, needed in graph.items() if module not in leaves}
    assert graph == {}


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_the_core_only(name: str) -> None:
    allowed = {f"transformer.model.{other}" for other in (*CORE, "kernels")} | {"transformer.model"}
    assert set(imported(PACKAGE / "model" / f"{name}.py")) <= allowed


def test_the_paper_fits_on_a_page() -> None:
    lines = [(PACKAGE / "model" / f"{name}.py").read_text(encoding="utf-8").count("\n") for name in CORE]
    assert sum(lines) <= 450

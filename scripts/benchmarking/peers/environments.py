"""Virtual environments of the peers, kept in a cache directory.

Versions are those of constraints.txt, torch's above all; the toolkits' own stand with each peer. Toolkits that are no
longer maintained are changed where Python 3.11 or torch 2 need it, inside their environment only.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.errors import UserError

CONSTRAINTS = Path(__file__).parents[3] / "constraints.txt"
_COMPLETE = "complete.json"

Install = Callable[[Sequence[str]], None]


class EnvironmentBuildError(UserError):
    """An environment cannot be built."""


@dataclass(frozen=True)
class Change:
    """A change to installed files, by a regular expression; `reason` says what needs it."""

    files: tuple[str, ...]  # below site-packages
    pattern: str
    replacement: str
    reason: str


@dataclass(frozen=True)
class Environment:
    """The packages of a peer.

    Attributes:
        name: its directory.
        packages: requirements that are installed with their dependencies, besides torch and numpy.
        alone: requirements without theirs, as these exclude the torch of today.
        stubs: modules that are imported at the top of a file and not used here, made as empty ones.
        changes: to installed files.
    """

    name: str
    packages: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    stubs: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()


def build(environment: Environment, cache: Path, log: Callable[[str], None], install: Install | None = None) -> Path:
    """The Python of an environment, which is built if need be.

    It is not if it is there with the same packages and changes.

    Args:
        environment: what to build.
        cache: directory of all environments.
        log: told what happens.
        install: runs a command; for tests.

    Raises:
        EnvironmentBuildError: a package cannot be installed, or a file to change is not as expected.
    """
    directory = cache / environment.name
    python = directory / "bin" / "python"
    recipe = _recipe(environment)
    if _read(directory / _COMPLETE) == recipe:
        return python
    log(f"building the environment of {environment.name} in {directory}")
    shutil.rmtree(directory, ignore_errors=True)
    run = install or _run
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", str(CONSTRAINTS)]
    try:
        run([sys.executable, "-m", "venv", str(directory)])
        # First torch, which extensions are compiled against; setuptools and wheel build old packages.
        run([*pip, *constraints, "torch", "numpy", "setuptools<81", "wheel"])
        for requirement in environment.alone:
            run([*pip, "--no-deps", "--no-build-isolation", requirement])
        if environment.packages:
            run([*pip, *constraints, *environment.packages])
        change(directory, environment)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)  # half an environment would look whole
        raise
    (directory / _COMPLETE).write_text(recipe, encoding="utf-8")
    return python


def change(directory: Path, environment: Environment) -> None:
    """Make stubs and changes. EnvironmentBuildError if a pattern is not found."""
    packages = next(directory.glob("lib/python*/site-packages"))
    for stub in environment.stubs:
        (packages / f"{stub}.py").touch()
    for each in environment.changes:
        for file in each.files:
            path = packages / file
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            changed, number = re.subn(each.pattern, each.replacement, text)
            if not number:
                raise EnvironmentBuildError(f"{path}: nothing matches {each.pattern!r} ({each.reason})")
            path.write_text(changed, encoding="utf-8")


def _recipe(environment: Environment) -> str:
    """All that the environment depends on, as text."""
    torch_version = re.search(r"^torch==.*$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    parts = {
        **dataclasses.asdict(environment),
        "python": platform.python_version(),
        "torch": torch_version[0] if torch_version else None,
    }
    return json.dumps(parts, indent=2)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
        raise EnvironmentBuildError(f"{' '.join(command[-3:])}: {errors[0][:300] if errors else 'failed'}")

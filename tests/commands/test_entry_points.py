"""Commands can be started from a checkout and from an installed package, and print commands that work there."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from transformer.commands import train

ROOT = Path(__file__).parents[2]
COMMANDS = sorted({path.stem for path in (ROOT / "transformer" / "commands").glob("*.py")} - {"__init__", "__main__"})


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "transformer.commands", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_command_of_the_package_is_started_by_its_name(trained_run: Path) -> None:
    done = start("plot", trained_run)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("| step | minutes |")


@pytest.mark.parametrize("arguments", [(), ("overfit_check",), ("--help",)])
def test_an_unknown_command_is_one_line_that_names_all(arguments: tuple[str, ...]) -> None:
    done = start(*arguments)
    assert done.returncode == 2
    name = repr(arguments[0] if arguments else "")
    assert done.stderr.startswith(f"error: {name} is not one of the commands train, evaluate, ")
    assert done.stderr.count("\n") == 1
    names = done.stderr.partition("commands ")[2].strip().split(", ")
    assert sorted(names) == [name for name in COMMANDS if name != "overfit_check"]


def test_printed_commands_name_a_script_of_the_checkout_or_else_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["anything"])
    script = ROOT / "scripts" / "translate.py"
    assert train._command("translate", "my run") == shlex.join([sys.executable, str(script), "my run"])
    monkeypatch.setattr(train, "__file__", str(tmp_path / "transformer" / "commands" / "train.py"))
    module = ["-m", "transformer.commands", "translate", "my run"]
    assert train._command("translate", "my run") == shlex.join([sys.executable, *module])

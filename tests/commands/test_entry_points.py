"""Commands start from a checkout and from an installed package, and print commands that work there."""

from __future__ import annotations

import importlib
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from transformer.cli import run
from transformer.commands import __main__ as entry
from transformer.commands import end_summary

ROOT = Path(__file__).parents[2]
MODULES = {path.stem for path in (ROOT / "transformer" / "commands").glob("*.py")}
PARTS = {
    *("__init__", "__main__", "also", "comparison_options", "document_files", "end_summary", "engine"),
    *("error_analysis", "evaluation_options"),
    *("json_lines", "long_run", "outputs", "overfit_check", "scored_texts", "search_options", "selection", "two_files"),
}
COMMANDS = sorted(MODULES - PARTS)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run the console script's function in this process; returns its status, stdout and stderr."""

    def call(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["/some/bin/transformer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run(entry._main)
        return ended.value.code, *capfd.readouterr()

    return call


def test_a_command_of_the_package_is_started_by_its_name(trained_run: Path) -> None:
    command = [sys.executable, "-m", "transformer.commands", "plot", str(trained_run)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("| step | minutes |")


@pytest.mark.parametrize("arguments", [(), ("overfit_check",), ("Train",), ("trian",), ("nonsense",)])
def test_an_unknown_command_is_one_line_that_names_all(start, arguments: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    status, out, err = start(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {arguments[0]!r} is not one" if arguments else "error: give one of the commands ")
    names = err.partition("commands ")[2].partition(";")[0].split(", ")
    assert sorted(names) == COMMANDS
    hint = "did you mean train?" if arguments in (("Train",), ("trian",)) else "transformer --help describes them"
    assert err.endswith(f"; {hint}\n")


def test_ctrl_c_ends_the_command_at_once_while_its_libraries_are_imported(  # type: ignore[no-untyped-def]
    start, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, previous))
    handlers = []

    def import_module(name: str) -> object:
        handlers.append(signal.getsignal(signal.SIGINT))
        return importlib.import_module(name)

    monkeypatch.setattr(entry, "importlib", SimpleNamespace(import_module=import_module))
    assert start("configs")[0] == 0
    assert handlers == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_describes_each_command_on_a_line(start, option: str) -> None:  # type: ignore[no-untyped-def]
    status, out, err = start(option)
    assert (status, err) == (0, "")
    described = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    assert sorted(name for name, _ in described) == COMMANDS
    assert all(purpose for _, purpose in described)


def test_the_version_is_the_packages(start) -> None:  # type: ignore[no-untyped-def]
    import transformer

    assert start("--version") == (0, f"transformer {transformer.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_usage_of_each_command_is_what_one_types(start, name: str) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = start(name, "--help")
    assert status == 0
    assert out.startswith(f"usage: transformer {name} ")
    assert f"transformer {name} " in out.partition("usage:")[2].partition("\n\n")[2], "its description has an example"


@pytest.mark.parametrize(
    ("started_as", "next_one"),
    [
        (["python", "/some/where/bin/transformer", "train", "x"], "/some/where/bin/transformer translate 'my run'"),
        (["python", "{scripts}/train.py", "x"], "{python} {scripts}/translate.py 'my run'"),
        (["python", "-m", "transformer.commands", "train"], "{python} -m transformer.commands translate 'my run'"),
        (["python", "/elsewhere/train.py", "x"], "{python} -m transformer.commands translate 'my run'"),
        (["python", "-c", "train"], "{python} -m transformer.commands translate 'my run'"),
        (["python"], "{python} -m transformer.commands translate 'my run'"),
    ],
)
def test_printed_commands_have_the_form_in_which_training_was_started(
    monkeypatch: pytest.MonkeyPatch, started_as: list[str], next_one: str
) -> None:
    places = {"scripts": str(ROOT / "scripts"), "python": shlex.quote(sys.executable)}
    monkeypatch.setattr(sys, "orig_argv", [part.format(**places) for part in started_as])
    assert end_summary.command("translate", "my run") == next_one.format(**places)


def test_a_console_script_on_the_path_is_printed_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "transformer"
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "orig_argv", ["python", str(script), "train", "x"])
    assert end_summary.command("translate", "my run") == f"{script} translate 'my run'"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert end_summary.command("translate", "my run") == "transformer translate 'my run'"

"""Commands on machines without a home, a user name, temporary files, a locale, streams or a place to write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
slow = pytest.mark.slow

# Runs the command lines of its first argument one after the other, as the console script would.
PROGRAM = """
import json, sys
from transformer.commands.__main__ import main
statuses = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["transformer", *command]
    try:
        main()
    except SystemExit as end:
        statuses.append(end.code)
print(json.dumps(statuses))
"""
READ_ONLY = """
set -e
mount -t tmpfs tmpfs "$1"
mount -o remount,ro,bind /
cd /
shift
exec "$@"
"""
IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
FOREIGN = ("unshare", "--user", "--map-user=12345", "--map-group=12345")


def works(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


CAN_MOUNT = works(*IN_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt")
CAN_BE_FOREIGN = works(*FOREIGN, "true")


class Done(NamedTuple):
    """How commands ended."""

    statuses: list[int]
    out: str
    err: str


def start(
    commands: Sequence[Sequence[object]], place: Path, prefix: Sequence[object] = (), **environment: str | None
) -> Done:
    """Run commands in one process; an environment variable that is None is removed."""
    words = [[str(word) for word in command] for command in commands]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run(
        [*map(str, prefix), sys.executable, "-c", PROGRAM, json.dumps(words)],
        env={name: value for name, value in variables.items() if value is not None},
        cwd=place,
        capture_output=True,
        encoding="utf-8",
    )
    *out, last = done.stdout.splitlines() or [""]
    return Done(json.loads(last or "[]"), "\n".join(out), done.stderr)


def all_commands(tiny_yaml: Path, place: Path) -> list[list[object]]:
    """Every command, from training to figures, with all that it writes in one place."""
    run_dir = place / "run"
    return [
        ["train", tiny_yaml, f"run_dir={run_dir}", f"data.cache_dir={place / 'cache'}", "train.max_steps=5"],
        ["average", run_dir, "--last", "1"],
        ["evaluate", run_dir, "--beam", "1", "--output", place / "hypotheses"],
        ["translate", run_dir, "--text", "A man is sleeping.", "--output", place / "translation"],
        ["plot", run_dir],
        ["plot", run_dir, "--out", place / "curves.png"],
        ["attend", run_dir, "A man.", "--out", place / "attention.png"],
        ["attend", run_dir, "A man.", "--out", place / "attention.html"],
        ["configs", "quickstart"],
    ]


@pytest.fixture
def tiny_yaml(trained_run: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    shutil.copy(trained_run / "config.yaml", path)
    return path


HOMES = {
    "none": {"HOME": None},
    "empty": {"HOME": ""},
    "missing": {"HOME": "/nonexistent/home", "XDG_CACHE_HOME": None},
    "a file": {"HOME": "/dev/null"},
    "no temporary directory": {"HOME": "/nonexistent/home", "TMPDIR": "/nonexistent/tmp"},
}


@slow
@pytest.mark.parametrize("home", HOMES)
@pytest.mark.skipif(not CAN_BE_FOREIGN, reason="needs user namespaces")
def test_every_command_works_for_a_user_without_name_and_home(tiny_yaml: Path, tmp_path: Path, home: str) -> None:
    pytest.importorskip("matplotlib")
    done = start(all_commands(tiny_yaml, tmp_path), tmp_path, FOREIGN, **HOMES[home])
    assert done.statuses == [0] * 9, done.err
    assert "atplotlib" not in done.err
    assert "~" not in {path.name for path in tmp_path.iterdir()}


@slow
@pytest.mark.skipif(not CAN_MOUNT, reason="needs mount namespaces")
def test_every_command_works_where_only_the_place_of_its_output_is_writable(tiny_yaml: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    place = tmp_path / "writable"
    place.mkdir()
    prefix = (*IN_NAMESPACE, "sh", "-c", READ_ONLY, "sh", place)
    done = start(all_commands(tiny_yaml, place), place, prefix, HOME="/root", MPLCONFIGDIR=str(place))
    assert done.statuses == [0] * 9, done.err


@slow
@pytest.mark.skipif(not CAN_MOUNT, reason="needs mount namespaces")
def test_a_run_that_cannot_be_written_is_read_and_what_would_write_is_one_line(
    trained_run: Path, tmp_path: Path
) -> None:
    place = tmp_path / "writable"
    place.mkdir()
    refused: list[list[object]] = [
        ["average", trained_run, "--last", "2"],
        ["translate", trained_run, "--text", "A man.", "--output", "/output"],
        ["train", trained_run / "config.yaml"],
    ]
    read: list[list[object]] = [
        ["translate", trained_run, "--text", "A man."],
        ["evaluate", trained_run, "--beam", "1"],
        ["plot", trained_run],
    ]
    done = start([*read, *refused], place, (*IN_NAMESPACE, "sh", "-c", READ_ONLY, "sh", place), HOME=None)
    assert done.statuses == [0, 0, 0, 2, 2, 2], done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("checkpoint: ")]
    assert [line.rpartition(": ")[2] for line in lines] == ["Read-only file system"] * 3, lines
    assert lines[0].startswith(f"error: {trained_run}") and lines[1].startswith("error: /output: ")


@slow
@pytest.mark.skipif(not CAN_MOUNT, reason="needs mount namespaces")
def test_a_figure_without_a_place_for_matplotlibs_cache_is_one_line(trained_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    if not all(Path(name).stat().st_dev == Path("/").stat().st_dev for name in ("/tmp", "/var/tmp")):
        pytest.skip("temporary files are on a file system of their own")
    command = ["plot", trained_run, "--out", tmp_path / "writable" / "curves.png"]
    (tmp_path / "writable").mkdir()
    prefix = (*IN_NAMESPACE, "sh", "-c", READ_ONLY, "sh", tmp_path / "writable")
    done = start([command], tmp_path / "writable", prefix, HOME=None, MPLCONFIGDIR=None)
    expected = "error: matplotlib has no place for its cache: set MPLCONFIGDIR to a writable directory\n"
    assert (done.statuses, done.err) == ([2], expected)


@slow
@pytest.mark.parametrize(
    "locale",
    [
        {"LANG": "C", "LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "nonsense", "TERM": "dumb", "COLUMNS": "3", "LINES": "0"},
        {"TERM": None, "COLUMNS": "x", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
    ],
    ids=str,
)
def test_every_command_works_in_any_locale_and_terminal(
    tiny_yaml: Path, tmp_path: Path, locale: dict[str, str | None]
) -> None:
    pytest.importorskip("matplotlib")
    done = start(all_commands(tiny_yaml, tmp_path), tmp_path, **locale)
    assert done.statuses == [0] * 9, done.err
    assert "Traceback" not in done.err


def test_a_deleted_working_directory_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    command = [sys.executable, "-m", "transformer.commands", "configs"]
    script = 'rmdir "$1" && shift && exec "$@"'
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", script, "sh", place, *command], cwd=place, env=variables, capture_output=True, text=True
    )
    expected = "error: the working directory has been deleted; change to another one\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)

"""The programs of docs/LOGGING.md train, and other loggers get what is logged, without a network."""

from __future__ import annotations

import ast
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from transformer.config import Config

PAGE = (Path(__file__).parents[1] / "docs" / "LOGGING.md").read_text(encoding="utf-8")
PRINTING, WANDB, MLFLOW = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def directory(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a my.yaml that trains in a second."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(tiny_config.to_yaml().replace("max_steps: 11", "max_steps: 5"))
    return tmp_path


def test_every_program_is_python() -> None:
    for program in (PRINTING, WANDB, MLFLOW):
        ast.parse(program)


def test_the_first_prints_validations(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PRINTING.replace('"train.max_steps=20000"', f'"run_dir={directory}/other"'), {})
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("step 5: ") and "validation" not in line]


def test_weights_and_biases_offline(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    # In a process of its own: its service writes the file until the process ends.
    done = subprocess.run([sys.executable, "-c", WANDB], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (directory / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"validation/nll" in file.read_bytes()


def test_mlflow_in_a_file(directory: Path) -> None:
    pytest.importorskip("mlflow")
    exec(MLFLOW, {})
    found = sqlite3.connect(directory / "mlflow.db").execute("select step from metrics where key = 'validation/nll'")
    assert found.fetchall() == [(5,)]

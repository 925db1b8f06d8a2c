"""The programs of docs/LOGGING.md train, and other loggers get what is logged, without a network."""

from __future__ import annotations

import ast
import sqlite3
from pathlib import Path

import pytest
from test_docs import python_blocks

from transformer.config import Config

PRINTING, WANDB, MLFLOW = python_blocks("docs/LOGGING.md")


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
    exec(WANDB, {})
    (file,) = (directory / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"validation/nll" in file.read_bytes()


def test_mlflow_in_a_file(directory: Path) -> None:
    pytest.importorskip("mlflow")
    exec(MLFLOW, {})
    found = sqlite3.connect(directory / "mlflow.db").execute("select step from metrics where key = 'validation/nll'")
    assert found.fetchall() == [(5,)]

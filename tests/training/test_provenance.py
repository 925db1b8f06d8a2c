"""Each start of a run says where its numbers come from."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

import pytest
import torch

from transformer.config import Config, load_config
from transformer.training import provenance
from transformer.training.provenance import record_start
from transformer.training.trainer import Trainer

CPU = torch.device("cpu")


def starts(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "starts.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_start_that_trains_adds_a_line(tiny_config: Config) -> None:
    trainer = Trainer(tiny_config)
    trainer.fit(lambda: "enough" if trainer.progress.step == 3 else None)
    trainer = Trainer(tiny_config)
    trainer.fit()
    Trainer(tiny_config).fit()  # has nothing left to do
    first, second = starts(trainer.run)
    assert (first["step"], second["step"]) == (0, 3)
    assert first["data"] == second["data"] == trainer.data.fingerprints
    model = (trainer.run / "tokenizer.model").read_bytes()
    assert trainer.data.fingerprints["tokenizer"] == hashlib.sha256(model).hexdigest()


def test_other_data_have_other_fingerprints(tiny_config: Config) -> None:
    other = load_config(_written(tiny_config), [f"run_dir={tiny_config.run_dir}-other", "data.builtin_size=401"])
    one, two = (Trainer(config).data.fingerprints for config in (tiny_config, other))
    assert one["train"] != two["train"]


def _written(config: Config) -> Path:
    path = Path(config.run_dir).with_name("written.yaml")
    path.write_text(config.to_yaml())
    return path


def test_a_line_has_command_versions_device_and_time(tmp_path: Path) -> None:
    record_start(tmp_path, 7, CPU, {"train": "abc"})
    (start,) = starts(tmp_path)
    assert start["command"] == sys.orig_argv
    versions = start["versions"]
    assert isinstance(versions, dict)
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == metadata.version("torch")
    assert (start["step"], start["device"], start["threads"]) == (7, "cpu", torch.get_num_threads())
    assert start["data"] == {"train": "abc"}
    assert datetime.fromisoformat(str(start["time"])).tzinfo is not None


def test_the_revision_is_that_of_the_working_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "__init__.py").write_text("one = 1\n")
    monkeypatch.setattr(provenance.transformer, "__file__", str(source / "__init__.py"))

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *identity, *arguments], cwd=source, capture_output=True, text=True).stdout.strip()

    assert provenance._revision() is None, "no working copy"
    git("init")
    assert provenance._revision() is None, "the code is not in it"
    git("add", ".")
    git("commit", "-m", "one")
    assert provenance._revision() == git("rev-parse", "HEAD")
    (source / "__init__.py").write_text("one = 2\n")
    assert provenance._revision() == git("rev-parse", "HEAD") + "-dirty"


def test_without_git_there_is_no_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance._revision() is None

"""No output replaces an input, a corpus, or a part of a run."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from transformer.commands.outputs import check_output
from transformer.config import DataConfig
from transformer.errors import ConfigError
from transformer.files import check_not_input
from transformer.sections.data import CorpusEntry


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("text\n")
    return path


def test_a_new_file_and_an_unrelated_one_may_be_written(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other"
    other.write_text("text\n")
    for output in (tmp_path / "new", other):
        check_not_input(output, [file, tmp_path / "absent"])
        check_output(output, [file, tmp_path / "absent"], DataConfig(corpus="builtin"))
    assert sorted(tmp_path.iterdir()) == [file, other]


@pytest.mark.parametrize(
    "way", ["itself", "link", "hard link", "through a linked directory", "relative", "linked input"]
)
def test_an_input_is_recognised_by_any_path(
    tmp_path: Path, file: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, given = tmp_path / "output", file
    if way == "itself":
        output = file
    elif way == "link":
        output.symlink_to(file)
    elif way == "hard link":
        output.hardlink_to(file)
    elif way == "linked directory":
        output.symlink_to(tmp_path)
        output = output / "file"
    elif way == "relative":
        monkeypatch.chdir(tmp_path)
        output = Path("file")
    else:
        output.symlink_to(file)
        output, given = file, output
    with pytest.raises(ConfigError, match=f"^{output}: is the same file as the input {given}; choose another name for"):
        check_not_input(output, [tmp_path / "absent", given])
    with pytest.raises(ConfigError, match="is the same file as the input"):
        check_output(output, [given])


@pytest.mark.parametrize("form", ["{split}.{lang}", "{split}/x.{lang}.gz", "all.tsv", "{split}.jsonl"])
def test_files_of_the_corpus_are_inputs_whatever_their_split(tmp_path: Path, form: str) -> None:
    directory = tmp_path / "my [data]"  # a pattern for glob
    (directory / "train").mkdir(parents=True)
    path = directory / form.format(split="train", lang="de")
    path.write_text("text\n")
    data = DataConfig(corpus=str(directory / form))
    with pytest.raises(ConfigError, match="is the same file as the input"):
        check_output(path, (), data)
    check_output(directory / "hypotheses.txt", (), data)


@pytest.mark.parametrize("key", ["also_validate", "tokenizer", "corpora"])
def test_files_of_other_keys_are_inputs_too(tmp_path: Path, key: str) -> None:
    place, path = f"{tmp_path}/{{split}}.{{lang}}", tmp_path / "train.de"
    path.write_text("text\n")
    values: dict[str, Any] = {
        "also_validate": (f"news={place}",),
        "tokenizer": str(path),
        "corpora": (CorpusEntry(path=place),),
    }
    data = DataConfig(**{"corpus": "builtin", key: values[key]})
    with pytest.raises(ConfigError, match="is the same file as the input"):
        check_output(path, (), data)
    check_output(tmp_path / "new", (), data)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_an_output_is_not_called_compressed(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ConfigError, match=rf"out{suffix}: outputs are not compressed; leave out {suffix}$"):
        check_output(tmp_path / f"out{suffix}")


def test_a_corpus_in_a_directory_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    data = DataConfig(corpus=str(tmp_path))
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/link/file: belongs to the corpus {tmp_path}, which"):
        check_output(tmp_path / "link" / "file", (), data)
    check_output(tmp_path / "new", (), data)


def test_no_file_of_a_run_or_a_checkpoint_is_replaced_or_added(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    last = max((run / "checkpoints").iterdir())
    files = [path for path in run.rglob("*") if path.is_file()]
    (tmp_path / "link").symlink_to(last)
    for path in (*files, last / "new", run / "best" / "new", run / "averaged" / "new", tmp_path / "link" / "new"):
        with pytest.raises(ConfigError, match=r"belongs to the run there, which|is a checkpoint, to which no"):
            check_output(path)
    check_output(run / "hypotheses.de")
    shutil.copytree(last, tmp_path / "alone")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/alone/new: {tmp_path}/alone is a checkpoint"):
        check_output(tmp_path / "alone" / "new")


@pytest.mark.parametrize("lost", ["checkpoints", "config.yaml"])
def test_a_run_that_has_lost_files_is_still_one(trained_run: Path, tmp_path: Path, lost: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    (run / lost).rename(tmp_path / "lost")
    for path in (run / "metrics.jsonl", run / "best" / "new"):
        with pytest.raises(ConfigError, match="belongs to the run there, which"):
            check_output(path)


def test_names_that_only_look_like_a_run_are_free(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    for path in (tmp_path / "best" / "new", tmp_path / "config.yaml", tmp_path / "metrics.jsonl"):
        check_output(path)


def test_what_cannot_be_written_is_an_error(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ConfigError, match="is not a regular file"):
        check_output(Path(os.devnull))
    with pytest.raises(NotADirectoryError, match="Not a directory"):
        check_output(file / "below")
    with pytest.raises(FileNotFoundError):
        check_output(tmp_path / "absent" / "below")


def test_the_files_of_a_hub_corpus_are_not_looked_for(file: Path) -> None:
    check_output(file, (), dataclasses.replace(DataConfig(), corpus="wmt/wmt14"))

"""Untrusted files run no code and access no other files."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
import re
import runpy
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from transformer.cli import run
from transformer.config import Config, CorpusEntry, DataConfig, load_config
from transformer.data.corpus import load_split
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, UserError
from transformer.hub import fetch_model, is_model_id, pin_data
from transformer.inference.translator import Translator

ROOT = Path(__file__).parents[1]
CODE = sorted(path for room in ("transformer", "scripts", "tests/fuzz") for path in (ROOT / room).rglob("*.py"))
# An attacker gives none, or matching ones.
NO_SUMS = shutil.ignore_patterns("SHA256SUMS")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


# No code execution.


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bpickle\b(?!=False)(?! anywhere)",
        r"torch\.load\(",
        r"yaml\.(unsafe_|full_)?load\(",
        r"(?<![\w.])eval\(",
        r"(?<![\w.])exec\(",
        r"shell=True",
        r"allow_pickle=True",
        r"trust_remote_code",
        r"np\.load\((?!.*allow_pickle=False)",
    ],
)
def test_no_unsafe_deserialisation_in_the_code(pattern: str) -> None:
    found = []
    for path in CODE:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            # Both sides of a comparison are commands that the user types.
            if re.search(pattern, line) and not (path.name == "compare.py" and pattern == "shell=True"):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def programs(marker: Path, directory: Path) -> dict[str, bytes]:
    """A payload in each format that some library would execute."""
    torch.save(Payload(marker), directory / "zip.pt")
    array = np.empty(1, dtype=object)
    array[0] = Payload(marker)
    np.save(directory / "object.npy", array, allow_pickle=True)
    yaml_tag = f"seed: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]\n"
    return {
        "pickle": pickle.dumps(Payload(marker)),
        "torch": (directory / "zip.pt").read_bytes(),
        "numpy": (directory / "object.npy").read_bytes(),
        "yaml": yaml_tag.encode(),
    }


def test_the_payloads_of_these_tests_work(tmp_path: Path) -> None:
    made = programs(tmp_path / "marker", tmp_path)
    pickle.loads(made["pickle"])
    (tmp_path / "marker").unlink()
    torch.load(tmp_path / "zip.pt", weights_only=False)
    (tmp_path / "marker").unlink()
    np.load(tmp_path / "object.npy", allow_pickle=True)
    assert (tmp_path / "marker").exists()
    assert zipfile.is_zipfile(tmp_path / "zip.pt")


def end_of(script: str, *argv: object) -> object:
    main = runpy.run_path(str(ROOT / "scripts" / f"{script}.py"))["main"]
    with pytest.raises(SystemExit) as end:
        run(lambda: main([str(argument) for argument in argv]))
    return end.value.code


# Files, and the scripts that read them.
PLANTED = {
    "config.yaml": ["train"],
    "tokenizer.model": ["train"],
    "metrics.jsonl": ["plot", "train"],
    "score.json": ["table3"],
    "checkpoints/{last}/config.yaml": ["translate", "evaluate", "average"],
    "checkpoints/{last}/tokenizer.model": ["translate", "evaluate", "average"],
    "checkpoints/{last}/model.safetensors": ["translate", "evaluate", "average", "train"],
    "checkpoints/{last}/optimizer.safetensors": ["train"],
    "checkpoints/{last}/training.json": ["train"],
    "checkpoints/{last}/SHA256SUMS": ["translate", "evaluate", "average", "train"],
    "starts.jsonl": ["train"],
    "tensorboard/events.out.tfevents.1.x": ["train"],
    "cache/meta.json": ["train"],
    "cache/src.ids": ["train"],
    "cache/tgt.lengths.npy": ["train"],
    "cache/.model": ["train"],
}


@pytest.mark.parametrize("place", PLANTED)
@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy", "yaml"])
def test_no_file_of_a_run_or_of_the_cache_runs_a_program(
    trained_run: Path, tmp_path: Path, place: str, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    planted_run, cache = tmp_path / "runs" / "run", tmp_path / "cache"
    shutil.copytree(trained_run, planted_run, ignore=NO_SUMS)
    shutil.copytree(trained_run.parent / "cache", cache)
    shutil.rmtree(planted_run / "best", ignore_errors=True)
    last = max(path.name for path in (planted_run / "checkpoints").iterdir())
    if place == "cache/.model":
        victims = list(cache.glob("*.model"))
        (planted_run / "tokenizer.model").unlink()
    elif place.startswith("cache/"):
        victims = list(cache.glob(f"*/{place.removeprefix('cache/')}"))
    else:
        victims = [planted_run / place.format(last=last)]
    assert victims
    marker = tmp_path / "marker"
    content = programs(marker, tmp_path)[kind]
    for victim in victims:
        victim.write_bytes(content)
    shutil.copy(trained_run / "config.yaml", "mine.yaml")
    (tmp_path / "text").write_text("A man is sleeping.\n")
    arguments: dict[str, list[object]] = {
        "train": ["mine.yaml", f"run_dir={planted_run}", f"data.cache_dir={cache}", "train.max_steps=12"],
        "translate": [planted_run, "text"],
        "evaluate": [planted_run, "--src", "text", "--ref", "text"],
        "average": [planted_run, "--last", 2],
        "plot": [planted_run],
        "table3": ["--report", "--out", planted_run.parent],
    }
    for script in PLANTED[place]:
        assert end_of(script, *arguments[script]) in (0, 2)
    assert not marker.exists()
    capfd.readouterr()


# No access to other files.


@pytest.mark.parametrize("key", ["src_lang", "tgt_lang", "train_split", "validation_split", "test_split"])
@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "a\\b", "", "/etc/passwd", "a\0b"])
def test_splits_and_languages_are_plain_names(key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{key}=.* must be a plain name, without /, \\ and \.\.$"):
        DataConfig(**{key: name})  # type: ignore[arg-type]


def test_a_split_that_a_command_names_is_a_plain_name() -> None:
    with pytest.raises(ConfigError, match=r"^split='\.\./x' must be a plain name"):
        load_split(DataConfig(corpus="data/{split}.{lang}"), "../x")


def test_the_configuration_of_a_model_has_no_base(trained_run: Path, tmp_path: Path) -> None:
    last = max((trained_run / "checkpoints").iterdir())
    shutil.copytree(last, tmp_path / "model", ignore=NO_SUMS)
    (tmp_path / "other.yaml").write_text("seed: 3\n")
    (tmp_path / "model" / "config.yaml").write_text("base: ../other.yaml\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: unknown key base: a saved configuration must be complete"):
        Translator.load(tmp_path / "model")
    assert load_config(tmp_path / "model" / "config.yaml").seed == 3, "which a user's own may have"


def test_paths_in_the_configuration_of_a_model_are_not_followed(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run", ignore=NO_SUMS)
    (tmp_path / "elsewhere").mkdir()
    for path in (tmp_path / "run").rglob("config.yaml"):
        text = re.sub("run_dir: .*", f"run_dir: {tmp_path}/elsewhere/a", path.read_text())
        text = re.sub("cache_dir: .*", f"cache_dir: {tmp_path}/elsewhere/b", text)
        path.write_text(re.sub("corpus: .*", "corpus: /etc/passwd", text))
    (tmp_path / "text").write_text("A man is sleeping.\n")
    assert end_of("average", tmp_path / "run", "--last", 2) == 0
    assert end_of("translate", tmp_path / "run", tmp_path / "text") == 0
    assert end_of("evaluate", tmp_path / "run", "--src", tmp_path / "text", "--ref", tmp_path / "text") == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["config.yaml", "tokenizer.model", "model.safetensors", "optimizer.safetensors", "training.json"]
)
def test_a_link_out_of_a_models_directory_is_not_followed(trained_run: Path, tmp_path: Path, name: str) -> None:
    last = max((trained_run / "checkpoints").iterdir())
    shutil.copytree(last, tmp_path / "model", ignore=NO_SUMS)
    (tmp_path / "model" / name).rename(tmp_path / "private")
    (tmp_path / "model" / name).symlink_to(tmp_path / "private")
    with pytest.raises(CheckpointError, match=rf"{name}: a link out of the model's directory, to .*private; copy"):
        Translator.load(tmp_path / "model")
    (tmp_path / "linked").symlink_to(tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    (tmp_path / "private").rename(tmp_path / "model" / f"inner-{name}")
    (tmp_path / "model" / name).symlink_to(f"inner-{name}")
    Translator.load(tmp_path / "linked")


# The hub.


@pytest.fixture
def snapshot(trained_run: Path, tmp_path: Path) -> Path:
    """A download as the hub's library lays it out: links to blobs."""
    last = max((trained_run / "checkpoints").iterdir())
    directory = tmp_path / "models--org--name" / "snapshots" / COMMIT
    blobs = directory.parents[1] / "blobs"
    directory.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.yaml", "tokenizer.model", "model.safetensors"):
        shutil.copy(last / name, blobs / name)
        (directory / name).symlink_to(os.path.relpath(blobs / name, directory))
    return directory


@pytest.mark.parametrize("revision", [None, "main", "refs/pr/1", COMMIT])
def test_the_revision_of_a_hub_model_is_requested_and_its_commit_reported(
    snapshot: Path, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:  # noqa: ARG001
        asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    translator = Translator.load("org/name" if revision is None else f"org/name@{revision}")
    assert asked == [("org/name", revision)]
    assert translator.origin == f"org/name@{COMMIT}"


def test_scripts_print_the_commit_of_a_hub_model(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    (tmp_path / "text").write_text("A man is sleeping.\n")
    assert end_of("translate", "org/name", tmp_path / "text") == 0
    assert capfd.readouterr().err.startswith(f"checkpoint: org/name@{COMMIT}\n")
    files = ("--src", tmp_path / "text", "--ref", tmp_path / "text")
    assert end_of("evaluate", "org/name@main", *files, "--json") == 0
    assert json.loads(capfd.readouterr().out)["checkpoint"] == f"org/name@{COMMIT}"


def test_a_hub_model_is_not_scored_on_the_corpus_in_its_configuration(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    path = snapshot.parents[1] / "blobs" / "config.yaml"
    path.write_text(re.sub("corpus: .*", "corpus: /etc/{lang}", path.read_text()))
    assert end_of("evaluate", "org/name") == 2
    message = "error: org/name: a model from the hub is not scored on the corpus that it names (/etc/{lang}); give"
    assert capfd.readouterr().err.startswith(message)


@pytest.mark.parametrize("revision", ["", "..", "../../x", "/etc", "-x", "a b", "a/../b"])
def test_an_invalid_revision_is_not_requested(revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ConfigError, match="the revision must be a commit, a tag or a branch"):
        fetch_model(f"org/name@{revision}")


def test_without_a_home_directory_a_model_is_not_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ConfigError, match=r"^no home directory to keep downloads in: set HF_HOME to a directory$"):
        fetch_model("org/name")


@pytest.mark.parametrize(
    ("path", "is_id"),
    [
        ("org/name", True),
        ("org/name@main", True),
        ("org/name.v2", True),
        ("../../etc", False),
        ("/org/name", False),
        ("org/..", False),
        ("org/.hidden", False),
        ("../name", False),
        ("org/name/x", False),
        ("name", False),
    ],
)
def test_paths_are_not_hub_ids(path: str, is_id: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_model_id(path) is is_id
    (tmp_path / "org").mkdir()
    assert not is_model_id(path), "an existing directory takes precedence"


def hub_config(run_dir: Path, **data: Any) -> Config:
    return Config(run_dir=str(run_dir), data=DataConfig(corpus="org/corpus", **data))


def test_a_run_remembers_the_commit_of_its_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def dataset_info(_: object, name: str) -> SimpleNamespace:
        asked.append(name)
        return SimpleNamespace(sha=COMMIT)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    config = pin_data(hub_config(tmp_path / "run"))
    assert config.data.revision == COMMIT
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config.to_yaml())
    assert pin_data(hub_config(tmp_path / "run")) == config
    assert asked == ["org/corpus"], "once"
    given = hub_config(tmp_path / "run", revision="v1")
    assert pin_data(given) is given
    local = Config(run_dir=str(tmp_path / "run"), data=DataConfig(corpus="builtin"))
    assert pin_data(local) is local


def test_a_run_remembers_the_commits_of_all_its_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def dataset_info(_: object, name: str) -> SimpleNamespace:
        asked.append(name)
        return SimpleNamespace(sha=f"{COMMIT[:-1]}{len(asked)}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    entries = [CorpusEntry(path="org/a"), CorpusEntry(path="b.csv"), CorpusEntry(path="org/c", revision="v1")]
    data = DataConfig(corpus="my.csv", corpora=tuple(entries))
    config = pin_data(Config(run_dir=str(tmp_path / "run"), data=data))
    assert [entry.revision for entry in config.data.corpora] == [f"{COMMIT[:-1]}1", None, "v1"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config.to_yaml())
    assert pin_data(Config(run_dir=str(tmp_path / "run"), data=data)) == config
    assert asked == ["org/a"], "once"


def test_without_a_network_a_run_starts_with_the_downloaded_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dataset_info(*_: object) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    config = hub_config(tmp_path / "run")
    assert pin_data(config) == config


# Dependencies.


def requirements(name: str, extras: frozenset[str]) -> list[Requirement]:
    """Requirements of an installed distribution with these extras."""
    found = map(Requirement, importlib.metadata.requires(name) or [])
    environments = [{"extra": extra} for extra in ("", *extras)]
    return [item for item in found if item.marker is None or any(map(item.marker.evaluate, environments))]


def test_everything_that_the_test_command_installs_is_pinned_as_it_is_installed() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    pending, seen = [("attention-is-all-you-need", frozenset({"dev"}))], set()
    while pending:
        name, extras = pending.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        pending += [(canonicalize_name(r.name), frozenset(r.extras)) for r in requirements(name, extras)]
    # On Linux torch brings CUDA's libraries, each pinned by torch itself; setuptools builds, and is not run.
    ours = {"attention-is-all-you-need", "setuptools", "triton"}
    names = {name for name, _ in seen if name not in ours and not name.startswith(("nvidia-", "cuda-"))}
    installed = {}
    for name in names:
        installed[name] = importlib.metadata.version(name).partition("+")[0]  # torch+cpu is torch
    assert {name: pinned.get(name) for name in names} == installed


def test_a_tokenizer_whose_pieces_are_not_utf8_is_refused(trained_run: Path) -> None:
    model = (trained_run / "tokenizer.model").read_bytes()
    broken = model.replace("▁".encode() + b"d", b"\xff\x96\x81d", 1)
    assert broken != model
    with pytest.raises(UserError, match="a piece is not UTF-8"):
        Tokenizer(broken)

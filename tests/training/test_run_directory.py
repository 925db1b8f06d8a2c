"""The run directory: its configuration, its checkpoints and the record of its starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.config import Config, CorpusEntry, DataConfig, load_config
from transformer.errors import CheckpointError, ConfigError, InUseError
from transformer.training import run_directory
from transformer.training.run_directory import (
    adopt_config,
    checkpoint_name,
    checkpoints,
    claim_run,
    find_checkpoint,
    last_checkpoints,
    prune,
    record_start,
)
from transformer.training.run_keys import CHANGEABLE_KEYS, PLACE_KEYS, yaml_value
from transformer.training.trainer import Trainer

# When to log, save and stop and where to compute: the results do not depend on these.
FREE = {
    "data.test_split": "dev",
    "data.also_validate": ("test",),
    "data.bleu_tokenizer": "zh",
    "data.cache_dir": "elsewhere",
    "data.revision": "main",
    "train.skip_nonfinite": 3,
    "train.max_steps": 7,
    "train.max_hours": 3.5,
    "train.patience": 5,
    "train.log_steps": 11,
    "train.validate_steps": 13,
    "train.validation_bleu": False,
    "train.best_by": "chrf",
    "train.save_steps": 17,
    "train.save_minutes": 2.5,
    "train.keep_checkpoints": 3,
    "train.device": "cpu",
    "train.deterministic": True,
    "train.num_threads": 1,
    "train.gradient_checkpointing": True,
    "train.packed": False,
    "train.compile": False,
    "search.beam": 2,
    "search.alpha": 0.5,
    "search.max_length_offset": 19,
    "search.max_source_length": 23,
    "search.length_penalty": "power",
    "search.max_length": 97,
    "search.min_length": 3,
    "search.no_repeat_ngram": 5,
    "search.allow_unknown": False,
}


FIXED = {
    "seed": 2,
    "model.d_model": 528,
    "model.num_layers": 5,
    "model.num_decoder_layers": 7,
    "model.num_heads": 4,
    "model.num_kv_heads": 4,
    "model.d_ff": 29,
    "model.activation": "gelu",
    "model.d_k": 31,
    "model.d_v": 37,
    "model.dropout": 0.3,
    "model.attention_dropout": 0.1,
    "model.activation_dropout": 0.1,
    "model.attention_bias": True,
    "model.attention_score": "additive",
    "model.attention_temperature": 2.0,
    "model.attention_window": 31,
    "model.norm": "pre",
    "model.norm_eps": 1e-5,
    "model.tie": "none",
    "model.output_bias": True,
    "model.positional": "learned",
    "model.max_positions": 1031,
    "model.max_relative_position": 11,
    "data.tag": "<a>",
    "data.target_tags": (">>deu<<", ">>nld<<"),
    "data.hold_out": ["validation"],
    "data.validation_size": 71,
    "data.filters": ["copies"],
    "data.deduplicate": True,
    "data.corpus": "builtin",
    "data.src_lang": "fr",
    "data.tgt_lang": "en",
    "data.builtin_size": 43,
    "data.vocab_size": 47,
    "data.tokenizer_type": "unigram",
    "data.separate_vocabularies": True,
    "data.source_vocab_size": 41,
    "data.user_symbols": ("<2de>",),
    "data.subword_dropout": 0.1,
    "data.subword_alpha": 0.2,
    "data.subword_sides": "source",
    "data.normalization": "nfkc",
    "data.character_coverage": 0.99,
    "data.byte_fallback": True,
    "data.max_length": 53,
    "data.max_ratio": 1.5,
    "train.tokens_per_update": 59,
    "train.batching": "bucketed",
    "train.max_tokens": 61,
    "train.label_smoothing": 0.0,
    "train.warmup_steps": 67,
    "train.lr_factor": 2.0,
    "train.adam_beta1": 0.8,
    "train.adam_beta2": 0.999,
    "train.adam_eps": 1e-8,
    "train.weight_decay": 0.1,
    "train.ema_decay": 0.99,
    "train.clip_norm": 1.0,
    "train.precision": "fp32",
    "train.init_from": "runs/other",
    "train.freeze": ("encoder",),
}

# Keys that need each other.
TOGETHER = {
    "train.schedule": "linear",
    "train.learning_rate": 0.5,
    "train.min_learning_rate": 0.1,
    "train.decay_steps": 5003,  # a run may go on with another value if the schedule ends at the same update
}

# What some of these need to be valid.
NEEDED = {
    "data.separate_vocabularies": {"model.tie": "none"},
    "data.source_vocab_size": {"model.tie": "none", "data.separate_vocabularies": True},
    "data.subword_alpha": {"data.tokenizer_type": "unigram"},
}

# Where the data are, which may change if the data do not.
PLACES = {
    "data.corpora": (CorpusEntry(path="wmt/wmt14", src_lang="de"),),
    "data.subset": None,
    "data.train_split": "all",
    "data.validation_split": "dev",
    "data.tokenizer": "other.model",
}


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """The configuration with other values, by dotted key."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    for name, value in tree.items():
        if isinstance(value, dict):
            tree[name] = dataclasses.replace(getattr(config, name), **value)
    return dataclasses.replace(config, **tree)


def make_checkpoints(directory: Path, *steps: int) -> None:
    for step in steps:
        (directory / checkpoint_name(step)).mkdir(parents=True)
        (directory / checkpoint_name(step) / "model.safetensors").write_text(str(step))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The paper's configuration with a held-out split, in a directory that does not exist yet."""
    return Config(run_dir=str(tmp_path / "runs" / "base"), data=DataConfig(hold_out=("test",)))


def test_every_key_is_free_or_fixed_or_a_place() -> None:
    assert sorted([*FREE, *FIXED, *TOGETHER, *PLACES, "run_dir"]) == sorted(Config().flat())
    assert {*PLACES, "data.corpus"} == set(PLACE_KEYS)
    for key, value in (FREE | FIXED | TOGETHER | PLACES).items():
        assert Config().flat()[key] != value, key


def test_a_new_run_keeps_its_whole_configuration(config: Config) -> None:
    claim_run(config)
    run = Path(config.run_dir)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "checkpoints", "config.yaml"]
    assert load_config(run / "config.yaml") == config


def test_the_same_configuration_claims_its_run_again(config: Config) -> None:
    claim_run(config)
    make_checkpoints(Path(config.run_dir) / "checkpoints", 3)
    claim_run(config)
    assert load_config(Path(config.run_dir) / "config.yaml") == config


def test_an_empty_directory_can_be_claimed(config: Config) -> None:
    Path(config.run_dir).mkdir(parents=True)
    claim_run(config)
    assert load_config(Path(config.run_dir) / "config.yaml") == config


def test_a_directory_with_something_else_in_it_is_refused(config: Config) -> None:
    Path(config.run_dir).mkdir(parents=True)
    thesis = Path(config.run_dir) / "thesis.txt"
    thesis.write_text("seven years of work")
    with pytest.raises(ConfigError, match="base: the directory is not empty and contains no run; choose another"):
        claim_run(config)
    assert [*Path(config.run_dir).iterdir()] == [thesis]


@pytest.mark.parametrize("name", [".lock", ".config.yaml.tmp"])
def test_a_directory_with_leftovers_of_a_killed_start_can_be_claimed(config: Config, name: str) -> None:
    Path(config.run_dir).mkdir(parents=True)
    (Path(config.run_dir) / name).touch()
    claim_run(config)
    assert load_config(Path(config.run_dir) / "config.yaml") == config


_CLAIM = """
import sys, time
from transformer.config import load_config
from transformer.training.run_directory import claim_run
lock = claim_run(load_config(sys.argv[1]))
print("claimed", flush=True)
time.sleep(600)
"""


def test_the_lock_lasts_as_long_as_the_process(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    with subprocess.Popen([sys.executable, "-c", _CLAIM, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        with pytest.raises(InUseError, match=f"run_dir={config.run_dir}: in use by another process; wait until"):
            claim_run(config)
        process.kill()
    claim_run(config)


def test_in_one_process_a_run_may_be_claimed_again(config: Config) -> None:
    first = claim_run(config)
    second = claim_run(config)
    assert first is second


def test_leftovers_of_a_removal_are_removed(config: Config) -> None:
    claim_run(config)
    run = Path(config.run_dir)
    make_checkpoints(run / "checkpoints", 3)
    for name in ("checkpoints/.step-00000002.removed", ".averaged.removed"):
        (run / name).mkdir()
        (run / name / "config.yaml").touch()
    claim_run(config)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "checkpoints", "config.yaml"]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]


@pytest.mark.parametrize(
    "lose",
    [
        lambda run: (run / "checkpoints").rmdir(),
        lambda run: (run / "checkpoints" / "step-00000005.bak").mkdir(),
        lambda run: (run / "averaged").mkdir(),
    ],
    ids=["directory", "names", "all but their average"],
)
def test_a_run_that_has_lost_its_checkpoints_does_not_restart(config: Config, lose: Callable[[Path], object]) -> None:
    """Restarting would remove its best checkpoint, as one of updates to be repeated."""
    claim_run(config)
    run = Path(config.run_dir)
    make_checkpoints(run / "best", 7)
    (run / "checkpoints" / ".step-00000007.tmp").mkdir()
    claim_run(config)  # killed in its first save
    lose(run)
    with pytest.raises(
        CheckpointError,
        match=f"{run}: contains a best checkpoint, but those in {run}/checkpoints, needed to resume, are gone",
    ):
        claim_run(config)
    assert [path.name for path in checkpoints(run / "best")] == [checkpoint_name(7)]


def test_free_keys_may_change_and_the_new_values_are_kept(config: Config) -> None:
    claim_run(config)
    make_checkpoints(Path(config.run_dir) / "checkpoints", 3)
    other = with_values(config, FREE | {"train.validation_bleu": True})
    claim_run(other)
    assert load_config(Path(config.run_dir) / "config.yaml") == other
    without_bleu = with_values(config, {"train.validation_bleu": False})
    claim_run(without_bleu)
    assert load_config(Path(config.run_dir) / "config.yaml") == without_bleu


@pytest.mark.parametrize("key", [*PLACES, "data.corpus"])
def test_the_place_of_the_data_may_change_but_is_kept_until_they_are_compared(config: Config, key: str) -> None:
    claim_run(config)
    path = Path(config.run_dir) / "config.yaml"
    make_checkpoints(Path(config.run_dir) / "checkpoints", 3)
    other = with_values(config, {key: (PLACES | {"data.corpus": "moved/{split}.{lang}"})[key]})
    claim_run(other)
    assert load_config(path) == config
    adopt_config(other)
    assert load_config(path) == other


@pytest.mark.parametrize("key", [*PLACES, "data.corpus"])
def test_the_place_of_the_data_is_fixed_while_there_is_no_checkpoint_to_compare_with(config: Config, key: str) -> None:
    claim_run(config)
    make_checkpoints(Path(config.run_dir) / "best", 3)
    with pytest.raises(ConfigError, match=rf"belongs to another configuration \({key}: "):
        claim_run(with_values(config, {key: (PLACES | {"data.corpus": "moved/{split}.{lang}"})[key]}))


@pytest.mark.parametrize("key", FIXED)
@pytest.mark.parametrize("kind", ["checkpoints", "best"])
def test_a_fixed_key_may_not_change_and_both_values_are_shown(config: Config, key: str, kind: str) -> None:
    config = with_values(config, NEEDED.get(key, {}))
    claim_run(config)
    run = Path(config.run_dir)
    make_checkpoints(run / kind, 3)
    before = (run / "config.yaml").read_bytes()
    is_changeable = kind == "checkpoints" and key in CHANGEABLE_KEYS
    advice = "; --change goes on with the new ones" if is_changeable else ""
    shown = f"({key}: {yaml_value(config.flat()[key])} there, {yaml_value(FIXED[key])} here)"
    with pytest.raises(ConfigError) as error:
        claim_run(with_values(config, {key: FIXED[key]}))
    assert str(error.value) == (
        f"{run} belongs to another configuration {shown}; choose another run_dir (by default runs/ and the name of the "
        f"file, so files of one name share it) or restore these values{advice}"
    )
    assert (run / "config.yaml").read_bytes() == before


def test_the_schedule_and_its_learning_rate_may_not_change(config: Config) -> None:
    claim_run(config)
    make_checkpoints(Path(config.run_dir) / "checkpoints", 3)
    keys = (
        r"\(train\.schedule: noam there, linear here; train\.learning_rate: null there, 0\.5 here; "
        r"train\.min_learning_rate: 0\.0 there, 0\.1 here\)"
    )
    with pytest.raises(ConfigError, match=keys):
        claim_run(with_values(config, TOGETHER))


def test_all_differing_keys_are_named_at_once(config: Config) -> None:
    claim_run(config)
    make_checkpoints(Path(config.run_dir) / "checkpoints", 3)
    with pytest.raises(ConfigError, match=r"\(seed: 1 there, 2 here; model.norm: post there, pre here\)"):
        claim_run(with_values(config, {"train.max_steps": 7, "seed": 2, "model.norm": "pre"}))


def test_a_run_without_checkpoints_may_change_its_configuration(config: Config) -> None:
    claim_run(config)
    run = Path(config.run_dir)
    for name in ("tokenizer.model", "source_tokenizer.model"):
        (run / name).write_bytes(b"of the other configuration")
    other = with_values(config, {key: value for key, value in FIXED.items() if key != "data.subword_dropout"})
    claim_run(other)
    assert load_config(run / "config.yaml") == other
    assert not [*run.glob("*.model")], "its tokenizers belonged to the earlier configuration"


def test_only_a_run_with_checkpoints_keeps_its_tokenizer(config: Config) -> None:
    """The corpus may have changed since a killed first start; the cache has the tokenizer of the same corpus."""
    claim_run(config)
    path = Path(config.run_dir) / "tokenizer.model"
    path.write_bytes(b"of this corpus")
    make_checkpoints(Path(config.run_dir) / "checkpoints", 3)
    claim_run(with_values(config, {"train.max_steps": 7}))
    assert path.read_bytes() == b"of this corpus"
    shutil.rmtree(path.with_name("checkpoints") / checkpoint_name(3))
    claim_run(config)
    assert not path.exists()


def test_a_run_cannot_be_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        claim_run(Config(run_dir=str(tmp_path / "file" / "run")))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e-9, "1.0e-09"),
        (None, "null"),
        (True, "true"),
        ("post", "post"),
        (7, "7"),
        (" ".join("ab" * 99), " ".join("ab" * 99)),
    ],
    ids=repr,
)
def test_values_are_shown_on_one_line_as_they_are_written_in_yaml(value: object, expected: str) -> None:
    assert yaml_value(value) == expected


def test_checkpoints_are_listed_in_the_order_of_their_steps(tmp_path: Path) -> None:
    make_checkpoints(tmp_path, 1000, 2, 30, 100000003, 99999999)
    assert [path.name for path in checkpoints(tmp_path)] == [
        "step-00000002",
        "step-00000030",
        "step-00001000",
        "step-99999999",
        "step-100000003",
    ]


def test_incomplete_checkpoints_are_not_listed(tmp_path: Path) -> None:
    make_checkpoints(tmp_path, 3)
    (tmp_path / "step-00000005").mkdir()
    (tmp_path / ".step-00000007.tmp").mkdir()
    (tmp_path / ".step-00000007.tmp" / "model.safetensors").touch()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]
    assert checkpoints(tmp_path / "absent") == []


@pytest.mark.parametrize(("keep", "left"), [(1, [7]), (2, [5, 7]), (3, [3, 5, 7]), (11, [3, 5, 7])])
def test_pruning_keeps_the_last(tmp_path: Path, keep: int, left: list[int]) -> None:
    make_checkpoints(tmp_path, 3, 5, 7)
    prune(tmp_path, keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint_name(step) for step in left]


@pytest.mark.parametrize("stops", [(), (2,), (15,), (13, 14, 16), (16, 17, 18), (9, 10, 11, 13, 15, 17)], ids=str)
@pytest.mark.parametrize(("keep", "left"), [(1, [19]), (2, [15, 19]), (3, [10, 15, 19])])
def test_interruptions_do_not_change_which_checkpoints_are_kept(
    tmp_path: Path, stops: tuple[int, ...], keep: int, left: list[int]
) -> None:
    for step in sorted({5, 10, 15, 19, *stops}):  # every 5 steps and at the end
        make_checkpoints(tmp_path, step)
        prune(tmp_path, keep, every=5)
        assert checkpoints(tmp_path)[-1].name == checkpoint_name(step)
        assert len(checkpoints(tmp_path)) <= keep
    assert checkpoints(tmp_path) == [tmp_path / checkpoint_name(step) for step in left]


def test_the_last_checkpoints_of_a_run(tmp_path: Path) -> None:
    make_checkpoints(tmp_path / "checkpoints", 3, 5, 7)
    assert [path.name for path in last_checkpoints(tmp_path, 2)] == ["step-00000005", "step-00000007"]
    assert last_checkpoints(tmp_path, 3) == checkpoints(tmp_path / "checkpoints")


@pytest.mark.parametrize("number", [-1, 0, 4])
def test_more_or_fewer_checkpoints_than_there_are_cannot_be_averaged(tmp_path: Path, number: int) -> None:
    make_checkpoints(tmp_path / "checkpoints", 3, 5, 7)
    make_checkpoints(tmp_path / "best", 5)
    with pytest.raises(CheckpointError, match=rf" contains 3 checkpoints; {number} cannot be averaged$"):
        last_checkpoints(tmp_path, number)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (
            '{"format": "ct2"}',
            "is a model for CTranslate2; only `transformer translate` reads it, with --engine ctranslate2",
        ),
        ('{"format": "onnx"}', r"is an export for other programs \(--to onnx\), which its README.md describes"),
        ('["format"]', "contains no checkpoint; train first"),
        ("{}", "contains no checkpoint; train first"),
        ("no JSON", "contains no checkpoint; train first"),
    ],
)
def test_an_export_for_other_engines_is_said_to_be_one(tmp_path: Path, described: str, message: str) -> None:
    (tmp_path / "export.json").write_text(described)
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint(tmp_path)


def test_a_checkpoint_is_found_in_the_order_of_preference(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(CheckpointError, match=r"run: contains no checkpoint; train first, or name a directory with"):
        find_checkpoint(run)
    make_checkpoints(run / "checkpoints", 3, 7)
    assert find_checkpoint(run) == run / "checkpoints" / "step-00000007"
    make_checkpoints(run / "best", 5)
    assert find_checkpoint(run) == run / "best" / "step-00000005"
    (run / "averaged").mkdir()
    assert find_checkpoint(run) == run / "best" / "step-00000005", "an empty directory is no average"
    (run / ".averaged.old").mkdir()
    (run / ".averaged.old" / "model.safetensors").touch()
    assert find_checkpoint(run) == run / ".averaged.old", "killed while it was being replaced"
    (run / "averaged" / "model.safetensors").touch()
    assert find_checkpoint(str(run)) == run / "averaged"
    assert find_checkpoint(run / "checkpoints" / "step-00000003") == run / "checkpoints" / "step-00000003"
    assert find_checkpoint(run / "checkpoints") == run / "checkpoints" / "step-00000007", "the last of them"


def test_an_absent_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: no such run or checkpoint directory$"):
        find_checkpoint(tmp_path / "absent")


CPU = torch.device("cpu")


def starts(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "starts.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_start_that_trains_adds_a_line(tiny_config: Config) -> None:
    trainer = Trainer.from_config(tiny_config)
    trainer.fit(lambda: "enough" if trainer.progress.step == 3 else None)
    trainer = Trainer.from_config(tiny_config)
    trainer.fit()
    Trainer.from_config(tiny_config).fit()  # has nothing left to do
    first, second = starts(trainer.run)
    assert (first["step"], second["step"]) == (0, 3)
    assert first["data"] == second["data"] == trainer.data.fingerprints
    model = (trainer.run / "tokenizer.model").read_bytes()
    assert trainer.data.fingerprints["tokenizer"] == hashlib.sha256(model).hexdigest()


def test_other_data_have_other_fingerprints(tiny_config: Config, tiny_corpus: str, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        for lang in ("en", "de"):
            text = Path(tiny_corpus.format(split=split, lang=lang)).read_text()
            (tmp_path / f"{split}.{lang}").write_text(f"{text}a\n" if split == "train" else text)
    values = [f"run_dir={tiny_config.run_dir}-other", f"data.corpus={tmp_path}/{{split}}.{{lang}}"]
    other = load_config(_written(tiny_config), values)
    one, two = (Trainer.from_config(config).data.fingerprints for config in (tiny_config, other))
    assert one["train"] != two["train"]


def _written(config: Config) -> Path:
    path = Path(config.run_dir).with_name("written.yaml")
    path.write_text(config.to_yaml())
    return path


def test_a_line_has_command_versions_device_and_time(tmp_path: Path) -> None:
    record_start(tmp_path, 7, CPU, {"train": "abc"}, 11)
    (start,) = starts(tmp_path)
    assert start["command"] == sys.orig_argv
    versions = start["versions"]
    assert isinstance(versions, dict)
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == metadata.version("torch")
    assert (start["step"], start["device"], start["threads"]) == (7, "cpu", torch.get_num_threads())
    assert (start["data"], start["pairs"]) == ({"train": "abc"}, 11)
    assert datetime.fromisoformat(str(start["time"])).tzinfo is not None


def test_a_package_that_is_not_installed_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "datasets":
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    record_start(tmp_path, 0, CPU, {}, 0)
    versions = starts(tmp_path)[0]["versions"]
    assert isinstance(versions, dict)
    assert (versions["datasets"], versions["torch"]) == (None, "1.2")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_is_that_of_the_working_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "__init__.py").write_text("one = 1\n")
    monkeypatch.setattr(run_directory, "__file__", str(source / "training" / "run_directory.py"))

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *identity, *arguments], cwd=source, capture_output=True, text=True).stdout.strip()

    assert run_directory._revision() is None, "no working copy"
    git("init")
    assert run_directory._revision() is None, "the code is not in it"
    git("add", ".")
    git("commit", "-m", "one")
    assert run_directory._revision() == git("rev-parse", "HEAD")
    (source / "__init__.py").write_text("one = 2\n")
    assert run_directory._revision() == git("rev-parse", "HEAD") + "-dirty"


def test_without_git_there_is_no_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_directory._revision() is None

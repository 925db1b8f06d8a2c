"""Runs that begin with trained weights: what they inherit, refuse, keep and record."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from transformer.config import Config, DataConfig, ModelConfig, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError
from transformer.model.alternatives.build import build_model
from transformer.training import initialization
from transformer.training.checkpoint import average_checkpoints, load_checkpoint, save_checkpoint, save_model
from transformer.training.freezing import freeze
from transformer.training.initialization import Kept, adapt_vocabulary, inherit
from transformer.training.integrity import sha256
from transformer.training.run_directory import checkpoints, claim_run, find_checkpoint, lock_run
from transformer.training.trainer import Trainer

NUM_STEPS = 5


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Other pairs than those of the trained run."""
    directory = tmp_path_factory.mktemp("other")
    for split, size in (("train", 149), ("validation", 23), ("test", 19)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size, seed=1), strict=True), strict=True):
            (directory / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    return f"{directory}/{{split}}.{{lang}}"


def tuning(directory: Path, corpus: str, source: Path | str, *overrides: str) -> Config:
    """A configuration of `directory/run` that leaves model and tokenizer to the source."""
    path = directory / "tune.yaml"
    train: dict[str, Any] = {"init_from": str(source), "tokens_per_update": 401, "max_tokens": 211}
    train |= {"warmup_steps": 3, "max_steps": NUM_STEPS, "log_steps": 1, "validate_steps": 2}
    train |= {"validation_bleu": False, "save_steps": 2, "save_minutes": None, "precision": "fp32", "device": "cpu"}
    data = {"corpus": corpus, "cache_dir": str(directory / "cache")}
    path.write_text(yaml.safe_dump({"run_dir": str(directory / "run"), "seed": 3, "data": data, "train": train}))
    return load_config(path, overrides, complete=inherit)


def weights_of(config: Config, step: int = NUM_STEPS) -> dict[str, Tensor]:
    return load_file(Path(config.run_dir) / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def equal(here: dict[str, Tensor], there: dict[str, Tensor]) -> bool:
    return here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


# What a configuration leaves out.


def test_model_tokenizer_and_languages_that_are_left_out_are_those_of_the_checkpoint(
    tmp_path: Path, other_corpus: str, trained_run: Path
) -> None:
    source, config = load_config(trained_run / "config.yaml", saved=True), tuning(tmp_path, other_corpus, trained_run)
    assert config.model == source.model
    assert config.data == dataclasses.replace(source.data, corpus=other_corpus, cache_dir=config.data.cache_dir)
    assert config.search.max_length_offset == Config().search.max_length_offset


def test_what_is_given_is_kept(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    given = ["model.dropout=0.3", "data.tgt_lang=nl", "data.max_length=71"]
    config = tuning(tmp_path, other_corpus, trained_run, *given)
    assert (config.model.dropout, config.model.d_model) == (0.3, 22)
    assert (config.data.tgt_lang, config.data.max_length, config.data.vocab_size) == ("nl", 71, 307)


def test_the_configuration_of_a_run_that_has_begun_is_complete_without_its_source(
    tmp_path: Path, other_corpus: str, trained_run: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(trained_run, source)
    config = tuning(tmp_path, other_corpus, source)
    Trainer.from_config(dataclasses.replace(config, train=dataclasses.replace(config.train, max_steps=3))).fit()
    shutil.rmtree(source)
    resumed = tuning(tmp_path, other_corpus, source)
    assert resumed == config
    Trainer.from_config(resumed).fit()
    (tmp_path / "whole").mkdir()
    whole = tuning(tmp_path / "whole", other_corpus, trained_run)
    Trainer.from_config(whole).fit()
    assert equal(weights_of(resumed), weights_of(whole))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"run_dir": "x", "train": None},
        {"run_dir": "x", "train": "text"},
        {"run_dir": "x", "train": {"init_from": None}},
        {"run_dir": "x", "train": {"init_from": 7}},
        {"run_dir": 7, "train": {"init_from": "x"}},
    ],
)
def test_without_a_source_nothing_is_inherited(values: dict[str, Any]) -> None:
    before = json.dumps(values)
    inherit(values)
    assert json.dumps(values) == before


def test_without_a_home_directory_the_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(_: Path) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "expanduser", no_home)
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(ConfigError, match=r"train\.init_from='~/x' begins with ~, and no home directory"):
        load_config(tmp_path / "mine.yaml", ["train.init_from=~/x"], complete=inherit)


def test_a_section_that_is_a_value_stays_an_error(tmp_path: Path, trained_run: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"model: 3\ntrain: {{init_from: {trained_run}}}")
    with pytest.raises(ConfigError, match="model: expected a section of keys, got 3"):
        load_config(path, complete=inherit)


# What is refused.


def test_another_model_is_refused_with_the_values_to_set(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    config = tuning(tmp_path, other_corpus, trained_run, "model.d_k=11", "model.norm=pre", "data.vocab_size=211")
    with pytest.raises(ConfigError) as error:
        Trainer.from_config(config)
    assert str(error.value) == (
        f"train.init_from={trained_run}: its model and tokenizer are described otherwise; leave these keys out or set "
        "model.d_k=7 model.norm=post data.vocab_size=307"
    )


@pytest.mark.parametrize(
    "same",
    [
        {"num_decoder_layers": 2, "num_kv_heads": 2, "max_positions": 97, "max_relative_position": 3},
        {"dropout": 0.0, "attention_dropout": 0.2, "activation_dropout": 0.3},
    ],
)
def test_the_same_model_written_otherwise_is_the_same(same: dict[str, Any]) -> None:
    model = ModelConfig(d_model=22, num_layers=2, num_heads=2)
    assert model.computed() == dataclasses.replace(model, **same).computed()


@pytest.mark.parametrize("other", [{"activation": "gelu"}, {"norm_eps": 1e-5}, {"attention_temperature": 2.0}])
def test_keys_without_weights_that_change_the_function_count(other: dict[str, Any]) -> None:
    model = ModelConfig(d_model=22, num_layers=2, num_heads=2)
    assert model.computed() != dataclasses.replace(model, **other).computed()


@pytest.mark.parametrize("place", ["", "best", "checkpoints/step-00000008"])
def test_a_run_does_not_begin_with_its_own_weights(tmp_path: Path, other_corpus: str, place: str) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match=r"is in run_dir=.* itself; a run goes on from its last checkpoint"):
        tuning(tmp_path, other_corpus, tmp_path / "run" / place)


def test_a_finished_run_does_not_become_its_own_source(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    with pytest.raises(ConfigError, match="itself"):
        tuning(tmp_path, other_corpus, tmp_path / "run")
    config = dataclasses.replace(load_config(trained_run / "config.yaml", saved=True), run_dir=str(tmp_path / "run"))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=str(tmp_path / "run")))
    with pytest.raises(ConfigError, match="itself"):
        Trainer.from_config(config)


def test_a_run_of_random_weights_does_not_become_one_of_trained_ones(
    tmp_path: Path, other_corpus: str, trained_run: Path
) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    config = tuning(tmp_path, other_corpus, trained_run)
    with pytest.raises(ConfigError, match=rf"train.init_from: null there, {trained_run} here"):
        claim_run(config)


@pytest.mark.parametrize("missing", ["tokenizer.model", "config.yaml"])
def test_a_source_without_tokenizer_or_configuration_is_refused(
    tmp_path: Path, other_corpus: str, trained_run: Path, missing: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(find_checkpoint(trained_run), source)
    (source / missing).unlink()
    with pytest.raises((CheckpointError, ConfigError, ValueError), match=missing):
        tuning(tmp_path, other_corpus, source)


def test_an_absent_source_is_named(tmp_path: Path, other_corpus: str) -> None:
    with pytest.raises(CheckpointError, match=f"{tmp_path}/none: no such run or checkpoint directory"):
        tuning(tmp_path, other_corpus, tmp_path / "none")


def test_a_source_with_a_damaged_configuration_is_named(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(find_checkpoint(trained_run), source)
    (source / "config.yaml").write_text("model: {d_model: -1}")
    with pytest.raises(ConfigError, match=f"^{source}/config.yaml: model.d_model=-1 must be at least 1"):
        tuning(tmp_path, other_corpus, source)


# What a run begins with.


def test_random_weights_given_as_a_source_are_those_of_a_run_without_one(
    tmp_path: Path, other_corpus: str, trained_run: Path
) -> None:
    """The seed draws the weights; loading them draws nothing."""
    plain = tuning(tmp_path, other_corpus, trained_run, "model.dropout=0.2")
    plain = dataclasses.replace(plain, train=dataclasses.replace(plain.train, init_from=None))
    first = Trainer.from_config(plain)
    torch.manual_seed(plain.seed)
    untrained = build_model(len(first.data.tokenizer), plain.model)
    save_model(untrained, tmp_path / "untrained", plain, first.data.tokenizer)
    first.fit()
    (tmp_path / "again").mkdir()
    again = tuning(tmp_path / "again", other_corpus, tmp_path / "untrained", "model.dropout=0.2")
    Trainer.from_config(again).fit()
    assert equal(weights_of(plain), weights_of(again))


def test_a_new_run_begins_at_step_0_with_the_weights_the_tokenizer_and_no_moments(
    tmp_path: Path, other_corpus: str, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer.from_config(tuning(tmp_path, other_corpus, trained_run))
    directory = find_checkpoint(trained_run)
    assert equal(trainer.weights.master.state_dict(), load_file(directory / "model.safetensors"))
    assert trainer.data.tokenizer.model == (directory / "tokenizer.model").read_bytes()
    assert (trainer.progress.step, trainer.progress.epoch, trainer.progress.best_nll) == (0, 0, None)
    assert not trainer.optimizer.state
    digest = sha256(directory / "model.safetensors")
    assert capsys.readouterr().out == f"initial weights: {directory} (SHA-256 {digest[:12]})\n"


def test_what_it_began_with_is_recorded(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    config = tuning(tmp_path, other_corpus, trained_run)
    for max_steps in (3, NUM_STEPS):
        Trainer.from_config(
            dataclasses.replace(config, train=dataclasses.replace(config.train, max_steps=max_steps))
        ).fit()
    directory = find_checkpoint(trained_run)
    first, second = (json.loads(line) for line in (tmp_path / "run" / "starts.jsonl").read_text().splitlines())
    assert first["init_from"] == {
        "init_from": str(trained_run),
        "checkpoint": str(directory),
        "step": int(directory.name[5:]),
        "sha256": sha256(directory / "model.safetensors"),
        "rows": {},
    }
    assert "init_from" not in second and second["changed"] == {"train.max_steps": [3, NUM_STEPS]}


def test_an_average_is_recorded_with_its_steps(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(trained_run, source)
    config, tokenizer, _ = load_checkpoint(find_checkpoint(source))
    found = checkpoints(source / "checkpoints")[-2:]
    steps = [int(path.name[5:]) for path in found]
    save_checkpoint(source / "averaged", config, tokenizer, average_checkpoints(found), averaged_steps=steps)
    Trainer.from_config(tuning(tmp_path, other_corpus, source)).fit()
    recorded = json.loads((tmp_path / "run" / "starts.jsonl").read_text())["init_from"]
    assert (recorded["checkpoint"], recorded["averaged_steps"]) == (str(source / "averaged"), steps)


def test_a_model_of_the_hub_is_recorded_with_its_commit(
    tmp_path: Path, other_corpus: str, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory, name = find_checkpoint(trained_run), "owner/name@0123abc"
    monkeypatch.setattr("transformer.training.checkpoint.fetch_model", lambda _: (directory, name))
    Trainer.from_config(tuning(tmp_path, other_corpus, "owner/name")).fit()
    recorded = json.loads((tmp_path / "run" / "starts.jsonl").read_text())["init_from"]
    assert (recorded["init_from"], recorded["checkpoint"], recorded["step"]) == ("owner/name", name, None)


def test_weights_in_bfloat16_are_a_source(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    config, tokenizer, model = load_checkpoint(find_checkpoint(trained_run))
    save_model(model.bfloat16(), tmp_path / "half", config, tokenizer)
    trainer = Trainer.from_config(tuning(tmp_path, other_corpus, tmp_path / "half"))
    assert equal(trainer.weights.master.state_dict(), {k: v.float() for k, v in model.state_dict().items()})


def test_training_in_bfloat16_begins_with_float32_weights(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    trainer = Trainer.from_config(tuning(tmp_path, other_corpus, trained_run, "train.precision=bf16"))
    expected = load_file(find_checkpoint(trained_run) / "model.safetensors")
    assert equal(trainer.weights.master.state_dict(), expected)
    assert equal(trainer.weights.model.state_dict(), {name: weight.bfloat16() for name, weight in expected.items()})


def test_a_run_in_use_is_a_source_and_this_is_said(
    tmp_path: Path, other_corpus: str, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(trained_run, source)
    lock = lock_run(source)
    Trainer.from_config(tuning(tmp_path, other_corpus, source))
    assert "; the run is in use, and may have a newer one later\n" in capsys.readouterr().out
    lock.release()


def test_a_checkpoint_that_a_run_in_use_removes_meanwhile_is_looked_for_again(
    tmp_path: Path, other_corpus: str, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(trained_run, source)
    lock = lock_run(source)
    config, (best,) = tuning(tmp_path, other_corpus, source), checkpoints(source / "best")
    read = initialization.load_checkpoint

    def removing(directory: Path) -> Any:
        if best.exists():
            shutil.rmtree(best)
        return read(directory)

    monkeypatch.setattr(initialization, "load_checkpoint", removing)
    Trainer.from_config(config)
    recorded = json.loads((tmp_path / "run" / "initialization.json").read_text())
    assert recorded["checkpoint"] == str(checkpoints(source / "checkpoints")[-1])
    lock.release()


def test_weights_that_are_replaced_while_they_are_read_are_refused(
    tmp_path: Path, other_corpus: str, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, digests = tuning(tmp_path, other_corpus, trained_run), iter(["one", "other"])
    monkeypatch.setattr(initialization.integrity, "sha256", lambda _: next(digests))
    monkeypatch.setattr(initialization, "load_checkpoint", lambda _: load_checkpoint(tmp_path / "copy"))
    shutil.copytree(find_checkpoint(trained_run), tmp_path / "copy")
    (tmp_path / "copy" / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors: was replaced while it was read; run the same"):
        Trainer.from_config(config)


def test_weights_that_cannot_be_read_are_named(
    tmp_path: Path, other_corpus: str, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    config = tuning(tmp_path, other_corpus, trained_run)
    monkeypatch.setattr(initialization.integrity, "sha256", failing)
    with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read: Input/output error"):
        Trainer.from_config(config)


def test_a_start_that_left_no_checkpoint_begins_anew_and_a_changed_source_is_said(
    tmp_path: Path, other_corpus: str, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(trained_run, source)
    config = tuning(tmp_path, other_corpus, source)
    for _ in range(2):
        Trainer.from_config(config)  # and is killed
        assert capsys.readouterr().err == ""
    shutil.rmtree(source / "best")
    Trainer.from_config(config)
    assert "other weights than at an earlier start of this run" in capsys.readouterr().err
    (tmp_path / "run" / "initialization.json").write_text("damaged")
    Trainer.from_config(config)
    assert capsys.readouterr().err == ""
    plain = dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=None))
    Trainer.from_config(plain)
    assert not (tmp_path / "run" / "initialization.json").exists()


# Another vocabulary.


def tokenizer_of(*words: str) -> Tokenizer:
    """A tokenizer with a piece for each word, and others for its letters."""
    return Tokenizer.train(["abc"], 4 + 4 + len(words), symbols=words)


@pytest.mark.parametrize("tie", ["all", "decoder", "none"])
def test_rows_follow_their_pieces_into_another_vocabulary(tie: Any) -> None:
    before, now = tokenizer_of("red", "blue", "two"), tokenizer_of("blue", "six", "red", "nine")
    model, fresh = (
        build_model(len(x), ModelConfig(d_model=7, num_heads=1, num_layers=1, tie=tie)) for x in (before, now)
    )
    weights, initial = model.state_dict(), fresh.state_dict()
    old = {name: weight.clone() for name, weight in weights.items()}
    rows = adapt_vocabulary(weights, initial, before, now)
    names = ["embedding.weight", "embedding.target_weight", "embedding.projection_weight"]
    assert rows == dict.fromkeys(names[: {"all": 1, "decoder": 2, "none": 3}[tie]], Kept(len(now) - 2, 2))
    pieces = before.pieces(range(len(before)))
    for name in rows:
        for number, piece in enumerate(now.pieces(range(len(now)))):
            expected = old[name][pieces.index(piece)] if piece in pieces else initial[name][number]
            assert torch.equal(weights[name][number], expected), piece
    assert all(torch.equal(weights[name], old[name]) for name in weights.keys() - rows.keys())
    fresh.load_state_dict(weights)


def test_source_embeddings_follow_a_vocabulary_of_their_own() -> None:
    target, source, new_source = tokenizer_of("red", "blue"), tokenizer_of("one", "two"), tokenizer_of("two", "one")
    before, now = Tokenizer(target.model), Tokenizer(target.model)
    before.source, now.source = source, new_source
    model = build_model(len(target), ModelConfig(d_model=7, num_heads=1, num_layers=1, tie="decoder"))
    weights = model.state_dict()
    old = weights["embedding.weight"].clone()
    rows = adapt_vocabulary(weights, build_model(len(target), model.config).state_dict(), before, now)  # type: ignore[arg-type]
    assert rows == {"embedding.weight": Kept(len(source), 0)}
    ids = source.pieces(range(len(source)))
    order = [ids.index(piece) for piece in new_source.pieces(range(len(source)))]
    assert order != sorted(order) and torch.equal(weights["embedding.weight"], old[order])


def test_an_equal_vocabulary_changes_nothing() -> None:
    tokenizer = tokenizer_of("red")
    weights = build_model(len(tokenizer), ModelConfig(d_model=7, num_heads=1, num_layers=1)).state_dict()
    before = dict(weights)
    assert adapt_vocabulary(weights, {}, tokenizer, Tokenizer(tokenizer.model)) == {}
    assert all(weights[name] is before[name] for name in before)


def test_a_run_with_another_tokenizer_says_how_many_rows_are_kept(
    tmp_path: Path, other_corpus: str, trained_run: Path
) -> None:
    config = tuning(tmp_path, other_corpus, trained_run)
    other = tokenizer_of("red", "xy")
    model = build_model(len(other), config.model)
    (tmp_path / "run").mkdir()
    old, new = load_file(find_checkpoint(trained_run) / "model.safetensors"), model.embedding.weight.detach().clone()
    line = initialization.initialize(config, model, other)[1]
    kept = int((model.embedding.weight != new).any(dim=1).sum())
    assert 4 < kept < len(other)
    expected = f"embedding.weight: {kept} of {len(other)} rows kept, {len(other) - kept} new"
    assert line == f"vocabulary: another than the checkpoint's; {expected}"
    assert torch.equal(model.embedding.weight[:4], old["embedding.weight"][:4])


def test_new_pieces_of_a_frozen_matrix_are_said(
    tmp_path: Path, other_corpus: str, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tuning(tmp_path, other_corpus, trained_run, "train.freeze=embeddings")
    other = tokenizer_of("red", "xy")
    model = freeze(build_model(len(other), config.model), config.train.freeze)
    (tmp_path / "run").mkdir()
    initialization.initialize(config, model, other)
    number = json.loads((tmp_path / "run" / "initialization.json").read_text())["rows"]["embedding.weight"]["new"]
    assert number > 0
    line = f"train.freeze: embedding.weight is not trained, so {number} pieces new to the checkpoint stay random"
    assert capsys.readouterr().err == f"warning: {line}\n"


def test_a_refused_model_leaves_no_run(tmp_path: Path, other_corpus: str, trained_run: Path) -> None:
    with pytest.raises(ConfigError):
        Trainer.from_config(tuning(tmp_path, other_corpus, trained_run, "model.d_ff=31"))
    assert not (tmp_path / "run").exists()


def checkpoint_of(directory: Path, tokenizer: Tokenizer, /, **data: Any) -> Path:
    """A checkpoint of a small model, with this section `data`."""
    model = {"d_model": 14, "num_heads": 2, "num_layers": 1, "d_ff": 13, "tie": "decoder"}
    is_separate = tokenizer.source is not tokenizer
    config = Config(model=ModelConfig(**model), data=DataConfig(separate_vocabularies=is_separate, **data))
    made = build_model(len(tokenizer), config.model, source_vocab_size=tokenizer.sizes[1])
    save_checkpoint(directory / "source", config, tokenizer, made.state_dict())
    return directory / "source"


def learned(num_pieces: int, side: int = 1, **options: Any) -> Tokenizer:
    return Tokenizer.train((pair[side] for pair in builtin_pairs("train", 199)), num_pieces, **options)


def separate() -> Tokenizer:
    tokenizer = learned(151)
    tokenizer.source = learned(137, 0)
    return tokenizer


def test_separate_vocabularies_are_inherited_with_their_sizes(tmp_path: Path, other_corpus: str) -> None:
    source = checkpoint_of(tmp_path, separate(), vocab_size=200)
    config = tuning(tmp_path, other_corpus, source)
    assert (config.data.separate_vocabularies, config.data.vocab_size, config.data.source_vocab_size) == (
        True,
        151,
        137,
    )
    Trainer.from_config(config).fit()
    for name in ("tokenizer.model", "source_tokenizer.model"):
        assert (tmp_path / "run" / name).read_bytes() == (source / name).read_bytes()
    assert tuning(tmp_path, other_corpus, tmp_path / "gone").data == config.data, "those of the run that has begun"


def test_a_foreign_tokenizer_is_inherited_as_what_it_is(tmp_path: Path, other_corpus: str) -> None:
    tokenizer = learned(151, tokenizer_type="unigram")
    source = checkpoint_of(tmp_path, tokenizer, tokenizer="gone.model")
    config = tuning(tmp_path, other_corpus, source, "data.subword_alpha=0.2")
    found = config.data
    assert (found.tokenizer, found.tokenizer_type, found.vocab_size) == (None, "unigram", 151)
    Trainer.from_config(config).fit()


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        (["data.tokenizer_type=bpe"], "data.tokenizer_type=unigram"),
        (["data.user_symbols=[<y>]"], r"data.user_symbols=\[<x>\]"),
        (["data.user_symbols=[]"], r"data.user_symbols=\[<x>\]"),
        (["data.normalization=nfkc"], "data.normalization=minimal"),
        (["data.separate_vocabularies=true", "data.source_vocab_size=99"], "data.separate_vocabularies=false .*=null"),
    ],
)
def test_another_tokenizer_is_refused_with_the_values_to_set(
    tmp_path: Path, other_corpus: str, keys: list[str], values: str
) -> None:
    tokenizer = learned(151, tokenizer_type="unigram", user_symbols=["<x>"])
    source = checkpoint_of(tmp_path, tokenizer, tokenizer_type="unigram", user_symbols=("<x>",))
    Trainer.from_config(tuning(tmp_path, other_corpus, source))
    with pytest.raises(ConfigError, match=f"leave these keys out or set {values}$"):
        Trainer.from_config(tuning(tmp_path, other_corpus, source, *keys))


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("data.separate_vocabularies=false", "data.separate_vocabularies=true"),
        ("data.source_vocab_size=99", "data.source_vocab_size=137"),
    ],
)
def test_one_vocabulary_does_not_begin_as_two(tmp_path: Path, other_corpus: str, key: str, wanted: str) -> None:
    config = tuning(tmp_path, other_corpus, checkpoint_of(tmp_path, separate()), key)
    with pytest.raises(ConfigError, match=f"leave these keys out or set {wanted}$"):
        Trainer.from_config(config)


def test_the_tag_is_inherited_unless_the_corpora_have_theirs(tmp_path: Path, other_corpus: str) -> None:
    source = checkpoint_of(tmp_path, learned(151, symbols=["<2de>", "<bt>"]), tag="<2de>")
    assert tuning(tmp_path, other_corpus, source).data.tag == "<2de>"
    assert tuning(tmp_path, other_corpus, source, "data.tag=null").data.tag is None
    assert tuning(tmp_path, other_corpus, source, "data.tag=<bt>").data.tags == ["<bt>"]
    corpora = json.dumps([{"path": other_corpus, "tag": "<bt>"}])
    assert tuning(tmp_path, other_corpus, source, f"data.corpora={corpora}").data.tags == ["<bt>"]
    trainer = Trainer.from_config(tuning(tmp_path, other_corpus, source))
    assert trainer.data.tokenizer.pieces([int(trainer.data.train.src.ids[0])]) == ["▁<2de>"]


def test_a_tag_that_the_corpora_do_not_have_is_not_inherited_and_that_is_said(
    tmp_path: Path, other_corpus: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = checkpoint_of(tmp_path, learned(151, symbols=["<2de>", "<bt>"]), tag="<2de>")
    both = json.dumps([{"path": other_corpus, "tag": "<bt>"}, {"path": other_corpus, "tag": "<2de>"}])
    assert tuning(tmp_path, other_corpus, source, f"data.corpora={both}").data.tag == "<2de>"
    none = f"data.corpora={json.dumps([other_corpus])}"
    assert tuning(tmp_path, other_corpus, source, none, "data.tag=null").data.tag is None
    assert capfd.readouterr().err == ""
    assert tuning(tmp_path, other_corpus, source, none).data.tag is None
    error = capfd.readouterr().err
    assert error.startswith(
        f"warning: train.init_from={source} has data.tag=<2de>, which no corpus of data.corpora has"
    )


def test_a_tag_that_the_tokenizer_does_not_have_is_refused_with_the_ways_out(tmp_path: Path, other_corpus: str) -> None:
    source = checkpoint_of(tmp_path, learned(151))
    message = (
        r"^the tokenizer splits the tag '<2de>': .*; to begin with train.init_from, choose a tag of its tokenizer, or"
    )
    with pytest.raises(DataError, match=message):
        Trainer.from_config(tuning(tmp_path, other_corpus, source, "data.tag=<2de>"))
    given = tmp_path / "given.model"
    given.write_bytes(learned(157, symbols=["<2de>"]).model)
    config = tuning(tmp_path, other_corpus, source, "data.tag=<2de>", f"data.tokenizer={given}")
    Trainer.from_config(config).fit()


def test_an_average_begins_at_the_trained_weights(tmp_path: Path, other_corpus: str) -> None:
    """And a checkpoint of a run with an average has averaged weights."""
    source = checkpoint_of(tmp_path, learned(151))
    config = tuning(tmp_path, other_corpus, source, "train.ema_decay=0.9")
    trainer = Trainer.from_config(config)
    assert trainer.average is not None
    assert equal(trainer.average.model.state_dict(), load_file(source / "model.safetensors"))
    trainer.fit()
    averaged = weights_of(config)
    assert equal(trainer.average.model.state_dict(), averaged)
    assert not equal(trainer.weights.master.state_dict(), averaged)
    (tmp_path / "next").mkdir()
    following = Trainer.from_config(
        tuning(tmp_path / "next", other_corpus, tmp_path / "run" / "checkpoints" / "step-00000005")
    )
    assert equal(following.weights.master.state_dict(), averaged)


@pytest.mark.parametrize("given", [None, "other.model"])
def test_settings_of_the_tokenizer_are_inherited_unless_another_one_is_named(
    tmp_path: Path, trained_run: Path, given: str | None
) -> None:
    values = {"run_dir": str(tmp_path / "run"), "train": {"init_from": str(trained_run)}, "data": {"tokenizer": given}}
    inherit(values)
    assert ("vocab_size" in values["data"]) == (given is None)
    assert values["data"]["src_lang"] == "en"

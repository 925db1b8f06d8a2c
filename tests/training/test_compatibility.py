"""A checkpoint of the first version of format 1 stays readable; unreadable ones are named.

tests/checkpoints/format_1 came of 450 updates with its own config.yaml, on 13 sentences that the model has memorised.
It is what others have on their disks: it is never written again. translations.tsv holds source sentences, their greedy
translations and those of beam 4. Two of these were regenerated when the search no longer truncated sentences. The
last three sentences, which the model does not know, tell the one from the other.
"""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from transformer.config import Config, ModelConfig, load_config
from transformer.data.batching import group_into_updates
from transformer.data.builtin import builtin_pairs
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import average_checkpoints, load_checkpoint
from transformer.training.integrity import present_name
from transformer.training.run_directory import claim_run, former_values, with_values
from transformer.training.trainer import Trainer
from transformer.training.training_state import load_state

FORMAT_1 = Path(__file__).parents[1] / "checkpoints" / "format_1"
STEP = 450
# Keys of training.json whose field has another name now.
RENAMED_KEYS = {
    "num_worse": "num_bad_validations",
    "window_loss": "running_loss",
    "window_nll": "running_nll",
    "window_tokens": "running_tokens",
    "window_s": "running_s",
}


def translations() -> list[list[str]]:
    """Sources, greedy translations, translations of beam 4."""
    lines = (FORMAT_1 / "translations.tsv").read_text(encoding="utf-8").splitlines()
    return [list(column) for column in zip(*(line.split("\t") for line in lines), strict=True)]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the checkpoint."""
    return shutil.copytree(FORMAT_1, tmp_path / "copied")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with the checkpoint as its last."""
    run = tmp_path / "run"
    shutil.copytree(FORMAT_1, run / "checkpoints" / f"step-{STEP:08d}")
    for name in ("config.yaml", "tokenizer.model"):
        shutil.copy(FORMAT_1 / name, run)
    return run


def in_place(run: Path, *overrides: str) -> Config:
    """The configuration of a run at its present path."""
    return load_config(run / "config.yaml", [f"run_dir={run}", f"data.cache_dir={run.parent / 'cache'}", *overrides])


def change_config(directory: Path, section: str, **values: Any) -> None:
    path = directory / "config.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw.setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")


def without_defaults(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    nested = {
        name: without_defaults(value, defaults[name]) for name, value in values.items() if isinstance(value, dict)
    }
    return nested | {
        name: value for name, value in values.items() if name not in nested and value != defaults.get(name)
    }


# Compatibility.


@pytest.mark.parametrize(("beam", "column"), [(1, 1), (4, 2)])
def test_its_translations_have_not_changed(beam: int, column: int) -> None:
    texts = translations()
    assert Translator.load(FORMAT_1, device="cpu", precision="fp32").translate(texts[0], beam=beam) == texts[column]


def test_its_translations_need_a_trained_model_and_a_beam() -> None:
    sources, greedy, beam = translations()
    known = dict(builtin_pairs("train", 13))
    assert {source: found for source, found in zip(sources, greedy, strict=True) if source in known} == known
    assert greedy != beam


def present_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights of a file of either format under the names of today."""
    weights = load_file(checkpoint / "model.safetensors")
    return {present_name(name, ()): weight for name, weight in weights.items()}


def test_its_average_has_its_weights() -> None:
    weights = present_weights(FORMAT_1)
    assert_close(average_checkpoints([FORMAT_1]), weights, rtol=0, atol=0)
    assert_close(average_checkpoints([FORMAT_1, FORMAT_1]), weights, rtol=0, atol=0)


def test_its_moments_position_and_rng_state_are_restored() -> None:
    _, _, model = load_checkpoint(FORMAT_1)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    names = list(model.state_dict())
    progress, worker_states = load_state(FORMAT_1, optimizer, names)
    assert worker_states == []
    saved = json.loads((FORMAT_1 / "training.json").read_text())
    assert saved["step"] == STEP
    assert {key: getattr(progress, RENAMED_KEYS.get(key, key)) for key in saved} == saved
    tensors = {present_name(name, names): x for name, x in load_file(FORMAT_1 / "optimizer.safetensors").items()}
    assert torch.equal(torch.get_rng_state(), tensors["rng.cpu"])
    for name, parameter in zip(names, model.parameters(), strict=True):
        state = optimizer.state[parameter]
        assert state["step"] == STEP
        assert torch.equal(state["exp_avg"], tensors[f"exp_avg.{name}"])
        assert torch.equal(state["exp_avg_sq"], tensors[f"exp_avg_sq.{name}"])


def test_its_run_resumes_and_is_averaged_with_new_checkpoints(run: Path) -> None:
    trainer = Trainer.from_config(
        in_place(run, f"train.max_steps={STEP + 2}", "train.validate_steps=1000", "train.keep_checkpoints=2")
    )
    assert trainer.progress.step == STEP
    before = trainer.progress.running_loss
    assert trainer.fit() == f"train.max_steps={STEP + 2} reached"
    # 439 target tokens per update: memorised pairs stay memorised.
    assert (trainer.progress.running_loss - before) / (2 * 439) < 0.05
    old, new = sorted((run / "checkpoints").iterdir())
    written, read = (json.loads((path / "training.json").read_text()) for path in (new, old))
    added = {"num_nonfinite", "num_split", "best_bleu", "validated_step"}
    assert written.keys() - read.keys() == added, "a key that is renamed or added is read as optional"
    assert written["window_loss"] == trainer.progress.running_loss
    assert [old.name, new.name] == [f"step-{STEP:08d}", f"step-{STEP + 2:08d}"]
    (one, other), mean = (present_weights(path) for path in (old, new)), average_checkpoints([old, new])
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert_close(mean, {name: (one[name] + other[name]) / 2 for name in one})


# Missing options have their defaults.


def test_a_configuration_without_its_defaults_is_the_same(copied: Path) -> None:
    config = load_config(copied / "config.yaml", saved=True)
    raw = yaml.safe_load((copied / "config.yaml").read_text(encoding="utf-8"))
    shorter = without_defaults(raw, yaml.safe_load(Config().to_yaml()))
    assert len(yaml.safe_dump(shorter)) < len(yaml.safe_dump(raw)) / 2
    (copied / "config.yaml").write_text(yaml.safe_dump(shorter), encoding="utf-8")
    assert load_checkpoint(copied)[0] == config


def test_a_run_from_before_an_option_existed_resumes(run: Path) -> None:
    config = in_place(run)
    path = run / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "attention_" not in line))
    expected = with_values(config, former_values(config))
    claim_run(expected)
    assert load_config(path, saved=True) == expected


def test_a_run_from_before_normalization_was_a_key_keeps_the_rule_of_its_tokenizer(run: Path) -> None:
    config = in_place(run)
    assert config.data.normalization == "minimal", "the default of today"
    trainer = Trainer.from_config(config)
    assert trainer.data.tokenizer.normalization == "nmt_nfkc"
    assert "normalization: nmt_nfkc" in trainer.summary().splitlines()
    assert trainer.config.data.normalization == "nmt_nfkc"
    assert load_config(run / "config.yaml", saved=True).data.normalization == "nmt_nfkc"
    assert "normalization: nmt_nfkc" in (run / "config.yaml").read_text()


def test_a_run_from_before_batching_was_a_key_keeps_the_updates_that_it_had(run: Path) -> None:
    config = in_place(run, "train.packed=false")
    trainer = Trainer.from_config(config)
    assert trainer.config.train.batching == "bucketed"
    assert "batching: bucketed" in (run / "config.yaml").read_text()
    src, tgt = trainer.data.train.src.lengths, trainer.data.train.tgt.lengths
    plan = functools.partial(
        group_into_updates,
        *(src, tgt),
        max_tokens=config.train.max_tokens,
        tokens_per_update=config.train.tokens_per_update,
        seed=config.seed,
    )
    epoch, number = trainer.progress.epoch, trainer.progress.update
    expected = [*plan(epoch=epoch)[number:], *plan(epoch=epoch + 1)][0]
    trainer.packer = None  # which would make one batch of them
    batches = trainer.update()
    assert [len(batch.src) for batch in batches] == [len(batch) for batch in expected]


def test_a_run_goes_on_with_former_values_again_and_again_and_says_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = in_place(run)
    for _ in range(3):
        capsys.readouterr()
        trainer = Trainer.from_config(config)
        assert (trainer.config.train.batching, trainer.config.data.normalization) == ("bucketed", "nmt_nfkc")
        lines = capsys.readouterr().err.splitlines()
        assert "data.normalization=nmt_nfkc, with which this run began; the default is minimal now" in lines
        assert (
            "train.batching=bucketed, with which this run began; the default is mixed now; --change goes on with the "
            "default"
        ) in lines
        del trainer


def test_a_changed_run_takes_the_default_of_today_where_it_may(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer.from_config(in_place(run), change=True)
    assert (trainer.config.train.batching, trainer.config.data.normalization) == ("mixed", "nmt_nfkc")
    assert "train.batching: bucketed → mixed" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("stated", "wanted"), [(False, "identity"), (True, "minimal")])
def test_a_run_cannot_go_on_with_another_rule(run: Path, stated: bool, wanted: str) -> None:
    if stated:
        change_config(run, "data", normalization="nmt_nfkc")
    with pytest.raises(ConfigError, match=rf"data\.normalization: nmt_nfkc there, {wanted} here"):
        claim_run(in_place(run, f"data.normalization={wanted}"))


def test_an_old_run_without_checkpoints_takes_the_rule_that_is_asked_for(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    claim_run(in_place(run))
    assert "normalization: minimal" in (run / "config.yaml").read_text()


# Errors.


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_newer_format_is_refused_by_both_numbers(copied: Path, name: str) -> None:
    save_file(load_file(copied / name), copied / name, metadata={"format": "3"})
    with pytest.raises(
        CheckpointError, match=rf"{name}: checkpoint format '3'; this version reads formats 1 and 2$"
    ) as caught:
        _, _, model = load_checkpoint(copied)
        load_state(copied, torch.optim.AdamW(model.parameters(), fused=True), list(model.state_dict()))
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_refused_before_its_configuration_is_read(copied: Path) -> None:
    save_file(load_file(copied / "model.safetensors"), copied / "model.safetensors", metadata={"format": "3"})
    change_config(copied, "model", experts=8)
    with pytest.raises(CheckpointError, match=r"checkpoint format '3'; this version reads formats 1 and 2$"):
        load_checkpoint(copied)


@pytest.mark.parametrize(("section", "key"), [("model", "model.experts"), ("planning", "planning.experts")])
def test_an_option_of_a_later_version_is_refused_by_file_and_name(copied: Path, section: str, key: str) -> None:
    change_config(copied, section, experts=8)
    with pytest.raises(ConfigError, match=rf"copied/config\.yaml: unknown key {key}; ") as caught:
        load_checkpoint(copied)
    assert "\n" not in str(caught.value)


def test_a_value_of_a_later_version_is_refused_by_file_and_name(copied: Path) -> None:
    change_config(copied, "model", positional="spiral")
    with pytest.raises(
        ConfigError, match=r"copied/config\.yaml: model\.positional='spiral' is not one of sinusoidal, "
    ):
        load_checkpoint(copied)


def test_formats_1_and_2_are_averaged_also_where_an_attention_is_wrapped(tmp_path: Path) -> None:
    options = ModelConfig(d_model=22, num_layers=1, num_heads=2, d_ff=29, positional="shaw", attention_window=5)
    model = build_model(53, options)
    today = model.state_dict()
    path = "encoder.layers.0.self_attention.attention"
    first_names = {
        f"{path}.inner.key_table": "encoder.relative.keys.0",
        f"{path}.inner.value_table": "encoder.relative.values.0",
    }
    for name, weights, version in (
        ("old", {first_names.get(n, n): w for n, w in today.items()}, "1"),
        ("new", today, "2"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(Config(model=options).to_yaml())
        save_file(
            {n: w.clone() for n, w in weights.items()}, tmp_path / name / "model.safetensors", {"format": version}
        )
    assert_close(average_checkpoints([tmp_path / "old", tmp_path / "new"]), dict(today), rtol=0, atol=0)

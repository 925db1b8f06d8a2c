"""The moving average of the weights: as torch computes it, validated, saved, resumed to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.translator import Translator
from transformer.model.transformer import Transformer
from transformer.training.averaging import MovingAverage
from transformer.training.checkpoint import average_checkpoints, load_checkpoint, load_model
from transformer.training.metrics import read_metrics
from transformer.training.trainer import Trainer
from transformer.training.training_state import Progress
from transformer.training.validation import validation_nll

TIMES = {"elapsed_s", "window_s", "tokens_per_s"}


@pytest.fixture
def config(tiny_config: Config, tmp_path: Path) -> Config:
    """101 pairs, 17 for validation, 7 updates of one layer, validations after 3, 6 and 7."""
    for split, size in (("train", 101), ("validation", 17)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
            (tmp_path / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    corpus = f"data.corpus={tmp_path}/{{split}}.{{lang}}"
    sizes = ("data.vocab_size=197", "model.num_layers=1", "train.max_steps=7", "train.validate_steps=3")
    return changed(tiny_config, corpus, *sizes, "train.ema_decay=0.9")


def changed(config: Config, *overrides: str) -> Config:
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, overrides)


def weights_of(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def read(directory: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(directory / f"{name}.safetensors")


def small(seed: int = 3) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(13, d_model=6, num_layers=1, num_heads=2, d_ff=7)


def moved(model: Transformer) -> None:
    """Change all weights, as an update does."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)


# The average.


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.97])
def test_it_is_the_average_that_torch_computes(decay: float) -> None:
    model = small()
    average, other = MovingAverage(model, decay), AveragedModel(model)
    other.update_parameters(model)  # the first call copies the weights
    for step in range(1, 12):
        moved(model)
        average.update(model, torch.tensor(True), step)
        other.multi_avg_fn = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))
        other.update_parameters(model)
    assert_close(weights_of(average.model), weights_of(other.module), rtol=0, atol=0)


def test_a_number_worked_out_by_hand() -> None:
    model = small()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 11.0)
    average = MovingAverage(model, 0.75)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 22.0)
    average.update(model, torch.tensor(True), 1)  # 2/11 of 11, 9/11 of 22
    assert average.model.embedding.weight[0, 0].item() == pytest.approx(20.0)
    average.update(model, torch.tensor(True), 100)  # three quarters of 20, one of 22
    assert average.model.embedding.weight[0, 0].item() == pytest.approx(20.5)


def test_the_decay_rises_to_its_value() -> None:
    average = MovingAverage(small(), 0.9)
    assert [average.decay_at(step) for step in (1, 8, 79, 80, 81, 10**9)] == [2 / 11, 0.5, 80 / 89, 0.9, 0.9, 0.9]


def test_a_skipped_update_leaves_it_and_the_model_is_never_changed() -> None:
    model = small()
    average = MovingAverage(model, 0.9)
    before = weights_of(average.model)
    moved(model)
    own = weights_of(model)
    average.update(model, torch.tensor(False), 7)
    assert_close(weights_of(average.model), before, rtol=0, atol=0)
    average.update(model, torch.tensor(True), 7)
    assert not torch.equal(average.model.embedding.weight, before["embedding.weight"])
    assert_close(weights_of(model), own, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_it_is_rounded_to_the_dtype_that_computes_only_for_validation() -> None:
    average = MovingAverage(small(), 0.9)
    exact = average.computing(small())
    assert_close(weights_of(exact), weights_of(average.model), rtol=0, atol=0)
    rounded = average.computing(small().to(torch.bfloat16))
    assert rounded.embedding.weight.dtype == torch.bfloat16
    assert average.model.embedding.weight.dtype == torch.float32


# Training.


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_the_weights_of_training_are_the_same_without_it(config: Config, precision: str) -> None:
    averaged = Trainer.from_config(changed(config, f"train.precision={precision}"))
    plain = Trainer.from_config(
        changed(config, "train.ema_decay=null", f"train.precision={precision}", f"run_dir={config.run_dir}-plain")
    )
    averaged.fit()
    plain.fit()
    assert_close(weights_of(averaged.weights.master), weights_of(plain.weights.master), rtol=0, atol=0)
    losses = ([line["loss"] for line in read_metrics(one.run) if line["kind"] == "train"] for one in (averaged, plain))
    assert next(losses) == next(losses)


def test_a_decay_of_zero_is_no_average_to_the_bit(config: Config) -> None:
    runs = []
    for decay in ("0.0", "null"):
        trainer = Trainer.from_config(changed(config, f"train.ema_decay={decay}", f"run_dir={config.run_dir}-{decay}"))
        trainer.fit()
        runs.append(trainer.run)
    zero, none = runs
    for directory in sorted(none.glob("*/step-*")):
        other = zero / directory.relative_to(none)
        assert_close(read(other, "model"), read(directory, "model"), rtol=0, atol=0)
    zero_lines, none_lines = (
        [{name: x for name, x in line.items() if name not in TIMES} for line in read_metrics(run)] for run in runs
    )
    assert zero_lines == none_lines


def test_checkpoints_and_the_best_hold_the_average_and_validations_are_of_it(config: Config) -> None:
    trainer = Trainer.from_config(config)
    trainer.fit()
    assert trainer.average is not None
    last = trainer.run / "checkpoints" / "step-00000007"
    average, raw = weights_of(trainer.average.model), weights_of(trainer.weights.master)
    assert_close(read(last, "model"), average, rtol=0, atol=0)
    assert_close({name: read(last, "optimizer")[f"raw.{name}"] for name in raw}, raw, rtol=0, atol=0)
    assert not torch.equal(average["embedding.weight"], raw["embedding.weight"])
    (best,) = (trainer.run / "best").iterdir()
    assert best.name == last.name
    assert_close(read(best, "model"), average, rtol=0, atol=0)
    assert not (best / "optimizer.safetensors").exists()
    for loaded in (load_model(trainer.run), load_checkpoint(last)[2]):
        assert_close(weights_of(loaded), average, rtol=0, atol=0)
    validations = [line["nll"] for line in read_metrics(trainer.run) if line["kind"] == "validation"]
    found = trainer.average.computing(trainer.weights.model)
    assert validations[-1] == validation_nll(found, trainer.data.validation, 211)
    assert validations[-1] != validation_nll(trainer.weights.model, trainer.data.validation, 211)
    mean = average_checkpoints(sorted((trainer.run / "checkpoints").iterdir())[-2:])
    fourth = read(trainer.run / "checkpoints" / "step-00000004", "model")
    assert_close(mean, {name: (average[name] + fourth[name]) / 2 for name in average})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_scorer_does_to_the_model_does_not_stay_in_the_average(config: Config, precision: str) -> None:
    values = ["train.validation_bleu=true", "train.validate_steps=2", f"train.precision={precision}"]

    def prepack(model: Transformer, tokenizer: Tokenizer, *_: object) -> float:
        Translator(model, tokenizer).prepack()
        with torch.no_grad():
            model.embedding.weight.zero_()
        return 1.0

    scores, averages = [], []
    for name, scorer in (("plain", lambda *_: 1.0), ("prepacking", prepack)):
        trainer = Trainer.from_config(changed(config, *values, f"run_dir={config.run_dir}-{name}"), scorer)
        trainer.fit()
        assert trainer.average is not None
        averages.append(weights_of(trainer.average.model))
        scores.append([line["nll"] for line in read_metrics(trainer.run) if line["kind"] == "validation"])
    assert scores[0] == scores[1]
    assert len(scores[0]) > 2
    assert_close(averages[0], averages[1], rtol=0, atol=0)


def state(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    directory = run / "checkpoints" / "step-00000007"
    tensors = {name: read(directory, name) for name in ("model", "optimizer")}
    progress = json.loads((directory / "training.json").read_text())
    return tensors, {name: value for name, value in progress.items() if name not in TIMES}


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_stopping_and_resuming_equals_never_having_stopped(config: Config, precision: str) -> None:
    config = changed(config, f"train.precision={precision}")
    whole = Trainer.from_config(changed(config, f"run_dir={config.run_dir}-whole"))
    whole.fit()
    for stop in (1, 4, 6, 8):
        trainer = Trainer.from_config(config)
        trainer.fit(lambda until=stop, now=trainer: "stop" if now.progress.step == until else None)
    (tensors, progress), (expected, expected_progress) = state(trainer.run), state(whole.run)
    assert_close(tensors, expected, rtol=0, atol=0)
    assert progress == expected_progress
    for kind in ("best", "checkpoints"):
        assert sorted(path.name for path in (trainer.run / kind).iterdir()) == sorted(
            path.name for path in (whole.run / kind).iterdir()
        )


def test_a_skipped_update_of_training_leaves_the_average(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer.from_config(changed(config, "train.skip_nonfinite=1"))
    trainer.update()
    assert trainer.average is not None
    before = weights_of(trainer.average.model)
    monkeypatch.setattr(
        trainer._reducer,
        "all_reduce_gradients",
        lambda: [weight.grad.fill_(float("nan")) for weight in trainer.weights.master.parameters()],
    )
    trainer.update()
    assert_close(weights_of(trainer.average.model), before, rtol=0, atol=0)
    assert trainer.progress.step == 2


def test_a_trainer_of_given_parts_begins_with_their_weights(config: Config) -> None:
    made = Trainer.from_config(config)
    trainer = Trainer(config, made.data, made.weights, made.optimizer, Progress())
    assert trainer.average is not None
    assert_close(weights_of(trainer.average.model), weights_of(made.weights.master), rtol=0, atol=0)


@pytest.mark.parametrize(("before", "now"), [("0.9", "null"), ("null", "0.9"), ("0.9", "0.99")])
def test_a_run_goes_on_with_the_decay_that_it_has(config: Config, before: str, now: str) -> None:
    trainer = Trainer.from_config(changed(config, f"train.ema_decay={before}"))
    trainer.fit(lambda: "stop" if trainer.progress.step == 1 else None)
    with pytest.raises(ConfigError, match=rf"\(train\.ema_decay: {before} there, {now} here\)"):
        Trainer.from_config(changed(config, f"train.ema_decay={now}"))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda tensors: tensors.pop("raw.embedding.weight"), r"'raw\.embedding\.weight' is missing"),
        (
            lambda tensors: tensors.update({"raw.embedding.weight": torch.zeros(3)}),
            r"raw\.embedding\.weight is \(3,\) of torch\.float32, not ",
        ),
        (
            lambda tensors: tensors["raw.embedding.weight"].fill_(float("nan")),
            r"raw\.embedding\.weight contains non-finite values",
        ),
    ],
)
def test_damaged_weights_of_training_are_an_error_that_names_them(config: Config, spoil: Any, fault: str) -> None:
    trainer = Trainer.from_config(config)
    trainer.fit(lambda: "stop" if trainer.progress.step == 1 else None)
    directory = trainer.run / "checkpoints" / "step-00000001"
    tensors = read(directory, "optimizer")
    spoil(tensors)
    save_file(tensors, directory / "optimizer.safetensors", metadata={"format": "2"})
    (directory / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=rf"optimizer\.safetensors: {fault}"):
        Trainer.from_config(config)
    shutil.rmtree(trainer.run)

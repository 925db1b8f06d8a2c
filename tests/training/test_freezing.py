"""Frozen parameters keep their bits; the others are trained as without freezing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from transformer.config import Config, ModelConfig
from transformer.data.batching import collate
from transformer.errors import CheckpointError, ConfigError
from transformer.model.alternatives.build import build_model
from transformer.training import loss as loss_module
from transformer.training.freezing import freeze, frozen_names, numbers_of_parameters
from transformer.training.loss import linear_cross_entropy
from transformer.training.optimizer import MasterWeights
from transformer.training.train_step import accumulate_gradients
from transformer.training.trainer import Trainer

SMALL = ModelConfig(d_model=14, num_layers=2, num_heads=2, d_ff=11)


def with_train(config: Config, **values: Any) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **values))


def names(tie: Any = "all") -> list[str]:
    return [name for name, _ in build_model(13, dataclasses.replace(SMALL, tie=tie)).named_parameters()]


def below(*prefixes: str, tie: str = "all") -> set[str]:
    return {name for name in names(tie) if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("patterns", "prefixes"),
    [
        (["encoder"], ["encoder."]),
        (["decoder.layers.0"], ["decoder.layers.0."]),
        (["decoder.layers.0", "encoder.layers.[1-9]"], ["decoder.layers.0.", "encoder.layers.1."]),
        (["encoder.layers.*"], ["encoder.layers."]),
        (["*.cross_attention"], ["decoder.layers.0.cross_attention.", "decoder.layers.1.cross_attention."]),
        (["embedding.weight"], ["embedding.weight"]),
        (["embeddings"], ["embedding.weight"]),
        (["encoder.layers.?.norm_1"], ["encoder.layers.0.norm_1.", "encoder.layers.1.norm_1."]),
    ],
)
def test_a_pattern_names_modules_and_parameters(patterns: list[str], prefixes: list[str]) -> None:
    assert frozen_names(names(), patterns) == below(*prefixes) != set()


def test_a_name_is_not_the_beginning_of_another() -> None:
    assert frozen_names(["layers.1.weight", "layers.11.weight"], ["layers.1"]) == {"layers.1.weight"}


@pytest.mark.parametrize(("tie", "number"), [("all", 1), ("decoder", 2), ("none", 2)])
def test_embeddings_are_the_matrices_that_embed_and_the_projection_if_it_is_one_of_them(tie: str, number: int) -> None:
    frozen = frozen_names(names(tie), ["embeddings"])
    assert sorted(frozen) == sorted(["embedding.weight", "embedding.target_weight"][:number])


@pytest.mark.parametrize("pattern", ["Encoder", "encoder.layers.7", "layers", "encoder.", "decoder.layers.1?"])
def test_a_pattern_without_a_parameter_is_refused_with_the_names_at_the_top(pattern: str) -> None:
    with pytest.raises(ConfigError) as error:
        frozen_names(names(), ["encoder", pattern])
    assert str(error.value).startswith(
        f"train.freeze: {pattern!r} names no parameter of this model; at the top there are embedding, encoder, "
        "decoder, embeddings, below them names such as decoder."
    )


@pytest.mark.parametrize("patterns", [["*"], ["encoder", "decoder", "embeddings"]])
def test_a_model_with_nothing_to_train_is_refused(patterns: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"train.freeze=.*: names all parameters, so there is nothing to train"):
        frozen_names(names(), patterns)
    assert frozen_names(names(), []) == set()


def test_the_trained_parameters_are_counted() -> None:
    model = build_model(13, SMALL)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert numbers_of_parameters(model) == f"{total:,}"
    freeze(model, ["embeddings"])
    assert numbers_of_parameters(model) == f"{total:,}, {total - 13 * 14:,} of them trained"


def gradients(trainer: Trainer, patterns: list[str], dtype: torch.dtype) -> dict[str, Tensor | None]:
    """Of one batch, on the master weights of a copy of the trainer's model, without dropout."""
    model = build_model(len(trainer.data.tokenizer), dataclasses.replace(trainer.config.model, dropout=0.0))
    model.load_state_dict(trainer.weights.master.state_dict())
    weights = MasterWeights(freeze(model, patterns), dtype)
    accumulate_gradients(weights, [collate(trainer.data.train, [2, 3, 5, 7, 11])], 0.1)  # type: ignore[arg-type]
    return {name: parameter.grad for name, parameter in weights.master.named_parameters()}


PATTERNS = [["encoder"], ["embeddings"], ["decoder", "embeddings"], ["encoder", "decoder"], ["*.norm_*"]]


@pytest.mark.parametrize("tie", ["all", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_the_others_are_those_without_freezing(tiny_config: Config, tie: Any, dtype: torch.dtype) -> None:
    trainer = Trainer.from_config(
        dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, tie=tie))
    )
    whole = gradients(trainer, [], dtype)
    for patterns in PATTERNS:
        frozen = frozen_names(list(whole), patterns)
        for name, gradient in gradients(trainer, patterns, dtype).items():
            expected = whole[name]
            assert (gradient is None) == (name in frozen), name
            assert gradient is None or (expected is not None and torch.equal(gradient, expected)), name


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_the_loss_computes_no_gradient_of_what_is_frozen(monkeypatch: pytest.MonkeyPatch, frozen: str) -> None:
    torch.manual_seed(7)
    hidden, weight = torch.randn(11, 5), torch.randn(13, 5)
    target = torch.randint(13, (11,))
    whole = [x.clone().requires_grad_() for x in (hidden, weight)]
    linear_cross_entropy(*whole, target)[0].backward()
    monkeypatch.setitem(loss_module._BLOCK_BYTES, "cpu", 4 * 13 * 3)  # two blocks
    part = [x.clone().requires_grad_(name != frozen) for x, name in ((hidden, "hidden"), (weight, "weight"))]
    loss, _ = linear_cross_entropy(*part, target)
    gradients = loss.grad_fn.saved_tensors[:2]  # type: ignore[union-attr]
    assert [x is None for x in gradients] == [name == frozen for name in ("hidden", "weight")]
    loss.backward()
    for ours, theirs in zip(part, whole, strict=True):
        if ours.requires_grad:
            assert_close(ours.grad, theirs.grad)
        else:
            assert ours.grad is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_weights_keep_their_bits_and_have_no_moments(tiny_config: Config, precision: Any) -> None:
    """Weight decay, clipping and several epochs: nothing reaches them."""
    config = with_train(
        tiny_config, freeze=("encoder", "embeddings"), precision=precision, weight_decay=0.1, clip_norm=1.0
    )
    trainer = Trainer.from_config(config)
    before = {name: weight.clone() for name, weight in trainer.weights.master.state_dict().items()}
    trainer.fit()
    after = trainer.weights.master.state_dict()
    frozen = {name for name in before if name.startswith(("encoder.", "embedding."))}
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen
    saved = Path(config.run_dir) / "checkpoints" / "step-00000011"
    moments = {name.partition(".")[2] for name in load_file(saved / "optimizer.safetensors") if name[:3] == "exp"}
    assert moments == before.keys() - frozen
    assert len(trainer.optimizer.state) == len(moments)


def test_a_frozen_run_that_stops_and_resumes_equals_one_that_never_stopped(tiny_config: Config, tmp_path: Path) -> None:
    config = with_train(tiny_config, freeze=("decoder.layers.0", "embeddings"))
    Trainer.from_config(config).fit()
    stopped = dataclasses.replace(config, run_dir=str(tmp_path / "stopped"))
    for step in (3, 7, 11):
        Trainer.from_config(with_train(stopped, max_steps=step)).fit()
    for name in ("model.safetensors", "optimizer.safetensors"):
        here, there = (load_file(Path(x.run_dir) / "checkpoints/step-00000011" / name) for x in (config, stopped))
        assert here.keys() == there.keys() and all(torch.equal(here[key], there[key]) for key in here)


def test_thawed_parameters_begin_with_moments_of_zero_and_others_keep_theirs(tiny_config: Config) -> None:
    config = with_train(tiny_config, freeze=("encoder",), max_steps=3)
    Trainer.from_config(config).fit()
    with pytest.raises(ConfigError, match=r"train.freeze: \[encoder\] there, \[embeddings\] here"):
        Trainer.from_config(with_train(config, freeze=("embeddings",)))
    trainer = Trainer.from_config(with_train(config, freeze=("embeddings",), max_steps=5), change=True)
    for name, parameter in trainer.weights.master.named_parameters():
        moment = trainer.optimizer.state.get(parameter, {}).get("exp_avg")
        assert (moment is None) == name.startswith("embedding"), name
        assert moment is None or bool(moment.any()) != name.startswith("encoder"), name
    trainer.fit()
    recorded = json.loads((Path(config.run_dir) / "starts.jsonl").read_text().splitlines()[-1])
    assert recorded["changed"]["train.freeze"] == [["encoder"], ["embeddings"]]


def test_missing_moments_of_trained_parameters_are_an_error(tiny_config: Config) -> None:
    config = with_train(tiny_config, freeze=("encoder",), max_steps=3)
    Trainer.from_config(config).fit()
    directory = Path(config.run_dir) / "checkpoints" / "step-00000003"
    (directory / "config.yaml").write_text(with_train(config, freeze=()).to_yaml())
    (directory / "SHA256SUMS").unlink()
    (Path(config.run_dir) / "config.yaml").write_text(with_train(config, freeze=()).to_yaml())
    with pytest.raises(CheckpointError, match=r"exp_avg.encoder.* is missing"):
        Trainer.from_config(with_train(config, freeze=()))

"""float16 and its loss scale: by hand, against float32, and over a stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.batching import Batch
from transformer.errors import CheckpointError, TrainingError
from transformer.model.transformer import Transformer
from transformer.training import loss_scale as loss_scale_module
from transformer.training.data import Update
from transformer.training.loss_scale import INITIAL_SCALE, LARGEST_SCALE, LossScale, is_valid_scale
from transformer.training.metrics import read_metrics
from transformer.training.optimizer import MasterWeights, adam
from transformer.training.train_step import NonfiniteGuard, accumulate_gradients
from transformer.training.trainer import Trainer
from transformer.training.training_state import read_progress

CPU = torch.device("cpu")
LOSS_SCALE_UPDATE = LossScale.update


def make_batch(seed: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    src, tgt = (torch.randint(4, 31, (5, length), generator=generator) for length in (7, 11))
    tgt[2, 6:] = 0
    return Batch(src, tgt, tgt, (tgt.flatten() != 0).nonzero().flatten())


def make_weights(dtype: torch.dtype = torch.float16, *, recompute: bool = False) -> MasterWeights:
    torch.manual_seed(3)
    model = Transformer(31, d_model=24, num_layers=2, num_heads=3, d_ff=29, dropout=0.0)
    return MasterWeights(model, dtype, recompute=recompute)


def after(scale: LossScale, outcomes: Sequence[bool]) -> tuple[float, int, int]:
    """Scale, updates since it changed and overflows, after updates that were finite or not."""
    for is_finite in outcomes:
        scale.update(torch.tensor(is_finite))
    return float(scale.scale), int(scale.num_good), int(scale.num_overflows)


# The scale


def test_an_overflow_halves_the_scale_and_many_good_updates_double_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale_module, "GROWTH_INTERVAL", 3)
    scale = LossScale(CPU)
    assert after(scale, []) == (65536, 0, 0)
    assert after(scale, [True, True]) == (65536, 2, 0)
    assert after(scale, [False]) == (32768, 0, 1)
    assert after(scale, [True, True, True]) == (65536, 0, 1)
    assert after(scale, [True]) == (65536, 1, 1)
    assert after(scale, [False, False]) == (16384, 0, 3)
    assert after(scale, [True] * 33) == (LARGEST_SCALE, 0, 3)


def test_what_is_not_finite_without_a_scale_is_no_overflow() -> None:
    scale = LossScale(CPU)
    assert all(bool(scale.update(torch.tensor(False))) for _ in range(16))
    assert float(scale.scale) == 1
    assert not scale.update(torch.tensor(False))
    assert (float(scale.scale), int(scale.num_overflows)) == (1, 16)
    assert not scale.update(torch.tensor(True))


def test_a_scale_is_restored() -> None:
    scale = LossScale(CPU)
    scale.restore(4.0, 1999, 3)
    assert after(scale, [True]) == (8, 0, 3)
    scale.restore(0.0, 0, 0)
    assert after(scale, []) == (INITIAL_SCALE, 0, 0)


@pytest.mark.parametrize("value", [0.5, 3.0, -2.0, 2.0**25, 65535.0])
def test_only_powers_of_2_within_the_limits_are_scales(value: float) -> None:
    assert not is_valid_scale(value)
    assert all(map(is_valid_scale, (0.0, 1.0, 2.0, INITIAL_SCALE, LARGEST_SCALE)))


# Gradients


def gradients(weights: MasterWeights) -> dict[str, Tensor]:
    accumulate_gradients(weights, [make_batch(), make_batch(5)], 0.1)
    return {name: p.grad for name, p in weights.master.named_parameters() if p.grad is not None}


def test_gradients_of_a_float16_model_are_those_of_float32_but_for_rounding() -> None:
    expected, found = gradients(make_weights(torch.float32)), gradients(make_weights())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float32
        assert_close(found[name], gradient, rtol=0.02, atol=0.02 * float(gradient.abs().max()) + 1e-5)


def test_the_scale_changes_no_gradient_that_float16_can_hold() -> None:
    # Powers of 2 are exact; what is left is what would have been too small for float16.
    one, other = make_weights(), make_weights()
    assert one.loss_scale is not None and other.loss_scale is not None
    one.loss_scale.restore(2048.0, 0, 0)
    other.loss_scale.restore(1024.0, 0, 0)
    found = gradients(other)
    for name, gradient in gradients(one).items():
        assert_close(found[name], gradient, rtol=1e-2, atol=2e-6)


def test_small_gradients_survive_by_the_scale() -> None:
    weights, batch = make_weights(), make_batch()
    assert weights.loss_scale is not None
    lost = []
    for scale in (1.0, 65536.0):
        weights.loss_scale.restore(scale, 0, 0)
        weights.zero_grad()
        accumulate_gradients(weights, [batch], 0.1, num_tokens=10**7)  # as a shard of a very large update
        lost.append(sum(int((p.grad == 0).sum()) for p in weights.master.parameters() if p.grad is not None))
    assert lost[1] < lost[0] / 2


def test_other_precisions_have_no_scale() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert make_weights(dtype).loss_scale is None


def test_layers_that_are_recomputed_have_the_same_gradients() -> None:
    plain, found = gradients(make_weights()), gradients(make_weights(recompute=True))
    assert all(torch.equal(found[name], gradient) for name, gradient in plain.items())


# Updates


def step(weights: MasterWeights, guard: NonfiniteGuard, optimizer: torch.optim.Optimizer, number: int) -> None:
    accumulate_gradients(weights, [make_batch()], 0.1)
    optimizer.param_groups[0]["lr"] = 1e-3
    guard.step(optimizer, list(weights.master.parameters()), Update(number, 1, number, []))
    optimizer.zero_grad(set_to_none=True)
    weights.refresh()


def test_an_overflow_leaves_the_weights_unchanged_and_is_no_fault() -> None:
    weights = make_weights()
    optimizer = adam(weights.master.parameters(), Config().train)
    guard = NonfiniteGuard(weights.loss_scale)
    assert weights.loss_scale is not None
    weights.loss_scale.restore(2.0**24, 0, 0)
    before = copy.deepcopy(weights.master.state_dict())
    numbers = iter(range(1, 99))
    while not int(weights.loss_scale.num_overflows) or not int(weights.loss_scale.num_good):
        scale = float(weights.loss_scale.scale)
        step(weights, guard, optimizer, next(numbers))
        if float(weights.loss_scale.scale) < scale:
            assert float(weights.loss_scale.scale) == scale / 2
            assert all(torch.equal(x, before[name]) for name, x in weights.master.state_dict().items())
    assert not all(torch.equal(x, before[name]) for name, x in weights.master.state_dict().items())
    assert guard.skipped_updates() == []


def test_without_a_scale_left_to_lower_it_is_a_fault() -> None:
    weights = make_weights()
    optimizer = adam(weights.master.parameters(), Config().train)
    guard = NonfiniteGuard(weights.loss_scale)
    assert weights.loss_scale is not None
    weights.loss_scale.restore(2.0, 0, 0)
    with torch.no_grad():
        next(iter(weights.model.parameters())).fill_(math.nan)
    for number in (1, 2, 3):
        accumulate_gradients(weights, [make_batch()], 0.1)
        guard.step(optimizer, list(weights.master.parameters()), Update(number, 1, number, []))
        optimizer.zero_grad(set_to_none=True)
    assert [update.step for update in guard.skipped_updates()] == [2, 3]


# Runs

RUN = {"train.precision": "fp16", "train.save_steps": 5, "train.validate_steps": 11, "train.validation_bleu": False}


def config_of(run: Path, corpus: str, cache: Path, **changes: Any) -> Config:
    values = {
        "run_dir": run,
        "data.corpus": corpus,
        "data.cache_dir": cache,
        "data.vocab_size": 83,
        "model.d_model": 16,
        "model.num_layers": 1,
        "model.num_heads": 2,
        "model.d_ff": 19,
        "train.tokens_per_update": 97,
        "train.max_tokens": 53,
        "train.warmup_steps": 7,
        "train.max_steps": 11,
        "train.device": "cpu",
        **RUN,
        **changes,
    }
    (run.parent / "base.yaml").write_text("seed: 7\n")
    text = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in values.items()]
    return load_config(run.parent / "base.yaml", text)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_bit(
    tmp_path: Path, tiny_corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale_module, "GROWTH_INTERVAL", 3)
    monkeypatch.setattr(loss_scale_module, "INITIAL_SCALE", 2.0**21)  # so that there are overflows
    Trainer.from_config(config_of(tmp_path / "whole", tiny_corpus, tmp_path)).fit()
    Trainer.from_config(config_of(tmp_path / "parts", tiny_corpus, tmp_path, **{"train.max_steps": 4})).fit()
    for max_steps in (8, 11):
        changes = {"train.max_steps": max_steps}
        Trainer.from_config(config_of(tmp_path / "parts", tiny_corpus, tmp_path, **changes)).fit()
    whole, parts = (tmp_path / name / "checkpoints" / "step-00000011" for name in ("whole", "parts"))
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = load_file(whole / name), load_file(parts / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    progress = [read_progress(path / "training.json") for path in (whole, parts)]
    states = [(x.loss_scale, x.num_good, x.num_overflows, x.num_updates, x.num_nonfinite) for x in progress]
    assert states[0] == states[1]
    assert states[0][2] > 0 and states[0][4] == 0 and states[0][3] == 11 - states[0][2]


@pytest.mark.slow
def test_training_in_float16_reaches_the_loss_of_float32(tmp_path: Path, tiny_corpus: str) -> None:
    losses = []
    for precision in ("fp32", "fp16"):
        changes = {"train.precision": precision, "train.max_steps": 60, "train.save_steps": 60}
        trainer = Trainer.from_config(config_of(tmp_path / precision, tiny_corpus, tmp_path, **changes))
        trainer.fit()
        assert f"precision: {'float32' if precision == 'fp32' else 'float16'}" in trainer.summary()
        losses.append(trainer.progress.best_nll)
    assert losses[0] is not None and losses[1] is not None
    assert losses[0] < 0.9 * math.log(83)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_an_update_that_overflows_is_neither_logged_as_loss_0_nor_counted_by_adam(
    tmp_path: Path, tiny_corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale_module, "INITIAL_SCALE", 2.0**24)
    monkeypatch.setattr(LossScale, "update", lambda scale, is_finite: LOSS_SCALE_UPDATE(scale, is_finite & False))
    run = tmp_path / "run"
    Trainer.from_config(config_of(run, tiny_corpus, tmp_path, **{"train.max_steps": 1})).fit()
    assert not [record for record in read_metrics(run) if record["kind"] == "train"]
    progress = read_progress(run / "checkpoints" / "step-00000001" / "training.json")
    assert (progress.num_overflows, progress.num_updates, progress.loss_scale) == (1, 0, 2.0**23)
    trainer = Trainer.from_config(config_of(run, tiny_corpus, tmp_path, **{"train.max_steps": 2}))
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {0}
    trainer.fit()


def test_a_run_whose_gradients_are_not_finite_by_themselves_ends(
    tmp_path: Path, tiny_corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale_module, "INITIAL_SCALE", 4.0)
    config = config_of(tmp_path / "run", tiny_corpus, tmp_path)
    trainer = Trainer.from_config(config)
    with torch.no_grad():
        next(iter(trainer.weights.model.parameters())).fill_(math.nan)
    monkeypatch.setattr(trainer.weights, "refresh", lambda: None)
    with pytest.raises(TrainingError, match=r"step 3.*non-finite gradient"):
        trainer.fit()


def test_a_damaged_scale_is_refused(tmp_path: Path, tiny_corpus: str) -> None:
    changes = {"train.max_steps": 1}
    Trainer.from_config(config_of(tmp_path / "run", tiny_corpus, tmp_path, **changes)).fit()
    path = tmp_path / "run" / "checkpoints" / "step-00000001" / "training.json"
    text = path.read_text()
    assert '"loss_scale": 65536.0' in text
    for value in ("3.0", "-2.0", "1e30", "null", "65536"):
        path.write_text(text.replace('"loss_scale": 65536.0', f'"loss_scale": {value}'))
        with pytest.raises(CheckpointError, match="loss_scale cannot be"):
            read_progress(path)

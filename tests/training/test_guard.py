"""Updates that cannot be done as planned: left out where the gradient is not finite, split where memory is short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.batching import Batch
from transformer.errors import TrainingError
from transformer.model.transformer import Transformer
from transformer.training import step as step_module
from transformer.training.guard import FiniteGuard, is_out_of_memory
from transformer.training.metrics import read_metrics
from transformer.training.plan import Update, halve
from transformer.training.trainer import Trainer

UPDATE = Update(3, 0, 2, [torch.arange(5).numpy(), torch.arange(5, 11).numpy()])


def changed(config: Config, *overrides: str) -> Config:
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, overrides)


def optimizer_of(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1, fused=True)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_not_finite_leaves_weights_moments_and_step_as_they_were(
    bad: float, clip_norm: float | None
) -> None:
    torch.manual_seed(3)
    start = [torch.randn(7), torch.randn(3, 5)]
    gradients = [[torch.randn_like(x) for x in start] for _ in range(3)]

    def train(kept: list[list[Tensor]]) -> tuple[list[nn.Parameter], torch.optim.Optimizer, list[Update]]:
        parameters = [nn.Parameter(x.clone()) for x in start]
        optimizer, guard = optimizer_of(parameters), FiniteGuard()
        for gradient in kept:
            for parameter, grad in zip(parameters, gradient, strict=True):
                parameter.grad = grad.clone()
            guard.step(optimizer, parameters, UPDATE, clip_norm)
        return parameters, optimizer, guard.skipped()

    poisoned = [x.clone() for x in gradients[1]]
    poisoned[1][2, 3] = bad
    parameters, optimizer, skipped = train([gradients[0], poisoned, gradients[2]])
    expected, expected_optimizer, none = train([gradients[0], gradients[2]])
    assert (skipped, none) == ([UPDATE], [])
    assert_close(parameters, expected, rtol=0, atol=0)
    for parameter, other in zip(parameters, expected, strict=True):
        assert_close(optimizer.state[parameter], expected_optimizer.state[other], rtol=0, atol=0)


def test_skipped_updates_are_told_once() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), torch.nan)
    guard = FiniteGuard()
    assert guard.skipped() == []
    assert not guard.step(optimizer_of([weight]), [weight], UPDATE)
    assert guard.skipped() == [UPDATE]
    assert guard.skipped() == []


def test_an_update_is_named_by_step_place_and_pairs() -> None:
    assert str(UPDATE) == "step 3 (update 2 of epoch 0: pairs 0, 1, 2, 3, 4, 5, 6, 7 and 3 more)"
    assert str(Update(3, 0, 2, UPDATE.pairs[:1])) == "step 3 (update 2 of epoch 0: pairs 0, 1, 2, 3, 4)"


def poison(trainer: Trainer, step: int) -> None:
    """Make the gradient of one update not finite, whatever happens to the model."""
    gradients = trainer._add_up_gradients

    def poisoned(update: Update, *rest: Any) -> Any:
        result = gradients(update, *rest)
        if update.step == step:
            next(iter(trainer.weights.master.parameters())).grad.view(-1)[1] = torch.nan  # type: ignore[union-attr]
        return result

    trainer._add_up_gradients = poisoned  # type: ignore[method-assign]


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in trainer.weights.master.state_dict().items()}


def test_training_stops_before_the_weights_are_spoiled_and_says_where(tiny_config: Config) -> None:
    trainer = Trainer(tiny_config)
    poison(trainer, 6)
    before: dict[str, Tensor] = {}

    def look() -> None:
        if trainer.progress.step == 5:
            before.update(weights_of(trainer))

    with pytest.raises(TrainingError) as error:
        trainer.fit(look)
    assert re.fullmatch(
        r"step 6 \(update 6 of epoch 0: pairs \d.* more\): the gradient is not finite, at a learning rate of "
        r"\d\.\d\de-\d\d; the last checkpoint is intact\. Lower train\.lr_factor, .* --skip-nonfinite N",
        str(error.value),
    )
    assert_close(weights_of(trainer), before, rtol=0, atol=0)
    assert [path.name for path in (trainer.run / "checkpoints").iterdir()] == ["step-00000004"]


def test_as_many_as_may_be_are_left_out_counted_and_logged(tiny_config: Config) -> None:
    trainer = Trainer(changed(tiny_config, "train.skip_nonfinite=2", "train.log_steps=1"))
    for step in (3, 7):
        poison(trainer, step)
    trainer.fit()
    assert trainer.progress.num_nonfinite == 2
    lines = read_metrics(trainer.run)
    found = [(line["step"], line["epoch"], line["update"], line["count"]) for line in lines if "count" in line]
    assert found == [(3, 0, 3, 1), (7, 0, 7, 2)]
    (third,) = (line for line in lines if line["kind"] == "train" and line["step"] == 3)
    assert (third["loss"], third["tokens_per_s"]) == (0, 0), "what nothing was learned from is not counted"
    trainer = Trainer(changed(tiny_config, "train.skip_nonfinite=2", "train.log_steps=1", "train.max_steps=13"))
    poison(trainer, 12)
    with pytest.raises(TrainingError, match="step 12 "):
        trainer.fit()


def test_a_run_with_updates_left_out_goes_on_as_if_never_stopped(tiny_config: Config) -> None:
    def run(name: str, *ends: int) -> Trainer:
        for end in ends:
            values = (f"run_dir={tiny_config.run_dir}{name}", "train.skip_nonfinite=1", f"train.max_steps={end}")
            trainer = Trainer(changed(tiny_config, *values))
            poison(trainer, 3)
            trainer.fit()
        return trainer

    whole, resumed = run("whole", 11), run("resumed", 5, 11)
    for name in ("model.safetensors", "optimizer.safetensors"):
        paths = (trainer.run / "checkpoints" / "step-00000011" / name for trainer in (whole, resumed))
        assert_close(*map(load_file, paths), rtol=0, atol=0)
    assert whole.progress.num_nonfinite == resumed.progress.num_nonfinite == 1


def too_big_for(monkeypatch: pytest.MonkeyPatch, num_rows: int, error: Exception) -> list[int]:
    """Let batches of more rows fail as if memory were short, in the backward pass; returns the rows of all attempts."""
    attempts: list[int] = []
    batch_loss = step_module.batch_loss

    def limited(model: Transformer, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        loss, nll = batch_loss(model, batch, label_smoothing)
        attempts.append(len(batch.src))
        if len(batch.src) > num_rows:
            loss.backward(retain_graph=True)  # which has left gradients behind
            raise error
        return loss, nll

    monkeypatch.setattr(step_module, "batch_loss", limited)
    return attempts


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("could not create a primitive"), MemoryError()]
)
def test_batches_too_big_for_memory_are_split_and_the_update_is_the_same(
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    error: Exception,
) -> None:
    values = (f"train.precision={precision}", "model.dropout=0")
    whole = Trainer(changed(tiny_config, *values, f"run_dir={tiny_config.run_dir}-whole"))
    whole.update()
    split = Trainer(changed(tiny_config, *values))
    with monkeypatch.context() as patch:
        attempts = too_big_for(patch, 1, error)
        split.update()
    assert max(attempts) >= 4, "so that once was not enough"
    assert split.progress.num_split >= 2
    told = capsys.readouterr().err
    assert told.count("step 1 (update 1 of epoch 0: pairs ") == split.progress.num_split
    assert "lower train.max_tokens" in told
    # A first step of Adam has the size of the learning rate whatever the gradient's: moments tell more than weights.
    tolerance = {"fp32": 1e-5, "bf16": 2e-2}[precision]
    for parameter, other in zip(whole.weights.master.parameters(), split.weights.master.parameters(), strict=True):
        moments = [t.optimizer.state[p]["exp_avg"] for t, p in ((whole, parameter), (split, other))]
        assert (moments[0] - moments[1]).norm() <= tolerance * moments[0].norm() + 1e-12
    window = (trainer._window.tolist() for trainer in (whole, split))
    for one, two in zip(*window, strict=True):
        assert one == pytest.approx(two, rel=tolerance)


def test_a_pair_that_alone_does_not_fit_is_an_error(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny_config)
    too_big_for(monkeypatch, 0, MemoryError("no more"))
    with pytest.raises(
        TrainingError, match=r"step 1 .*: one pair alone does not fit into memory \(no more\); lower data"
    ):
        trainer.update()


def test_other_errors_are_not_taken_for_want_of_memory(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny_config)
    too_big_for(monkeypatch, 0, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        trainer.update()
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
def test_memory_that_a_cpu_does_not_have_is_known_as_such() -> None:
    program = """
import resource, torch
from transformer.training.guard import is_out_of_memory
resource.setrlimit(resource.RLIMIT_AS, (1 << 36, 1 << 36))
try:
    torch.zeros(1 << 40)
except Exception as error:
    print(is_out_of_memory(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_halving_keeps_all_pairs_in_order() -> None:
    batches = [torch.arange(7).numpy(), torch.tensor([11]).numpy()]
    assert [half.tolist() for half in halve(batches)] == [[0, 1, 2, 3], [4, 5, 6], [11]]

"""Gradient accumulation, validation, skipped updates and updates that are split for lack of memory."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_pairs import VOCAB_SIZE, random_pairs
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.batching import Batch, collate
from transformer.data.dataset import PairDataset
from transformer.data.tokenizer import PAD_ID
from transformer.errors import TrainingError
from transformer.model.transformer import Transformer
from transformer.training import train_step as step_module
from transformer.training.data import Update
from transformer.training.loss import label_smoothed_cross_entropy
from transformer.training.loss_scale import LossScale
from transformer.training.metrics import read_metrics
from transformer.training.optimizer import MasterWeights
from transformer.training.packed.cpu_batch import GroupedBatch
from transformer.training.train_step import NonfiniteGuard, accumulate_gradients, batch_loss
from transformer.training.trainer import Trainer
from transformer.training.training_state import Progress
from transformer.training.validation import validation_nll

NUM_PAIRS = 13
CPU = torch.device("cpu")


def make_model(dropout: float = 0.0) -> Transformer:
    torch.manual_seed(3)
    return Transformer(VOCAB_SIZE, d_model=22, num_layers=2, num_heads=3, d_ff=29, d_k=7, d_v=5, dropout=dropout)


@pytest.fixture
def dataset() -> PairDataset:
    return random_pairs(NUM_PAIRS, longest=10)


def batches_of(dataset: PairDataset, sizes: Sequence[int]) -> list[Batch]:
    """The pairs in order, in batches of these sizes."""
    assert sum(sizes) == NUM_PAIRS
    return [collate(dataset, indices) for indices in np.split(np.arange(NUM_PAIRS), np.cumsum(sizes)[:-1])]


def update(model: Transformer, batches: list[Batch], label_smoothing: float = 0.1) -> tuple[dict[str, Tensor], Tensor]:
    """The gradients by name, and the two sums, of one update that starts from `model`."""
    weights = MasterWeights(copy.deepcopy(model), torch.float32)
    sums = torch.stack(accumulate_gradients(weights, batches, label_smoothing))
    gradients = {name: parameter.grad for name, parameter in weights.master.named_parameters()}
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}, sums


def reference_sums(model: Transformer, dataset: PairDataset, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Loss and NLL of all pairs in one batch, from the full logits of `forward`."""
    (batch,) = batches_of(dataset, [NUM_PAIRS])
    is_real = batch.tgt_out != PAD_ID
    return label_smoothed_cross_entropy(
        model(batch.src, batch.tgt_in)[is_real], batch.tgt_out[is_real], label_smoothing
    )


@pytest.mark.parametrize("sizes", [(6, 7), (2, 3, 8), (11, 1, 1), (1,) * NUM_PAIRS], ids=str)
def test_one_batch_equals_its_micro_batches(dataset: PairDataset, sizes: tuple[int, ...]) -> None:
    model = make_model()
    whole, whole_sums = update(model, batches_of(dataset, [NUM_PAIRS]))
    split, split_sums = update(model, batches_of(dataset, sizes))
    assert whole.keys() == dict(model.named_parameters()).keys()
    assert_close(split, whole, rtol=0, atol=1e-6)
    assert_close(split_sums, whole_sums, rtol=1e-6, atol=0)


def check_update(model: Transformer, dataset: PairDataset, label_smoothing: float) -> tuple[dict[str, Tensor], float]:
    """Check sums and gradients of an update against the logits at real positions; returns gradients and NLL."""
    gradients, sums = update(model, batches_of(dataset, [2, 3, 8]), label_smoothing)
    loss, nll = reference_sums(model, dataset, label_smoothing)
    (loss / int(dataset.tgt.lengths.sum())).backward()
    assert_close(sums, torch.stack((loss, nll)).detach(), rtol=1e-6, atol=0)
    assert_close(gradients, {name: p.grad for name, p in model.named_parameters()}, rtol=0, atol=1e-6)
    return gradients, nll.item()


class Biased(Transformer):
    """Logits with a bias, and a cap."""

    def __init__(self) -> None:
        super().__init__(VOCAB_SIZE, d_model=22, num_layers=1, num_heads=2, d_ff=29, dropout=0.0)
        self.bias = nn.Parameter(torch.randn(VOCAB_SIZE))

    def logits(self, hidden: Tensor) -> Tensor:
        return 3 * torch.tanh(super().logits(hidden) + self.bias)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_a_model_with_logits_of_its_own_is_trained_and_validated_by_them(
    dataset: PairDataset, label_smoothing: float
) -> None:
    torch.manual_seed(3)
    model = Biased()
    gradients, nll = check_update(model, dataset, label_smoothing)
    assert gradients["bias"].norm() > 0
    num_tokens = int(dataset.tgt.lengths.sum())
    assert validation_nll(model, dataset, 41) == pytest.approx(nll / num_tokens, rel=1e-6)
    (batch,) = batches_of(dataset, [NUM_PAIRS])
    plain = make_model()
    usual = batch_loss(plain, batch, label_smoothing)
    plain.logits = lambda hidden: hidden @ plain.embedding.output_weight.T  # type: ignore[method-assign]
    assert_close(batch_loss(plain, batch, label_smoothing), usual, rtol=1e-6, atol=0)
    plain.logits = lambda hidden: -hidden @ plain.embedding.output_weight.T  # type: ignore[method-assign]
    assert batch_loss(plain, batch, label_smoothing)[1] != usual[1]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_an_update_is_that_of_the_logits_at_real_positions(dataset: PairDataset, label_smoothing: float) -> None:
    check_update(make_model(), dataset, label_smoothing)


def test_more_padding_changes_neither_loss_nor_gradients(dataset: PairDataset) -> None:
    model = make_model()
    (batch,) = batches_of(dataset, [NUM_PAIRS])
    src, tgt_in, tgt_out = (
        torch.nn.functional.pad(ids, (0, extra), value=PAD_ID)
        for ids, extra in ((batch.src, 5), (batch.tgt_in, 3), (batch.tgt_out, 3))
    )
    padded = Batch(src, tgt_in, tgt_out, (tgt_out.flatten() != PAD_ID).nonzero().flatten())
    assert padded.num_tokens == batch.num_tokens == dataset.tgt.lengths.sum()
    expected, expected_sums = update(model, [batch])
    actual, actual_sums = update(model, [padded])
    assert_close(actual, expected, rtol=0, atol=1e-6)
    assert_close(actual_sums, expected_sums, rtol=1e-6, atol=0)


def test_decoder_inputs_at_padded_positions_do_not_matter(dataset: PairDataset) -> None:
    model = make_model()
    (batch,) = batches_of(dataset, [NUM_PAIRS])
    is_padding = batch.tgt_out == PAD_ID
    assert is_padding.any()
    nonsense = Batch(batch.src, batch.tgt_in.masked_fill(is_padding, 17), batch.tgt_out, batch.target_positions)
    assert torch.equal(torch.stack(batch_loss(model, nonsense, 0.1)), torch.stack(batch_loss(model, batch, 0.1)))


def test_gradients_of_a_bfloat16_model_accumulate_in_float32(dataset: PairDataset) -> None:
    weights = MasterWeights(make_model(), torch.bfloat16)
    batches = batches_of(dataset, [2, 3, 8])
    num_tokens = sum(batch.num_tokens for batch in batches)
    expected = {name: torch.zeros_like(p) for name, p in weights.master.named_parameters()}
    for batch in batches:
        model = copy.deepcopy(weights.model)
        (batch_loss(model, batch, 0.1)[0] / num_tokens).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            expected[name] += parameter.grad.float()
    accumulate_gradients(weights, batches, 0.1)
    assert_close({name: p.grad for name, p in weights.master.named_parameters()}, expected, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in weights.model.parameters())


def test_sums_do_not_depend_on_torchs_default_dtype(dataset: PairDataset) -> None:
    """As another thread or a callback may set it."""
    model, batches = make_model(), batches_of(dataset, [2, 3, 8])
    expected = [
        *accumulate_gradients(MasterWeights(model, torch.float32), batches, 0.1),
        validation_nll(model, dataset, 23),
    ]
    torch.set_default_dtype(torch.float64)
    try:
        found = [
            *accumulate_gradients(MasterWeights(model, torch.float32), batches, 0.1),
            validation_nll(model, dataset, 23),
        ]
        scale = LossScale(torch.device("cpu"))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == expected
    assert [x.dtype for x in (*found[:2], scale.scale, scale.num_good, scale.num_overflows)] == [torch.float32] * 5


@pytest.mark.parametrize("max_tokens", [1, 23, 1009])
def test_validation_is_the_mean_nll_however_it_is_batched(dataset: PairDataset, max_tokens: int) -> None:
    model = make_model()
    expected = reference_sums(model, dataset, 0.1)[1].item() / int(dataset.tgt.lengths.sum())
    assert validation_nll(model, dataset, max_tokens) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("is_training", [True, False])
def test_validation_disables_dropout_and_restores_the_mode(dataset: PairDataset, is_training: bool) -> None:
    without, model = make_model(), make_model(dropout=0.5).train(is_training)
    assert validation_nll(model, dataset, 23) == validation_nll(without, dataset, 23)
    assert [module.training for module in model.modules()] == [is_training] * len(list(model.modules()))


def test_validation_draws_no_random_numbers_and_leaves_no_gradients(dataset: PairDataset) -> None:
    model = make_model(dropout=0.5)
    before = torch.get_rng_state()
    validation_nll(model, dataset, 23)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


UPDATE = Update(3, 0, 2, [torch.arange(5).numpy(), torch.arange(5, 11).numpy()])


def changed(config: Config, *overrides: str) -> Config:
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, overrides)


def optimizer_of(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1, fused=True)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("ignoring", ["mps", "cpu"])
def test_a_nonfinite_gradient_leaves_weights_moments_and_step_unchanged(
    monkeypatch: pytest.MonkeyPatch, bad: float, clip_norm: float | None, ignoring: str
) -> None:
    monkeypatch.setattr(step_module, "_IGNORE_FOUND_INF", {ignoring})
    torch.manual_seed(3)
    start = [torch.randn(7), torch.randn(3, 5)]
    gradients = [[torch.randn_like(x) for x in start] for _ in range(3)]

    def train(kept: list[list[Tensor]]) -> tuple[list[nn.Parameter], torch.optim.Optimizer, list[Update]]:
        parameters = [nn.Parameter(x.clone()) for x in start]
        optimizer, guard = optimizer_of(parameters), NonfiniteGuard()
        for gradient in kept:
            for parameter, grad in zip(parameters, gradient, strict=True):
                parameter.grad = grad.clone()
            guard.step(optimizer, parameters, UPDATE, clip_norm)
        assert hasattr(optimizer, "found_inf") == (ignoring != "cpu")
        return parameters, optimizer, guard.skipped_updates()

    poisoned = [x.clone() for x in gradients[1]]
    poisoned[1][2, 3] = bad
    parameters, optimizer, skipped = train([gradients[0], poisoned, gradients[2]])
    expected, expected_optimizer, none = train([gradients[0], gradients[2]])
    assert (skipped, none) == ([UPDATE], [])
    assert_close(parameters, expected, rtol=0, atol=0)
    for parameter, other in zip(parameters, expected, strict=True):
        assert_close(optimizer.state[parameter], expected_optimizer.state[other], rtol=0, atol=0)


def test_skipped_updates_are_reported_once() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), torch.nan)
    guard = NonfiniteGuard()
    assert guard.skipped_updates() == []
    assert not guard.step(optimizer_of([weight]), [weight], UPDATE)
    assert guard.skipped_updates() == [UPDATE]
    assert guard.skipped_updates() == []


def poison(trainer: Trainer, step: int) -> None:
    """Make the gradient of one update non-finite."""
    gradients = trainer._accumulate_gradients

    def poisoned(update: Update, *rest: Any) -> Any:
        result = gradients(update, *rest)
        if update.step == step:
            next(iter(trainer.weights.master.parameters())).grad.view(-1)[1] = torch.nan  # type: ignore[union-attr]
        return result

    trainer._accumulate_gradients = poisoned  # type: ignore[method-assign]


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in trainer.weights.master.state_dict().items()}


def test_training_stops_at_a_nonfinite_gradient_and_names_the_update(tiny_config: Config) -> None:
    trainer = Trainer.from_config(tiny_config)
    poison(trainer, 6)
    before: dict[str, Tensor] = {}

    def look() -> None:
        if trainer.progress.step == 5:
            before.update(weights_of(trainer))

    with pytest.raises(TrainingError) as error:
        trainer.fit(look)
    assert re.fullmatch(
        r"step 6 \(update 6 of epoch 0: pairs \d.* more\): non-finite gradient at a learning rate of "
        r"\d\.\d\de-\d\d; the last checkpoint is intact: lower train\.lr_factor or train\.learning_rate, .* "
        r"--skip-nonfinite N",
        str(error.value),
    )
    assert_close(weights_of(trainer), before, rtol=0, atol=0)
    assert [path.name for path in (trainer.run / "checkpoints").iterdir()] == ["step-00000004"]


def test_updates_are_skipped_counted_and_logged_up_to_the_limit(tiny_config: Config) -> None:
    trainer = Trainer.from_config(changed(tiny_config, "train.skip_nonfinite=2", "train.log_steps=1"))
    for step in (3, 7):
        poison(trainer, step)
    trainer.fit()
    assert trainer.progress.num_nonfinite == 2
    lines = read_metrics(trainer.run)
    found = [(line["step"], line["epoch"], line["update"], line["count"]) for line in lines if "count" in line]
    assert found == [(3, 0, 3, 1), (7, 0, 7, 2)]
    (third,) = (line for line in lines if line["kind"] == "train" and line["step"] == 3)
    assert (third["loss"], third["tokens_per_s"]) == (0, 0), "skipped updates are not counted"
    trainer = Trainer.from_config(
        changed(tiny_config, "train.skip_nonfinite=2", "train.log_steps=1", "train.max_steps=13")
    )
    poison(trainer, 12)
    with pytest.raises(TrainingError, match="step 12 "):
        trainer.fit()


def test_a_run_with_skipped_updates_resumes_exactly(tiny_config: Config) -> None:
    def run(name: str, *ends: int) -> Trainer:
        for end in ends:
            values = (f"run_dir={tiny_config.run_dir}{name}", "train.skip_nonfinite=1", f"train.max_steps={end}")
            trainer = Trainer.from_config(changed(tiny_config, *values))
            poison(trainer, 3)
            trainer.fit()
        return trainer

    whole, resumed = run("whole", 11), run("resumed", 5, 11)
    for name in ("model.safetensors", "optimizer.safetensors"):
        paths = (trainer.run / "checkpoints" / "step-00000011" / name for trainer in (whole, resumed))
        assert_close(*map(load_file, paths), rtol=0, atol=0)
    assert whole.progress.num_nonfinite == resumed.progress.num_nonfinite == 1


def too_big_for(monkeypatch: pytest.MonkeyPatch, num_pairs: int, error: Exception) -> list[int]:
    """Let batches of more pairs fail with an out-of-memory error in backward; returns the pairs of all attempts."""
    attempts: list[int] = []
    batch_loss = step_module.batch_loss

    def limited(model: Transformer, batch: Batch | GroupedBatch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        loss, nll = batch_loss(model, batch, label_smoothing)
        attempts.append(len(batch.src if isinstance(batch, Batch) else batch.lengths[0]))
        if attempts[-1] > num_pairs:
            loss.backward(retain_graph=True)  # leaves gradients behind
            raise error
        return loss, nll

    monkeypatch.setattr(step_module, "batch_loss", limited)
    return attempts


@pytest.mark.parametrize(
    ("precision", "error"),
    [
        ("fp32", torch.OutOfMemoryError("CUDA out of memory")),
        ("bf16", RuntimeError("could not create a primitive")),
        ("fp32", MemoryError()),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("bf16", torch.OutOfMemoryError("CUDA out of memory")),
                ("fp32", RuntimeError("could not create a primitive")),
                ("bf16", MemoryError()),
            )
        ),
    ],
)
def test_splitting_batches_that_exceed_memory_does_not_change_the_update(
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    error: Exception,
) -> None:
    values = (f"train.precision={precision}", "model.dropout=0")
    whole = Trainer.from_config(changed(tiny_config, *values, f"run_dir={tiny_config.run_dir}-whole"))
    whole.update()
    split = Trainer.from_config(changed(tiny_config, *values))
    with monkeypatch.context() as patch:
        attempts = too_big_for(patch, 1, error)
        split.update()
    assert max(attempts) >= 4, "so that once was not enough"
    assert split.progress.num_split >= 2
    told = capsys.readouterr().err
    assert told.count("step 1 (update 1 of epoch 0: pairs ") == split.progress.num_split
    assert "lower train.max_tokens" in told
    # Adam's first step has the size of the learning rate for any gradient: moments are more sensitive than weights.
    tolerance = {"fp32": 1e-5, "bf16": 2e-2}[precision]
    for parameter, other in zip(whole.weights.master.parameters(), split.weights.master.parameters(), strict=True):
        moments = [t.optimizer.state[p]["exp_avg"] for t, p in ((whole, parameter), (split, other))]
        assert (moments[0] - moments[1]).norm() <= tolerance * moments[0].norm() + 1e-12
    window = (trainer._running.sums.tolist() for trainer in (whole, split))
    for one, two in zip(*window, strict=True):
        assert one == pytest.approx(two, rel=tolerance)


@pytest.mark.parametrize("packed", ["auto", "false"])
def test_a_run_with_a_batch_that_did_not_fit_resumes_exactly(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, packed: str
) -> None:
    accumulate = step_module.accumulate_gradients

    def run(name: str, *ends: int) -> Trainer:
        failures = [1]
        for end in ends:
            values = (f"run_dir={tiny_config.run_dir}{name}", f"train.packed={packed}", f"train.max_steps={end}")
            trainer = Trainer.from_config(changed(tiny_config, *values))

            def limited(
                *arguments: Any, progress: Progress = trainer.progress, **options: Any
            ) -> tuple[Tensor, Tensor]:
                found = accumulate(*arguments, **options)
                if progress.step == 2 and failures:
                    failures.clear()
                    raise MemoryError
                return found

            monkeypatch.setattr(step_module, "accumulate_gradients", limited)
            trainer.fit()
        return trainer

    whole, resumed = run("whole", 7), run("resumed", 5, 7)
    assert whole.progress.num_split == resumed.progress.num_split == 1
    for name in ("model.safetensors", "optimizer.safetensors"):
        paths = (trainer.run / "checkpoints" / "step-00000007" / name for trainer in (whole, resumed))
        assert_close(*map(load_file, paths), rtol=0, atol=0)


def test_a_single_pair_that_does_not_fit_is_an_error(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer.from_config(tiny_config)
    too_big_for(monkeypatch, 0, MemoryError("no more"))
    with pytest.raises(
        TrainingError, match=r"step 1 .*: a single pair does not fit into memory \(no more\); lower data"
    ):
        trainer.update()


def test_other_errors_in_an_update_are_raised(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer.from_config(tiny_config)
    too_big_for(monkeypatch, 0, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        trainer.update()

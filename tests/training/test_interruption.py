"""An exception inside an update, wherever it comes, leaves nothing behind, or training is refused."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import torch

from transformer.config import Config, load_config
from transformer.errors import TrainingError
from transformer.training.metrics import read_metrics
from transformer.training.trainer import Trainer
from transformer.training.training_state import Progress

LONGEST = [pytest.mark.slow, pytest.mark.longest]
VARIANTS = [
    ["model.dropout=0.2", "train.ema_decay=0.9"],
    ["model.dropout=0.2", "train.precision=bf16"],
    ["data.subword_dropout=0.2", "train.clip_norm=0.5"],
]


def run_config(config: Config, tmp_path: Path, name: str, *values: str) -> Config:
    path = tmp_path / "changed.yaml"
    path.write_text(config.to_yaml())
    sizes = "train.max_steps=7", "train.validate_steps=6", "train.log_steps=1", "train.save_steps=null"
    return load_config(path, [f"run_dir={tmp_path / name}", *sizes, *values])


def outcome(trainer: Trainer) -> tuple[list[Any], list[torch.Tensor]]:
    """Numbers of a run that do not depend on the clock, and its weights."""
    records = read_metrics(trainer.run)
    numbers = [[(name, x) for name, x in one.items() if not name.endswith("_s")] for one in records]
    progress = {name: x for name, x in vars(trainer.progress).items() if not name.endswith("_s")}
    average = [] if trainer.average is None else list(trainer.average.model.parameters())
    weights = [weight.detach().clone() for weight in (*trainer.weights.master.parameters(), *average)]
    return [numbers, progress, trainer.num_tokens()], weights


def assert_equal(trainer: Trainer, expected: tuple[list[Any], list[torch.Tensor]]) -> None:
    numbers, weights = outcome(trainer)
    assert numbers == expected[0]
    assert all(torch.equal(one, other) for one, other in zip(weights, expected[1], strict=True))


@contextlib.contextmanager
def raised_at(line: int, trainer: Trainer, step: int) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at a line of the package, counted within the update after `step`; counts the lines."""
    count = [0]
    codes: dict[CodeType, bool] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if codes.setdefault(frame.f_code, "/transformer/" in frame.f_code.co_filename) and event == "line":
            count[0] += 1
            if count[0] == line:
                raise KeyboardInterrupt
        return trace

    update = trainer._update

    def traced() -> Any:
        if trainer.progress.step != step or count[0]:
            return update()
        sys.settrace(trace)
        try:
            return update()
        finally:
            sys.settrace(None)

    trainer._update = traced  # type: ignore[method-assign]
    yield count
    trainer._update = update  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("values", "number"),
    [(VARIANTS[0], 2), *(pytest.param(values, 17, marks=LONGEST) for values in VARIANTS)],
    ids=str,
)
def test_after_an_exception_at_any_line_of_an_update_fit_gives_what_it_would_have_given(
    tiny_config: Config, tmp_path: Path, values: list[str], number: int
) -> None:
    whole = Trainer.from_config(run_config(tiny_config, tmp_path, "whole", *values))
    with raised_at(-1, whole, 2) as lines:
        whole.fit()
    expected = outcome(whole)
    num_refused = 0
    for line in [lines[0] * (2 * i + 1) // (2 * number) for i in range(number)]:
        trainer = Trainer.from_config(run_config(tiny_config, tmp_path, f"{line}", *values))
        with raised_at(line, trainer, 2), pytest.raises(KeyboardInterrupt):
            trainer.fit()
        try:
            trainer.fit()
        except TrainingError as error:
            assert "make a new Trainer" in str(error)
            num_refused += 1
            trainer = Trainer.from_config(run_config(tiny_config, tmp_path, f"{line}", *values))
            trainer.fit()
        assert_equal(trainer, expected)
    assert num_refused <= number / 2


@pytest.mark.parametrize("phase", ["data", "forward", "backward", "optimizer"])
def test_an_update_that_fails_in_a_phase_can_be_made_again(tiny_config: Config, tmp_path: Path, phase: str) -> None:
    whole = Trainer.from_config(run_config(tiny_config, tmp_path, "whole"))
    whole.fit()
    trainer = Trainer.from_config(run_config(tiny_config, tmp_path, "again"))
    failures = [3, 3, 5]  # by the step before; one twice in a row

    @contextlib.contextmanager
    def fail(name: str) -> Iterator[None]:
        if name != "optimizer":
            yield
        if name == phase and failures and trainer.progress.step == failures[0]:
            del failures[0]
            raise ZeroDivisionError
        if name == "optimizer":
            yield

    trainer.timer = fail
    for go_on in (trainer.fit, trainer.update, trainer.fit):
        with pytest.raises(ZeroDivisionError):
            go_on()
        assert all(weight.grad is None for weight in trainer.weights.master.parameters())
    trainer.fit()
    assert_equal(trainer, outcome(whole))


@pytest.mark.parametrize("go_on", [Trainer.fit, Trainer.update])
def test_weights_that_are_half_changed_are_not_trained_on(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, go_on: Callable[[Trainer], object]
) -> None:
    trainer = Trainer.from_config(tiny_config)
    trainer.fit(lambda: "enough" if trainer.progress.step == 2 else None)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.weights, "refresh", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            trainer.fit()
    metrics = (trainer.run / "metrics.jsonl").read_bytes()
    with pytest.raises(TrainingError, match=r"^step 3 was interrupted while it changed the weights; make a new Traine"):
        go_on(trainer)
    assert (trainer.run / "metrics.jsonl").read_bytes() == metrics
    assert Trainer.from_config(tiny_config).progress.step == 2


def test_an_interruption_while_an_update_is_taken_back_is_not_passed_over(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.from_config(tiny_config)
    monkeypatch.setattr(trainer.weights, "zero_grad", lambda: 1 // 0)
    monkeypatch.setattr(trainer.weights, "backward", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        trainer.update()
    with pytest.raises(TrainingError, match="make a new Trainer"):
        trainer.fit()


def test_an_epoch_whose_plan_was_interrupted_is_planned_again(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.from_config(tiny_config)
    sampler = trainer._sampler
    expected = sampler.next(Progress())
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(sampler, "_plan", lambda *_, **__: 1 // 0)
        sampler.next(Progress(epoch=1))
    found = sampler.next(Progress())
    assert str(found) == str(expected)


@pytest.mark.parametrize("kind", ["start", "train", "validation", "end"])
def test_an_exception_of_the_user_s_logger_changes_no_line_of_metrics(
    tiny_config: Config, tmp_path: Path, kind: str
) -> None:
    values = ["train.log_steps=2"]
    whole = Trainer.from_config(run_config(tiny_config, tmp_path, "whole", *values))
    whole.fit()
    trainer = Trainer.from_config(run_config(tiny_config, tmp_path, "again", *values))

    def interrupt(found: str, *_: object) -> None:
        if found == kind:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(on_log=interrupt)
    trainer.fit()
    assert_equal(trainer, outcome(whole))

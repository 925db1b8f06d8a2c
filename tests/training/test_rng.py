"""Training draws its own random numbers, whatever else the process draws."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.errors import InUseError
from transformer.training.rng import OwnRNG, get_rng_state, kept_rng_state, set_rng_state
from transformer.training.trainer import Trainer


def test_own_numbers_go_on_where_they_were_and_leave_the_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(7)
    torch.manual_seed(3)
    own = OwnRNG()
    torch.manual_seed(5)
    others = torch.rand(4)
    torch.manual_seed(5)
    found = []
    for size in (2, 5):
        with own.in_use(), own.in_use():
            found.append(torch.rand(size))
        found.append(torch.rand(2))
    assert torch.equal(torch.cat(found[::2]), expected)
    assert torch.equal(torch.cat(found[1::2]), others)


def test_the_numbers_of_an_apple_gpu_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"state": torch.tensor([7], dtype=torch.uint8)}
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: numbers["state"])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: numbers.update(state=state))
    with kept_rng_state():
        numbers["state"] = torch.tensor([3], dtype=torch.uint8)
    assert numbers["state"].tolist() == [7]
    set_rng_state({"cpu": torch.get_rng_state()})  # of a run that began on another device
    assert numbers["state"].tolist() == [7]


def test_after_an_error_each_goes_on_where_it_was() -> None:
    own, before = OwnRNG(), get_rng_state()
    with pytest.raises(ZeroDivisionError), own.in_use():
        torch.rand(3)
        _ = 1 // 0
    assert torch.equal(get_rng_state()["cpu"], before["cpu"])
    with own.in_use():
        found = torch.rand(2)
    assert torch.equal(found, torch.rand(5)[3:])
    with pytest.raises(ZeroDivisionError), kept_rng_state():
        torch.manual_seed(7)
        _ = 1 // 0


def run_config(config: Config, tmp_path: Path, name: str, *overrides: str) -> Config:
    path = tmp_path / "changed.yaml"
    path.write_text(config.to_yaml())
    values = ("data.builtin_size=101", "train.max_steps=7", "train.validate_steps=3", "train.validation_bleu=true")
    return load_config(path, [f"run_dir={tmp_path / name}", *values, *overrides])


def weights(trainer: Trainer, step: int = 7) -> dict[str, Tensor]:
    return load_file(trainer.run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def draw(*_: object) -> float:
    """A scorer that draws numbers, other ones each time."""
    torch.seed()
    return float(torch.rand(3).sum())


def test_other_draws_of_the_process_do_not_reach_training(tiny_config: Config, tmp_path: Path) -> None:
    expected = Trainer.from_config(run_config(tiny_config, tmp_path, "alone"), lambda *_: 1.0)
    expected.fit()
    first, second = (Trainer.from_config(run_config(tiny_config, tmp_path, name), draw) for name in ("one", "two"))
    torch.rand(3)
    first.fit(lambda: "enough" if first.progress.step == 2 else None)
    second.update()
    torch.rand(5)
    second.fit()
    before = torch.get_rng_state()
    first.fit()
    assert torch.equal(torch.get_rng_state(), before)
    for trainer in (first, second):
        assert_close(weights(trainer), weights(expected), rtol=0, atol=0)


def test_a_scorer_that_draws_does_not_change_what_resumption_gives(tiny_config: Config, tmp_path: Path) -> None:
    whole = Trainer.from_config(run_config(tiny_config, tmp_path, "whole"), draw)
    whole.fit()
    for max_steps in (3, 5, 7):  # each end is validated
        config = run_config(tiny_config, tmp_path, "parts", f"train.max_steps={max_steps}")
        parts = Trainer.from_config(config, draw)
        parts.fit()
    assert_close(weights(parts), weights(whole), rtol=0, atol=0)


def test_a_trainer_leaves_the_random_numbers_and_the_default_dtype_of_the_process(tiny_config: Config) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for _ in range(2):  # a new run, and one that is resumed
        trainer = Trainer.from_config(tiny_config)
        assert torch.equal(torch.get_rng_state(), before)
        trainer.fit(lambda now=trainer: "enough" if now.progress.step == 4 else None)  # type: ignore[misc]
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("values", [["train.ema_decay=0.9"], ["model.positional=shaw", "train.precision=bf16"]])
def test_training_is_in_float32_whatever_the_default_of_the_process(
    tiny_config: Config, tmp_path: Path, values: list[str]
) -> None:
    expected = Trainer.from_config(run_config(tiny_config, tmp_path, "usual", *values))
    expected.fit()
    torch.set_default_dtype(torch.float64)
    try:
        for max_steps in (4, 7):
            config = run_config(tiny_config, tmp_path, "double", *values, f"train.max_steps={max_steps}")
            found = Trainer.from_config(config)
            found.update()
            found.fit()
            assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert_close(weights(found), weights(expected), rtol=0, atol=0)


def test_a_second_thread_can_neither_make_nor_use_a_trainer(tiny_config: Config, tmp_path: Path) -> None:
    first, second = (Trainer.from_config(run_config(tiny_config, tmp_path, name)) for name in ("one", "two"))
    third = run_config(tiny_config, tmp_path, "three")
    errors: list[str] = []

    def use(function: Callable[[], object]) -> None:
        try:
            function()
        except InUseError as error:
            errors.append(str(error))

    def interfere() -> None:
        for function in (second.fit, second.update, first.update, lambda: Trainer.from_config(third)):
            thread = threading.Thread(target=use, args=(function,))
            thread.start()
            thread.join()

    assert first.fit(interfere) == "train.max_steps=7 reached"
    assert set(errors) == {
        "another thread of this process is training, and torch's random numbers are one sequence per process: wait "
        "until it ends, or train in another process"
    }
    assert len(errors) % 4 == 0
    assert second.fit(lambda: "enough") == "enough"
    second.fit()
    assert_close(weights(second), weights(first), rtol=0, atol=0)

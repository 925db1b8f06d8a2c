"""Trainers of one run in one process: the latest counts."""

from __future__ import annotations

import pytest

from transformer.config import Config
from transformer.errors import InUseError
from transformer.training.trainer import Trainer


def test_the_latest_trainer_of_a_run_counts(tiny_config: Config) -> None:
    first = Trainer.from_config(tiny_config)
    first.fit(lambda: "enough" if first.progress.step == 3 else None)
    second = Trainer.from_config(tiny_config)
    with pytest.raises(InUseError, match=r"run_dir=.*: a later Trainer of this process has claimed it; use that one"):
        first.fit()
    assert second.fit() == "train.max_steps=11 reached"
    assert second.progress.step == 11
    second.fit()
    assert Trainer.from_config(tiny_config).progress.step == 11


def test_a_run_that_is_being_trained_cannot_be_claimed_or_trained_again(tiny_config: Config) -> None:
    trainer = Trainer.from_config(tiny_config)
    expected = r"run_dir=.*: a Trainer of this process is training it; wait until its `fit` ends"

    def interfere() -> None:
        with pytest.raises(InUseError, match=expected):
            Trainer.from_config(tiny_config)
        with pytest.raises(InUseError, match=expected):
            trainer.fit()

    assert trainer.fit(interfere) == "train.max_steps=11 reached"


def test_a_run_is_free_again_after_an_error(tiny_config: Config) -> None:
    trainer = Trainer.from_config(tiny_config)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(lambda: str(1 // 0))
    trainer.fit()
    assert trainer.progress.step == 11

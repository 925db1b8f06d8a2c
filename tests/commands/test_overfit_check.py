"""The self-check learns a few pairs by heart, and says so if it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from transformer.commands import overfit_check
from transformer.commands.overfit_check import self_check
from transformer.config import Config, load_config
from transformer.data.batching import Batch
from transformer.errors import DataError, TrainingError


def with_values(config: Config, *overrides: str) -> Config:
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, overrides)


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return with_values(tiny_config, "model.d_model=26", "model.num_layers=1")


def test_what_fits_together_is_learned_and_nothing_is_left_behind(config: Config) -> None:
    lines: list[str] = []
    self_check(config, lines.append)
    assert [line.partition(":")[0] for line in lines] == ["data", "tokenizer", "loss", "search"]
    assert re.search(r"of 8 pairs learned by heart 8 are translated so by greedy search, 8 by beam search", lines[3])
    assert not Path(config.run_dir).exists()
    assert not Path(config.data.cache_dir).exists()


def test_the_tokenizer_of_a_run_that_has_one_is_taken(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 1)
    lines: list[str] = []
    with pytest.raises(TrainingError):
        self_check(
            load_config(trained_run / "config.yaml", ["data.vocab_size=211", f"run_dir={trained_run}"]), lines.append
        )
    assert lines[1].startswith("tokenizer: 307 pieces")


def test_of_a_large_corpus_the_beginning_is_read(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 1)
    monkeypatch.setattr(overfit_check, "_NUM_READ", 101)
    monkeypatch.setattr(overfit_check, "_VOCAB_SIZE", 199)
    lines: list[str] = []
    with pytest.raises(TrainingError, match="after 1 updates"):
        self_check(with_values(config, "data.vocab_size=37000"), lines.append)
    assert lines[1].startswith("tokenizer: 199 pieces")


def test_a_decoder_that_sees_the_future_is_found_out(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns to copy, its loss is perfect, and it translates nothing."""
    batch = overfit_check._batch

    def leaking(pairs: list[tuple[list[int], list[int]]]) -> Batch:
        right = batch(pairs)
        return Batch(right.src, right.tgt_out, right.tgt_out, right.real)

    monkeypatch.setattr(overfit_check, "_batch", leaking)
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 160)
    with pytest.raises(
        TrainingError, match=r"self-check: after 160 updates .*: data, model, loss or search do not fit"
    ):
        self_check(config, lambda _: None)


def test_a_search_that_goes_astray_is_found_out(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 60)
    search = overfit_check.Translator._search  # every sentence gets the translation of the first
    monkeypatch.setattr(
        overfit_check.Translator, "_search", lambda self, src, *rest: search(self, src[:1] * len(src), *rest)
    )
    with pytest.raises(TrainingError, match="self-check: after 60 updates"):
        self_check(config, lambda _: None)


def test_a_loss_that_is_not_finite_is_named(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(*_: object) -> tuple[Tensor, Tensor]:
        return torch.tensor(torch.nan), torch.tensor(torch.nan)

    monkeypatch.setattr(overfit_check, "train_step", bad)
    with pytest.raises(TrainingError, match="self-check: the loss is not finite at step 1"):
        self_check(config, lambda _: None)


def test_a_corpus_without_a_pair_to_learn_is_named(config: Config) -> None:
    with pytest.raises(DataError, match="self-check: builtin train begins with no pair of 1 to 1 pieces on each side"):
        self_check(with_values(config, "data.max_length=2"), lambda _: None)

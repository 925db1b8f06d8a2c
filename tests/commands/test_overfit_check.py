"""The overfit check learns one batch, or says why it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from transformer.commands import overfit_check
from transformer.commands.overfit_check import overfit_check as check
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


def test_parts_that_work_together_overfit_a_batch_and_leave_no_files(config: Config) -> None:
    lines: list[str] = []
    check(config, lines.append)
    assert [line.partition(":")[0] for line in lines] == ["data", "tokenizer", "loss", "search"]
    assert re.search(r"of 8 overfitted pairs 8 are translated back by greedy search, 8 by beam search", lines[3])
    assert not Path(config.run_dir).exists()
    assert not Path(config.data.cache_dir).exists()


def test_rules_of_the_search_that_references_break_are_left_out(config: Config) -> None:
    lines: list[str] = []
    check(with_values(config, "search.no_repeat_ngram=1", "search.max_length=2", "search.min_length=2"), lines.append)
    assert "of 8 overfitted pairs 8 are translated back by greedy search, 8 by beam search" in lines[3]


def test_a_run_with_a_tokenizer_uses_it(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 1)
    lines: list[str] = []
    with pytest.raises(TrainingError):
        check(load_config(trained_run / "config.yaml", ["data.vocab_size=211", f"run_dir={trained_run}"]), lines.append)
    assert lines[1].startswith("tokenizer: 307 pieces")


def test_a_run_that_begins_with_trained_weights_has_their_tokenizer(
    config: Config, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 1)
    lines: list[str] = []
    with pytest.raises(TrainingError):
        check(with_values(config, "data.vocab_size=211", f"train.init_from={trained_run}"), lines.append)
    assert lines[1].startswith("tokenizer: 307 pieces")


def test_only_the_beginning_of_a_large_corpus_is_read(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 1)
    monkeypatch.setattr(overfit_check, "_NUM_READ", 101)
    monkeypatch.setattr(overfit_check, "_VOCAB_SIZE", 199)
    lines: list[str] = []
    with pytest.raises(TrainingError, match="after 1 updates"):
        check(with_values(config, "data.vocab_size=37000"), lines.append)
    assert lines[1].startswith("tokenizer: 199 pieces")


def test_a_decoder_that_sees_the_future_is_detected(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns to copy, its loss is perfect, and it translates nothing."""
    batch = overfit_check._batch

    def leaking(pairs: list[tuple[list[int], list[int]]]) -> Batch:
        right = batch(pairs)
        return Batch(right.src, right.tgt_out, right.tgt_out, right.target_positions)

    monkeypatch.setattr(overfit_check, "_batch", leaking)
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 160)
    with pytest.raises(
        TrainingError, match=r"overfit check: after 160 updates .*: data, model, loss or search do not work"
    ):
        check(config, lambda _: None)


def test_a_search_that_mixes_up_sentences_is_detected(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfit_check, "_MAX_STEPS", 60)
    search = overfit_check.Translator._search  # every sentence gets the translation of the first
    monkeypatch.setattr(
        overfit_check.Translator, "_search", lambda self, src, *rest: search(self, src[:1] * len(src), *rest)
    )
    with pytest.raises(TrainingError, match="overfit check: after 60 updates"):
        check(config, lambda _: None)


def test_a_loss_that_is_not_finite_is_named(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(*_: object) -> tuple[Tensor, Tensor]:
        return torch.tensor(torch.nan), torch.tensor(torch.nan)

    monkeypatch.setattr(overfit_check, "accumulate_gradients", bad)
    with pytest.raises(TrainingError, match="overfit check: the loss is not finite at step 1"):
        check(config, lambda _: None)


def test_a_corpus_without_a_suitable_pair_is_named(config: Config) -> None:
    with pytest.raises(
        DataError, match=r"overfit check: \S*/train\.en and \S*/train\.de begins without a pair of 1 to 1 pieces"
    ):
        check(with_values(config, "data.max_length=2"), lambda _: None)

"""The configurations of WMT 2014: sections 5 and 6.1 and Table 3, number by number."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from transformer.config import Config, load_config
from transformer.model.alternatives.build import build_model
from transformer.training.schedule import noam_lr

NAMES = ("base", "big", "big_enfr")
BIG = {"d_model": 1024, "num_heads": 16, "d_ff": 4096}


def load(name: str) -> Config:
    return load_config(Path(__file__).parents[1] / "configs" / f"{name}.yaml")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("base", 63_045_632),
        ("big", 214_171_648),
        ("big_enfr", 214_171_648 - (37_000 - 32_000) * 1024),  # the same but for its vocabulary
    ],
)
def test_the_model_has_exactly_as_many_parameters_as_the_arithmetic_says(name: str, parameters: int) -> None:
    config = load(name)
    with torch.device("meta"):
        model = build_model(config.data.vocab_size, config.model)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        ("base", {}),
        ("big", {**BIG, "dropout": 0.3}),
        ("big_enfr", BIG),  # section 6.1: P_drop = 0.1 for English-French
    ],
)
def test_the_model_differs_from_base_as_table_3_says(name: str, differing: dict[str, float]) -> None:
    default = dataclasses.asdict(Config().model)
    assert dataclasses.asdict(load(name).model) == {**default, **differing}


@pytest.mark.parametrize(
    ("name", "subset", "tgt_lang", "vocab_size"),
    [("base", "de-en", "de", 37_000), ("big", "de-en", "de", 37_000), ("big_enfr", "fr-en", "fr", 32_000)],
)
def test_the_data_are_those_of_section_5_1(name: str, subset: str, tgt_lang: str, vocab_size: int) -> None:
    data = load(name).data
    assert (data.corpus, data.subset, data.src_lang, data.tgt_lang) == ("wmt/wmt14", subset, "en", tgt_lang)
    assert (data.train_split, data.validation_split, data.test_split) == ("train", "validation", "test")
    assert data.vocab_size == vocab_size
    assert data.revision is not None and len(data.revision) == 40, "a commit, which does not move as a branch does"


def test_all_read_the_same_commit_of_the_hub() -> None:
    assert len({load(name).data.revision for name in NAMES}) == 1


@pytest.mark.parametrize(
    ("name", "steps", "seconds_per_step", "averaged", "peak_lr"),
    [
        ("base", 100_000, 0.4, 5, 512**-0.5 * 4000**-0.5),
        ("big", 300_000, 1.0, 20, 1024**-0.5 * 4000**-0.5),
        ("big_enfr", 300_000, 1.0, 20, 1024**-0.5 * 4000**-0.5),
    ],
)
def test_training_is_that_of_sections_5_and_6_1(
    name: str, steps: int, seconds_per_step: float, averaged: int, peak_lr: float
) -> None:
    config = load(name)
    train = config.train
    assert (train.tokens_per_update, train.max_steps, train.warmup_steps) == (25_000, steps, 4000)
    assert (train.adam_beta1, train.adam_beta2, train.adam_eps) == (0.9, 0.98, 1e-9)
    assert (train.label_smoothing, train.weight_decay, train.clip_norm) == (0.1, 0.0, None)
    assert train.lr_factor * noam_lr(train.warmup_steps, config.model.d_model, train.warmup_steps) == pytest.approx(
        peak_lr
    )
    # A checkpoint every ten minutes of the paper's machine, and those alone.
    assert train.save_steps is not None and train.save_steps * seconds_per_step == 600
    assert train.save_minutes is None
    assert train.keep_checkpoints == averaged


@pytest.mark.parametrize("name", NAMES)
def test_the_search_is_that_of_section_6_1(name: str) -> None:
    search = load(name).search
    assert (search.beam, search.alpha, search.max_length_offset) == (4, 0.6, 50)


def test_base_states_the_defaults_but_for_what_it_says_otherwise() -> None:
    flat, default = load("base").flat(), Config().flat()
    differing = {key for key in flat if flat[key] != default[key]}
    assert differing == {"data.revision", "train.save_steps", "train.save_minutes"}

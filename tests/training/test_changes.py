"""Going on with other values: which may change, what they do, and what is said and recorded."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from transformer.config import Config, load_config
from transformer.errors import ConfigError
from transformer.training.run_keys import CHANGEABLE_KEYS, FREE_KEYS
from transformer.training.trainer import Trainer

FIRST, LAST = 5, 8


@pytest.fixture
def begun(tiny_config: Config) -> Config:
    """A run after 5 updates, in the middle of an epoch, that may do 8."""
    Trainer.from_config(with_values(tiny_config, max_steps=FIRST)).fit()
    return with_values(tiny_config, max_steps=LAST)


def with_values(config: Config, **values: Any) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **values))


def weights(config: Config, step: int = LAST) -> dict[str, torch.Tensor]:
    return load_file(Path(config.run_dir) / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def copied(config: Config, tmp_path: Path) -> Config:
    import shutil

    shutil.copytree(config.run_dir, tmp_path / "copy")
    return dataclasses.replace(config, run_dir=str(tmp_path / "copy"))


def test_keys_that_may_change_exist_and_are_neither_free_nor_of_shapes_or_data() -> None:
    assert set(Config().flat()) >= CHANGEABLE_KEYS and not CHANGEABLE_KEYS & FREE_KEYS
    assert {key for key in CHANGEABLE_KEYS if key.startswith("data.")} == {
        *("data.subword_dropout", "data.subword_alpha", "data.subword_sides")
    }


def test_a_change_needs_the_flag_and_is_printed_and_recorded(begun: Config, capsys: pytest.CaptureFixture[str]) -> None:
    changed = with_values(begun, lr_factor=0.5, label_smoothing=0.0, clip_norm=1.5)
    changed = dataclasses.replace(changed, model=dataclasses.replace(changed.model, dropout=0.2))
    run = Path(begun.run_dir)
    with pytest.raises(ConfigError, match=r"or restore these values; --change goes on with the new ones$"):
        Trainer.from_config(changed)
    capsys.readouterr()
    trainer = Trainer.from_config(changed, change=True)
    assert capsys.readouterr().out.splitlines() == [
        "model.dropout: 0.1 → 0.2",
        "train.label_smoothing: 0.1 → 0.0",
        "train.lr_factor: 1.0 → 0.5",
        "train.clip_norm: null → 1.5",
    ]
    assert trainer.progress.step == FIRST and trainer.learning_rate(7) == 0.5 * Trainer.learning_rate(_plain(begun), 7)
    trainer.fit()
    recorded = json.loads((run / "starts.jsonl").read_text().splitlines()[-1])["changed"]
    assert recorded == {
        "model.dropout": [0.1, 0.2],
        "train.label_smoothing": [0.1, 0.0],
        "train.lr_factor": [1.0, 0.5],
        "train.clip_norm": [None, 1.5],
        "train.max_steps": [FIRST, LAST],
    }
    assert load_config(run / "config.yaml", saved=True) == changed
    Trainer.from_config(changed)  # from now on without the flag
    assert capsys.readouterr().out.count("→") == 0


def _plain(config: Config) -> Any:
    """What `Trainer.learning_rate` needs."""
    return type("Plain", (), {"config": config})()


@pytest.mark.parametrize("key", ["vocab_size", "max_length"])
def test_data_and_shapes_do_not_change_with_the_flag_either(begun: Config, key: str) -> None:
    changed = with_values(dataclasses.replace(begun, data=dataclasses.replace(begun.data, **{key: 211})), lr_factor=0.5)
    before = (Path(begun.run_dir) / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"data.{key}: \d+ there, 211 here; .*; --change cannot change data.{key}$"):
        Trainer.from_config(changed, change=True)
    assert (Path(begun.run_dir) / "config.yaml").read_bytes() == before


def test_the_flag_without_a_change_changes_nothing(begun: Config, tmp_path: Path) -> None:
    copy = copied(begun, tmp_path)
    Trainer.from_config(begun).fit()
    Trainer.from_config(copy, change=True).fit()
    assert all(torch.equal(weight, weights(copy)[name]) for name, weight in weights(begun).items())


def test_a_new_run_takes_the_flag(tiny_config: Config) -> None:
    assert Trainer.from_config(tiny_config, change=True).progress.step == 0


@pytest.mark.parametrize("values", [{"tokens_per_update": 701}, {"max_tokens": 307}, {"batching": "mixed"}])
def test_with_other_batches_training_goes_on_with_the_next_epoch(
    tiny_config: Config, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    begun = with_values(tiny_config, batching="bucketed", packed=False, max_steps=LAST)
    Trainer.from_config(with_values(begun, max_steps=FIRST)).fit()
    first = Trainer.from_config(begun)
    epoch, seen = first.progress.epoch, first.num_tokens()
    assert first.progress.update > 0
    capsys.readouterr()
    trainer = Trainer.from_config(with_values(begun, **values), change=True)
    line = f"updates consist of other pairs from now on: training leaves epoch {epoch} and begins epoch {epoch + 1}"
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert (trainer.progress.epoch, trainer.progress.update) == (epoch + 1, 0)
    assert trainer.num_tokens() == seen
    src = tgt = 0
    for _ in range(2):
        batches = trainer.update()
        tgt += sum(batch.num_tokens for batch in batches)
        src += sum(int((batch.src != 0).sum()) for batch in batches)
    assert trainer.num_tokens() == (seen[0] + src, seen[1] + tgt)


def test_mixed_updates_are_the_same_pairs_in_smaller_batches(tiny_config: Config) -> None:
    mixed = with_values(tiny_config, batching="mixed", max_steps=FIRST)
    Trainer.from_config(mixed).fit()
    trainer = Trainer.from_config(with_values(mixed, max_steps=LAST))
    epoch, number = trainer.progress.epoch, trainer.progress.update
    whole = trainer.update()
    run = Path(mixed.run_dir)
    trainer = Trainer.from_config(
        dataclasses.replace(with_values(mixed, max_steps=LAST, max_tokens=61), run_dir=str(run)), change=True
    )
    assert (trainer.progress.epoch, trainer.progress.update) == (epoch, number)
    split = trainer.update()
    assert len(split) > len(whole)
    sentences = (
        sorted(row[row != 0].tolist() for batch in batches for row in batch.tgt_out) for batches in (whole, split)
    )
    assert next(sentences) == next(sentences)


def test_another_seed_orders_the_next_epoch_otherwise(begun: Config) -> None:
    trainer = Trainer.from_config(dataclasses.replace(begun, seed=11), change=True)
    assert trainer.progress.update == 0


def test_an_average_may_begin_end_and_decay_otherwise(tiny_config: Config, tmp_path: Path) -> None:
    def until(config: Config, steps: int, decay: float | None) -> Trainer:
        trainer = Trainer.from_config(with_values(config, max_steps=steps, ema_decay=decay), change=True)
        begun = None if trainer.average is None else copy.deepcopy(trainer.average.model.state_dict())
        assert begun is None or trainer.progress.step != FIRST or same(begun, trainer.weights.master.state_dict())
        trainer.fit()
        return trainer

    def same(here: Any, there: Any) -> bool:
        return all(torch.equal(here[name], there[name]) for name in there)

    whole = until(dataclasses.replace(tiny_config, run_dir=str(tmp_path / "whole")), LAST, None)
    for steps, decay in ((FIRST, None), (6, 0.5), (7, 0.9), (LAST, None)):
        trainer = until(tiny_config, steps, decay)
        saved = weights(tiny_config, steps)
        assert same(saved, trainer.weights.master.state_dict()) == (decay is None)
    assert same(weights(tiny_config), whole.weights.master.state_dict()), "an average does not change training"


def test_segmentations_may_be_sampled_otherwise_and_pairs_stay_where_they_are(begun: Config) -> None:
    changed = dataclasses.replace(begun, data=dataclasses.replace(begun.data, subword_dropout=0.5))
    with pytest.raises(ConfigError, match="--change goes on with the new ones"):
        Trainer.from_config(changed)
    trainer = Trainer.from_config(changed, change=True)
    position = trainer.progress.epoch, trainer.progress.update
    assert position[1] > 0
    trainer.fit()
    again = Trainer.from_config(dataclasses.replace(changed, data=begun.data), change=True)
    assert (again.data.sampler, trainer.data.sampler is not None) == (None, True)
    assert again.data.fingerprints == trainer.data.fingerprints


def test_a_killed_change_is_repeated_to_the_bit(begun: Config, tmp_path: Path) -> None:
    """The checkpoint says what was before, so the epoch is left once, from the same place."""
    copy = copied(begun, tmp_path)
    values = {"tokens_per_update": 701, "lr_factor": 0.5}
    Trainer.from_config(with_values(begun, **values), change=True).fit()
    killed = Trainer.from_config(with_values(copy, **values), change=True)
    killed.update()
    del killed
    again = Trainer.from_config(with_values(copy, **values))
    again.fit()
    assert all(torch.equal(weight, weights(copy)[name]) for name, weight in weights(begun).items())
    progress = [
        json.loads((Path(x.run_dir) / "checkpoints" / f"step-{LAST:08d}" / "training.json").read_text())
        for x in (begun, copy)
    ]
    assert progress[0]["skipped_tgt_tokens"] == progress[1]["skipped_tgt_tokens"] > 0

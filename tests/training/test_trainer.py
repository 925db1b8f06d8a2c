"""The training loop: logging, saving, validation and stopping."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.batching import Batch
from transformer.data.builtin import builtin_pairs
from transformer.data.dataset import PairDataset
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError, DeviceError, TrainingError
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer
from transformer.training import integrity, saving
from transformer.training import trainer as trainer_module
from transformer.training import validation as validation_module
from transformer.training.metrics import MetricsLog, read_metrics
from transformer.training.optimizer import MasterWeights, adam
from transformer.training.packed.cpu_batch import GroupedBatch, collate_grouped
from transformer.training.schedule import noam_lr
from transformer.training.train_step import accumulate_gradients
from transformer.training.trainer import Trainer
from transformer.training.training_state import Progress


def changed(config: Config, *overrides: str) -> Config:
    """The configuration with other values."""
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, overrides)


def write_corpus(directory: Path, num_train: int = 101, num_validation: int = 17) -> str:
    """Builtin pairs as local files; returns their pattern."""
    directory.mkdir(exist_ok=True)
    for split, size in (("train", num_train), ("validation", num_validation)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
            (directory / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    return f"{directory}/{{split}}.{{lang}}"


@pytest.fixture
def small_config(tiny_config: Config, tmp_path: Path) -> Config:
    """The tiny configuration on a hundred pairs from files, 17 for validation; 7 updates."""
    corpus = write_corpus(tmp_path / "corpus")
    return changed(tiny_config, f"data.corpus={corpus}", "data.vocab_size=197", "train.max_steps=7")


def names(directory: Path) -> list[str]:
    """The names in a directory, hidden ones included."""
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def steps(directory: Path) -> list[int]:
    return [int(name.removeprefix("step-")) for name in names(directory)]


class Clock:
    """Replaces the trainer's `time`: a second passes per call, and `pause_s` per call of `stop`."""

    def __init__(self, pause_s: float) -> None:
        self.now = 0.0
        self.pause_s = pause_s

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now

    def stop(self) -> None:
        self.now += self.pause_s


def fake_validation(monkeypatch: pytest.MonkeyPatch, losses: Sequence[float]) -> Iterator[float]:
    """Replace the validation losses."""
    iterator = iter(losses)
    monkeypatch.setattr(validation_module, "validation_nll", lambda *_: next(iterator))
    return iterator


def test_training_overfits_a_small_corpus(tiny_config: Config) -> None:
    config = changed(
        tiny_config,
        *(
            "data.corpus=builtin",
            "data.builtin_size=30",
            "data.vocab_size=97",
            "model.num_layers=1",
            "model.d_model=58",
            "model.dropout=0.0",
        ),
        *("train.label_smoothing=0.0", "train.lr_factor=0.5", "train.warmup_steps=23", "train.tokens_per_update=211"),
        *("train.max_steps=89", "train.log_steps=11", "train.validate_steps=1000", "train.save_steps=null"),
    )
    Trainer.from_config(config).fit()
    first, *_, last = (line for line in read_metrics(config.run_dir) if line["kind"] == "train")
    assert last["nll"] < first["nll"] / 2, "better than the frequencies of the pieces would do"
    assert last["loss"] == last["nll"], "there is no smoothing"
    assert last["ppl"] == math.exp(last["nll"])


def test_a_trainer_of_given_parts_does_the_updates_of_from_config(small_config: Config) -> None:
    config = changed(small_config, "model.dropout=0.0")
    expected = Trainer.from_config(config)
    torch.manual_seed(config.seed)
    master = build_model(len(expected.data.tokenizer), config.model)
    optimizer = adam(master.parameters(), config.train)
    trainer = Trainer(config, expected.data, MasterWeights(master, torch.float32), optimizer, Progress())
    for _ in range(2):
        expected.update()
        trainer.update()
    assert_close(dict(master.state_dict()), dict(expected.weights.master.state_dict()), rtol=0, atol=0)


def test_the_learning_rate_is_the_schedule_times_its_factor(small_config: Config) -> None:
    config = changed(small_config, "train.lr_factor=1.7", "train.max_steps=5")
    trainer = Trainer.from_config(config)
    rates = [trainer.learning_rate(step) for step in range(1, 41)]
    assert rates == [1.7 * noam_lr(step, d_model=22, warmup_steps=13) for step in range(1, 41)]
    trainer.fit()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [rates[4]]
    logged = [(line["step"], line["lr"]) for line in read_metrics(config.run_dir) if line["kind"] == "train"]
    assert logged == [(1, rates[0]), (3, rates[2])]


def gradient_norms(config: Config, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The norm of the gradients that the optimizer gets in each update of a run."""
    trainer, found = Trainer.from_config(config), []
    step = trainer.optimizer.step

    def look_and_step() -> None:
        gradients = [p.grad for group in trainer.optimizer.param_groups for p in group["params"]]
        found.append(torch.nn.utils.get_total_norm(gradients).item())
        step()

    monkeypatch.setattr(trainer.optimizer, "step", look_and_step)
    trainer.fit()
    return found


def test_clip_norm_bounds_the_norm_of_the_gradients(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    free = gradient_norms(small_config, monkeypatch)
    bound = sorted(free)[3]
    clipped_config = changed(small_config, f"run_dir={small_config.run_dir}-clipped", f"train.clip_norm={bound:.6f}")
    clipped = gradient_norms(clipped_config, monkeypatch)
    assert len(free) == len(clipped) == 7
    assert max(free) > bound * 1.01
    assert max(clipped) <= bound * 1.0001
    assert clipped[0] == pytest.approx(min(free[0], bound), rel=1e-4)


def test_a_finished_run_does_nothing_more(small_config: Config) -> None:
    trainer = Trainer.from_config(small_config)
    assert trainer.fit() == "train.max_steps=7 reached"
    assert trainer.progress.step == 7
    run = Path(small_config.run_dir)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    again = Trainer.from_config(small_config)
    assert again.summary().splitlines()[-1] == "resuming after step 7"
    assert again.fit() == "train.max_steps=7 reached"
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    assert after == before


def test_max_hours_counts_the_hours_of_all_resumptions(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(pause_s=1200)
    monkeypatch.setattr(trainer_module, "time", clock)
    trainer = Trainer.from_config(changed(small_config, "train.max_hours=1.0", "train.max_steps=29"))
    assert trainer.fit(clock.stop) == "train.max_hours=1.0 reached"
    assert trainer.progress.step == 3
    trainer = Trainer.from_config(changed(small_config, "train.max_hours=1.5", "train.max_steps=29"))
    assert trainer.fit(clock.stop) == "train.max_hours=1.5 reached"
    assert trainer.progress.step == 5


def test_a_checkpoint_is_due_every_so_many_minutes(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(pause_s=60)
    monkeypatch.setattr(trainer_module, "time", clock)
    config = changed(small_config, "train.save_steps=null", "train.save_minutes=1.9", "train.max_steps=7")
    Trainer.from_config(config).fit(clock.stop)
    assert steps(Path(config.run_dir) / "checkpoints") == [4, 6, 7], "7 because training ended; 2 was pruned"


def test_without_save_steps_and_minutes_only_the_end_is_saved(small_config: Config) -> None:
    config = changed(small_config, "train.save_steps=null", "train.save_minutes=null", "train.max_steps=3")
    Trainer.from_config(config).fit()
    assert steps(Path(config.run_dir) / "checkpoints") == [3]


def test_only_the_last_checkpoints_are_kept(small_config: Config) -> None:
    config = changed(small_config, "train.save_steps=1", "train.keep_checkpoints=2", "train.max_steps=5")
    Trainer.from_config(config).fit()
    assert steps(Path(config.run_dir) / "checkpoints") == [4, 5]


def test_a_request_to_stop_ends_training_after_the_update_and_saves(small_config: Config) -> None:
    answers = iter([None, None, None, "SIGINT"])
    trainer = Trainer.from_config(small_config)
    assert trainer.fit(lambda: next(answers)) == "SIGINT"
    assert trainer.progress.step == 3
    assert steps(Path(small_config.run_dir) / "checkpoints") == [3]


def test_patience_ends_training_after_validations_without_a_better_loss(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small_config, "train.validate_steps=1", "train.patience=3", "train.max_steps=29")
    fake_validation(monkeypatch, [5.0, 4.0, 4.5, 3.0, 3.0, 3.5, 7.0])
    trainer = Trainer.from_config(config)
    reason = "no better validation loss in train.patience=3 validations"
    assert trainer.fit() == reason
    assert trainer.progress.step == 7
    assert Trainer.from_config(config).fit() == reason, "and starting again does not make it forget"
    assert trainer.progress.step == 7


def test_patience_is_counted_over_resumptions(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_validation(monkeypatch, [3.0, 5.0, 4.0, 1.0])
    for max_steps, step in ((2, 2), (29, 3)):
        values = ("train.validate_steps=1", "train.patience=2", f"train.max_steps={max_steps}")
        trainer = Trainer.from_config(changed(small_config, *values))
        trainer.fit()
        assert trainer.progress.step == step


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small_config, "train.validate_steps=1", "train.save_steps=1", "train.keep_checkpoints=11")
    fake_validation(monkeypatch, [5.0, 4.0, 2.5, 3.0, 2.5, 3.5, 7.0])
    trainer = Trainer.from_config(config)
    trainer.fit()
    best = trainer.run / "best"
    assert names(best) == ["step-00000003"]
    assert names(best / "step-00000003") == ["SHA256SUMS", "config.yaml", "model.safetensors", "tokenizer.model"]
    then = trainer.run / "checkpoints" / "step-00000003"
    assert_close(
        load_file(best / "step-00000003" / "model.safetensors"),
        load_file(then / "model.safetensors"),
        rtol=0,
        atol=0,
    )
    logged = [(line["step"], line["nll"]) for line in read_metrics(trainer.run) if line["kind"] == "validation"]
    assert logged == list(enumerate([5.0, 4.0, 2.5, 3.0, 2.5, 3.5, 7.0], start=1))


def test_the_logged_loss_is_the_mean_over_tokens_since_the_last_line(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float, int]] = []

    def remember(weights: MasterWeights, batches: Sequence[Batch], *rest: Any, **options: Any) -> tuple[Tensor, Tensor]:
        loss, nll = accumulate_gradients(weights, batches, *rest, **options)
        seen.append((loss.item(), nll.item(), sum(batch.num_tokens for batch in batches)))
        return loss, nll

    monkeypatch.setattr("transformer.training.train_step.accumulate_gradients", remember)
    Trainer.from_config(small_config).fit()
    lines = [line for line in read_metrics(small_config.run_dir) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 3, 6]
    for line, window in zip(lines, (seen[:1], seen[1:3], seen[3:6]), strict=True):
        loss, nll, num_tokens = map(sum, zip(*window, strict=True))
        assert line["loss"] == pytest.approx(loss / num_tokens, rel=1e-9)
        assert line["nll"] == pytest.approx(nll / num_tokens, rel=1e-9)


def test_an_epoch_sees_every_pair_once_and_the_next_in_another_order(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[list[int]] = [[], []]

    def remember(dataset: PairDataset, indices: np.ndarray) -> GroupedBatch:
        if trainer.progress.epoch < 2:
            epochs[trainer.progress.epoch].extend(indices.tolist())
        return collate_grouped(dataset, indices)

    trainer = Trainer.from_config(changed(small_config, "train.max_steps=29", "train.validate_steps=1000"))
    monkeypatch.setattr("transformer.training.packed.packers.collate_grouped", remember)
    trainer.fit(lambda: "enough" if trainer.progress.epoch == 2 else None)
    assert trainer.progress.epoch == 2
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(101))
    assert epochs[0] != epochs[1]


def test_the_scorer_sees_the_validation_pairs_and_its_score_is_logged(small_config: Config) -> None:
    modes: list[bool] = []

    def scorer(model: Transformer, tokenizer: Tokenizer, sources: Sequence[str], references: Sequence[str]) -> float:
        modes.append(model.training)
        assert list(zip(sources, references, strict=True)) == list(builtin_pairs("validation", 17))
        assert len(tokenizer) == 197
        return 23.5

    config = changed(small_config, "train.validation_bleu=true", "train.validate_steps=2", "train.max_steps=3")
    trainer = Trainer.from_config(config, scorer)
    trainer.fit()
    assert modes == [False, False], "after step 2, and at the end"
    assert trainer.weights.model.training, "training goes on with dropout"
    assert [line["bleu"] for line in read_metrics(trainer.run) if line["kind"] == "validation"] == [23.5, 23.5]


def test_the_line_of_a_diverged_validation_has_80_columns(
    small_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("transformer.training.validation.validation_nll", lambda *_: 699.5)
    trainer = Trainer.from_config(
        changed(small_config, "train.validation_bleu=true", "train.validate_steps=1", "train.max_steps=1"),
        lambda *_: 0.0,
    )
    trainer.fit()
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"step 1: validation nll 699.500  ppl {math.exp(699.5):.3e}  bleu 0.000  (best)"
    assert len(line) <= 80


def test_without_validation_bleu_the_scorer_is_not_called(small_config: Config) -> None:
    def scorer(*_: object) -> float:
        raise AssertionError("not wanted")

    Trainer.from_config(changed(small_config, "train.validate_steps=1", "train.max_steps=2"), scorer).fit()


def test_the_summary_describes_model_data_and_device(small_config: Config) -> None:
    trainer = Trainer.from_config(changed(small_config, "data.max_length=23", "data.max_ratio=1.5"))
    num_parameters = sum(parameter.numel() for parameter in trainer.weights.master.parameters())
    dropped = trainer.data.train.dropped
    assert dropped["too_long"]
    assert dropped["ratio"]
    num_pieces = [
        sum(int(side.lengths.sum()) - len(side.lengths) for side in (pairs.src, pairs.tgt))
        for pairs in (trainer.data.train, trainer.data.validation)
    ]
    assert trainer.summary().splitlines() == [
        f"parameters: {num_parameters:,} (vocabulary of 197)",
        f"peak learning rate: {(22 * 13) ** -0.5:.3e} at step 13",
        f"training pairs: {101 - sum(dropped.values())} "
        f"(dropped: empty 0, too_long {dropped['too_long']}, ratio {dropped['ratio']})",
        f"validation pairs: {len(trainer.data.validation)} "
        f"(dropped: empty 0, too_long {17 - len(trainer.data.validation)}, ratio 0)",
        f"unknown pieces: 0 of {num_pieces[0]:,} in the training text, 0 of {num_pieces[1]:,} in the validation text",
        "normalization: minimal",
        f"validation text in the training text: 0 of {len(trainer.data.validation)} as pairs, 0 by their sources",
        "device: cpu, precision: float32",
        "batches: packed",
    ]


def test_num_threads_is_set_in_torch(small_config: Config) -> None:
    before = torch.get_num_threads()
    try:
        Trainer.from_config(changed(small_config, "train.num_threads=2"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# Errors.


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device (os error 28)")],
    ids=["system", "safetensors"],
)
def test_a_full_disk_is_reported_and_the_same_command_resumes(
    small_config: Config, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    trainer = Trainer.from_config(small_config)
    with monkeypatch.context() as patch:

        def fill_the_disk_after_step_4() -> None:
            if trainer.progress.step == 4:
                patch.setattr(integrity, "save_file", full)

        # Step 5 validates and writes the best checkpoint.
        with pytest.raises(CheckpointError, match=r"best/step-00000005: cannot be written \(.*No space left on device"):
            trainer.fit(fill_the_disk_after_step_4)
    assert names(trainer.run / "checkpoints") == ["step-00000004"]
    assert names(trainer.run / "best") == []
    again = Trainer.from_config(small_config)
    assert again.progress.step == 4
    assert again.fit() == "train.max_steps=7 reached"
    assert names(trainer.run / "best") == ["step-00000007"]


def test_a_failing_checkpoint_says_that_earlier_ones_are_intact(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.from_config(changed(small_config, "train.max_steps=5", "train.save_steps=3"))
    monkeypatch.setattr(saving, "save_checkpoint", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only")))
    expected = (
        r"checkpoints/step-00000003: cannot be written \(Read-only\); earlier checkpoints are intact: rerun the "
        "same command to resume from the last one"
    )
    with pytest.raises(CheckpointError, match=expected):
        trainer.fit()


def test_a_vanished_run_directory_is_not_recreated(small_config: Config) -> None:
    """Its disk may have been unmounted: the same path would now be on another disk."""
    trainer = Trainer.from_config(changed(small_config, "train.max_steps=5"))

    def remove() -> None:
        if trainer.progress.step == 2:
            shutil.rmtree(trainer.run)

    with pytest.raises(CheckpointError, match=f"{trainer.run}: the run directory is gone; nothing is saved"):
        trainer.fit(remove)
    assert not trainer.run.exists()


def test_metrics_that_cannot_be_written_end_training_with_the_file_name(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.from_config(small_config)
    log = MetricsLog.log

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(self: MetricsLog, kind: str, step: int, **values: float) -> None:
        if step == 6:
            self._file = Full()
        log(self, kind, step, **values)

    monkeypatch.setattr(MetricsLog, "log", fill)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be written \(No space left on device\); "):
        trainer.fit()
    assert steps(trainer.run / "checkpoints") == [4]
    monkeypatch.undo()
    again = Trainer.from_config(small_config)
    again.fit()
    assert [line["step"] for line in read_metrics(again.run) if line["kind"] == "train"] == [1, 3, 6]


def test_an_error_between_updates_leaves_what_was_logged_and_saved_before(small_config: Config) -> None:
    def fail() -> str | None:
        if trainer.progress.step == 6:
            raise RuntimeError("from outside")
        return None

    trainer = Trainer.from_config(small_config)
    with pytest.raises(RuntimeError, match="from outside"):
        trainer.fit(fail)
    assert [line["step"] for line in read_metrics(trainer.run)] == [1, 3, 5, 6]
    assert steps(trainer.run / "checkpoints") == [4]


def test_an_empty_corpus_is_named(small_config: Config) -> None:
    for lang in ("en", "de"):
        Path(small_config.data.corpus.replace("{split}", "train").replace("{lang}", lang)).write_text("")
    with pytest.raises(DataError, match=r"train\.en and .*train\.de: the corpus is empty"):
        Trainer.from_config(small_config)


def test_leftovers_of_killed_writes_are_removed(small_config: Config) -> None:
    """A checkpoint of the paper's base model has 800 MB: partial ones must not fill the disk."""
    run = Trainer.from_config(small_config).run
    for remains in (run / "checkpoints" / ".step-00000002.tmp", run / "best" / ".step-00000003.old"):
        remains.mkdir(parents=True)
        (remains / "model.safetensors").touch()
    Trainer.from_config(small_config).fit()
    assert names(run / "checkpoints") == ["step-00000004", "step-00000007"]
    assert names(run / "best") == ["step-00000007"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_changed_data_are_refused(small_config: Config, split: str) -> None:
    Trainer.from_config(changed(small_config, "train.max_steps=2")).fit()
    path = Path(small_config.data.corpus.replace("{split}", split).replace("{lang}", "de"))
    path.write_text(path.read_text().replace("ein", "kein", 1))
    expected = f"step-00000002: the {split} data have changed since; restore them or choose another"
    with pytest.raises(CheckpointError, match=expected):
        Trainer.from_config(changed(small_config, "train.max_steps=3"))


def move(corpus: str, directory: Path, *, suffix: str = "{lang}") -> str:
    """Move the files of a corpus elsewhere and rename them; returns their new pattern."""
    directory.mkdir()
    for path in Path(corpus).parent.iterdir():
        split, lang = path.name.split(".")
        path.rename(directory / f"{split}-of-mine.{suffix.replace('{lang}', lang)}")
    return f"{directory}/{{split}}-of-mine.{suffix}"


def test_moved_data_are_those_of_the_run(small_config: Config, tmp_path: Path) -> None:
    whole = Trainer.from_config(changed(small_config, f"run_dir={tmp_path / 'whole'}"))
    whole.fit()
    Trainer.from_config(changed(small_config, "train.max_steps=5")).fit()
    moved = changed(small_config, f"data.corpus={move(small_config.data.corpus, tmp_path / 'elsewhere')}")
    moved = changed(moved, "data.subset=null", "data.train_split=trai", f"data.cache_dir={tmp_path / 'other-cache'}")
    trainer = Trainer.from_config(moved)
    assert load_config(trainer.run / "config.yaml") == moved
    trainer.fit()
    last = "checkpoints/step-00000007/model.safetensors"
    assert (trainer.run / last).read_bytes() == (whole.run / last).read_bytes()


def test_a_relative_place_is_that_of_the_working_directory(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = changed(small_config, "data.corpus=corpus/{split}.{lang}", "run_dir=run", "data.cache_dir=cache")
    Trainer.from_config(changed(relative, "train.max_steps=2")).fit()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    here = changed(small_config, "data.corpus=../corpus/{split}.{lang}", "run_dir=../run", "data.cache_dir=../cache")
    assert Trainer.from_config(here).progress.step == 2


def test_a_run_that_is_reached_by_a_link_is_the_same_run(small_config: Config, tmp_path: Path) -> None:
    Trainer.from_config(changed(small_config, "train.max_steps=2")).fit()
    (tmp_path / "link").symlink_to(small_config.run_dir)
    trainer = Trainer.from_config(changed(small_config, f"run_dir={tmp_path / 'link'}"))
    trainer.fit()
    assert steps(Path(small_config.run_dir) / "checkpoints") == [4, 7]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("change", ["other text", "compressed"])
def test_other_data_at_another_place_are_refused_and_the_run_keeps_its_configuration(
    small_config: Config, tmp_path: Path, split: str, change: str
) -> None:
    Trainer.from_config(changed(small_config, "train.max_steps=2")).fit()
    before = (Path(small_config.run_dir) / "config.yaml").read_bytes()
    corpus = move(
        small_config.data.corpus, tmp_path / "elsewhere", suffix="{lang}.gz" if change != "other text" else "{lang}"
    )
    for path in (tmp_path / "elsewhere").iterdir():
        text = path.read_bytes()
        if change == "compressed":
            text = gzip.compress(text, mtime=0)
        elif path.name.startswith(split):
            text = text.replace(b"ein", b"kein", 1).replace(b"the", b"a", 1)
        path.write_bytes(text)
    expected = (
        rf"step-00000002: the run has other {'train' if change == 'compressed' else split} data \(data\.corpus: .* "
        r"there, .* here\): files may move, but every byte counts, so a \.gz file is not its text; restore these "
        r"values or choose another run_dir \(by default runs/ and the name of the file, so files of one name share it\)"
    )
    with pytest.raises(CheckpointError, match=expected):
        Trainer.from_config(changed(small_config, f"data.corpus={corpus}"))
    assert (Path(small_config.run_dir) / "config.yaml").read_bytes() == before


def test_a_run_without_a_fingerprint_of_its_validation_data_does_not_move(small_config: Config, tmp_path: Path) -> None:
    """The first versions did not save it."""
    run = Trainer.from_config(changed(small_config, "train.max_steps=2")).run
    Trainer.from_config(changed(small_config, "train.max_steps=2")).fit()
    last = run / "checkpoints" / "step-00000002"
    (last / "SHA256SUMS").unlink()
    saved = json.loads((last / "training.json").read_text())
    del saved["fingerprints"]["validation"]
    (last / "training.json").write_text(json.dumps(saved))
    assert Trainer.from_config(small_config).progress.step == 2
    moved = changed(small_config, f"data.corpus={move(small_config.data.corpus, tmp_path / 'elsewhere')}")
    with pytest.raises(CheckpointError, match="the run has other validation data"):
        Trainer.from_config(moved)


def test_a_checkpoint_that_was_validated_after_its_last_step_is_damaged(small_config: Config) -> None:
    trainer = Trainer.from_config(changed(small_config, "train.max_steps=2"))
    trainer.fit()
    last = trainer.run / "checkpoints" / "step-00000002"
    (last / "SHA256SUMS").unlink()
    progress = json.loads((last / "training.json").read_text()) | {"validated_step": 3}
    (last / "training.json").write_text(json.dumps(progress))
    with pytest.raises(CheckpointError, match=r"contains the state after step 2, not after that of its name"):
        Trainer.from_config(small_config)


def test_training_progress_without_fingerprints_is_a_damaged_checkpoint(small_config: Config) -> None:
    trainer = Trainer.from_config(changed(small_config, "train.max_steps=2"))
    trainer.fit()
    (trainer.run / "checkpoints" / "step-00000002" / "training.json").write_text("{}")
    with pytest.raises(CheckpointError, match="checkpoints/step-00000002"):
        Trainer.from_config(small_config)


def test_the_run_directory_of_another_configuration_is_refused(small_config: Config) -> None:
    Trainer.from_config(changed(small_config, "train.max_steps=1")).fit()
    with pytest.raises(ConfigError, match=r"model\.d_ff: 29 there, 37 here"):
        Trainer.from_config(changed(small_config, "model.d_ff=37"))


def test_a_run_that_failed_before_training_can_be_corrected(small_config: Config) -> None:
    """Following the advice of the error message must not lead to another error."""
    with pytest.raises(DataError, match=r"data\.vocab_size=99991 is too large for this corpus"):
        Trainer.from_config(changed(small_config, "data.vocab_size=99991"))
    trainer = Trainer.from_config(changed(small_config, "data.vocab_size=199"))
    assert len(trainer.data.tokenizer) == 199
    trainer = Trainer.from_config(changed(small_config, "data.vocab_size=193"))
    assert len(trainer.data.tokenizer) == 193, "nothing was trained with the other tokenizer"


def test_an_absent_device_is_refused_before_anything_is_written(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"device=cuda: torch .* sees no CUDA device; use cpu or auto"):
        Trainer.from_config(changed(small_config, "train.device=cuda"))
    assert not Path(small_config.run_dir).exists()


def test_a_write_that_fails_before_training_is_an_os_error(small_config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Trainer.from_config(changed(small_config, f"run_dir={tmp_path / 'file' / 'run'}"))


def test_a_loss_that_is_not_finite_ends_training_before_it_is_saved(small_config: Config) -> None:
    trainer = Trainer.from_config(changed(small_config, "train.log_steps=1000", "train.save_steps=2"))
    with torch.no_grad():
        trainer.weights.model.embedding.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"step 1 .*: non-finite gradient at a .*lower train\.lr_factor"):
        trainer.fit()
    assert names(trainer.run / "checkpoints") == []


def test_a_validation_loss_that_is_not_finite_ends_training_before_it_is_best(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.from_config(
        changed(small_config, "train.log_steps=1000", "train.validate_steps=2", "train.save_steps=null")
    )
    fake_validation(monkeypatch, [math.nan])
    with pytest.raises(TrainingError, match="step 2: the loss is not finite"):
        trainer.fit()
    assert not (trainer.run / "best").exists()


def test_nonfinite_weights_after_the_last_update_are_not_saved(small_config: Config) -> None:
    trainer = Trainer.from_config(changed(small_config, "train.log_steps=1000", "train.save_steps=1000"))

    def spoil() -> str | None:
        if trainer.progress.step < 2:
            return None
        with torch.no_grad():
            trainer.weights.master.embedding.weight.fill_(torch.nan)
        return "enough"

    with pytest.raises(TrainingError, match="step 2: the loss is not finite"):
        trainer.fit(spoil)
    assert names(trainer.run / "checkpoints") == []


def test_the_optimizer_is_adam_with_the_configured_constants(small_config: Config) -> None:
    trainer = Trainer.from_config(changed(small_config, "train.weight_decay=0.03", "train.adam_beta1=0.7"))
    (group,) = trainer.optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.7, 0.98), 1e-9, 0.03)


def test_resuming_removes_an_average_of_older_checkpoints(small_config: Config) -> None:
    run = Trainer.from_config(changed(small_config, "train.max_steps=2")).run
    (run / "averaged").mkdir()
    Trainer.from_config(changed(small_config, "train.max_steps=2")).fit(lambda: "SIGTERM")
    assert (run / "averaged").exists(), "stopped before the first update"
    Trainer.from_config(changed(small_config, "train.max_steps=2")).fit()
    assert not (run / "averaged").exists()
    (run / "averaged").mkdir()
    Trainer.from_config(changed(small_config, "train.max_steps=2")).fit()
    assert (run / "averaged").exists(), "nothing was trained"


def test_a_checkpoint_left_between_two_renames_is_restored(small_config: Config) -> None:
    run = Trainer.from_config(changed(small_config, "train.max_steps=2")).run
    Trainer.from_config(changed(small_config, "train.max_steps=2")).fit()
    (run / "checkpoints" / "step-00000002").rename(run / "checkpoints" / ".step-00000002.old")
    assert Trainer.from_config(small_config).progress.step == 2


def test_training_on_the_validation_file_is_refused(small_config: Config, tmp_path: Path) -> None:
    for lang in ("en", "de"):
        (tmp_path / f"all.{lang}").write_text("a\n")
    with pytest.raises(DataError, match=r"training and validation have the same content .*; is \{split\} missing\?"):
        Trainer.from_config(changed(small_config, f"data.corpus={tmp_path}/all.{{lang}}"))


def test_an_update_names_its_phases_in_order_once_per_batch(small_config: Config) -> None:
    trainer = Trainer.from_config(small_config)
    seen: list[str] = []

    def phase(name: str) -> contextlib.AbstractContextManager[None]:
        seen.append(name)
        return contextlib.nullcontext()

    trainer.timer = phase
    batches = trainer.update()
    assert seen == ["data", "data", *["forward", "backward"] * len(batches), "optimizer"]
    assert len(batches) > 1
    assert trainer.progress.step == 1
    assert trainer._running.sums[2] == sum(batch.num_tokens for batch in batches)

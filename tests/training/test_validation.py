"""Validation: what is the best, how patience counts, and stopping in the middle of one without losing it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError, TrainingError
from transformer.inference.validation_bleu import greedy_bleu
from transformer.training import validation as validation_module
from transformer.training.distributed import Abandoned
from transformer.training.metrics import MetricsLog, read_metrics
from transformer.training.resumption import restore_best
from transformer.training.trainer import Trainer
from transformer.training.training_state import Progress
from transformer.training.validation import StopCheck, record_validation, recorded_tokenizer, validate

TIMES = {"elapsed_s", "window_s", "tokens_per_s"}
BleuScorer = Callable[..., float]


@pytest.fixture
def config(tiny_config: Config, tmp_path: Path) -> Config:
    """101 pairs, 17 for validation, 7 updates, a validation after update 5."""
    for split, size in (("train", 101), ("validation", 17)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
            (tmp_path / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    return changed(
        tiny_config, f"data.corpus={tmp_path}/{{split}}.{{lang}}", "data.vocab_size=197", "train.max_steps=7"
    )


def changed(config: Config, *overrides: str) -> Config:
    """The configuration with other values."""
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, overrides)


def validated(run: Path) -> list[int]:
    return [record["step"] for record in read_metrics(run) if record["kind"] == "validation"]


def steps(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def state(run: Path, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors (weights, moments, random numbers) and progress after a step."""
    directory = run / "checkpoints" / f"step-{step:08d}"
    tensors = {file: load_file(directory / f"{file}.safetensors") for file in ("model", "optimizer")}
    progress = json.loads((directory / "training.json").read_text())
    return tensors, {name: value for name, value in progress.items() if name not in TIMES}


def without_times(run: Path) -> list[dict[str, Any]]:
    return [{name: x for name, x in record.items() if name not in TIMES} for record in read_metrics(run)]


def assert_same(actual: Path, expected: Path, step: int = 7) -> None:
    """Every bit of the last checkpoints, the records and the kept checkpoints agree."""
    (tensors, progress), (expected_tensors, expected_progress) = state(actual, step), state(expected, step)
    assert_close(tensors, expected_tensors, rtol=0, atol=0)
    assert progress == expected_progress
    assert without_times(actual) == without_times(expected)
    for name in ("best", "checkpoints"):
        assert steps(actual / name) == steps(expected / name)


def fake_losses(monkeypatch: pytest.MonkeyPatch, losses: Sequence[float]) -> None:
    iterator = iter(losses)
    monkeypatch.setattr(validation_module, "validation_nll", lambda *_: next(iterator))


def scores(values: Sequence[float]) -> BleuScorer:
    """A scorer with these results."""
    iterator = iter(values)
    return lambda *_: next(iterator)


# The last step.


@pytest.mark.parametrize("reason", ["train.max_steps=7", "train.max_hours=1.0e-09"])
def test_the_last_step_is_validated_before_it_is_saved(config: Config, reason: str) -> None:
    trainer = Trainer.from_config(changed(config, reason))
    assert trainer.fit() == f"{reason.replace('1.0e', '1e')} reached"
    last = trainer.progress.step
    assert validated(trainer.run)[-1] == last
    assert state(trainer.run, last)[1]["validated_step"] == last
    assert steps(trainer.run / "best")[-1] == f"step-{last:08d}", "this small a run improves until its end"


def test_a_last_step_that_was_just_validated_is_not_validated_again(config: Config) -> None:
    trainer = Trainer.from_config(changed(config, "train.max_steps=5"))
    trainer.fit()
    assert validated(trainer.run) == [5]


def test_a_run_that_ended_and_goes_on_has_the_weights_of_one_that_did_not_end(config: Config) -> None:
    whole = Trainer.from_config(changed(config, f"run_dir={config.run_dir}-whole", "train.max_steps=11"))
    whole.fit()
    Trainer.from_config(config).fit()
    trainer = Trainer.from_config(changed(config, "train.max_steps=11"))
    trainer.fit()
    tensors, progress = state(trainer.run, 11)
    expected, expected_progress = state(whole.run, 11)
    assert_close(tensors, expected, rtol=0, atol=0)
    assert progress == expected_progress
    extra = [record for record in without_times(trainer.run) if (record["kind"], record["step"]) == ("validation", 7)]
    assert len(extra) == 1
    assert [record for record in without_times(trainer.run) if record not in extra] == without_times(whole.run)


def test_patience_does_not_count_the_extra_validation_of_an_end(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ("train.validate_steps=2", "train.patience=2")
    fake_losses(monkeypatch, [3.0, 4.0, 5.0, 6.0])
    for max_steps, step in ((3, 3), (29, 6)):  # validated after 2, 3, 4 and 6
        trainer = Trainer.from_config(changed(config, *values, f"train.max_steps={max_steps}"))
        trainer.fit()
        assert trainer.progress.step == step
    assert validated(trainer.run) == [2, 3, 4, 6]


def test_an_extra_validation_that_is_better_is_the_best(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_losses(monkeypatch, [3.0, 2.0, 2.5])
    Trainer.from_config(config).fit()
    trainer = Trainer.from_config(changed(config, "train.max_steps=10"))
    assert (trainer.progress.best_nll, trainer.progress.num_bad_validations) == (2.0, 0)
    trainer.fit()
    assert (trainer.progress.best_nll, trainer.progress.num_bad_validations) == (2.0, 1)
    assert steps(trainer.run / "best") == ["step-00000007"]


def test_after_a_request_to_stop_a_line_says_what_was_not_validated(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer.from_config(config)
    assert trainer.fit(lambda: "SIGTERM" if trainer.progress.step == 6 else None) == "SIGTERM"
    assert validated(trainer.run) == [5]
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"step 6 is newer than the best (step 5) and was not validated; it is kept in {trainer.run}/checkpoints"
    )


def test_without_a_best_there_is_no_such_line(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer.from_config(config)
    trainer.fit(lambda: "SIGTERM" if trainer.progress.step == 3 else None)
    assert "newer than" not in capsys.readouterr().out


def test_a_run_that_an_earlier_version_ended_is_validated_by_the_same_command(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_losses(monkeypatch, [3.0, 2.0])
    trainer = Trainer.from_config(changed(config, "train.max_steps=11"))
    trainer.fit(lambda: "stop" if trainer.progress.step == 7 else None)
    assert validated(trainer.run) == [5]
    forget(trainer.run, 7)
    again = Trainer.from_config(config)
    assert (again.progress.validated_step, again.progress.best_nll) == (5, 3.0)
    assert again.fit() == "train.max_steps=7 reached"
    assert validated(again.run) == [5, 7]
    assert steps(again.run / "best") == ["step-00000007"]


def forget(run: Path, step: int) -> None:
    """Make a checkpoint one of the first versions, without the keys added since and checksums."""
    directory = run / "checkpoints" / f"step-{step:08d}"
    (directory / "SHA256SUMS").unlink()
    saved = json.loads((directory / "training.json").read_text())
    for key in ("best_bleu", "validated_step"):
        del saved[key]
    (directory / "training.json").write_text(json.dumps(saved))


# Stopping.


def stop_in_validation(trainer: Trainer, step: int, number: int) -> Callable[[], str | None]:
    """A stop request that comes when it is asked for the `number`-th time after the update `step`."""
    asked = 0

    def stop() -> str | None:
        nonlocal asked
        asked += trainer.progress.step == step
        return "SIGTERM" if asked >= number else None

    return stop


# 17 sentences make a few batches for the loss; their translation takes many steps.
@pytest.mark.parametrize("number", [1, 2, 4, 11, 23])
def test_a_run_stopped_in_a_validation_makes_up_for_it(config: Config, number: int) -> None:
    config = changed(config, "train.validation_bleu=true", "train.validate_steps=4")
    whole = Trainer.from_config(changed(config, f"run_dir={config.run_dir}-whole"), greedy_bleu)
    whole.fit()
    trainer = Trainer.from_config(config, greedy_bleu)
    assert trainer.fit(stop_in_validation(trainer, 4, number)) == "SIGTERM"
    assert trainer.progress.step == 4
    assert validated(trainer.run) == [], "nothing is recorded of a validation that was left"
    assert steps(trainer.run / "best") == []
    assert steps(trainer.run / "checkpoints") == ["step-00000004"]
    assert trainer.weights.model.training
    assert not trainer.weights.model.decoder._forward_pre_hooks
    Trainer.from_config(config, greedy_bleu).fit()
    assert_same(trainer.run, whole.run)
    assert_same(trainer.run, whole.run, step=4)


def test_a_run_stopped_in_its_last_validation_makes_up_for_it(config: Config) -> None:
    whole = Trainer.from_config(changed(config, f"run_dir={config.run_dir}-whole"))
    whole.fit()
    trainer = Trainer.from_config(config)
    assert trainer.fit(stop_in_validation(trainer, 7, 1)) == "SIGTERM"
    assert validated(trainer.run) == [5]
    Trainer.from_config(config).fit()
    assert_same(trainer.run, whole.run)


@pytest.mark.parametrize("where", ["log", "best", "save"])
def test_a_validation_killed_before_it_was_saved_is_repeated(
    config: Config, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Step 4 is saved when it is validated because training ends."""
    config = changed(config, "train.validate_steps=3", "train.max_steps=4")
    whole = Trainer.from_config(changed(config, f"run_dir={config.run_dir}-whole"))
    whole.fit()
    trainer = Trainer.from_config(config)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_after(patch, trainer, where)
        trainer.fit()
    assert validated(trainer.run) == [3, 4]
    assert steps(trainer.run / "best")[0] == "step-00000003", "the best that is saved is still there"
    Trainer.from_config(config).fit()
    assert_same(trainer.run, whole.run, step=4)


def kill_after(patch: pytest.MonkeyPatch, trainer: Trainer, where: str) -> None:
    """Fail after the validation of step 4 is logged, its best written, or before its progress is saved."""
    log, write, save = MetricsLog.log, trainer._write, trainer._save

    def killed_log(self: MetricsLog, kind: str, step: int, **values: float) -> None:
        log(self, kind, step, **values)
        if where == "log" and (kind, step) == ("validation", 4):
            raise KeyboardInterrupt

    def killed_write(parent: Path, *rest: Any) -> None:
        write(parent, *rest)
        if where == "best" and trainer.progress.step == 4 and parent.name == "best":
            raise KeyboardInterrupt

    def killed_save() -> None:
        if where == "save" and trainer.progress.validated_step == 4:
            raise KeyboardInterrupt
        save()

    patch.setattr(MetricsLog, "log", killed_log)
    patch.setattr(trainer, "_write", killed_write)
    patch.setattr(trainer, "_save", killed_save)


def test_a_validation_draws_no_random_numbers(config: Config) -> None:
    trainer = Trainer.from_config(config)
    before = torch.get_rng_state()
    validate(trainer.weights.model, trainer.data, 211, greedy_bleu, trainer.context, lambda: False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_validation_that_is_left_raises_and_leaves_the_model_as_it_was(config: Config) -> None:
    trainer = Trainer.from_config(config)
    model = trainer.weights.model
    with pytest.raises(Abandoned):
        validate(model, trainer.data, 211, None, trainer.context, lambda: True)
    assert model.training
    assert not model.encoder._forward_pre_hooks


def test_the_first_reason_to_stop_is_kept() -> None:
    answers: Iterator[str | None] = iter([None, "SIGHUP", None])
    should_stop = StopCheck(lambda: next(answers))
    assert [should_stop() for _ in range(5)] == [False, True, True, True, True]
    assert should_stop.reason == "SIGHUP"


# The best.


@pytest.mark.parametrize(
    ("best_by", "scores", "is_best"),
    [
        ("loss", {"nll": 1.9, "bleu": 10.0, "chrf": 10.0}, True),
        ("loss", {"nll": 2.0, "bleu": 90.0, "chrf": 90.0}, False),
        ("loss", {"nll": 1.9}, True),
        ("bleu", {"nll": 9.0, "bleu": 31.0}, True),
        ("bleu", {"nll": 1.0, "bleu": 30.0, "chrf": 90.0}, False),
        ("chrf", {"nll": 9.0, "chrf": 51.0}, True),
        ("chrf", {"nll": 1.0, "bleu": 90.0, "chrf": 50.0}, False),
    ],
)
def test_only_a_better_value_of_the_measure_is_the_best(best_by: str, scores: dict[str, float], is_best: bool) -> None:
    progress = Progress(step=13, best_nll=2.0, best_bleu=30.0, best_chrf=50.0, num_bad_validations=3)
    assert record_validation(progress, scores, best_by, is_regular=True) is is_best
    assert progress.validated_step == 13
    found = (progress.best_nll, progress.best_bleu, progress.best_chrf, progress.num_bad_validations)
    assert found == ((*map(scores.get, ("nll", "bleu", "chrf")), 0) if is_best else (2.0, 30.0, 50.0, 4))


@pytest.mark.parametrize("best_by", ["bleu", "chrf"])
def test_a_score_that_decides_must_be_returned(best_by: str) -> None:
    with pytest.raises(
        TrainingError, match=rf"^train\.best_by={best_by}: the scorer returned no {best_by}; it must retu"
    ):
        record_validation(Progress(), {"nll": 2.0, "other": 3.0}, best_by, is_regular=True)


def test_the_best_by_bleu_has_the_highest_bleu_and_patience_waits_for_bleu(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ("train.validation_bleu=true", "train.best_by=bleu", "train.validate_steps=1", "train.patience=2")
    fake_losses(monkeypatch, [5.0, 4.0, 3.0, 2.0])
    trainer = Trainer.from_config(changed(config, *values), scores([7.0, 11.0, 11.0, 3.0]))
    assert trainer.fit() == "no better validation BLEU in train.patience=2 validations"
    assert steps(trainer.run / "best") == ["step-00000002"]
    assert (trainer.progress.best_nll, trainer.progress.best_bleu) == (4.0, 11.0)


@pytest.mark.parametrize("best_by", ["bleu", "chrf"])
def test_the_best_by_scores_of_translations_needs_them(config: Config, best_by: str) -> None:
    with pytest.raises(ConfigError, match=rf"^train\.best_by={best_by} needs train\.validation_bleu=true; or use "):
        changed(config, f"train.best_by={best_by}", "train.validation_bleu=false")


def test_the_best_by_chrf_has_the_highest_chrf_and_patience_waits_for_chrf(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = ("train.validation_bleu=true", "train.best_by=chrf", "train.validate_steps=1", "train.patience=2")
    fake_losses(monkeypatch, [5.0, 4.0, 3.0, 2.0])
    found = iter([{"bleu": 1.0, "chrf": 7.0}, {"bleu": 0.5, "chrf": 11.0}, {"bleu": 9.0, "chrf": 11.0}, {"chrf": 3}])
    trainer = Trainer.from_config(changed(config, *values), lambda *_: next(found))
    assert trainer.fit() == "no better validation chrF in train.patience=2 validations"
    assert steps(trainer.run / "best") == ["step-00000002"]
    progress = trainer.progress
    assert (progress.best_nll, progress.best_bleu, progress.best_chrf) == (4.0, 0.5, 11.0)
    assert "step 2: validation nll 4.000  ppl 54.598  bleu 0.500  chrf 11.000  (best)" in capsys.readouterr().out
    again = Trainer.from_config(changed(config, *values), lambda *_: next(found))
    assert again.fit() == "no better validation chrF in train.patience=2 validations"
    assert (again.progress.best_chrf, again.progress.num_bad_validations) == (11.0, 2)


def test_scores_by_other_names_are_recorded_and_none_hides_another(config: Config) -> None:
    values = ("train.validation_bleu=true", "train.validate_steps=7")
    trainer = Trainer.from_config(changed(config, *values), lambda *_: {"comet": np.float32(0.5)})
    trainer.fit()
    (record,) = [record for record in read_metrics(trainer.run) if record["kind"] == "validation"]
    assert record["comet"] == 0.5
    assert "bleu" not in record
    for name in ("nll", "step", "self", "a\nb", 3):
        with pytest.raises(TrainingError, match=r"^the scorer .* returned a score by the name .*: choose another$"):
            validate(
                trainer.weights.model,
                trainer.data,
                211,
                lambda *_, name=name: {name: 1.0},  # type: ignore[misc]
                trainer.context,
                lambda: False,
            )


def test_best_by_bleu_needs_a_scorer(config: Config) -> None:
    with pytest.raises(ValueError, match=r"^train\.best_by=bleu needs a scorer$"):
        Trainer.from_config(changed(config, "train.best_by=bleu", "train.validation_bleu=true"))


@pytest.mark.parametrize("is_old", [False, True], ids=["this version", "an earlier version"])
def test_another_measure_keeps_the_best_until_a_later_one_is_better(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_old: bool
) -> None:
    fake_losses(monkeypatch, [3.0, 4.0, 5.0, 6.0, 7.0])
    values = ("train.validation_bleu=true", "train.validate_steps=2", "train.save_steps=1")
    Trainer.from_config(changed(config, *values, "train.max_steps=4"), scores([23.0, 17.0])).fit()
    if is_old:
        forget(Path(config.run_dir), 4)
    by_bleu = (*values, "train.best_by=bleu", "train.max_steps=8")
    trainer = Trainer.from_config(changed(config, *by_bleu), scores([19.0, 29.0]))
    assert trainer.progress.num_bad_validations == 0, "it counted losses"
    expected = "train.best_by: loss before, bleu now; step 2 (validation BLEU 23.000) stays the best until a later one"
    assert expected in capsys.readouterr().out
    trainer.fit()
    assert steps(trainer.run / "best") == ["step-00000008"], "not step 6, whose BLEU is 19"
    back = Trainer.from_config(changed(config, *values, "train.best_by=loss", "train.max_steps=8"))
    assert "train.best_by: bleu before, loss now; step 8 (validation loss 6.000) stays" in capsys.readouterr().out
    assert back.progress.best_nll == 6.0


def test_a_best_of_unknown_bleu_is_replaced_by_the_next(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_losses(monkeypatch, [3.0, 4.0])
    values = ("train.validate_steps=2",)
    Trainer.from_config(changed(config, *values, "train.max_steps=2")).fit()
    by_bleu = ("train.best_by=bleu", "train.validation_bleu=true", "train.max_steps=4")
    trainer = Trainer.from_config(changed(config, *values, *by_bleu), scores([1.0]))
    assert "loss before, bleu now; the next validation becomes the best" in capsys.readouterr().out
    trainer.fit()
    assert steps(trainer.run / "best") == ["step-00000004"]


@pytest.mark.parametrize("best_by", ["loss", "bleu"])
def test_bleu_by_another_tokenizer_is_not_compared(config: Config, best_by: str) -> None:
    config = changed(config, f"train.best_by={best_by}", "train.validation_bleu=true")
    run = Path(config.run_dir)
    (run / "best" / "step-00000005").mkdir(parents=True)
    (run / "best" / "step-00000005" / "model.safetensors").touch()
    progress = Progress(step=7, validated_step=7, best_nll=2.0, best_bleu=0.3, num_bad_validations=2)
    before, now = (changed(config, f"data.bleu_tokenizer={tokenizer}") for tokenizer in ("13a", "zh"))
    line = restore_best(progress, run, before, now)
    assert (progress.best_nll, progress.best_bleu) == (2.0, None)
    if best_by == "bleu":
        assert line == "data.bleu_tokenizer: 13a before, zh now; the next validation becomes the best"
        assert progress.num_bad_validations == 0
    else:
        assert line is None
        assert progress.num_bad_validations == 2
    assert restore_best(progress, run, now, now) is None


def test_a_best_that_was_deleted_leaves_its_place_to_the_next(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_losses(monkeypatch, [3.0, 4.0])
    Trainer.from_config(changed(config, "train.max_steps=5")).fit()
    shutil.rmtree(Path(config.run_dir) / "best")
    trainer = Trainer.from_config(config)
    trainer.fit()
    assert steps(trainer.run / "best") == ["step-00000007"]


# What scorers return, and how they fail.


@pytest.mark.parametrize("score", [3, np.float32(3.0), np.array(3.0), torch.tensor(3.0)], ids=repr)
def test_a_score_may_be_a_number_of_any_library_and_the_run_resumes(config: Config, score: Any) -> None:
    values = ("train.validation_bleu=true", "train.best_by=bleu", "train.validate_steps=2", "train.max_steps=2")
    trainer = Trainer.from_config(changed(config, *values), lambda *_: score)
    trainer.fit()
    again = Trainer.from_config(changed(config, *values), lambda *_: score)
    assert (again.progress.best_bleu, type(again.progress.best_bleu)) == (3.0, float)
    (record,) = [record for record in read_metrics(trainer.run) if record["kind"] == "validation"]
    assert (record["bleu"], "bleu_tokenizer" in record) == (3.0, False)


def bad_scorer(*_: Any) -> float:
    return SCORES.pop()  # type: ignore[no-any-return]


SCORES: list[Any] = []


@pytest.mark.parametrize(
    ("score", "shown"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (None, "None"),
        ("27.3", "'27.3'"),
        (torch.ones(2), r"tensor\(\[1., 1.\]\)"),
        (10**400, "1000"),
        (1j, "1j"),
    ],
    ids=repr,
)
def test_a_score_that_is_no_finite_number_names_its_scorer(config: Config, score: Any, shown: str) -> None:
    SCORES[:] = [score]
    values = ("train.validation_bleu=true", "train.validate_steps=2", "train.save_steps=1")
    trainer = Trainer.from_config(changed(config, *values), bad_scorer)
    with pytest.raises(TrainingError, match=f"^the scorer bad_scorer returned {shown}.*; it must return a finite num"):
        trainer.fit()
    good = Trainer.from_config(changed(config, *values), lambda *_: 1.0)
    assert good.progress.step == 1, "what was saved is intact"
    good.fit()
    assert validated(good.run)[0] == 2


def test_a_model_whose_loss_is_not_finite_is_not_scored(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_losses(monkeypatch, [float("nan")])
    trainer = Trainer.from_config(config)
    found = validate(trainer.weights.model, trainer.data, 211, bad_scorer, trainer.context, lambda: False)
    assert "bleu" not in found


@pytest.mark.parametrize("name", [None, 7, "", "two\nlines", str.upper], ids=repr)
def test_only_text_is_recorded_as_the_tokenizer_of_a_scorer(name: object) -> None:
    scorer = scores([1.0])
    assert recorded_tokenizer(scorer) == recorded_tokenizer(None) == {}
    scorer.tokenize = name  # type: ignore[attr-defined]
    assert recorded_tokenizer(scorer) == {}
    scorer.tokenize = "zh"  # type: ignore[attr-defined]
    assert recorded_tokenizer(scorer) == {"bleu_tokenizer": "zh"}


@pytest.mark.parametrize("caught", [Exception, BaseException])
def test_a_scorer_that_catches_errors_does_not_hold_a_stop(config: Config, caught: type[BaseException]) -> None:
    def careless(model: Any, *rest: Any) -> float:
        try:
            return greedy_bleu(model, *rest)
        except caught:
            return float("nan")

    values = ("train.validation_bleu=true", "train.validate_steps=5")
    is_scoring = False

    def noticing(*arguments: Any) -> float:
        nonlocal is_scoring
        is_scoring = True
        return careless(*arguments)

    trainer = Trainer.from_config(changed(config, *values), noticing)
    assert trainer.fit(lambda: "enough" if is_scoring else None) == "enough"
    assert (trainer.progress.step, trainer.progress.validated_step, validated(trainer.run)) == (5, 0, [])


def test_no_except_exception_holds_what_leaves_shared_work() -> None:
    assert not issubclass(Abandoned, Exception)

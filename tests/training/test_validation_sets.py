"""Validation sets besides the first are recorded by name and decide nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from transformer.config import Config, load_config
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError, DataError
from transformer.training.metrics import is_validation, read_metrics
from transformer.training.trainer import Trainer
from transformer.training.validation import validation_nll

TIMES = {"elapsed_s", "tokens_per_s"}


def write_pairs(directory: Path, split: str, first: int, last: int) -> None:
    pairs = list(builtin_pairs("test", last))[first:]
    for lang, sentences in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
        (directory / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))


@pytest.fixture
def config(tiny_config: Config, tmp_path: Path) -> Config:
    """Pairs to train, validate and test with, and 11 more elsewhere; 6 updates, validations after 3 and 6."""
    (tmp_path / "news").mkdir()
    for split, first, last in (("train", 0, 101), ("validation", 101, 118), ("test", 118, 131)):
        write_pairs(tmp_path, split, first, last)
    write_pairs(tmp_path / "news", "validation", 131, 142)
    corpus = f"data.corpus={tmp_path}/{{split}}.{{lang}}"
    return changed(tiny_config, corpus, "data.vocab_size=197", "train.max_steps=6", "train.validate_steps=3")


def changed(config: Config, *overrides: str) -> Config:
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, overrides)


def with_sets(config: Config, tmp_path: Path) -> Config:
    news = f"news={tmp_path}/news/{{split}}.{{lang}}"
    return changed(config, f'data.also_validate=[test, "{news}"]')


def records(run: Path, *kinds: str) -> list[dict[str, Any]]:
    return [
        {name: x for name, x in line.items() if name not in TIMES}
        for line in read_metrics(run)
        if not kinds or line["kind"] in kinds
    ]


def test_each_set_is_recorded_under_its_name(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer.from_config(with_sets(config, tmp_path))
    assert {name: len(other.pairs) for name, other in trainer.data.others.items()} == {"test": 13, "news": 11}
    assert "\nvalidation news pairs: 11 (dropped: " in trainer.summary()
    trainer.fit()
    found = [(line["kind"], line["step"]) for line in records(trainer.run) if is_validation(line)]
    kinds = ("validation", "validation/test", "validation/news")
    assert found == [(kind, step) for step in (3, 6) for kind in kinds]
    for name, other in trainer.data.others.items():
        line = records(trainer.run, f"validation/{name}")[-1]
        assert line["nll"] == validation_nll(trainer.weights.model, other.pairs, 211)
    printed = capsys.readouterr().out
    assert "step 6: validation/news nll " in printed
    assert printed.count("(best)") == len([line for line in printed.splitlines() if ": validation nll" in line])


def test_another_corpus_has_neither_the_held_out_pairs_nor_lacks_the_tag(config: Config, tmp_path: Path) -> None:
    config = changed(
        with_sets(config, tmp_path), "data.hold_out=[validation]", "data.validation_size=7", "data.tag=<x>"
    )
    data = Trainer.from_config(config).data
    assert {name: len(other.pairs) for name, other in data.others.items()} == {"test": 13, "news": 11}
    assert [*data.others["news"].text] == list(builtin_pairs("test", 142))[131:]
    ((tag,),) = data.tokenizer.encode(["<x>"])
    for pairs in (data.train, data.validation, *(other.pairs for other in data.others.values())):
        assert {int(id_) for id_ in pairs.src.ids[pairs.src.starts]} == {tag}
        assert not (pairs.tgt.ids[pairs.tgt.starts] == tag).any()


def test_they_change_neither_training_nor_the_first_set(config: Config, tmp_path: Path) -> None:
    plain = Trainer.from_config(changed(config, f"run_dir={config.run_dir}-plain"))
    plain.fit()
    trainer = Trainer.from_config(with_sets(config, tmp_path))
    trainer.fit()
    assert records(trainer.run, "train", "validation") == records(plain.run)
    ours, theirs = (dataclasses.asdict(one.progress) for one in (trainer, plain))
    ignored = {"elapsed_s", "running_s", "fingerprints"}
    assert {name: ours[name] for name in ours.keys() - ignored} == {
        name: theirs[name] for name in ours.keys() - ignored
    }


def test_the_scorer_scores_every_set(config: Config, tmp_path: Path) -> None:
    seen: list[int] = []
    config = changed(with_sets(config, tmp_path), "train.validation_bleu=true", "train.validate_steps=6")
    trainer = Trainer.from_config(
        config, lambda _model, _tokenizer, sources, _references: seen.append(len(sources)) or 7
    )
    trainer.fit()
    assert seen == [17, 13, 11]
    assert [line["bleu"] for line in records(trainer.run) if is_validation(line)] == [7.0] * 3


def test_the_sets_may_change_between_starts_and_a_stopped_validation_is_made_up_for(
    config: Config, tmp_path: Path
) -> None:
    whole = Trainer.from_config(with_sets(changed(config, f"run_dir={config.run_dir}-whole"), tmp_path))
    whole.fit()
    asked = 0

    def stop() -> str | None:
        nonlocal asked
        asked += trainer.progress.step == 3
        return "stop" if asked >= 4 else None

    trainer = Trainer.from_config(with_sets(config, tmp_path))
    assert trainer.fit(stop) == "stop"
    assert [line for line in records(trainer.run) if is_validation(line)] == [], "within the validation of step 3"
    again = Trainer.from_config(with_sets(config, tmp_path))
    again.fit()
    assert records(again.run) == records(whole.run)
    Trainer.from_config(changed(config, "data.also_validate=test", "train.max_steps=7")).fit()
    assert records(again.run)[-1]["kind"] == "validation/test"


def test_records_of_a_validation_that_was_not_saved_are_dropped(config: Config, tmp_path: Path) -> None:
    config = with_sets(config, tmp_path)
    trainer = Trainer.from_config(config)

    def killed() -> None:
        if trainer.progress.step == 3:
            raise KeyboardInterrupt

    trainer._save = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(lambda: "stop" if trainer.progress.step == 3 and trainer.progress.validated_step == 3 else None)
    assert len([line for line in records(trainer.run) if is_validation(line)]) == 3
    again = Trainer.from_config(config)
    again.fit()
    steps = [(line["kind"], line["step"]) for line in records(again.run) if is_validation(line)]
    assert len(steps) == len(set(steps)) == 6


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("a/b", r"data\.also_validate.*must be a split of data\.corpus, or NAME=CORPUS"),
        ("..", r"data\.also_validate.*must be a plain name"),
        ("=x", r"data\.also_validate.*must be NAME=CORPUS, with a name of letters"),
        ("a b=x", r"data\.also_validate.*must be NAME=CORPUS, with a name of letters"),
        ("news=", r"data\.also_validate.*must be NAME=CORPUS, with a name of letters"),
        ("[test, test=builtin]", r"data\.also_validate has two sets with the name test: write another as NAME=CORPUS"),
        ("validation", r"data\.also_validate names validation, which data\.validation_split validates already"),
        ("[1]", r"data\.also_validate"),
    ],
)
def test_entries_that_name_no_set_are_refused(config: Config, value: str, error: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{error}"):
        changed(config, f"data.also_validate={value}")


def test_a_leading_tilde_of_a_corpus_is_the_home_directory(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert changed(config, "data.also_validate=a=~/x.{lang}").data.also_validate == ("a=/home/me/x.{lang}",)


def test_a_set_that_does_not_exist_is_an_error_before_training(config: Config) -> None:
    with pytest.raises(DataError, match="newstest"):
        Trainer.from_config(changed(config, "data.also_validate=newstest"))

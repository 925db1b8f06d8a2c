"""The validation BLEU has the tokenizer of the language, is recorded with it, and a change of it is said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from transformer.config import Config
from transformer.errors import DataError
from transformer.inference import validation_bleu
from transformer.inference.validation_bleu import ValidationBleu
from transformer.training.metrics import bleu_tokenizers, read_metrics
from transformer.training.trainer import Trainer


def configured(config: Config, **data: str) -> Config:
    train = dataclasses.replace(config.train, validation_bleu=True, validate_steps=2, max_steps=2)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data), train=train)


@pytest.mark.parametrize(
    ("data", "tokenize"),
    [
        ({}, "13a"),
        ({"tgt_lang": "zh"}, "zh"),
        ({"tgt_lang": "tha_Thai"}, "char"),
        ({"tgt_lang": "zh", "bleu_tokenizer": "char"}, "char"),
        ({"bleu_tokenizer": "none"}, "none"),
    ],
)
def test_the_tokenizer_is_that_of_the_target_language_or_of_the_key(
    tiny_config: Config, data: dict[str, str], tokenize: str
) -> None:
    assert ValidationBleu.from_config(configured(tiny_config, **data), pytest.fail).tokenize == tokenize


def test_a_tokenizer_that_cannot_be_used_is_an_error_before_training(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise DataError("cannot be used")

    monkeypatch.setattr(validation_bleu, "resolve_tokenizer", refuse)
    with pytest.raises(DataError, match="cannot be used"):
        ValidationBleu.from_config(configured(tiny_config, bleu_tokenizer="ja-mecab"), pytest.fail)


def test_the_score_is_computed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(validation_bleu, "greedy_scores", lambda *args: asked.append(args) or {"bleu": 41.5})
    scorer = ValidationBleu("zh", tag="<a>", tags=["<a>", "<b>"])
    assert scorer("model", "tokenizer", ["a"], ["b"]) == {"bleu": 41.5}  # type: ignore[arg-type]
    assert asked == [("model", "tokenizer", ["a"], ["b"], scorer.context, "zh", "<a>", ["<a>", "<b>"])]


def test_training_records_the_tokenizer_of_each_score(tiny_config: Config) -> None:
    config = configured(tiny_config, bleu_tokenizer="char")
    Trainer.from_config(config, scorer=ValidationBleu.from_config(config, pytest.fail)).fit()
    (line,) = [line for line in read_metrics(config.run_dir) if line["kind"] == "validation"]
    assert (line["bleu_tokenizer"], type(line["bleu"]), type(line["chrf"])) == ("char", float, float)


@pytest.mark.parametrize(("before", "now", "is_said"), [({}, "13a", False), ({}, "char", True), ("zh", "zh", False)])
def test_another_tokenizer_than_that_of_earlier_scores_is_said(
    tiny_config: Config, before: object, now: str, is_said: bool
) -> None:
    run = Path(tiny_config.run_dir)
    run.mkdir()
    earlier = {"bleu_tokenizer": before} if before else {}  # it was not recorded, and was 13a
    records = [{"kind": "train", "step": 1}, {"kind": "validation", "step": 1, "bleu": 1.5, **earlier}]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    warnings: list[str] = []
    ValidationBleu.from_config(configured(tiny_config, bleu_tokenizer=now), warnings.append)
    assert warnings == ["validation BLEU is computed with char from now on; up to now it was 13a"] * is_said


def test_the_tokenizers_of_a_run_are_listed_by_their_changes() -> None:
    def validation(**values: object) -> dict[str, object]:
        return {"kind": "validation", "step": 1, **values}

    records = [validation(bleu=1.5), validation(nll=1.5), {"kind": "train", "step": 1}, validation(bleu=2.5)]
    assert bleu_tokenizers(records) == ["13a"]
    zh = validation(bleu=3.5, bleu_tokenizer="zh")
    assert bleu_tokenizers([*records, zh, zh]) == ["13a", "zh"]
    assert bleu_tokenizers([*records, zh, *records]) == ["13a", "zh", "13a"], "the last one is the latest"
    assert bleu_tokenizers([zh]) == ["zh"]
    assert bleu_tokenizers([]) == []

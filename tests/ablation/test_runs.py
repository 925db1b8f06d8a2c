"""A run of a row: trained once, scored as the paper scores its table, and left alone by other processes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from ablation import runs
from ablation.runs import Result, read_results, train_and_score

from transformer.config import Config
from transformer.data.corpus import load_split
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.bleu import score
from transformer.inference.translator import Translator
from transformer.training.metrics import read_metrics
from transformer.training.trainer import Trainer


def never() -> str | None:
    return None


@pytest.fixture
def config(tiny_config: Config, small_corpus: str) -> Config:
    """Five updates, of which the last is also validated."""
    return with_steps(
        dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, corpus=small_corpus)), 5
    )


def with_steps(config: Config, max_steps: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, max_steps=max_steps))


def finished(config: Config, tokenize: str = "13a") -> Result:
    result = train_and_score("mine", config, tokenize, never)
    assert result is not None
    return result


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: Config) -> Trainer:
        raise AssertionError(f"{config.run_dir} is trained again")

    monkeypatch.setattr(runs, "Trainer", refuse)


def test_the_last_checkpoint_is_scored_by_beam_search_on_the_validation_set(config: Config) -> None:
    result = finished(config)
    run = Path(config.run_dir)
    (validation,) = [record for record in read_metrics(run) if record["kind"] == "validation"]
    assert result.ppl == pytest.approx(validation["ppl"], rel=1e-6)
    sources, references = zip(*load_split(config.data, "validation"), strict=True)
    translator = Translator.load(run / "checkpoints" / "step-00000005", precision="fp32")
    expected = score(translator.translate(sources, beam=3, max_length_offset=7), references)
    assert (result.bleu, result.signature) == (expected.bleu, expected.bleu_signature)
    weights = translator.model.parameters()
    assert (result.row, result.seed, result.steps) == ("mine", 7, 5)
    assert result.parameters == sum(parameter.numel() for parameter in weights)
    assert result.minutes > 0


def test_a_finished_run_is_read_not_trained(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    result = finished(config)
    no_training(monkeypatch)
    assert finished(config) == result
    assert read_results(Path(config.run_dir).parent) == [result]


def test_a_run_with_more_steps_resumes_and_is_scored_again(config: Config) -> None:
    first = finished(config)
    second = finished(with_steps(config, 7))
    assert (first.steps, second.steps) == (5, 7)
    assert second.nll != first.nll
    assert read_results(Path(config.run_dir).parent) == [second]
    with pytest.raises(ConfigError, match=r"has had 7 updates already, more than train\.max_steps=5$"):
        finished(config)


def test_another_search_or_tokenizer_scores_again(config: Config) -> None:
    first = finished(config)
    second = finished(dataclasses.replace(config, search=dataclasses.replace(config.search, beam=1)))
    assert (second.nll, second.steps, second.config["search.beam"]) == (first.nll, 5, 1)
    third = finished(config, "none")
    assert (third.tokenize, third.nll) == ("none", first.nll)
    assert "tok:none" in third.signature


def test_a_run_that_is_older_than_a_key_of_the_search_is_not_scored_again(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = finished(config)
    path = Path(config.run_dir) / "score.json"
    saved = json.loads(path.read_text())
    del saved["config"]["search.length_penalty"], saved["config"]["search.max_length"]
    path.write_text(json.dumps(saved))
    no_training(monkeypatch)
    assert finished(config).bleu == result.bleu


def test_a_run_of_another_recipe_is_refused_even_when_finished(config: Config) -> None:
    finished(config)
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, lr_factor=3.0))
    with pytest.raises(
        ConfigError, match=r"belongs to another configuration \(train\.lr_factor: 1\.0 there, 3\.0 here\)"
    ):
        finished(other)


def test_a_stopped_run_has_no_score_and_resumes(config: Config, tmp_path: Path) -> None:
    answers = iter([None, None, "SIGINT", "SIGINT"])
    assert train_and_score("mine", config, "13a", lambda: next(answers)) is None
    assert read_results(tmp_path) == []
    resumed = finished(config)
    whole = finished(dataclasses.replace(config, run_dir=str(tmp_path / "whole")))
    assert (resumed.steps, resumed.nll, resumed.bleu) == (5, whole.nll, whole.bleu)


@pytest.mark.parametrize("text", ["{", "[]", '{"row": "mine"}'])
def test_a_damaged_result_is_named(config: Config, text: str) -> None:
    path = Path(config.run_dir) / "score.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"score\.json: not a result of this version .*; delete it to score"):
        read_results(path.parent.parent)


def test_results_survive_a_round_trip(config: Config, tmp_path: Path) -> None:
    result = Result("mine", 3, 5, 7, 0.5, 1000.0, 11.5, "tok:13a", "13a", config.flat())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "score.json").write_text(json.dumps(dataclasses.asdict(result)))
    assert read_results(tmp_path) == [result]
    assert result.ppl == pytest.approx(1.0142320547350045e304), "a perplexity without bounds is cut, not an error"

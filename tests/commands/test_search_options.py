"""Options by which commands translate: what they choose, and what is named beside a score."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from transformer.commands import evaluate
from transformer.commands.search_options import (
    SEARCH_DEFAULTS,
    add_sampling_options,
    add_search_options,
    chosen_sampling,
    chosen_search,
    describe_translation,
    in_words,
    load_translator,
    origins,
    precision_beside,
)
from transformer.config import SearchConfig
from transformer.errors import ConfigError
from transformer.inference.ensemble import Ensemble
from transformer.inference.prepacked import can_quantize
from transformer.inference.sampling import Sampling
from transformer.inference.translator import Translator


def parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_search_options(parser)
    add_sampling_options(parser)
    arguments = parser.parse_args(list(map(str, words)))
    arguments.device, arguments.precision = "cpu", "fp32"
    return arguments


def test_every_key_of_the_search_has_an_option() -> None:
    values: dict[str, Any] = {"length_penalty": "power", "allow_unknown": False, "max_length": 13, "alpha": 1.5}
    for field in dataclasses.fields(SearchConfig):
        value = values.get(field.name, 3)
        option = f"--{'no-' if value is False else ''}{field.name.replace('_', '-')}"
        words = [option] if value is False else [option, value]
        assert chosen_search(parse(*words), SearchConfig()) == SearchConfig(**{field.name: value})


def test_nothing_given_is_the_runs_own() -> None:
    arguments = parse()
    search = SearchConfig(beam=3, length_penalty="none", no_repeat_ngram=5, allow_unknown=False)
    assert chosen_search(arguments, search) == search
    assert {name: getattr(arguments, name) for name in SEARCH_DEFAULTS} == SEARCH_DEFAULTS
    assert chosen_sampling(arguments) is None
    assert chosen_search(parse("--allow-unknown"), search).allow_unknown


def test_samples_have_options() -> None:
    assert chosen_sampling(parse("--sample")) == Sampling()
    words = ("--temperature", 0.5, "--top-k", 7, "--top-p", 0.9, "--seed", 11)
    assert chosen_sampling(parse("--sample", "--beam", 1, *words)) == Sampling(0.5, 7, 0.9, 11)
    for i in range(0, len(words), 2):
        with pytest.raises(ConfigError, match=rf"^{words[i]} is of samples: give --sample too$"):
            chosen_sampling(parse(*words[i : i + 2]))
    with pytest.raises(ConfigError, match=r"^--beam 3 and --sample exclude each other; --nbest is the number"):
        chosen_sampling(parse("--sample", "--beam", 3))


def test_an_exponent_without_a_penalty_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--alpha 1\.5 has no effect: length_penalty is none$"):
        chosen_search(parse("--alpha", 1.5), SearchConfig(length_penalty="none"))
    chosen_search(parse("--alpha", 1.5, "--length-penalty", "gnmt"), SearchConfig(length_penalty="none"))


def test_what_is_not_the_default_is_named_beside_a_score(trained_run: Path) -> None:
    members = [Translator.load(trained_run, precision="fp32")]
    translator = Mock(
        search=SearchConfig(), too_long="error", split_sentences=False, tag=None, tags=(), members=members
    )
    assert describe_translation(translator) == {"beam": 4, "alpha": 0.6}
    search = {"beam": 1, "alpha": 0.5, "length_penalty": "power", "max_length_offset": 7, "max_length": 31}
    search |= {"min_length": 3, "no_repeat_ngram": 5, "allow_unknown": False, "max_source_length": 11}
    assert [*search] == [field.name for field in dataclasses.fields(SearchConfig)]
    translator.search = SearchConfig(**search)  # type: ignore[arg-type]
    translator.too_long, translator.split_sentences, translator.tag, translator.tags = "split", True, "<bt>", ("<bt>",)
    found = describe_translation(translator)
    assert found == {**search, "too_long": "split", "split_sentences": True, "tag": "<bt>"}
    assert in_words({"checkpoint": "x", **found}) == (
        "beam 1, alpha 0.5, length_penalty power, max_length_offset 7, max_length 31, min_length 3, no_repeat_ngram 5, "
        "allow_unknown False, max_source_length 11, too_long split, split_sentences True, tag <bt>"
    )
    translator.tag = None
    assert in_words(describe_translation(translator)).endswith(", tag none")
    translator.members = [Translator.load(trained_run, precision="bf16"), *members]
    assert describe_translation(translator)["precision"] == "bfloat16 + float32"
    assert in_words(describe_translation(translator)).endswith(", tag none, precision bfloat16 + float32")


@pytest.mark.skipif(not can_quantize(torch.zeros(1)), reason="torch has no kernel here")
def test_8_bit_products_are_named_whatever_the_rest_computes_in(trained_run: Path) -> None:
    translator = Translator.load(trained_run, device="cpu", precision="int8")
    assert precision_beside(translator) == {"precision": "int8"} == {"precision": translator.identity()["precision"]}
    assert precision_beside(Ensemble([translator, translator])) == {"precision": "int8"}


def test_an_ensemble_is_loaded_by_name(trained_run: Path) -> None:
    assert not isinstance(load_translator(parse(), trained_run), Ensemble)
    translator = load_translator(parse("--ensemble", trained_run, trained_run), trained_run)
    assert isinstance(translator, Ensemble)
    assert len(set(origins(translator))) == 1
    assert len(origins(translator)) == 3


def test_a_score_names_all_models_and_settings(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--split", "test", "--ensemble", trained_run, "--no-repeat-ngram", 3, "--beam", 2, "--precision", "fp32")
    command = [str(trained_run), *map(str, options)]
    evaluate.main(command)
    out, err = capsys.readouterr()
    (best,) = (trained_run / "best").iterdir()
    assert out.startswith(f"{best} + {best} on ")
    assert out.splitlines()[0].endswith(" sentences, beam 2, alpha 0.6, max_length_offset 7, no_repeat_ngram 3")
    assert err.count("checkpoint: ") == 2
    evaluate.main([*command, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert "precision" not in report
    assert (report["checkpoint"], report["beam"], report["no_repeat_ngram"]) == (f"{best} + {best}", 2, 3)

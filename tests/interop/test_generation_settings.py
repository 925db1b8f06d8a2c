"""Settings of `generate` in Hugging Face's directories: what our search takes over, and what is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from marian_files import HuggingFace, change_json

from transformer.errors import CheckpointError
from transformer.interop.foreign import read_model


@pytest.mark.parametrize("has_file", [True, False], ids=["settings", "configuration alone"])
def test_settings_are_those_that_transformers_generates_with(directory: Path, has_file: bool) -> None:
    transformers = pytest.importorskip("transformers")
    change_json(directory / "config.json", num_beams=7, length_penalty=0.6, no_repeat_ngram_size=3, min_length=2)
    change_json(directory / "config.json", max_length=53)
    change_json(directory / "generation_config.json", num_beams=5, max_length=41)
    if not has_file:
        (directory / "generation_config.json").unlink()
    model = transformers.MarianMTModel.from_pretrained(directory)
    theirs = model._prepare_generation_config(None)[0]  # with the defaults of what is not said
    search = read_model(directory).to_checkpoint()[0].search
    assert (search.beam, search.alpha, search.no_repeat_ngram, search.min_length, search.max_length) == (
        theirs.num_beams,
        theirs.length_penalty,
        theirs.no_repeat_ngram_size,
        theirs.min_length,
        theirs.max_length - 1,  # without the start
    )
    assert search.beam == (5 if has_file else 7)


def test_settings_that_our_search_does_not_have_are_named(directory: Path) -> None:
    change_json(directory / "generation_config.json", repetition_penalty=1.3, do_sample=True, bad_words_ids=[[7]])
    assert read_model(directory).notes == (
        "its generation settings do_sample=True, repetition_penalty=1.3, bad_words_ids are not taken over",
    )


@pytest.mark.parametrize("banned", [[[7, 8]], [[True]], ["x"], "x", 5, {"a": 1}])
def test_banned_pieces_of_any_other_form_are_named(directory: Path, banned: Any) -> None:
    change_json(directory / "generation_config.json", bad_words_ids=banned)
    assert read_model(directory).notes == ("its generation settings bad_words_ids are not taken over",)


def test_pieces_that_are_never_an_output_here_may_be_banned(directory: Path, hugging_face: HuggingFace) -> None:
    ids = hugging_face.vocabularies[1]
    for banned in (None, [], [[ids["<pad>"]]], [[ids["<pad>"]], [ids["<unk>"]]]):
        change_json(directory / "generation_config.json", bad_words_ids=banned)
        model = read_model(directory)
        assert (model.notes, model.search["allow_unknown"]) == ((), False)


def test_another_end_or_start_of_the_generation_settings_is_named(directory: Path, hugging_face: HuggingFace) -> None:
    end, padding = (hugging_face.vocabularies[1][piece] for piece in ("</s>", "<pad>"))
    change_json(directory / "generation_config.json", eos_token_id=[end, 7], decoder_start_token_id=5)
    assert read_model(directory).notes == (
        f"its generation settings eos_token_id=[{end}, 7], decoder_start_token_id=5 are not taken over",
    )
    change_json(directory / "generation_config.json", eos_token_id=[end], decoder_start_token_id=padding)
    assert read_model(directory).notes == ()


def test_special_ids_may_stand_in_the_generation_settings_alone(directory: Path) -> None:
    names = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
    config = json.loads((directory / "config.json").read_text())
    change_json(directory / "generation_config.json", **{name: config[name] for name in names})
    change_json(directory / "config.json", **dict.fromkeys(names))
    assert read_model(directory).to_checkpoint()[0].search.beam == 3


def test_limits_without_the_start_are_taken_over(directory: Path) -> None:
    change_json(directory / "generation_config.json", max_new_tokens=31, min_new_tokens=4)
    search = read_model(directory).search
    assert (search["max_length"], search["min_length"]) == (31, 5)


def test_a_setting_out_of_all_ranges_is_refused(directory: Path) -> None:
    change_json(directory / "generation_config.json", length_penalty=10**400)
    with pytest.raises(CheckpointError, match=r"search\.alpha=1e\+300"):
        read_model(directory).to_checkpoint()


def test_a_setting_that_is_no_number_is_named(directory: Path) -> None:
    change_json(directory / "generation_config.json", num_beams="6", length_penalty="0.5", min_length=True)
    model = read_model(directory)
    assert model.notes == (
        "its generation settings num_beams='6', min_length=True, length_penalty='0.5' are not taken over",
    )
    assert (model.search["beam"], model.search["alpha"], model.search["min_length"]) == (4, 1.0, 0)

"""Models from elsewhere where a run is asked for: found, converted once, and no file outside of them read."""

from __future__ import annotations

import errno
import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from marian_files import LANGUAGES, HuggingFace, change_json

from transformer.data.tags import tag_of_language
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.ensemble import Ensemble
from transformer.inference.translator import Translator
from transformer.interop import foreign
from transformer.interop.foreign import converted
from transformer.interop.local_files import is_foreign
from transformer.training.checkpoint import load_model, locate_checkpoint, save_checkpoint

TEXTS = ["A man is sleeping.", "Two dogs are playing in the park."]


def test_directories_and_archives_of_others_are_told_from_ours(
    hugging_face: HuggingFace, release: Path, trained_run: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "opus.zip", "w") as file:
        file.writestr("a", "b")
    assert all(map(is_foreign, (hugging_face.directory, release, tmp_path / "opus.zip")))
    last = max((trained_run / "checkpoints").iterdir())
    others = (trained_run, last, trained_run / "checkpoints", tmp_path, tmp_path / "absent", tmp_path / "absent.zip")
    assert not any(map(is_foreign, others))
    shutil.copytree(last, tmp_path / "mixed")
    (tmp_path / "mixed" / "config.json").write_text("{}")
    assert not is_foreign(tmp_path / "mixed"), "a checkpoint of ours remains one"


def test_a_model_is_converted_once(hugging_face: HuggingFace, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = converted(hugging_face.directory, save_checkpoint)
    assert first.parent == cache
    assert first.name.startswith("opus-mt-en-de-")
    files = {"SHA256SUMS", "config.yaml", "model.safetensors", "tokenizer.model"}
    assert {path.name for path in first.iterdir()} == files
    monkeypatch.setattr(foreign, "read_model", lambda _: pytest.fail("converted again"))
    assert converted(hugging_face.directory, save_checkpoint) == first
    assert load_model(hugging_face.directory).config.output_bias


def test_changed_files_are_converted_anew(hugging_face: HuggingFace, tmp_path: Path) -> None:
    shutil.copytree(hugging_face.directory, tmp_path / "copy")
    first = converted(tmp_path / "copy", save_checkpoint)
    (tmp_path / "copy" / "generation_config.json").write_text('{"num_beams": 2}')
    os.utime(tmp_path / "copy" / "generation_config.json", ns=(1, time.time_ns()))
    second = converted(tmp_path / "copy", save_checkpoint)
    assert second != first
    assert Translator.load(tmp_path / "copy", device="cpu").search.beam == 2


def test_what_is_not_taken_over_is_said_by_every_process(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_json(directory / "generation_config.json", repetition_penalty=1.3)
    message = f"warning: {directory}: its generation settings repetition_penalty=1.3 are not taken over\n"
    for _ in range(2):  # converted, and then found in the cache
        foreign._print_notes.cache_clear()
        converted(directory, save_checkpoint)
        converted(directory, save_checkpoint)
        assert capsys.readouterr().err == message


def test_a_conversion_that_fails_leaves_nothing_that_is_taken_for_a_model(
    hugging_face: HuggingFace, tmp_path: Path, cache: Path
) -> None:
    shutil.copytree(hugging_face.directory, tmp_path / "copy")
    (tmp_path / "copy" / "source.spm").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="not a SentencePiece model"):
            Translator.load(tmp_path / "copy")
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "source.spm", "model.safetensors"])
def test_a_link_out_of_the_directory_is_not_followed(hugging_face: HuggingFace, tmp_path: Path, name: str) -> None:
    shutil.copytree(hugging_face.directory, tmp_path / "model")
    (tmp_path / "model" / name).rename(tmp_path / "private")
    (tmp_path / "model" / name).symlink_to(tmp_path / "private")
    with pytest.raises(CheckpointError, match=rf"{name}: a link out of the model's directory, to .*private; copy"):
        Translator.load(tmp_path / "model")


def test_links_to_the_blobs_of_the_hubs_cache_are_followed(
    hugging_face: HuggingFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--Helsinki-NLP--opus-mt-en-de" / "snapshots" / "0123456789abcdef"
    blobs = snapshot.parents[1] / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in hugging_face.directory.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / path.name, snapshot))
    asked = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert {path.name for path in hugging_face.directory.iterdir()} - {*allow_patterns} <= {
            "special_tokens_map.json"
        }
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    translator = Translator.load("Helsinki-NLP/opus-mt-en-de@refs/pr/7", device="cpu")
    assert asked == [("Helsinki-NLP/opus-mt-en-de", "refs/pr/7")]
    assert translator.origin == "Helsinki-NLP/opus-mt-en-de@0123456789abcdef"
    assert locate_checkpoint("Helsinki-NLP/opus-mt-en-de")[0].name.startswith("Helsinki-NLP-opus-mt-en-de-")


def test_a_model_of_the_hub_that_is_only_pickled_is_refused_by_its_name(directory: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Helsinki-NLP--opus-mt-en--de" / "snapshots" / "0123456789abcdef"
    snapshot.parent.mkdir(parents=True)
    directory.rename(snapshot)
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"as Helsinki-NLP/opus-mt-en--de@refs/pr/N if .*_pretrained\('Helsinki"):
        Translator.load(snapshot)


def test_without_a_home_directory_the_cache_has_to_be_named(
    hugging_face: HuggingFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(ConfigError, match=r"^no home directory to keep downloads in: set XDG_CACHE_HOME"):
        Translator.load(hugging_face.directory)


def test_translations_of_a_batch_are_those_of_single_sentences(hugging_face: HuggingFace) -> None:
    translator = Translator.load(hugging_face.directory, device="cpu", precision="fp32")
    assert translator.translate(TEXTS) == [translator.translate([text])[0] for text in TEXTS]
    assert translator.languages == ("en", "de")


def test_prepacked_and_plain_models_give_the_same_log_probabilities(hugging_face: HuggingFace) -> None:
    packed, plain = (
        Translator.load(hugging_face.directory, device="cpu", precision="fp32", prepack=flag) for flag in (True, False)
    )
    hidden = torch.randn(3, plain.model.embedding.weight.size(1))
    torch.testing.assert_close(packed.logits(hidden), plain.logits(hidden))
    assert (packed.logits(hidden) - hidden @ plain.model.embedding.weight.T).abs().max() > 1, "there is a bias"


# Multilingual models.


@pytest.fixture
def multilingual(make_hugging_face: Any) -> Path:
    return make_hugging_face(languages=LANGUAGES).directory


def test_a_multilingual_model_needs_a_language(multilingual: Path) -> None:
    translator = Translator.load(multilingual, device="cpu", precision="fp32")
    for ask in (translator.translate, translator.encode, translator.check):
        with pytest.raises(ConfigError, match=r"the model translates into several languages: choose .*, of deu, nld$"):
            ask(TEXTS)
    assert translator.translate(["", "  "]) == ["", ""]
    into_both = translator.translate([f"{tag} {TEXTS[0]}" for tag in LANGUAGES])
    translator.choose_language("nld")
    assert translator.languages == ("en", "nld")
    assert translator.translate(TEXTS[:1]) == into_both[1:]
    assert translator.translate([f">>deu<< {TEXTS[0]}", f">>deu<<{TEXTS[0]}"]) == into_both[:1] * 2, "a text's own wins"
    assert translator.encode([TEXTS[0]])[0][0] == translator.tokenizer.source.encode([">>nld<<"])[0][0]
    with pytest.raises(
        ConfigError, match=r"^the target language 'fra' is not one of the model's, which are: deu, nld$"
    ):
        translator.choose_language("fra")


def test_the_only_code_of_a_vocabulary_is_there_for_those_who_ask(
    make_hugging_face: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make_hugging_face("one", languages=[">>lit<<"])
    translator = Translator.load(one.directory, device="cpu", precision="fp32")
    assert "one code of a language, >>lit<<, and texts are read without" in capsys.readouterr().err
    without = translator.encode(TEXTS)
    assert [x[:1] for x in translator.encode([f">>lit<< {text}" for text in TEXTS])] != [x[:1] for x in without]
    written = translator.encode([f">>lit<< {text}" for text in TEXTS])
    for language in ("lit", "lt"):
        translator.choose_language(language)
        assert (translator.encode(TEXTS), translator.languages) == (written, ("en", "lit"))
    assert [len(ids) for ids in written] == [1 + len(ids) for ids in without]


def test_a_model_that_changes_while_it_is_read_is_not_kept(
    directory: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_late(path: Path) -> Any:
        change_json(path / "generation_config.json", num_beams=2)
        return read_model(path)

    read_model = foreign.read_model
    with monkeypatch.context() as late:
        late.setattr(foreign, "read_model", read_late)
        with pytest.raises(CheckpointError, match=r"was changed while it was read; try again$"):
            converted(directory, save_checkpoint)
    assert not [*cache.glob("*/SHA256SUMS")]
    assert Translator.load(directory, device="cpu").search.beam == 2


def test_a_cache_that_cannot_be_written_is_named(directory: Path, cache: Path) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        OSError, match=r"No space left on device \(converted models are kept in XDG_CACHE_HOME\)"
    ) as error:
        converted(directory, full)
    assert error.value.filename == str(cache)


def test_a_model_of_one_language_takes_its_name(hugging_face: HuggingFace) -> None:
    translator = Translator.load(hugging_face.directory, device="cpu", precision="fp32")
    before = translator.encode(TEXTS)
    for language in ("de", "deu"):
        translator.choose_language(language)
        assert (translator.encode(TEXTS), translator.languages, translator.tag) == (before, ("en", "de"), None)
    with pytest.raises(ConfigError, match=r"^the target language 'lit' is not that of the model, de, "):
        translator.choose_language("lit")


def test_an_ensemble_of_multilingual_models_needs_a_language_too(multilingual: Path) -> None:
    ensemble = Ensemble.load([multilingual, multilingual], device="cpu", precision="fp32")
    with pytest.raises(ConfigError, match="several languages"):
        ensemble.translate(TEXTS)
    ensemble.choose_language(">>deu<<")
    single = Translator.load(multilingual, device="cpu", precision="fp32")
    single.choose_language("deu")
    assert ensemble.translate(TEXTS) == single.translate(TEXTS)


def test_a_tag_is_found_by_the_language_that_it_asks_for() -> None:
    tags = ["<2de>", "<bt>", ">>cmn_Hans<<", "<2fr>"]
    assert [tag_of_language(x, tags) for x in ("de", "<2fr>", "cmn_Hans")] == ["<2de>", "<2fr>", ">>cmn_Hans<<"]
    with pytest.raises(ConfigError, match=r"which are: none$"):
        tag_of_language("de", [])

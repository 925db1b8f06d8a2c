"""Exports are complete or not there, describe themselves, and ask no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from interop_models import Make, Save, with_tag
from marian_files import LANGUAGES

from transformer.config import load_config
from transformer.errors import ExportError
from transformer.inference.translator import Translator
from transformer.interop import export as export_module
from transformer.interop.export import EXPORTERS, export, read_description
from transformer.interop.exported import Exported, new_directory, run_of
from transformer.training.checkpoint import load_model

FILES = {
    "own": {"config.yaml", "tokenizer.model", "model.safetensors", "SHA256SUMS"},
    "hf": {
        *("config.json", "generation_config.json", "model.safetensors", "source.spm", "target.spm"),
        *("tokenizer_config.json", "vocab.json"),
    },
    "ct2": {
        *("model.bin", "config.json", "shared_vocabulary.json", "config.yaml", "tokenizer.model"),
        *("source.spm", "target.spm"),
    },
}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("to", FILES)
def test_a_directory_has_all_that_is_needed_and_nothing_else(make: Make, tmp_path: Path, to: str) -> None:
    export(make(), to, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES[to] | {"README.md", "export.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.usefixtures("offline")
def test_our_own_files_load_and_have_the_weights_to_the_bit(make: Make, save: Save, tmp_path: Path) -> None:
    exported = Exported.load(save(make()))
    export(exported, "own", tmp_path / "model")
    weights, found = exported.model.state_dict(), load_model(tmp_path / "model").state_dict()
    assert all((weights[name] == found[name]).all() for name in weights)
    assert Translator.load(tmp_path / "model").translate(["A cat."]) == Translator.load(exported.origin).translate(
        ["A cat."]
    )


def test_a_mean_of_weights_still_says_of_which_steps(trained_run: Path, tmp_path: Path) -> None:
    from transformer.training.checkpoint import average_checkpoints, load_checkpoint, save_checkpoint
    from transformer.training.integrity import averaged_steps

    last = sorted((trained_run / "checkpoints").iterdir())[-2:]
    config, tokenizer, _ = load_checkpoint(last[0])
    save_checkpoint(tmp_path / "mean", config, tokenizer, average_checkpoints(last), averaged_steps=[8, 11])
    export(Exported.load(tmp_path / "mean"), "own", tmp_path / "model")
    assert averaged_steps(tmp_path / "model" / "model.safetensors") == [8, 11]
    assert "the mean of the weights after the updates 8, 11" in (tmp_path / "model" / "README.md").read_text()


def test_the_configuration_does_not_name_directories_of_this_machine(trained_run: Path, tmp_path: Path) -> None:
    export(Exported.load(trained_run), "own", tmp_path / "model")
    config = load_config(tmp_path / "model" / "config.yaml", saved=True)
    assert (config.run_dir, config.data.cache_dir) == ("runs/base", "runs/.cache")


def test_the_description_says_what_was_exported(trained_run: Path, tmp_path: Path) -> None:
    exported = Exported.load(trained_run)
    export(exported, "own", tmp_path / "model")
    found = read_description(tmp_path / "model")
    assert found["format"] == "own"
    assert found["checkpoint"] == str(exported.checkpoint)
    sums = (exported.checkpoint / "SHA256SUMS").read_text()  # type: ignore[operator]
    assert f"{found['weights_sha256']}  model.safetensors" in sums


@pytest.mark.parametrize("text", ["", "[]", "{", "1"])
def test_a_description_of_another_form_is_none(tmp_path: Path, text: str) -> None:
    assert read_description(tmp_path) == {}
    (tmp_path / "export.json").write_text(text)
    assert read_description(tmp_path) == {}


def test_an_unknown_format_and_a_precision_it_lacks_are_refused(make: Make, tmp_path: Path) -> None:
    exported = make()
    with pytest.raises(ExportError, match=r"^format='tf' is not one of own, hf, ct2, onnx, torch, opus$"):
        export(exported, "tf", tmp_path / "model")
    with pytest.raises(ExportError, match=r"^Marian: precision=int8 is not one of fp32$"):
        export(exported, "hf", tmp_path / "model", precision="int8")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_not_replaced_unless_it_is_empty(make: Make, tmp_path: Path) -> None:
    exported, directory = make(), tmp_path / "model"
    directory.mkdir()
    export(exported, "own", directory)
    before = (directory / "model.safetensors").read_bytes()
    with pytest.raises(ExportError, match=r"model: exists; remove it or choose another directory$"):
        export(exported, "hf", directory)
    assert (directory / "model.safetensors").read_bytes() == before
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(ExportError, match="exists"):
            export(exported, "own", tmp_path / name)


def test_nothing_is_left_of_an_export_that_fails(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "model_card", fail)
    with pytest.raises(OSError, match="No space left"):
        export(make(), "own", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.tmp" / "directory").mkdir(parents=True)
    (tmp_path / ".model.tmp" / "half").touch()
    with new_directory(tmp_path / "model") as directory:
        (directory / "whole").touch()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_run_of_a_checkpoint_is_found(trained_run: Path, tmp_path: Path) -> None:
    last = max((trained_run / "checkpoints").iterdir())
    assert run_of(last) == trained_run.resolve()
    assert run_of(tmp_path) is None


@pytest.mark.parametrize(
    ("search", "positions"),
    [({}, 1031), ({"max_source_length": 50, "max_length": 600}, 600), ({"max_source_length": 100_000}, 4096)],
)
def test_tables_of_positions_are_as_long_as_the_search_allows(
    make: Make, search: dict[str, int], positions: int
) -> None:
    assert make(search=search).num_positions == positions


def test_a_table_of_learned_positions_is_as_long_as_it_is(make: Make) -> None:
    assert make(positional="learned", max_positions=257).num_positions == 257


def test_ctranslate2_is_noted_to_rank_otherwise(make: Make, tmp_path: Path) -> None:
    (note,) = export(make(), "ct2", tmp_path / "gnmt")
    assert note.startswith("CTranslate2 divides log P by |Y|^alpha, not by ((5 + |Y|) / 6)^0.6")
    assert export(make(search={"length_penalty": "power"}), "ct2", tmp_path / "power") == []


def test_how_other_programs_give_a_text_its_tag_is_noted(make: Make, make_hugging_face: Any, tmp_path: Path) -> None:
    own = with_tag(make(search={"length_penalty": "power"}), "<2de>")
    others = "programs other than transformer translate add no tag: "
    assert export(own, "ct2", tmp_path / "own") == [f"{others}begin each text with its own, such as <2de>"]
    imported = Exported.load(make_hugging_face(languages=LANGUAGES).directory)
    for to in ("ct2", "opus"):
        assert export(imported, to, tmp_path / to)[-1] == (
            f"{others}put >>deu<<, which the SentencePiece model does not know, before the pieces of each text"
        )


def test_every_format_says_how_it_is_used(make: Make, tmp_path: Path) -> None:
    for name, exporter in EXPORTERS.items():
        assert "PLACE" in exporter.usage, name
    export(make(), "ct2", tmp_path / "model", place="owner/name")
    text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "hf download owner/name --local-dir name\n" in text
    assert "transformer translate name --engine ctranslate2" in text
    assert "PLACE" not in text
    described = json.loads((tmp_path / "model" / "export.json").read_text())
    assert described["ids"] == {"pad": 0, "unk": 1, "bos": 2, "eos": 3}


def test_two_exports_do_not_write_the_same_directory(tmp_path: Path) -> None:
    with new_directory(tmp_path / "model") as directory:
        (directory / "a").touch()
        with (
            pytest.raises(ExportError, match=r"model: is being written by another process$"),
            new_directory(tmp_path / "model"),
        ):
            pass
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["a"]
    with pytest.raises(ExportError, match="model: exists"), new_directory(tmp_path / "model"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

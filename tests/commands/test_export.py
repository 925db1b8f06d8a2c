"""The export command, and translating with what it wrote."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from transformer.commands import evaluate, export, translate
from transformer.errors import CheckpointError, ConfigError, ExportError
from transformer.inference.alignment import word_alignment
from transformer.inference.ctranslate2_engine import CTranslate2Translator
from transformer.training.checkpoint import load_checkpoint, save_checkpoint

OUTPUTS = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def plain_run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that every format has a place for: with d_k = d_v = d_model / num_heads."""
    import dataclasses

    import torch

    from transformer.model.alternatives.build import build_model

    config, tokenizer, _ = load_checkpoint(max((trained_run / "checkpoints").iterdir()))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, d_k=None, d_v=None))
    torch.manual_seed(3)
    directory = tmp_path_factory.mktemp("plain") / "run"
    save_checkpoint(directory, config, tokenizer, build_model(len(tokenizer), config.model).state_dict())
    return directory


def test_a_run_is_written_and_says_which_checkpoint(trained_run: Path, tmp_path: Path, capsys: OUTPUTS) -> None:
    assert export.main([str(trained_run), "--to", "own", "--output", str(tmp_path / "model")]) == 0
    out, err = capsys.readouterr()
    assert out == f"wrote {tmp_path / 'model'}\n"
    assert err.startswith(f"checkpoint: {trained_run}/best/step-")
    assert translate.main([str(tmp_path / "model"), "--text", "A cat."]) == 0


def test_a_directory_that_exists_is_named_before_a_model_is_loaded(tmp_path: Path, plain_run: Path) -> None:
    export.main([str(plain_run), "--to", "own", "--output", str(tmp_path / "model")])
    for run in (str(plain_run), "no-such-run"):
        with pytest.raises(ExportError, match=r"model: exists; remove it or choose another directory$"):
            export.main([run, "--to", "own", "--output", str(tmp_path / "model")])


def test_the_reason_of_a_refusal_is_one_line(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^CTranslate2 has no place for model\.d_k=7 and model\.d_v=5: both must be"):
        export.main([str(trained_run), "--to", "ct2", "--output", str(tmp_path / "model")])


def test_notes_are_printed(plain_run: Path, tmp_path: Path, capsys: OUTPUTS) -> None:
    export.main([str(plain_run), "--to", "hf", "--output", str(tmp_path / "hf")])
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert [note[:26] for note in notes] == ["note: model.norm_eps is 1e", "note: generate() divides l"]


def test_scores_of_evaluate_stand_in_the_card(trained_run: Path, tmp_path: Path, capsys: OUTPUTS) -> None:
    evaluate.main([str(trained_run), "--json", "--beam", "1"])
    (tmp_path / "scores").write_text(capsys.readouterr().out)
    options = ["--scores", str(tmp_path / "scores"), "--licence", "mit", "--name", "tiny"]
    export.main([str(trained_run), "--to", "own", "--output", str(tmp_path / "model"), *options])
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    bleu = json.loads((tmp_path / "scores").read_text())["bleu"]
    assert f"| BLEU | {bleu:.2f} | `nrefs:1\\|case:mixed" in card
    assert "# tiny\n" in card
    assert "license: mit\n" in card


@pytest.mark.parametrize("place", ["best/x", "checkpoints/x", "best/{last}/x"])
def test_no_place_inside_of_a_checkpoint_is_written_to(trained_run: Path, place: str) -> None:
    last = max((trained_run / "best").iterdir()).name
    output = trained_run / place.format(last=last)
    with pytest.raises(ConfigError, match="choose another place"):
        export.main([str(trained_run), "--to", "own", "--output", str(output)])
    assert not output.exists()


def test_an_upload_is_checked_before_the_work(trained_run: Path, tmp_path: Path) -> None:
    arguments = [str(trained_run), "--to", "own", "--output", str(tmp_path / "model")]
    with pytest.raises(ExportError, match="'tiny' is not a repository of the hub"):
        export.main([*arguments, "--push", "tiny"])
    with pytest.raises(ConfigError, match=r"^--private needs --push$"):
        export.main([*arguments, "--private"])
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_uploaded(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: OUTPUTS
) -> None:
    class Hub:
        def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> str:
            assert (private, exist_ok) == (True, True)
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(self, **options: Any) -> None:
            assert options["folder_path"] == tmp_path / "model"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    arguments = [str(trained_run), "--to", "own", "--output", str(tmp_path / "model")]
    export.main([*arguments, "--push", "org/tiny", "--private"])
    assert capsys.readouterr().out.endswith("uploaded to https://huggingface.co/org/tiny\n")
    assert "# tiny\n" in (tmp_path / "model" / "README.md").read_text()


# translate --engine


class Engine:
    """In the place of ctranslate2.Translator: answers the source."""

    device, compute_type = "cpu", "float32"

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def translate_batch(self, sources: list[list[str]], **_: Any) -> list[Any]:
        return [SimpleNamespace(hypotheses=[[*source, "</s>"]], scores=[-1.0]) for source in sources]


@pytest.fixture
def engine_model(plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "ctranslate2", SimpleNamespace(Translator=Engine))
    directory = tmp_path / "ct2"
    export.main([str(plain_run), "--to", "ct2", "--output", str(directory)])
    return str(directory)


def test_the_same_command_translates_with_an_exported_model(engine_model: str, tmp_path: Path, capsys: OUTPUTS) -> None:
    (tmp_path / "in").write_text("A cat.\n\nздесь\nA man.\n")
    capsys.readouterr()
    greedy = [engine_model, str(tmp_path / "in"), "--engine", "ctranslate2", "--beam", "1"]
    assert translate.main(greedy) == 0
    out, err = capsys.readouterr()
    assert out == "A cat.\n\nздесь\nA man.\n"
    assert err.splitlines()[0] == f"checkpoint: {engine_model}"
    assert translate.main([*greedy, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[0]["translations"][0]["tokens"][-1] == "</s>"
    output = tmp_path / "out"
    assert translate.main([*greedy, "--output", str(output)]) == 0
    assert output.read_text() == "A cat.\n\nздесь\nA man.\n"


@pytest.mark.parametrize(
    "option",
    [
        ["--sample"],
        ["--prefix", "Ein"],
        ["--json", "--token-scores"],
        ["--json", "--alignment"],
        ["--ensemble", "runs/other"],
    ],
)
def test_options_that_the_engine_does_not_have_are_refused(engine_model: str, option: list[str]) -> None:
    with pytest.raises(
        ConfigError, match=f"^{option[-2] if option[-1][0] != '-' else option[-1]}: the engine ctranslate2 has no such"
    ):
        translate.main([engine_model, "--text", "A cat.", "--engine", "ctranslate2", *option])


def test_the_penalty_of_the_engine_must_be_chosen(engine_model: str) -> None:
    with pytest.raises(ConfigError, match="choose --length-penalty power, or none, or --beam 1"):
        translate.main([engine_model, "--text", "A cat.", "--engine", "ctranslate2"])


def test_an_output_is_not_written_into_the_model(engine_model: str) -> None:
    output = f"{engine_model}/out"
    with pytest.raises(ConfigError, match="is a model, to which no other file belongs"):
        translate.main([engine_model, "--text", "A cat.", "--engine", "ctranslate2", "--output", output])


def test_an_output_of_a_directory_that_is_no_export_says_so(plain_run: Path, tmp_path: Path) -> None:
    arguments = [str(plain_run), "--text", "A cat.", "--engine", "ctranslate2", "--output", str(tmp_path / "out")]
    with pytest.raises(CheckpointError, match="is not a model for CTranslate2; write one: transformer export RUN"):
        translate.main(arguments)


# The engine and documents


def test_a_document_is_translated_by_the_engine(
    engine_model: str, tmp_path: Path, capsys: OUTPUTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    (answer,) = CTranslate2Translator(engine_model).tokenizer.encode_as_pieces(["A man."])

    def translate_batch(_: Engine, sources: list[list[str]], **__: Any) -> list[Any]:
        return [SimpleNamespace(hypotheses=[[*answer, "</s>"]], scores=[-1.0]) for _ in sources]

    monkeypatch.setattr(Engine, "translate_batch", translate_batch)
    (tmp_path / "page.html").write_text("<p>A <b>cat</b>.</p>\n")
    greedy = [engine_model, str(tmp_path / "page.html"), "--engine", "ctranslate2", "--beam", "1"]
    capsys.readouterr()
    assert translate.main(greedy) == 0
    out, err = capsys.readouterr()
    assert re.sub("</?b>", "", out) == "<p>A man.</p>\n"
    assert out.count("<b>") == out.count("</b>") == 1
    assert err.startswith(f"checkpoint: {engine_model}\n")
    assert translate.main([*greedy, "--output", str(tmp_path / "out.html")]) == 0
    assert (tmp_path / "out.html").read_text() == out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", "1", "--alignment-layer", "1"], "^--alignment-layer: the engine ctranslate2 has no such option"),
        (["--beam", "1", "--ensemble", "runs/other"], "^--ensemble: the engine ctranslate2 has no such option"),
        ([], "choose --length-penalty power, or none, or --beam 1"),
        (["--beam", "1", "--output", "{model}/out.html"], "is a model, to which no other file belongs"),
    ],
)
def test_what_the_engine_does_not_have_is_refused_for_documents_too(
    engine_model: str, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "page.html").write_text("<p>A cat.</p>\n")
    given = [option.format(model=engine_model) for option in options]
    with pytest.raises(ConfigError, match=message):
        translate.main([engine_model, str(tmp_path / "page.html"), "--engine", "ctranslate2", *given])


def test_another_engine_gives_no_alignment(engine_model: str) -> None:
    with pytest.raises(ConfigError, match=r"^another engine gives no attention: take the model that was exported for"):
        word_alignment(CTranslate2Translator(engine_model), ["A cat."], ["A cat."])

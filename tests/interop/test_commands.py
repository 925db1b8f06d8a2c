"""Commands take models from elsewhere as they take runs, and `transformer import` keeps a copy."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from marian_files import LANGUAGES, HuggingFace, change_json, pairs

from transformer.cli import run
from transformer.config import load_config
from transformer.inference.translator import Translator
from transformer.training.checkpoint import load_checkpoint

Call = Callable[..., tuple[object, str, str]]
TEXTS = ["A man is sleeping.", "Two dogs are playing in the park."]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command; returns status, output and errors."""

    def call(command: str, *arguments: object) -> tuple[object, str, str]:
        capfd.readouterr()
        main = importlib.import_module(f"transformer.commands.{command}").main
        with pytest.raises(SystemExit) as ended:
            run(lambda: main([str(argument) for argument in arguments]))
        return ended.value.code, *capfd.readouterr()

    return call


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    """Files of sources and references."""
    src, ref = tmp_path / "src", tmp_path / "ref"
    for path, lines in zip((src, ref), zip(*pairs("test", 5), strict=True), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines))
    return src, ref


def test_translate_evaluate_score_attend_and_compare_take_a_directory(
    call: Call,
    hugging_face: HuggingFace,
    texts: tuple[Path, Path],
    tmp_path: Path,
    no_network: None,  # noqa: ARG001
) -> None:
    directory, (src, ref) = hugging_face.directory, texts
    expected = Translator.load(directory).translate(src.read_text().splitlines())
    status, out, err = call("translate", directory, src)
    assert (status, out.splitlines()) == (0, expected)
    assert err.startswith(f"checkpoint: {directory}\n")
    status, out, _ = call("evaluate", directory, "--src", src, "--ref", ref, "--json")
    report = json.loads(out)
    assert (status, report["checkpoint"], report["alpha"], report["length_penalty"]) == (
        0,
        str(directory),
        1.0,
        "power",
    )
    assert call("score", directory, "--src", src, "--tgt", ref)[0] == 0
    page = tmp_path / "attention.html"
    assert call("attend", directory, TEXTS[0], "--out", page)[0] == 0
    assert page.is_file()
    status, out, _ = call("compare", directory, ref, "--src", src, "--ref", ref)
    assert status == 0 and str(directory) in out


def test_commands_take_a_release_and_its_archive(
    call: Call, release: Path, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    archive = tmp_path / "opus-2020-02-26.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in release.iterdir():
            file.write(path, path.name)
    _, expected, _ = call("translate", release, "--text", TEXTS[0], "--max-length", 7)
    status, out, err = call("translate", archive, "--text", TEXTS[0], "--max-length", 7)
    assert (status, out) == (0, expected)
    assert f"checkpoint: {archive}\n" in err
    status, out, _ = call("compare", archive, texts[1], "--src", texts[0], "--ref", texts[1], "--max-length", 7)
    assert status == 0, "an archive is no file of translations"
    status, _, err = call("translate", archive, texts[0], "--output", archive)
    assert status == 2 and "is the same file as the input" in err


def test_a_model_names_no_corpus_to_be_scored_on(call: Call, hugging_face: HuggingFace, tmp_path: Path) -> None:
    message = "the corpus of an imported model is not known; give --test-set, or --src and --ref\n"
    assert call("evaluate", hugging_face.directory) == (2, "", f"error: {hugging_face.directory}: {message}")
    assert call("import", hugging_face.directory, tmp_path / "run")[0] == 0
    assert call("evaluate", tmp_path / "run") == (2, "", f"error: {tmp_path / 'run'}: {message}")


def test_a_multilingual_model_asks_for_a_language(
    call: Call, make_hugging_face: Any, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    directory, (src, ref) = make_hugging_face(languages=LANGUAGES).directory, texts
    translate = ("translate", directory, src, "--max-length", 9)
    status, out, err = call(*translate)
    assert (status, out, err.count("\n")) == (2, "", 2)
    assert err.splitlines()[1].endswith(
        "several languages: choose one by --target-language (or begin each text with its tag), of deu, nld"
    )
    into = {code: call(*translate, "--target-language", code)[1] for code in ("deu", "nld")}
    assert into["deu"] != into["nld"]
    assert call(*translate, "--tag", ">>nld<<")[1] == into["nld"]
    status, _, err = call(*translate, "--target-language", "fra")
    assert status == 2 and "the target language 'fra' is not one of the model's, which are: deu, nld" in err
    status, _, err = call(*translate, "--target-language", "deu", "--tag", ">>deu<<")
    assert status == 2 and err.endswith("error: --tag and --target-language exclude each other\n")
    files = ("--src", src, "--ref", ref, "--max-length", 9)
    status, out, _ = call("evaluate", directory, *files, "--target-language", "nld", "--json")
    assert status == 0 and json.loads(out)["tag"] == ">>nld<<"
    status, _, err = call("evaluate", directory, "--test-set", "wmt14/full", "--target-language", "nld")
    assert status == 2 and "sacreBLEU has no test set 'wmt14/full' for en-nl" in err, "not that of another language"
    assert call("compare", directory, ref, *files, "--target-language", "nld")[0] == 0
    status, _, err = call("compare", directory, ref, *files, "--target-language", "fra")
    assert status == 2 and "which are: deu, nld" in err
    assert call("score", directory, "--src", src, "--tgt", ref, "--target-language", "nld")[0] == 0
    assert call("attend", directory, TEXTS[0], "--target-language", "nld", "--out", tmp_path / "a.json")[0] == 0


@pytest.mark.parametrize("option", ["--target-language=jpn", "--target-language=>>jpn<<", "--tag=>>jpn<<"])
def test_bleu_splits_words_as_of_the_language_that_is_asked_for(
    call: Call, make_hugging_face: Any, texts: tuple[Path, Path], option: str
) -> None:
    directory, (src, ref) = make_hugging_face(languages=(">>deu<<", ">>jpn<<")).directory, texts
    for command in (("evaluate", directory), ("compare", directory, ref)):
        status, _, err = call(*command, "--src", src, "--ref", ref, "--max-length", 9, option)
        assert status == 0
        assert "BLEU of jpn compares characters (char): the usual tokenizer, ja-mecab" in err


def test_a_model_of_an_unknown_language_has_its_bleu_doubted(
    call: Call, directory: Path, texts: tuple[Path, Path]
) -> None:
    change_json(directory / "tokenizer_config.json", target_lang="absent")
    files = ("--src", texts[0], "--ref", texts[1], "--max-length", 9)
    message = "warning: the model does not say which language it translates into: BLEU splits words as of English (13a)"
    assert message in call("evaluate", directory, *files)[2]
    assert message not in call("evaluate", directory, *files, "--tokenize", "char")[2]


def test_a_copy_is_a_checkpoint_that_translates_alike(call: Call, hugging_face: HuggingFace, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "opus"
    status, out, err = call("import", hugging_face.directory, copy, "--languages", "eng-deu")
    assert (status, err) == (0, "")
    assert out.startswith(f"{hugging_face.directory}: eng-deu, ")
    assert out.endswith(f"written to {copy}\n")
    config, _, _ = load_checkpoint(copy)
    assert (config.data.src_lang, config.data.tgt_lang) == ("eng", "deu")
    assert Translator.load(copy).translate(TEXTS) == Translator.load(hugging_face.directory).translate(TEXTS)
    assert call("import", hugging_face.directory, copy) == (
        2,
        "",
        f"error: {copy}: exists already; choose another directory\n",
    )


def test_what_is_imported_is_described(call: Call, make_hugging_face: Any, tmp_path: Path) -> None:
    theirs = make_hugging_face(languages=LANGUAGES, separate=True, decoder_layers=1)
    status, out, _ = call("import", theirs.directory, tmp_path / "run")
    lines = out.splitlines()
    size = len(theirs.vocabularies[0]) + 1
    assert status == 0
    assert lines[1] == "layers: 2 of the encoder, 1 of the decoder; d_model 22, 2 heads, swish"
    assert lines[2] == f"vocabulary: {size:,} pieces of the target, {size:,} of the source"
    assert lines[3] == "target languages, for --target-language: deu, nld"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{trained_run}", "copy"), "no Marian model: neither a directory with config.json or decoder.yml, nor a .zip"),
        (("absent", "copy"), "absent: no Marian model"),
        (("{marian}", "copy", "--languages", "ende"), "--languages ende: must be two codes joined by -, such as en-de"),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    call: Call, trained_run: Path, hugging_face: HuggingFace, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    places = {"trained_run": trained_run, "marian": hugging_face.directory}
    given = [argument.format(**places) for argument in arguments]
    given[1] = str(tmp_path / given[1])
    status, out, err = call("import", *given)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "copy").exists()


def test_a_model_that_is_only_pickled_is_one_line(call: Call, hugging_face: HuggingFace, tmp_path: Path) -> None:
    shutil.copytree(hugging_face.directory, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    status, out, err = call("translate", tmp_path / "model", "--text", TEXTS[0])
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {tmp_path / 'model'}: has no model.safetensors; pytorch_model.bin is pickled")


def test_averaging_needs_a_run(call: Call, hugging_face: HuggingFace) -> None:
    status, _, err = call("average", hugging_face.directory, "--last", 1)
    assert (status, err) == (2, f"error: {hugging_face.directory} contains 0 checkpoints; 1 cannot be averaged\n")
    assert not (hugging_face.directory / ".lock").exists()


def test_the_imported_configuration_is_complete(call: Call, hugging_face: HuggingFace, tmp_path: Path) -> None:
    assert call("import", hugging_face.directory, tmp_path / "run")[0] == 0
    config = load_config(tmp_path / "run" / "config.yaml", saved=True)
    assert config.run_dir == "runs/imported"
    assert str(tmp_path) not in config.to_yaml()


def test_the_example_of_the_documentation_runs(
    hugging_face: HuggingFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "INTEROP.md").read_text(encoding="utf-8")
    (program,) = re.findall(
        r"```python\n(.*?)```", text.partition("\n## Models in")[2].partition("\n## ")[0], re.DOTALL
    )
    shutil.copytree(hugging_face.directory, tmp_path / "opus-mt-en-de")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "INTEROP.md", "exec"), {})

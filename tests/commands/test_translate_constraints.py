"""The translate command with phrases that the translations must contain."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transformer.commands import translate
from transformer.errors import ConfigError, DataError
from transformer.inference import search_requests
from transformer.inference.rules import Forbidden
from transformer.inference.translator import Translator
from transformer.training.checkpoint import load_checkpoint

LINES = ["A man is sleeping.", "Two small dogs are playing.", "The women are singing."]
Run = Callable[..., list[str]]


@pytest.fixture
def run(babbler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls the command on lines, as a file or through a pipe; returns those of the output."""

    def call(constraints: str, *options: object, lines: list[str] = LINES, is_file: bool = True) -> list[str]:
        text = "".join(f"{line}\n" for line in lines)
        (tmp_path / "in").write_text(text)
        (tmp_path / "phrases").write_text(constraints)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        capsys.readouterr()
        file = tmp_path / "in" if is_file else "-"
        arguments = [babbler, file, "--constraints", tmp_path / "phrases", *options]
        assert translate.main([*map(str, arguments)]) == 0
        return capsys.readouterr().out.splitlines()

    return call


@pytest.mark.parametrize("is_file", [True, False])
def test_each_line_contains_its_phrases(run: Run, is_file: bool) -> None:
    plain = run("\n\n\n", is_file=is_file)
    found = run("Hund\n\nKatze\tMann\n", is_file=is_file)
    assert "Hund" in found[0]
    assert found[1] == plain[1]
    assert "Katze" in found[2] and "Mann" in found[2]
    assert not any(word in " ".join(plain) for word in ("Hund", "Katze", "Mann"))


def test_all_of_an_nbest_list_contain_them(run: Run) -> None:
    found = run("Hund\n\nKatze\tMann\n", "--nbest", 3, "--beam", 5)
    assert all("Hund" in line for line in found[:3] if line)  # fewer, if the search found fewer
    assert all("Katze" in line and "Mann" in line for line in found[6:] if line)
    assert found[0] and found[6]


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ("Hund\n", "phrases: has 1 lines, and the input has more; leave lines empty$"),
        ("Hund\n\n\n\n", "phrases: has 4 lines, and the input has 3$"),
        ("Hund\n\t\n\tHund\n", "phrases: line 3 has an empty phrase"),
        ("\n👍\n\n", "phrases: line 2: the phrase '👍' has characters that the model cannot write$"),
        (
            f"\n{'Hund ' * 99}\n\n",
            "the constraints of sentence 2 have [0-9]+ pieces, and its translation at most [0-9]+;",
        ),
    ],
)
@pytest.mark.parametrize("is_file", [True, False])
def test_what_cannot_be_met_is_an_error(run: Run, constraints: str, message: str, is_file: bool) -> None:
    with pytest.raises(DataError, match=message):
        run(constraints, is_file=is_file)


def test_a_file_is_checked_before_the_first_line_is_translated(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"in: sentence 3 has constraints and is not translated"):
        run("\n\nHund\n", lines=[*LINES[:2], ""])
    with pytest.raises(DataError, match=r"has 4 lines, and the input has 3$"):
        run("\n\n\n\n", "--output", tmp_path / "out")
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out").exists()


def test_an_output_that_was_begun_with_other_constraints_is_not_gone_on_with(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("Hund\n\n\n", "--output", out)
    assert "Hund" in out.read_text().splitlines()[0]
    with pytest.raises(DataError, match="sentence 3 "):  # through a pipe: after two lines, of which none is kept
        run("Hund\n\nHund\n", "--output", out, lines=[*LINES[:2], ""], is_file=False)
    (tmp_path / "out.part").write_text("x\n")
    with pytest.raises(DataError, match=r"constraints="):
        run("Katze\n\n\n", "--output", out)


def test_the_phrases_are_no_output(run: Run, tmp_path: Path) -> None:
    for name in ("phrases", "in"):
        with pytest.raises(ConfigError, match=f"{name}"):
            run("Hund\n\n\n", "--output", tmp_path / name)
    assert (tmp_path / "phrases").read_text() == "Hund\n\n\n"


# With other options


def test_json_prefixes_and_ensembles_go_with_phrases(run: Run, babbler: Path) -> None:
    options = ("--json", "--token-scores", "--prefix", "Ein Mann", "--ensemble", babbler)
    found = [json.loads(line)["translations"][0] for line in run("Hund\n\nKatze\tMann\n", *options)]
    for translation, phrases in zip(found, (["Hund"], [], ["Katze", "Mann"]), strict=True):
        assert translation["text"].startswith("Ein Mann")
        assert all(phrase in translation["text"] for phrase in phrases)
        assert sum(translation["token_log_probs"]) == pytest.approx(translation["log_prob"], abs=1e-3)


def test_each_text_of_the_command_line_has_its_phrases(run: Run, babbler: Path, tmp_path: Path) -> None:
    lines = run("Hund\n\nKatze\tMann\n")
    texts = [argument for line in LINES for argument in ("--text", line)]
    output = tmp_path / "out"
    arguments = [babbler, *texts, "--constraints", tmp_path / "phrases", "--output", output]
    assert translate.main([*map(str, arguments)]) == 0
    assert output.read_text().splitlines() == lines


def test_samples_have_no_phrases(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"^--constraints and --sample exclude each other: "):
        run("Hund\n\n\n", "--sample")


def test_phrases_that_a_rule_forbids_are_an_error_before_the_first_line(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"in: the constraints of sentence 3 contain a piece twice, which no_repeat"):
        run("Hund\n\nKatze\tKatze\n", "--no-repeat-ngram", 1)
    assert capsys.readouterr().out == ""


def test_lines_without_a_translation_that_has_their_phrases_are_named(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, babbler: Path, tmp_path: Path
) -> None:
    (hund,) = load_checkpoint(babbler)[1].encode(["Hund"])
    monkeypatch.setattr(search_requests, "rules_of", lambda *_: [Forbidden(hund)])
    lines = run("Hund\n\nKatze\n")
    assert translate.main([str(babbler), str(tmp_path / "in"), "--constraints", str(tmp_path / "phrases")]) == 0
    found = capsys.readouterr()
    assert found.out.splitlines() == lines and lines[0] == "" and "Katze" in lines[2]
    message = "1 line is left empty, as no translation with the phrases was found: 1; a larger --beam may find one"
    assert message in found.err.splitlines()


def test_a_missing_file_is_an_error_before_the_model_is_loaded(tmp_path: Path) -> None:
    arguments = [tmp_path / "no model", "--text", "A", "--constraints", tmp_path / "absent"]
    with pytest.raises(DataError, match=r"absent: cannot be read: No such file"):
        translate.main([*map(str, arguments)])


def test_an_interrupted_output_goes_on_with_the_phrases_of_the_next_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phrases, out = "Hund\n\nKatze\tMann\n", tmp_path / "out"
    monkeypatch.setattr(translate, "_LINES_AT_A_TIME", 1)
    wanted, translate_nbest = run(phrases), Translator.translate_nbest

    def interrupted(translator: Translator, texts: list[str], **options: Any) -> object:
        if options["first_number"] == 3:
            raise KeyboardInterrupt
        return translate_nbest(translator, texts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Translator, "translate_nbest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(phrases, "--output", out)
    assert (tmp_path / "out.part").read_text().splitlines() == wanted[:2]
    with pytest.raises(DataError, match=r"out\.part: was made with constraints="):
        run("Hund\n\nKatze\n", "--output", out)
    run(phrases, "--output", out)
    assert out.read_text().splitlines() == wanted

"""Evaluation finds what is wrong before it translates, keeps what it has translated, and scores as sacreBLEU does."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from transformer.cli import run
from transformer.commands import evaluate
from transformer.config import SearchConfig
from transformer.errors import DataError
from transformer.inference import bleu_tokenizer
from transformer.inference.translator import Translator
from transformer.model.transformer import Transformer

HYPOTHESES = ["Ein Hund läuft über die Wiese, hier.", "Die Frau gibt dem Mann das Buch.", "Im Park schlafen Katzen."]
FIRST = ["Ein kleiner Hund läuft über die Wiese.", "Die Frau gibt dem Mann ein Buch.", "Im PARK schlafen drei Katzen."]
SECOND = ["Ein Hund rennt über die Wiese, hier.", "Sie gibt dem Mann das Buch.", "Drei Katzen schlafen im Park."]
CHINESE = ["我非常喜欢这只小猫。", "他在公园里看书。", "猫。"]


class Ended(NamedTuple):
    status: object
    out: str
    err: str


Evaluate = Callable[..., Ended]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Run the command in a directory with the texts above."""
    monkeypatch.chdir(tmp_path)
    texts = {"src": ["a", "b", "c"], "hyp": HYPOTHESES, "one": FIRST, "two": SECOND, "zh": CHINESE}
    for name, lines in texts.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines))

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(lambda: evaluate.main([str(argument) for argument in arguments]))
        out, err = capfd.readouterr()
        return Ended(ended.value.code, out, re.sub(r"^checkpoint: .*\n", "", err, flags=re.MULTILINE))

    return call


class Parrot:
    """Stands in for a translator; remembers what it has translated."""

    search = SearchConfig(beam=3)
    tag, tags = None, ()
    origin = "parrot"
    source_reader = Mock()
    model = Transformer(7, d_model=6, num_layers=1, num_heads=2, d_ff=5)  # float32
    translations: Sequence[str] = HYPOTHESES

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.members = (self,)
        self.origin = None

    def translate(self, sources: Sequence[str]) -> list[str]:
        self.asked.append(sources)
        return [*self.translations]


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    parrot = Parrot()
    monkeypatch.setattr(Translator, "load", lambda *_, **__: parrot)
    return parrot


# Scores


def test_an_existing_translation_is_scored_as_by_sacrebleu(call: Evaluate) -> None:
    metrics = ("bleu", "chrf", "chrf++", "ter")
    options = ("--hyp", "hyp", "--ref", "one", "--ref", "two", "--lang", "de", "--lowercase", "--metrics", *metrics)
    status, out, err = call(*options)
    assert (status, err) == (0, "")
    expected = [BLEU(lowercase=True), CHRF(lowercase=True), CHRF(word_order=2, lowercase=True), TER()]
    found = [metric.corpus_score(HYPOTHESES, [FIRST, SECOND]) for metric in expected]
    bleu, *others = [
        f"{score.name} = {score.score:.2f}  {metric.get_signature()}"
        for score, metric in zip(found, expected, strict=True)
    ]
    assert out.splitlines() == ["hyp on one and two: 3 sentences", found[0].format(), *others, bleu]
    assert "nrefs:2|case:lc|" in bleu

    report = json.loads(call(*options, "--json").out)
    assert report["hypotheses"] == "hyp"
    assert [report[name] for name in metrics] == [round(score.score, 2) for score in found]
    assert [report[f"{name}_signature"] for name in metrics] == [str(metric.get_signature()) for metric in expected]


@pytest.mark.parametrize(
    "references", [("--ref", "one", "two"), ("--ref", "one", "--ref", "two"), ("--ref", "two", "one")]
)
def test_references_may_follow_one_another_or_be_repeated(call: Evaluate, references: tuple[str, ...]) -> None:
    report = json.loads(call("--hyp", "hyp", "--lang", "de", "--json", *references).out)
    assert report["bleu"] == round(BLEU().corpus_score(HYPOTHESES, [FIRST, SECOND]).score, 2)
    assert report["bleu_signature"].startswith("nrefs:2|")


def test_a_run_after_its_references_is_not_a_reference(call: Evaluate, trained_run: Path, parrot: Parrot) -> None:
    for references in (("one", "two", trained_run), ("one", trained_run, "--ref", "two")):
        ended = call("--src", "src", "--json", "--ref", *references)
        assert (ended.status, json.loads(ended.out)["bleu_signature"][:8]) == (0, "nrefs:2|")
    assert parrot.asked == [["a", "b", "c"]] * 2


def test_without_bleu_the_last_line_is_another_metric(call: Evaluate) -> None:
    out = call("--hyp", "hyp", "--ref", "one", "--lang", "de", "--metrics", "ter").out
    assert [line.split(" = ")[0] for line in out.splitlines()[1:]] == ["TER"]


def test_a_run_says_language_and_references(call: Evaluate, trained_run: Path, tiny_corpus: str) -> None:
    reference = Path(tiny_corpus.format(split="validation", lang="de"))
    ended = call(trained_run, "--split", "validation", "--hyp", reference)
    assert ended.status == 0
    assert ended.out.splitlines()[-1].startswith("BLEU = 100.00  nrefs:1|")
    assert ended.err.startswith("warning: every line of the translation is equal to that of the references of ")
    assert ended.err.count("\n") == 1


def test_compounds_are_split_in_all_references(call: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    class Words:
        lang = "de"

        def tokenize(self, text: str, return_str: bool) -> str:
            assert return_str
            return text

    monkeypatch.setattr(evaluate, "moses_tokenizer", lambda _: Words())
    Path("one").write_text("a-b c d e\nx\n")
    Path("two").write_text("p q\n\n")
    Path("hyp").write_text("A-b c d e\nx\n")
    options = ("--hyp", "hyp", "--ref", "one", "two", "--lang", "de", "--compound-split", "--lowercase", "--json")
    report = json.loads(call(*options).out)
    assert report["compound_split_bleu"] == pytest.approx(100.0)
    assert report["compound_split_signature"].startswith("nrefs:var|case:lc|tok:moses-de|")


# The tokenizer


@pytest.mark.parametrize(
    ("options", "tokenizer"),
    [
        (("--lang", "zh_CN"), "zh"),
        (("--lang", "tha_Thai"), "char"),
        (("--lang", "de"), "13a"),
        (("--lang", "zh", "--tokenize", "char"), "char"),
        (("--tokenize", "intl"), "intl"),
    ],
)
def test_the_tokenizer_is_that_of_the_language(call: Evaluate, options: tuple[str, ...], tokenizer: str) -> None:
    ended = call("--hyp", "hyp", "--ref", "one", *options)
    assert (ended.status, ended.err) == (0, "")
    assert f"|tok:{tokenizer}|" in ended.out.splitlines()[-1]


@pytest.mark.parametrize("options", [(), ("--lang", "")])
def test_without_a_language_the_tokenizer_is_said(call: Evaluate, options: tuple[str, ...]) -> None:
    ended = call("--hyp", "hyp", "--ref", "one", *options)
    assert (
        ended.err == "warning: the language is not known without RUN or --lang: BLEU splits words as of English (13a)\n"
    )
    assert "|tok:13a|" in ended.out


def test_a_tokenizer_that_does_not_fit_the_text_is_said(call: Evaluate) -> None:
    ended = call("--hyp", "zh", "--ref", "zh", "--lang", "de", "--metrics", "bleu", "ter")
    of_bleu, of_ter, of_copy = ended.err.splitlines()
    assert of_bleu.startswith("warning: the references are written without spaces, and 13a does not split them: take")
    assert of_ter == "warning: the references are written without spaces, between which ter count words: take chrf"
    assert of_copy == "warning: every line of the translation is equal to that of zh: is it the right file?"
    assert call("--hyp", "zh", "--ref", "zh", "--lang", "zh").err.splitlines() == [of_copy]


def with_data(trained_run: Path, directory: Path, **values: str) -> Path:
    """A copy of a run's checkpoint whose configuration has other values in its data section."""
    shutil.copytree(max((trained_run / "checkpoints").iterdir()), directory, ignore=lambda *_: ["SHA256SUMS"])
    lines = (directory / "config.yaml").read_text().splitlines()
    kept = [line for line in lines if line.strip().partition(":")[0] not in values]
    where = kept.index("data:") + 1
    (directory / "config.yaml").write_text(
        "\n".join([*kept[:where], *(f"  {key}: {value}" for key, value in values.items()), *kept[where:], ""])
    )
    return directory


@pytest.mark.parametrize(
    ("values", "options", "tokenizer"),
    [
        ({"tgt_lang": "zho_Hans"}, (), "zh"),
        ({"bleu_tokenizer": "none"}, (), "none"),
        ({"bleu_tokenizer": "none"}, ("--tokenize", "auto"), "13a"),
        ({"tgt_lang": "zh", "bleu_tokenizer": "auto"}, ("--tokenize", "intl"), "intl"),
        ({}, (), "13a"),
    ],
)
def test_a_run_has_its_own_tokenizer_unless_another_is_given(
    call: Evaluate,
    parrot: Parrot,
    trained_run: Path,
    tmp_path: Path,
    values: dict[str, str],
    options: tuple[str, ...],
    tokenizer: str,
) -> None:
    checkpoint = with_data(trained_run, tmp_path / "model", **values)
    for texts in (("--src", "src", "--ref", "one"), ("--hyp", "hyp", "--ref", "one")):
        ended = call(checkpoint, *texts, *options)
        assert (ended.status, ended.err) == (0, "")
        assert f"|tok:{tokenizer}|" in ended.out.splitlines()[-1]
    assert len(parrot.asked) == 1


def test_compound_split_is_refused_for_a_run_whose_text_is_tokenised(
    call: Evaluate, trained_run: Path, tmp_path: Path
) -> None:
    checkpoint = with_data(trained_run, tmp_path / "model", bleu_tokenizer="none")
    ended = call(checkpoint, "--hyp", "hyp", "--ref", "one", "--compound-split")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "--compound-split tokenises raw text" in ended.err


def test_a_tokenizer_that_is_missing_is_found_before_anything_is_translated(
    call: Evaluate, parrot: Parrot, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*, tokenize: str, **options: Any) -> BLEU:
        if tokenize == "ja-mecab":
            raise RuntimeError("pip install sacrebleu[ja]")
        return BLEU(tokenize=tokenize, **options)

    monkeypatch.setattr(bleu_tokenizer, "BLEU", missing)
    texts = (trained_run, "--src", "src", "--ref", "one", "--output", "out")
    ended = call(*texts, "--tokenize", "ja-mecab")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "error: the BLEU tokenizer 'ja-mecab' cannot be used: pip install sacrebleu[ja]\n"
    assert parrot.asked == []
    assert not Path("out").exists()

    ended = call("--hyp", "hyp", "--ref", "one", "--lang", "ja")
    assert ended.err == (
        "warning: BLEU of ja compares characters (char): the usual tokenizer, ja-mecab, "
        "needs pip install 'sacrebleu[ja]'\n"
    )
    assert "|tok:char|" in ended.out
    assert call("--hyp", "hyp", "--ref", "one", "--lang", "ja", "--metrics", "chrf").err == ""


# The output


def test_the_output_is_written_before_it_is_scored(
    call: Evaluate, parrot: Parrot, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DataError("not today")

    monkeypatch.setattr(evaluate.Scorer, "score", fail)
    Path("out").write_text("earlier\n")
    ended = call(trained_run, "--src", "src", "--ref", "one", "--output", "out")
    assert (ended.status, ended.err) == (2, "error: not today\n")
    assert Path("out").read_text() == Path("hyp").read_text()
    assert len(parrot.asked) == 1


@pytest.mark.parametrize("name", ["src", "one", "two", "./src", "link", "hard", "linked/one"])
def test_no_input_is_replaced_by_the_output(call: Evaluate, parrot: Parrot, trained_run: Path, name: str) -> None:
    Path("link").symlink_to("two")
    Path("hard").hardlink_to("src")
    Path("linked").symlink_to(".")
    before = {path: path.read_text() for path in map(Path, ("src", "one", "two"))}
    ended = call(trained_run, "--src", "src", "--ref", "one", "two", "--output", name)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "is the same file as the input" in ended.err
    assert {path: path.read_text() for path in before} == before
    assert parrot.asked == []


@pytest.mark.parametrize(("split", "lang"), [("test", "en"), ("test", "de"), ("train", "de")])
def test_the_corpus_of_a_run_is_not_replaced_by_the_output(
    call: Evaluate, parrot: Parrot, trained_run: Path, tiny_corpus: str, split: str, lang: str
) -> None:
    path = Path(tiny_corpus.format(split=split, lang=lang))
    before = path.read_bytes()
    ended = call(trained_run, "--output", os.path.relpath(path))
    assert (ended.status, ended.out) == (2, "")
    assert f"is the same file as the input {path}" in ended.err
    assert path.read_bytes() == before
    assert parrot.asked == []


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "best/step-00000010/model.safetensors", "best/new"])
def test_a_run_is_not_damaged_by_the_output(call: Evaluate, parrot: Parrot, trained_run: Path, name: str) -> None:
    ended = call(trained_run, "--src", "src", "--ref", "one", "--output", trained_run / name)
    assert ended.status == 2
    assert f"error: {trained_run / name}: " in ended.err
    assert parrot.asked == []


# Signs of wrong texts


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("▁Ein ▁Hund\nb\nc\n", "1 of 3 lines of the translation have '▁', which marks subword pieces"),
        ("Ein Hu@@ nd\nb\nc\n", "1 of 3 lines of the translation have '@@', which marks subword pieces"),
        ("Ein Hund .\nZwei .\nc\n", "2 of 3 lines of the translation end in ' .', as tokenised text does"),
        ("a\r\nb\r\nc\r\n", r"hyp has lines that end in \r\n; the \r is not scored"),
        ("-1.5\ta\n-2.5\tb\n-0.5\tc\n", "every line of the translation begins with a number and a tab"),
        ("a\nb\nc\n", "every line of the translation is equal to that of the source: is it the right file?"),
    ],
)
def test_a_translation_that_is_no_plain_text_is_said(call: Evaluate, text: str, warning: str) -> None:
    Path("hyp").write_text(text, newline="")
    ended = call("--hyp", "hyp", "--src", "src", "--ref", "one", "--lang", "de")
    assert ended.status == 0
    assert f"warning: {warning}" in ended.err


def test_line_ends_do_not_change_the_score(call: Evaluate) -> None:
    plain = call("--hyp", "hyp", "--ref", "one", "--lang", "de")
    Path("hyp").write_bytes(Path("hyp").read_bytes().replace(b"\n", b"\r\n"))
    assert call("--hyp", "hyp", "--ref", "one", "--lang", "de").out == plain.out


def test_what_a_model_writes_is_looked_at_too(call: Evaluate, parrot: Parrot, trained_run: Path) -> None:
    parrot.translations = ["Ein Hu@@ nd"] * 3
    ended = call(trained_run, "--src", "src", "--ref", "one", "two")
    assert ended.err.startswith("warning: 3 of 3 lines of the translation have '@@'")


def test_missing_references_are_counted(call: Evaluate) -> None:
    Path("two").write_text("\n\nDrei Katzen schlafen im Park.\n")
    ended = call("--hyp", "hyp", "--ref", "one", "two", "--lang", "de")
    assert ended.err == "warning: 2 of 3 lines of two are empty: missing references, unless all are empty\n"
    assert "  nrefs:var|" in ended.out.splitlines()[-1]


def test_empty_lines_of_a_single_reference_are_counted_where_the_source_has_text(call: Evaluate) -> None:
    Path("one").write_text("\n\nDrei Katzen schlafen im Park.\n")
    wanted = "lines of one are empty: missing references, which scores what is translated there as wrong\n"
    assert call("--hyp", "hyp", "--ref", "one", "--lang", "de").err == f"warning: 2 of 3 {wanted}"
    Path("src").write_text("\nb\nc\n")
    ended = call("--hyp", "hyp", "--src", "src", "--ref", "one", "--lang", "de")
    assert ended.err == f"warning: 1 of 3 {wanted}"


def test_references_in_pieces_and_swapped_files_are_said(call: Evaluate, parrot: Parrot, trained_run: Path) -> None:
    Path("x.en").write_text("▁a\n▁b\n▁c\n")
    ended = call(trained_run, "--src", "src", "--ref", "x.en")
    of_name, of_pieces = ended.err.splitlines()
    assert of_name.startswith("warning: --ref x.en is in 'en' by its name, but the run translates 'en' into 'de'")
    assert of_pieces.startswith("warning: 3 of 3 lines of x.en have '▁'")
    assert len(parrot.asked) == 1


def test_a_source_that_is_its_reference_is_said(call: Evaluate, parrot: Parrot, trained_run: Path) -> None:
    shutil.copy("one", "copy")
    ended = call(trained_run, "--src", "copy", "--ref", "two", "one")
    assert ended.err == "warning: every line of one is equal to that of the source: is it the right file?\n"
    assert len(parrot.asked) == 1


def test_a_file_name_cannot_write_to_the_terminal(call: Evaluate) -> None:
    Path("\x1b[2J").write_text("▁a\n▁b\n▁c\n")
    assert "\x1b" not in call("--hyp", "hyp", "--ref", "\x1b[2J", "--lang", "de").err


# Wrong arguments


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ((), "give RUN, which translates, or --hyp FILE, an existing translation"),
        (("--src", "src", "--ref", "one"), "give RUN, which translates, or --hyp FILE"),
        (("--hyp", "hyp"), "--hyp needs its references: --ref FILE, or RUN for those of its corpus"),
        (("--hyp", "hyp", "--split", "test"), "--hyp needs its references"),
        (("--hyp", "hyp", "--ref", "one", "--compound-split"), "--compound-split tokenises by language: give RUN or"),
        (("--hyp", "hyp", "--ref", "one", "--precision", "fp32"), "--precision is of a translation by RUN"),
        (("--hyp", "hyp", "--ref", "one", "--tokenize", "none", "--compound-split"), "--compound-split tokenises raw"),
        (("--hyp", "empty", "--ref", "empty"), "empty: there is nothing to score: the references are empty"),
    ],
)
def test_arguments_that_do_not_go_together_are_one_line(
    call: Evaluate, arguments: tuple[str, ...], pattern: str
) -> None:
    Path("empty").touch()
    ended = call(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.splitlines()[-1].startswith(f"error: {pattern}")


def test_a_missing_tokenizer_of_moses_is_found_before_the_work(
    call: Evaluate, parrot: Parrot, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    ended = call(trained_run, "--src", "src", "--ref", "one", "--compound-split")
    assert ended.err == "error: compound-split BLEU needs Moses' tokenizer: pip install sacremoses\n"
    assert parrot.asked == []


def test_how_a_run_translated_is_named_in_text_json_and_page(call: Evaluate, trained_run: Path) -> None:
    words = [trained_run, "--src", "src", "--ref", "one", "--beam", 1]
    words += ["--no-repeat-ngram", 3, "--max-source-length", 97]
    words += ["--precision", "bf16"]
    wanted = "beam 1, alpha 0.6, max_length_offset 7, no_repeat_ngram 3, max_source_length 97, precision bfloat16"
    assert call(*words, "--html", "page.html").out.splitlines()[0].endswith(wanted)
    assert wanted in Path("page.html").read_text()
    report = json.loads(call(*words, "--json").out)
    assert (report["no_repeat_ngram"], report["max_source_length"], report["precision"]) == (3, 97, "bfloat16")
    header, *_ = call(*words[:-1], "fp32").out.splitlines()
    assert header.endswith(wanted.removesuffix(", precision bfloat16"))

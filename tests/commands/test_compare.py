"""Systems are compared with sacreBLEU's numbers, files and runs alike, and mistakes are found before the work."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest

from transformer.cli import run
from transformer.commands import compare
from transformer.config import SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.inference.significance import paired_bootstrap, paired_randomization
from transformer.inference.translator import Translator
from transformer.model.transformer import Transformer

NUM_SENTENCES, SAMPLES = 113, 37
SOURCES, REFERENCES = (list(side) for side in zip(*builtin_pairs("test", NUM_SENTENCES), strict=True))


def spoiled(every: int) -> list[str]:
    """The references without the last word of each `every`-th."""
    return [line.rpartition(" ")[0] if i % every == 0 else line for i, line in enumerate(REFERENCES)]


TEXTS = {
    "src": SOURCES,
    "ref": REFERENCES,
    "ref2": spoiled(11),
    "A": spoiled(2),
    "B": spoiled(3),
    "C": [line.upper() for line in REFERENCES],
    "B2": spoiled(3),
}


class Ended(NamedTuple):
    status: object
    out: str
    err: str


Compare = Callable[..., Ended]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Run the command in a directory with the texts above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    for name, lines in TEXTS.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(lambda: compare.main([str(argument) for argument in arguments]))
        out, err = capfd.readouterr()
        # Progress is shown on slow machines only.
        return Ended(ended.value.code, out, re.sub(r"^(checkpoint|resampling): .*\n", "", err, flags=re.MULTILINE))

    return call


@pytest.mark.parametrize(
    ("test", "function"), [("bootstrap", paired_bootstrap), ("randomization", paired_randomization)]
)
def test_numbers_are_those_of_the_paired_test(call: Compare, test: str, function: Callable[..., Any]) -> None:
    metrics = ("bleu", "chrf", "ter")
    options = ("--ref", "ref", "--ref", "ref2", "--lang", "de", "--test", test, "--samples", SAMPLES)
    ended = call("A", "B", "C", *options, "--lowercase", "--json", "--metrics", *metrics)
    assert (ended.status, ended.err) == (0, "")
    report = json.loads(ended.out)
    systems = {name: TEXTS[name] for name in "ABC"}
    references = [REFERENCES, TEXTS["ref2"]]
    found = function(systems, references, metrics=metrics, lowercase=True, num_samples=SAMPLES)
    for metric, one in found.items():
        assert report["signatures"][metric] == one.signature
        for mine, row in zip(one.systems, report["systems"], strict=True):
            values = {"score": mine.score, "mean": mine.mean, "ci": mine.ci}
            tested = {} if mine.system == "A" else {"difference": mine.difference, "p": mine.p}
            assert row[metric] == values | tested
    assert [row["name"] for row in report["systems"]] == ["A", "B", "C"]
    assert report["baseline"] == "A"
    assert (report["test"], report["samples"], report["seed"]) == (test, SAMPLES, "12345")
    assert (report["sentences"], report["references"]) == (NUM_SENTENCES, 2)


def test_the_table_says_who_wins(call: Compare) -> None:
    ended = call("A", "B", "--ref", "ref", "--lang", "de", "--samples", 499)
    assert (ended.status, ended.err) == (0, "")
    blocks = [block.splitlines() for block in ended.out.split("\n\n")]
    assert blocks[0] == [
        "ref: 113 sentences; baseline: A",
        "paired bootstrap resampling (Koehn 2004), 499 resamples; seed 12345",
    ]
    for block, name in zip(blocks[1:3], ("BLEU", "chrF2"), strict=True):
        assert block[0].startswith(f"{name}  nrefs:1|bs:499|seed:12345|")
        assert re.split(r"\s{2,}", block[1]) == ["system", "score", "mean ± 95 % CI", "difference", "p"]
        assert re.fullmatch(r"A +\d\d\.\d\d +\d\d\.\d\d ± \d\.\d\d", block[2])
        assert re.fullmatch(r"B +\d\d\.\d\d +\d\d\.\d\d ± \d\.\d\d +\+\d\.\d\d +0\.\d{4}  \*", block[3])
    better = sum(i % 2 == 0 and i % 3 != 0 for i in range(NUM_SENTENCES))
    worse = sum(i % 2 != 0 and i % 3 == 0 for i in range(NUM_SENTENCES))
    rows = [re.split(r"\s{2,}", line) for line in blocks[3]]
    equal = NUM_SENTENCES - better - worse
    assert rows == [["sentences by chrF2", "better", "equal", "worse"], ["B", str(better), str(equal), str(worse)]]
    assert blocks[4] == ["* p < 0.05"]


def test_equal_systems_are_said_and_have_p_1(call: Compare) -> None:
    for test in ("bootstrap", "randomization"):
        ended = call("B", "B2", "--ref", "ref", "--lang", "de", "--samples", SAMPLES, "--test", test, "--json")
        assert ended.err == "warning: B2 and B are equal in every line\n"
        row = json.loads(ended.out)["systems"][1]
        assert [row[metric]["p"] for metric in ("bleu", "chrf")] == [1, 1]
        assert (row["better"], row["equal"], row["worse"]) == (0, NUM_SENTENCES, 0)


@pytest.mark.parametrize(("second", "p"), [("b", 1), ("a", 1)])
def test_a_single_sentence_tells_nothing(call: Compare, second: str, p: float) -> None:
    for name, text in {"x": "a b", "y": second, "r": "a"}.items():
        Path(name).write_text(f"{text}\n")
    ended = call("x", "y", "--ref", "r", "--lang", "de", "--json")
    assert ended.status == 0
    assert "warning: 1 sentences are few: intervals and p-values of less than 100 are rough\n" in ended.err
    assert [json.loads(ended.out)["systems"][1][metric]["p"] for metric in ("bleu", "chrf")] == [p, p]


def test_empty_lines_count_as_sentences(call: Compare) -> None:
    Path("empty").write_text("\n" * NUM_SENTENCES)
    ended = call("A", "empty", "--ref", "ref", "--lang", "de", "--json", "--samples", SAMPLES)
    assert ended.err == "warning: every line of empty is empty\n"
    row = json.loads(ended.out)["systems"][1]
    assert row["bleu"]["score"] == 0
    assert row["worse"] == NUM_SENTENCES


def test_the_tokenizer_is_that_of_the_language(call: Compare) -> None:
    for lang, tokenizer in (("zh", "zh"), ("de", "13a")):
        report = json.loads(call("A", "B", "--ref", "ref", "--lang", lang, "--json", "--samples", 3).out)
        assert f"|tok:{tokenizer}|" in report["signatures"]["bleu"]
    ended = call("A", "B", "--ref", "ref", "--json", "--samples", 3)
    assert ended.err.startswith("warning: the language is not known without RUN or --lang")


def test_systems_have_names(call: Compare) -> None:
    ended = call("A", "B", "--ref", "ref", "--lang", "de", "--name", "old", "--name", "new", "--samples", 3, "--json")
    report = json.loads(ended.out)
    assert [(row["name"], row["hypotheses"]) for row in report["systems"]] == [("old", "A"), ("new", "B")]


def test_a_file_name_cannot_write_to_the_terminal(call: Compare) -> None:
    Path("\x1b[2J").write_text(Path("A").read_text())
    ended = call("\x1b[2J", "B", "--ref", "ref", "--lang", "de", "--samples", 3)
    assert ended.status == 0
    assert "\x1b" not in ended.out + ended.err
    assert "baseline: \\x1b[2J\n" in ended.out


# Runs


class Parrot:
    """Stands in for a translator."""

    search = SearchConfig(beam=3)
    tag, tags = None, ()
    origin = "parrot"
    source_reader = Mock()
    model = Transformer(7, d_model=6, num_layers=1, num_heads=2, d_ff=5)  # float32

    def __init__(self, translations: Sequence[str]) -> None:
        self.members, self.origin = (self,), None
        self.translations = list(translations)
        self.asked: list[Sequence[str]] = []

    def translate(self, sources: Sequence[str]) -> list[str]:
        self.asked.append(sources)
        return self.translations


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    parrot = Parrot(TEXTS["A"])
    monkeypatch.setattr(Translator, "load", lambda *_, **__: parrot)
    return parrot


def test_a_run_translates_the_texts_that_are_given(call: Compare, parrot: Parrot, trained_run: Path) -> None:
    ended = call("B", trained_run, "--src", "src", "--ref", "ref", "--samples", SAMPLES, "--json")
    assert (ended.status, ended.err) == (0, "")
    assert parrot.asked == [SOURCES]
    report = json.loads(ended.out)
    from_files = json.loads(call("B", "A", "--ref", "ref", "--lang", "de", "--samples", SAMPLES, "--json").out)
    assert [row["bleu"] for row in report["systems"]] == [row["bleu"] for row in from_files["systems"]]
    assert report["systems"][1]["beam"] == 3
    assert Path(report["systems"][1]["checkpoint"]).is_dir()


def test_checkpoints_of_a_run_are_compared_on_its_test_split(call: Compare, trained_run: Path) -> None:
    checkpoints = sorted((trained_run / "checkpoints").iterdir())[-2:]
    ended = call(
        *checkpoints, "--beam", 1, "--precision", "fp32", "--samples", SAMPLES, "--name", "first", "--name", "last"
    )
    assert ended.status == 0
    lines = ended.out.splitlines()
    assert lines[0].endswith(": 53 sentences; baseline: first")
    for line, name, checkpoint in zip(lines[2:4], ("first", "last"), checkpoints, strict=True):
        assert line == f"{name}: {checkpoint}, beam 1, alpha 0.6, max_length_offset 7"


def test_how_a_run_translated_is_named_in_text_json_and_page(call: Compare, trained_run: Path) -> None:
    words = [trained_run, "A", "--src", "src", "--ref", "ref", "--samples", SAMPLES]
    words += ["--beam", 1, "--max-length", 5, "--length-penalty", "power", "--too-long", "truncate"]
    words += ["--precision", "bf16"]
    wanted = "beam 1, alpha 0.6, length_penalty power, max_length_offset 7, max_length 5, too_long truncate, "
    wanted += "precision bfloat16"
    assert call(*words, "--html", "page.html").out.splitlines()[2].endswith(wanted)
    assert wanted in Path("page.html").read_text()
    row = json.loads(call(*words, "--json").out)["systems"][0]
    assert (row["length_penalty"], row["max_length"], row["too_long"]) == ("power", 5, "truncate")
    assert row["precision"] == "bfloat16"


def test_a_run_equals_its_own_output(call: Compare, trained_run: Path) -> None:
    from transformer.commands import evaluate

    with pytest.raises(SystemExit):
        run(lambda: evaluate.main([str(trained_run), "--beam", "1", "--output", "hyp"]))
    ended = call(trained_run, "hyp", "--beam", 1, "--samples", 3, "--json")
    assert f"warning: hyp and {trained_run} are equal in every line\n" in ended.err
    first, second = json.loads(ended.out)["systems"]
    assert first["bleu"].items() <= second["bleu"].items()


@pytest.mark.usefixtures("parrot")
def test_runs_of_other_languages_are_said(call: Compare, trained_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(max((trained_run / "checkpoints").iterdir()), other, ignore=lambda *_: ["SHA256SUMS"])
    lines = (other / "config.yaml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("  tgt_lang:")]
    kept.insert(kept.index("data:") + 1, "  tgt_lang: fr")
    (other / "config.yaml").write_text("\n".join([*kept, ""]))
    ended = call(trained_run, other, "--src", "src", "--ref", "ref", "--samples", 3)
    assert f"warning: {other} translates en-fr, and {trained_run} en-de: the texts are in its languages\n" in ended.err


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("A",), "A alone cannot be compared: give a baseline and another system"),
        (("A", "B"), "translations need their references: --ref FILE, or a RUN among the systems"),
        (("A", "B", "--split", "test"), "translations need their references"),
        (("A", "A", "--ref", "ref"), "A is the same system as A: give each once"),
        (("A", "./A", "--ref", "ref"), "./A is the same system as A: give each once"),
        (("A", "link", "--ref", "ref"), "link is the same system as A"),
        (("A", "short", "--ref", "ref"), "the texts differ in length: ref has 113 lines, A has 113, short has 1"),
        (("A", "none", "--ref", "ref"), "none: "),
        (("A", "B", "--ref", "ref", "--ref", "ref"), "--ref ref is the same file as --ref ref"),
        (("A", "B", "--ref", "ref", "--split", "test"), "--split and --ref exclude each other"),
        (("A", "B", "--src", "src"), "--src and --ref go together"),
        (("A", "RUN", "--ref", "ref"), "--src and --ref go together where a run translates: "),
        (
            ("A", "no_such/B", "--ref", "ref"),
            "--src and --ref go together where a run translates: no_such/B is taken for one, as there is no such file",
        ),
        (("A", "RUN", "--lang", "de"), "--lang is for translations without RUN"),
        (("A", "B", "--ref", "ref", "--beam", "2"), "--beam is of a translation by RUN; with files only nothing"),
        (("A", "B", "--ref", "ref", "--name", "x"), "--name x: give 2 different names, one for each system"),
        (("A", "B", "--ref", "ref", "--name", "x", "--name", "x"), "--name x x: give 2 different names"),
        (("A", "RUN", "--ensemble", "RUN"), "--ensemble "),
        (
            ("A", "RUN", "--src", "src", "--ref", "ref", "--tag", "<2fr>"),
            "--tag <2fr>: is not one of the tags of ",
        ),
        (("A", "B", "--ref", "ref", "--samples", "0"), "--samples 0 must be at least 1 and at most 1,000,000"),
        (("A", "B", "--ref", "ref", "--examples", "3"), "--examples goes with --html"),
        (("A", "B", "--ref", "ref", "--length-step", "3"), "--length-step goes with --html"),
        (("A", "B", "--ref", "ref", "--html", "x", "--examples", "1001"), "--examples 1001 must be at least 1"),
        (("A", "B", "--ref", "ref", "--lang", "de", "--html", "linked"), "linked: is the same file as the input A"),
        (("A", "B", "--ref", "ref", "--lang", "de", "--html", "no/x"), "no/x: "),
        (("e", "f", "--ref", "g"), "g: there is nothing to score: the references are empty"),
    ],
)
def test_mistakes_are_one_line(
    call: Compare, trained_run: Path, parrot: Parrot, arguments: tuple[str, ...], pattern: str
) -> None:
    Path("short").write_text("x\n")
    Path("link").symlink_to("A")
    Path("linked").hardlink_to("A")
    for name in "efg":
        Path(name).touch()
    ended = call(*(trained_run if word == "RUN" else word for word in arguments))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.splitlines()[-1].startswith(f"error: {pattern}")
    assert parrot.asked == []


def test_a_bad_seed_is_found_before_the_work(call: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "x")
    ended = call("A", "B", "--ref", "ref", "--lang", "de")
    assert ended.err == (
        "error: SACREBLEU_SEED='x' must be a positive whole number, or none for other numbers each time\n"
    )


def test_resampling_can_be_interrupted(call: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "paired_bootstrap", interrupt)
    ended = call("A", "B", "--ref", "ref", "--lang", "de", "--html", "x.html")
    assert (ended.status, ended.out, ended.err) == (130, "", "interrupted\n")
    assert not Path("x.html").exists()


def test_the_page_has_the_numbers_of_the_table(call: Compare) -> None:
    ended = call("A", "B", "--ref", "ref", "--src", "src", "--lang", "de", "--samples", 499, "--html", "x.html")
    page = Path("x.html").read_text(encoding="utf-8")
    numbers = re.findall(r"[+-]?\d+\.\d\d+", re.sub(r"version:\S+", "", ended.out))
    assert len(numbers) > 10
    for number in numbers:
        if number != "0.05":
            assert number.replace("-", "−") in page
    assert page.count("<article ") <= 100
    assert "source words" in page

"""Evaluation says at which lengths and in which sentences a translation is bad."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from transformer.cli import run
from transformer.commands import evaluate
from transformer.commands.error_analysis import printable
from transformer.inference.scoring import Scorer
from transformer.inference.sentence_scores import sentence_scores

SOURCES = ["a b", "a b c", "a b c d e f g", "", "a b c d", "a b c d e f g h"]
HYPOTHESES = [
    "ein Hund",
    "eine kleine Katze",
    "uff uff uff uff uff uff",
    "",
    "a b c d",
    "im Park schlafen heute drei kleine Katzen",
]
FIRST = ["ein Hund", "eine Katze", "sieben ganz verschiedene Wörter", "", "Der Hund.", "Im Park schlafen drei Katzen"]
SECOND = ["der Hund", "die Katze", "noch einmal sieben Wörter", "", "Hunde.", "drei Katzen schlafen im Park"]


class Ended(NamedTuple):
    status: object
    out: str
    err: str


Evaluate = Callable[..., Ended]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Score the texts above, in a directory of their own."""
    monkeypatch.chdir(tmp_path)
    for name, lines in {"src": SOURCES, "hyp": HYPOTHESES, "one": FIRST, "two": SECOND}.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def call(*arguments: object, src: bool = True) -> Ended:
        capfd.readouterr()
        texts = ("--hyp", "hyp", "--ref", "one", "--lang", "de", *(("--src", "src") if src else ()))
        with pytest.raises(SystemExit) as ended:
            run(lambda: evaluate.main([str(argument) for argument in (*texts, *arguments)]))
        return Ended(ended.value.code, *capfd.readouterr())

    return call


def bleu(lines: list[int], *references: list[str]) -> float:
    hypotheses = [HYPOTHESES[i] for i in lines]
    found = Scorer("13a", ("bleu",)).score(hypotheses, [[side[i] for i in lines] for side in references])
    return round(found["bleu"].score, 2)


def test_buckets_of_length_are_scored_as_corpora(call: Evaluate) -> None:
    ended = call("--by-length", "--length-step", 3)
    assert (ended.status, ended.err) == (0, "")
    rows = [re.split(r"\s{2,}", line) for line in ended.out.split("\n\n")[0].splitlines()[1:]]
    assert rows[0] == ["source words", "sentences", "BLEU", "chrF2", "length ratio"]
    assert [row[:2] for row in rows[1:]] == [["0", "1"], ["1-3", "2"], ["4-6", "1"], ["7-9", "2"]]
    assert [row[2] for row in rows[1:]] == [f"{bleu(chosen, FIRST):.2f}" for chosen in ([3], [0, 1], [4], [2, 5])]
    assert rows[2][4] == "1.250"
    assert ended.out.splitlines()[-1].startswith("BLEU = ")

    report = json.loads(call("--by-length", "--length-step", 3, "--ref", "two", "--json").out)
    assert report["by_length"]["unit"] == "source words"
    buckets = report["by_length"]["buckets"]
    assert [bucket["bleu"] for bucket in buckets[1:]] == [bleu(i, FIRST, SECOND) for i in ([0, 1], [4], [2, 5])]
    assert {key: buckets[-1][key] for key in ("length", "low", "high", "sentences")} == {
        "length": "7-9",
        "low": 7,
        "high": 9,
        "sentences": 2,
    }


def test_analysis_leaves_the_scores_as_they_are(call: Evaluate) -> None:
    plain, more = call("--json"), call("--json", "--by-length", "--worst", 2)
    assert json.loads(plain.out).items() <= json.loads(more.out).items()
    lines, plain_lines = call("--by-length", "--worst", 2).out.splitlines(), call().out.splitlines()
    assert [lines[0], *lines[-3:]] == plain_lines


def test_without_sources_the_reference_is_measured(call: Evaluate) -> None:
    report = json.loads(call("--by-length", "--worst", 6, "--json", src=False).out)
    assert report["by_length"]["unit"] == "reference words"
    assert [bucket["length"] for bucket in report["by_length"]["buckets"]] == ["0", "1-10"]
    assert all("source" not in record for record in report["worst"])
    assert "copy" not in report["suspicious"]


def test_only_metrics_that_are_asked_for_are_in_the_table(call: Evaluate) -> None:
    header = call("--by-length", "--metrics", "ter").out.splitlines()[1]
    assert re.split(r"\s{2,}", header) == ["source words", "sentences", "TER"]


@pytest.mark.parametrize("metric", ["chrf", "bleu"])
def test_the_worst_sentences_are_those_of_the_lowest_scores(call: Evaluate, metric: str) -> None:
    report = json.loads(call("--worst", 3, "--worst-by", metric, "--json").out)
    scores = sentence_scores(HYPOTHESES, [FIRST], metric)
    order = sorted(range(6), key=lambda i: scores[i])[:3]
    assert [record["number"] - 1 for record in report["worst"]] == order
    assert report["worst_by"] == metric
    for record in report["worst"]:
        i = record["number"] - 1
        texts = (record["source"], record["hypothesis"], record["references"])
        assert texts == (SOURCES[i], HYPOTHESES[i], [FIRST[i]])
        assert record["score"] == round(scores[i], 2)
    assert report["suspicious"] == {"repetition": [3], "copy": [5]}


def test_worst_sentences_are_printed_with_their_texts(call: Evaluate) -> None:
    out = call("--worst", 1, "--ref", "two").out
    assert "suspicious translations: 2 of 6\n  repetition (" in out
    assert ", unlike in source and reference): 1, line 3\n" in out
    assert (
        "worst sentences by chrF2 of the sentence:\n"
        "line 3: 0.00  repetition\n"
        "  source       a b c d e f g\n"
        "  translation  uff uff uff uff uff uff\n"
        "  reference    sieben ganz verschiedene Wörter\n"
        "  reference    noch einmal sieben Wörter\n\n"
    ) in out


def test_sentences_cannot_write_to_the_terminal() -> None:
    assert printable("a\x1b[2J\u202eb\u2028\x85") == r"a\x1b[2J\u202eb\u2028\x85"
    kept = "می\u200cخواهم 👩\u200d🔬\u3000猫\xa0é"
    assert printable(kept) == kept


def test_a_figure_is_drawn(call: Evaluate) -> None:
    pytest.importorskip("matplotlib")
    for name in ("x.png", "x.svg", "x.pdf"):
        assert call("--by-length", "--plot", name).status == 0
        assert Path(name).stat().st_size > 1000
    call("--by-length", "--plot", "y.svg")
    assert Path("x.svg").read_bytes() == Path("y.svg").read_bytes()


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("--plot", "x.png"), "--plot goes with --by-length"),
        (("--length-step", 3), "--length-step goes with --by-length or --html"),
        (("--by-length", "--length-step", 0), "--length-step 0 must be at least 1"),
        (("--worst-by", "chrf"), "--worst-by goes with --worst"),
        (("--html", "x", "--worst-by", "bleu"), "--worst-by goes with --worst"),
        (("--worst", 0), "--worst 0 must be at least 1 and at most 1,000"),
        (("--worst", 1001), "--worst 1001 must be at least 1 and at most 1,000"),
        (("--by-length", "--plot", "x"), "x: its suffix must say what kind of file, such as .png, .svg or .pdf"),
        (("--by-length", "--plot", "x.doc"), "x.doc: its suffix must say what kind of file"),
        (("--by-length", "--plot", "src.png"), "src.png: is the same file as the input src"),
        (("--html", "hyp.png"), "hyp.png: is the same file as the input hyp"),
        (("--by-length", "--plot", "x.png", "--html", "./x.png"), "--plot and --html are the same file, x.png"),
        (("--by-length", "--plot", "hyp.png"), "hyp.png: is the same file as the input hyp"),
    ],
)
def test_wrong_options_are_one_line(call: Evaluate, options: tuple[object, ...], pattern: str) -> None:
    pytest.importorskip("matplotlib")
    for name in ("src", "hyp"):
        Path(f"{name}.png").symlink_to(name)
    ended = call(*options)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {pattern}")
    assert Path("src").read_text().splitlines() == SOURCES


@pytest.mark.usefixtures("call")
def test_outputs_are_different_files(trained_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    texts = [trained_run, "--src", "src", "--ref", "one", "--by-length", "--plot", "x.png", "--output", "./x.png"]
    with pytest.raises(SystemExit):
        run(lambda: evaluate.main(list(map(str, texts))))
    assert "error: --output and --plot are the same file, x.png\n" in capfd.readouterr().err


def test_a_page_has_the_worst_sentences_and_the_scores(call: Evaluate) -> None:
    ended = call("--html", "x.html", "--worst", 2, "--length-step", 3)
    assert (ended.status, ended.err) == (0, "")
    page = Path("x.html").read_text(encoding="utf-8")
    printed = re.findall(r"^line (\d+): ", ended.out, re.MULTILINE)
    assert re.findall(r'data-line="(\d+)"', page) == printed
    for name in ("BLEU", "chrF2"):
        (score,) = re.findall(rf"^{name} = (\S+)  ", ended.out, re.MULTILINE)
        assert f"<td>{score}</td>" in page
    assert "Intervals: 1,000 bootstrap resamples; seed " in page
    assert "repetition" in page
    call("--html", "y.html")
    assert Path("y.html").read_text(encoding="utf-8").count("<article ") == 6


def test_a_bad_seed_is_found_before_the_work(call: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "x")
    assert call("--html", "x.html").err.startswith("error: SACREBLEU_SEED='x' must be a positive whole number")


def test_a_missing_matplotlib_is_found_before_the_work(call: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ended = call("--by-length", "--plot", "x.png")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "error: a figure needs matplotlib: pip install matplotlib\n"


def test_one_system_has_one_line_in_each_panel() -> None:
    pytest.importorskip("matplotlib")
    from transformer.inference.by_length import score_by_length
    from transformer.inspection.length_chart import draw_by_length

    scorer: Any = Scorer("13a", ("bleu", "ter"))
    buckets = score_by_length(scorer, HYPOTHESES, [FIRST], [1, 2, 9, 9, 31, 32], 5)
    *panels, counts = draw_by_length({"A": buckets, "B": buckets}, "source words").axes
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels] == [
        ("source words", "BLEU"),
        ("source words", "TER"),
    ]
    assert [len(axes.lines) for axes in panels] == [2, 2]
    assert [round(bar.get_height()) for bar in counts.patches] == [bucket.sentences for bucket in buckets]
    drawn = list(panels[0].lines[0].get_ydata())
    assert [round(y, 6) if y == y else None for y in drawn] == [
        round(bucket.scores["bleu"].score, 6) if bucket.scores else None for bucket in buckets
    ]

"""The score command: pairs, n-best lists and alignments, as text and JSON, resumed, and refused."""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from transformer.commands import score, translate
from transformer.config import SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError, DataError
from transformer.inference import score_lines
from transformer.inference.alignment import word_alignment
from transformer.inference.forced import score_translations
from transformer.inference.translator import Translator
from transformer.training.run_directory import find_checkpoint

PAIRS = list(builtin_pairs("test", 5))
SOURCES, TARGETS = [pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS]
Run = Callable[..., tuple[list[str], list[str]]]


@pytest.fixture(scope="module")
def translator(trained_run: Path) -> Translator:
    return Translator.load(trained_run)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, Path, str, Path]:
    """The options that name the two sides."""
    for name, lines in (("src", SOURCES), ("tgt", TARGETS)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return "--src", tmp_path / "src", "--tgt", tmp_path / "tgt"


@pytest.fixture
def run(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command; returns the lines of standard output and error."""

    def call(*arguments: object) -> tuple[list[str], list[str]]:
        capsys.readouterr()
        assert score.main([str(trained_run), *map(str, arguments)]) == 0
        out, err = capsys.readouterr()
        return out.split("\n")[:-1], [line for line in err.splitlines() if not line.startswith("checkpoint: ")]

    return call


# Pairs


def test_each_pair_has_a_line_and_all_a_summary(run: Run, files: Any, trained_run: Path) -> None:
    out, err = run(*files, "--precision", "bf16")
    scores = score_translations(Translator.load(trained_run, precision="bf16"), SOURCES, TARGETS)
    for line, found in zip(out, scores, strict=True):
        log_prob, ranked, perplexity, pieces = line.split("\t")
        assert (float(log_prob), float(ranked), int(pieces)) == (
            pytest.approx(found.log_prob, abs=1e-3),
            pytest.approx(found.score, abs=1e-3),
            len(found.ids),
        )
        assert float(perplexity) == pytest.approx(found.perplexity, rel=1e-4)
    total, pieces = sum(x.log_prob for x in scores), sum(len(x.ids) for x in scores)
    words = sum(len(target.split()) + 1 for target in TARGETS)
    assert err == [
        f"5 pairs: log P {total:.2f}, perplexity {math.exp(-total / pieces):.4f} per piece ({pieces}), "
        f"{math.exp(-total / words):.4f} per word ({words}), precision bfloat16"
    ]
    _, err = run(*files, "--precision", "fp32")
    assert err[0].endswith(f" per word ({words})")
    for name, beside in (("bf16", {"precision": "bfloat16"}), ("fp32", {})):
        (line,), _ = run(*files, "--precision", name, "--summary", "--json")
        assert beside == {key: value for key, value in json.loads(line).items() if key == "precision"}


def test_one_pair_is_no_pairs(run: Run, tmp_path: Path) -> None:
    for name in ("src", "tgt"):
        (tmp_path / name).write_text("A man.\n")
    assert run("--src", tmp_path / "src", "--tgt", tmp_path / "tgt")[1][0].startswith("1 pair: log P ")


def test_json_has_the_same_for_programs(run: Run, files: Any, translator: Translator) -> None:
    out, _ = run(*files, "--json", "--tokens")
    scores = score_translations(translator, SOURCES, TARGETS, with_ranks=True)
    for number, (line, found) in enumerate(zip(out, scores, strict=True), start=1):
        record = json.loads(line)
        assert (record["line"], record["pieces"], record["unknown"]) == (number, len(found.ids), 0)
        assert record["log_prob"] == pytest.approx(found.log_prob, abs=1e-4)
        words = len(TARGETS[number - 1].split()) + 1
        assert record["words"] == words
        assert record["perplexity_per_word"] == pytest.approx(math.exp(-found.log_prob / words), rel=1e-4)
        assert [token["rank"] for token in record["tokens"]] == found.ranks
        assert [token["piece"] for token in record["tokens"]] == translator.tokenizer.pieces(found.ids)
        assert sum(token["log_prob"] for token in record["tokens"]) == pytest.approx(record["log_prob"], abs=1e-5)


def test_tokens_are_rows_with_the_number_of_their_pair(run: Run, files: Any) -> None:
    rows = [line.split("\t") for line in run(*files, "--tokens")[0]]
    out, _ = run(*files)
    for number, line in enumerate(out, start=1):
        of_pair = [row for row in rows if int(row[0]) == number]
        assert len(of_pair) == int(line.split("\t")[3])
        assert of_pair[-1][1] == "</s>"
        assert sum(float(row[2]) for row in of_pair) == pytest.approx(float(line.split("\t")[0]), abs=0.01)


def test_the_summary_alone_is_the_output(run: Run, files: Any) -> None:
    (line,), err = run(*files, "--summary")
    assert (line, err) == (run(*files)[1][0], [])
    (line,), err = run(*files, "--summary", "--json")
    record = json.loads(line)
    assert (record["lines"], record["scored"], err) == (5, 5, [])
    assert record["perplexity"] == pytest.approx(math.exp(-record["log_prob"] / record["pieces"]))


def test_in_reverse_the_source_is_scored_given_the_target(run: Run, files: Any) -> None:
    _, src, _, tgt = files
    assert run(*files, "--reverse") == run("--src", tgt, "--tgt", src)


def test_what_is_not_scored_is_said_and_has_no_numbers(run: Run, tmp_path: Path) -> None:
    (tmp_path / "src").write_text("\n\nA man.\nA man.\n")
    (tmp_path / "tgt").write_text("\nEin Mann.\n\nEin 漢 Mann.\n", encoding="utf-8")
    files = ("--src", tmp_path / "src", "--tgt", tmp_path / "tgt")
    out, err = run(*files)
    assert out[:2] == ["0.0000\t0.0000\tnan\t0", "-inf\t-inf\tnan\t0"]
    assert err[:2] == [
        "1 pair with nothing to translate is not scored: a model gives an empty line for an empty one: 2",
        "1 pair with unknown characters in the translation is scored by the piece for all of them: 4",
    ]
    assert err[2].startswith("2 of 4 pairs: log P ")
    records = [json.loads(line) for line in run(*files, "--json")[0]]
    assert [record["log_prob"] is None for record in records] == [False, True, False, False]
    assert [record["unknown"] for record in records] == [0, 0, 0, 1]
    assert [record["perplexity"] is None for record in records] == [True, True, False, False]


def test_no_lines_have_no_scores(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    out, err = run("--src", tmp_path / "empty", "--tgt", tmp_path / "empty", "--precision", "fp32")
    assert (out, err) == ([], ["0 pairs: log P 0.00, perplexity nan per piece (0), nan per word (0)"])


def test_one_side_may_be_standard_input(run: Run, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(*files)
    for side in (1, 3):
        arguments = [*files]
        text = arguments[side].read_bytes()
        arguments[side] = "-"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert run(*arguments) == expected
    with pytest.raises(ConfigError, match="only one of the inputs"):
        run("--src", "-", "--tgt", "-")


def test_pairs_that_do_not_fit_are_an_error_before_the_work(run: Run, files: Any) -> None:
    _, src, _, tgt = files
    with src.open("a") as file:
        file.write("A man.\n")
    with pytest.raises(DataError, match=r"differ in length: .*src has 6 lines, .*tgt has 5$"):
        run(*files)
    with tgt.open("a") as file:
        file.write("ein Hund " * 2000)
    with pytest.raises(DataError, match=r"^target 6 has \d+ pieces, more than the limit of 1031: .* --too-long skip$"):
        run(*files)
    out, err = run(*files, "--too-long", "skip")
    assert out[5].startswith("-inf\t")
    assert err[0] == "1 pair beyond the limit is not scored: 6"
    with pytest.raises(DataError, match=r"^source 1 has \d+ pieces, more than the limit of 7"):
        run(*files, "--max-source-length", 7)


# Outputs


@pytest.mark.parametrize("options", [(), ("--json", "--tokens"), ("--align",)], ids=str)
def test_an_interrupted_output_is_resumed_as_if_never_stopped(
    run: Run, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(score, "_ITEMS_AT_A_TIME", 2)
    expected, _ = run(*files, *options)
    work = score_lines.WordLinks if "--align" in options else score_lines.PairLines
    lines, calls = work.lines, []

    def stop(self: Any, items: Any, number: int) -> str:
        calls.append(number)
        if number == 3 and len(calls) == 2:
            raise KeyboardInterrupt
        return lines(self, items, number)

    monkeypatch.setattr(work, "lines", stop)
    with pytest.raises(KeyboardInterrupt):
        run(*files, *options, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="was made with"):
        run(*files, *options, "--reverse", "--output", tmp_path / "out")
    _, err = run(*files, *options, "--output", tmp_path / "out")
    assert "going on after line 2 of the input" in err[0]
    assert "--align" in options or err[1].startswith("3 pairs after line 2: ")
    assert calls == [1, 3, 3, 5]
    assert (tmp_path / "out").read_text(encoding="utf-8").split("\n")[:-1] == expected


@pytest.mark.parametrize("side", [1, 3])
def test_the_output_is_none_of_the_inputs(run: Run, files: Any, side: int) -> None:
    with pytest.raises(ConfigError, match="choose another"):
        run(*files, "--output", files[side])


def test_the_output_is_no_file_of_the_corpus(run: Run, files: Any, tiny_corpus: str) -> None:
    with pytest.raises(ConfigError, match="choose another"):
        run(*files, "--output", tiny_corpus.format(split="train", lang="de"))


# N-best lists


@pytest.fixture
def nbest(trained_run: Path, files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """What translate writes with scores, three lines per source."""
    capsys.readouterr()
    translate.main([str(trained_run), str(files[1]), "--nbest", "3", "--scores"])
    (tmp_path / "nbest").write_text(capsys.readouterr().out, encoding="utf-8")
    return tmp_path / "nbest"


def test_the_list_of_the_same_model_keeps_its_best(run: Run, files: Any, nbest: Path) -> None:
    given = nbest.read_text(encoding="utf-8").splitlines()
    out, err = run(*files[:2], "--nbest", nbest, "--nbest-size", 3)
    assert err == []
    assert [line.partition("\t")[2] for line in out] == [line.partition("\t")[2] for line in given]
    best, _ = run(*files[:2], "--nbest", nbest, "--nbest-size", 3, "--rerank")
    scores = [float(line.partition("\t")[0]) for line in out]
    for number, text in enumerate(best):
        group = scores[3 * number : 3 * number + 3]
        assert text == out[3 * number + group.index(max(group))].partition("\t")[2]


def test_a_list_in_moses_form_is_written_with_a_feature(run: Run, files: Any, tmp_path: Path) -> None:
    lines = [
        f"{i} ||| {text} ||| F0= -1 ||| -{k}.5" for i in (0, 3) for k, text in enumerate((TARGETS[i], "Ein Hund."))
    ]
    (tmp_path / "moses").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    out, err = run(*files[:2], "--nbest", tmp_path / "moses", "--weight", 0.5)
    assert err == ["3 sources have no candidate: 2, 3, 5"]
    for line, before in zip(out, lines, strict=True):
        id_, text, features, total = line.split(" ||| ")
        assert [id_, text] == before.split(" ||| ")[:2]
        new = float(features.split()[-1])
        assert float(total) == pytest.approx(float(before.split(" ||| ")[3]) + 0.5 * new, abs=1e-3)
    best, _ = run(*files[:2], "--nbest", tmp_path / "moses", "--rerank", "--weight", 1e-9)
    assert best == [TARGETS[0], "", "", TARGETS[3], ""]
    records = [json.loads(line) for line in run(*files[:2], "--nbest", tmp_path / "moses", "--json")[0]]
    assert [len(record["candidates"]) for record in records] == [2, 0, 0, 2, 0]
    assert records[3]["candidates"][0]["text"] == TARGETS[3]


def test_the_channel_scores_the_source_given_each_candidate(run: Run, files: Any, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("".join(f"{line}\n" for line in TARGETS), encoding="utf-8")
    out, _ = run(*files[:2], "--nbest", tmp_path / "list", "--nbest-size", 1, "--reverse")
    expected, _ = run(*files, "--reverse")
    assert [line.split("\t")[0] for line in out] == [line.split("\t")[1] for line in expected]


@pytest.mark.parametrize("scores", [(), ("--scores",)])
def test_the_list_of_a_line_that_was_copied_with_its_tab_is_read(
    run: Run, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: tuple[str, ...]
) -> None:
    (tmp_path / "src").write_text("睡\t睡\nA man is sleeping.\n", encoding="utf-8")
    translate.main([str(trained_run), str(tmp_path / "src"), "--nbest", "2", *scores])
    (tmp_path / "list").write_text(capsys.readouterr().out, encoding="utf-8")
    best, _ = run("--src", tmp_path / "src", "--nbest", tmp_path / "list", "--nbest-size", 2, "--rerank")
    assert best[0] == "睡\t睡"
    out, _ = run("--src", tmp_path / "src", "--nbest", tmp_path / "list", "--nbest-size", 2)
    (tmp_path / "list").write_text("".join(f"{line}\n" for line in out), encoding="utf-8")
    again, _ = run("--src", tmp_path / "src", "--nbest", tmp_path / "list", "--nbest-size", 2, "--rerank")
    assert again == best


def test_a_list_that_does_not_fit_is_an_error_before_the_work(run: Run, files: Any, nbest: Path) -> None:
    with pytest.raises(DataError, match=r"has 15 lines; with 2 for each of the 5 lines of .*src it would have 10$"):
        run(*files[:2], "--nbest", nbest, "--nbest-size", 2)
    (nbest.parent / "plain").write_text("Ein Hund.\n" * 5)
    with pytest.raises(DataError, match="the n-best list has no scores to add to"):
        run(*files[:2], "--nbest", nbest.parent / "plain", "--nbest-size", 1, "--weight", 1)


# Alignments


def test_alignments_are_in_pharaohs_format(run: Run, files: Any, translator: Translator) -> None:
    out, err = run(*files, "--align")
    expected = word_alignment(translator, SOURCES, TARGETS)
    assert out == [" ".join(f"{j}-{i}" for j, i in links) for links in expected]
    assert err == []
    records = [json.loads(line) for line in run(*files, "--align", "--json")[0]]
    assert [[tuple(link) for link in record["alignment"]] for record in records] == expected
    out, _ = run(*files, "--align", "--layer", 1, "--step", "reading")
    expected = word_alignment(translator, SOURCES, TARGETS, layer=1, step="reading")
    assert out == [" ".join(f"{j}-{i}" for j, i in links) for links in expected]


def test_in_reverse_alignments_are_still_from_source_to_target(run: Run, files: Any) -> None:
    _, src, _, tgt = files
    swapped, _ = run("--src", tgt, "--tgt", src, "--align")
    for line, other in zip(run(*files, "--align", "--reverse")[0], swapped, strict=True):
        assert {tuple(link.split("-")) for link in line.split()} == {
            tuple(link.split("-")[::-1]) for link in other.split()
        }


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), r"^give the translations: --tgt FILE or --nbest FILE$"),
        (("--nbest", "x", "--tgt", "y"), "^--nbest and --tgt exclude each other$"),
        (("--nbest", "x", "--tokens"), "^--nbest and --tokens exclude each other$"),
        (("--tgt", "x", "--align", "--summary"), "^--align and --summary exclude each other$"),
        (("--tgt", "x", "--align", "--alpha", "0"), "^--align and --alpha exclude each other$"),
        (("--tgt", "x", "--summary", "--output", "y"), "^--summary and --output exclude each other$"),
        (("--nbest", "x", "--rerank", "--json"), "^--rerank and --json exclude each other$"),
        (("--tgt", "x", "--rerank"), "^--rerank needs --nbest$"),
        (("--tgt", "x", "--weight", "1"), "^--weight needs --nbest$"),
        (("--tgt", "x", "--nbest-size", "1"), "^--nbest-size needs --nbest$"),
        (("--tgt", "x", "--layer", "1"), "^--layer needs --align$"),
        (("--tgt", "x", "--step", "reading"), "^--step needs --align$"),
        (("--nbest", "x", "--weight", "nan"), "^--weight nan must be a finite number above 0$"),
        (("--nbest", "x", "--nbest-size", "0"), "^--nbest-size 0 must be at least 1$"),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_once(options: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score.main(["absent run", "--src", "z", *options])


def test_a_missing_file_and_a_missing_layer_are_named(run: Run, files: Any) -> None:
    with pytest.raises(DataError, match=r"^absent: no such file$"):
        run("--src", "absent", "--tgt", "absent")
    with pytest.raises(ConfigError, match=r"^layer=3 must be a whole number between 1 and num_decoder_layers=2$"):
        run(*files, "--align", "--layer", 3)
    with pytest.raises(ConfigError, match="alpha"):
        run(*files, "--alpha", -1)


def test_an_exponent_without_a_penalty_is_refused(
    run: Run, files: Any, translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translator, "search", SearchConfig(length_penalty="none"))
    monkeypatch.setattr(Translator, "load", lambda *_, **__: translator)
    with pytest.raises(ConfigError, match=r"^--alpha 2\.0 has no effect: length_penalty is none$"):
        run(*files, "--alpha", 2)
    assert len(run(*files)[0]) == 5


@pytest.mark.parametrize("is_reverse", [False, True])
def test_a_tag_stands_before_what_the_model_reads(
    trained_run: Path, tmp_path: Path, files: Any, run: Run, is_reverse: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tagged = tmp_path / "tagged"
    shutil.copytree(find_checkpoint(trained_run), tagged)
    (tagged / "SHA256SUMS").unlink()
    config = yaml.safe_load((tagged / "config.yaml").read_text())
    config["data"]["tag"] = "<2de>"
    (tagged / "config.yaml").write_text(yaml.safe_dump(config))
    side = tmp_path / ("tgt" if is_reverse else "src")
    options = (*files, *["--reverse"] * is_reverse)
    untagged, _ = run(*options)
    capsys.readouterr()
    assert score.main([str(tagged), *map(str, options), "--tag", ""]) == 0
    assert capsys.readouterr().out.splitlines() == untagged
    assert score.main([str(tagged), *map(str, options)]) == 0
    found = capsys.readouterr().out.splitlines()
    side.write_text("".join(f"<2de> {line}\n" for line in side.read_text().splitlines()))
    assert found == run(*options)[0] != untagged
    with pytest.raises(ConfigError, match=r"^tag=<2fr> is not one of the model's tags, which are: <2de>$"):
        score.main([str(tagged), *map(str, options), "--tag", "<2fr>"])

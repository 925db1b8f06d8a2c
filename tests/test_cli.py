"""The scripts from the command line: output, error messages and exit status."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import importlib.util
import io
import json
import os
import re
import resource
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import sacrebleu
import torch

from transformer.cli import discard, run
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import UserError
from transformer.inference import evaluation_set
from transformer.inference.translator import Translator
from transformer.inspection import attention
from transformer.inspection.canvas import THEMES
from transformer.training.integrity import verify
from transformer.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
SCRIPTS = {path.stem: path for path in (ROOT / "scripts").glob("*.py")}
slow = pytest.mark.slow
SENTENCES = ["A man is sleeping.", "", "Two small dogs are playing in the park.", "   ", "The women are singing.", ""]


class Result(NamedTuple):
    """How a script ended; `err` is without the lines that say which checkpoint was taken."""

    status: int
    out: str
    err: str


def without_checkpoint(err: str) -> str:
    return re.sub(r"^(checkpoint|note): .*\n", "", err, flags=re.MULTILINE)


Script = Callable[..., Result]


@pytest.fixture
def script(capfd: pytest.CaptureFixture[str]) -> Script:
    """Runs a script as its `__main__` would, but in this process: importing torch again takes seconds."""

    def call(name: str, *argv: object, **constants: object) -> Result:
        main = runpy.run_path(str(SCRIPTS[name]))["main"]
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.setattr(sys, "orig_argv", [sys.executable, str(SCRIPTS[name]), *map(str, argv)])
            for constant, value in constants.items():
                patch.setitem(main.__globals__, constant, value)
            run(lambda: main([str(argument) for argument in argv]))
        assert isinstance(end.value.code, int)
        out, err = capfd.readouterr()
        return Result(end.value.code, out, without_checkpoint(err))

    return call


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts bytes on standard input."""

    def put(data: bytes, is_terminal: bool = False) -> None:
        stream = io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        monkeypatch.setattr(sys, "stdin", stream)

    return put


@pytest.fixture
def tiny_yaml(trained_run: Path, tmp_path: Path) -> Path:
    """The tiny configuration as a file, its paths in this test's directory."""
    path = tmp_path / "tiny.yaml"
    text = (trained_run / "config.yaml").read_text()
    text = re.sub("run_dir: .*", f"run_dir: {tmp_path / 'run'}", text)
    path.write_text(re.sub("cache_dir: .*", f"cache_dir: {tmp_path / 'cache'}", text))
    return path


def write_corpus(directory: Path, **sides: str | bytes) -> str:
    """A corpus whose validation has one pair more than its training; returns the override that names it."""
    directory.mkdir()
    for split, first in (("train", b""), ("validation", b"one\n")):
        for lang, text in sides.items():
            (directory / f"{split}.{lang}").write_bytes(first + (text.encode() if isinstance(text, str) else text))
    return f"data.corpus={directory}/{{split}}.{{lang}}"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_explains_itself(script: Script, name: str) -> None:
    status, out, err = script(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: ")
    is_program = (ROOT / "transformer" / "commands" / f"{name}.py").is_file()
    assert (f"transformer {name} " if is_program else f"python scripts/{name}.py") in " ".join(out.split())


# Full disks.


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_disk_without_room_for_a_checkpoint_is_one_line_and_the_last_one_is_intact(
    script: Script, tiny_yaml: Path, tmp_path: Path
) -> None:
    command = ("train", tiny_yaml, "train.validate_steps=100", "train.save_steps=2", "train.keep_checkpoints=1")
    assert script(*command, "train.max_steps=4").status == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 1024, limits[1]))  # bytes of a file; Python ignores SIGXFSZ
    try:
        status, _, err = script(*command, "train.max_steps=7")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2
    line = err.splitlines()[-1]
    last = tmp_path / "run" / "checkpoints" / "step-00000004"
    assert line.startswith(f"error: {last.with_name('step-00000006')}: cannot be written (")
    assert line.endswith("; earlier checkpoints are intact: rerun the same command to resume from the last one")
    assert [path.name for path in last.parent.iterdir()] == [last.name]
    verify(last)
    assert script(*command, "train.max_steps=7").status == 0


# From training to translations.


@pytest.fixture(scope="module")
def references() -> list[tuple[str, str]]:
    return list(builtin_pairs("test", 23))


def test_training_averaging_scoring_and_translating_work_one_after_the_other(
    script: Script, tiny_yaml: Path, tmp_path: Path, references: list[tuple[str, str]]
) -> None:
    run_dir = tmp_path / "run"
    values = ("train.max_steps=5", "train.save_steps=2", "train.validation_bleu=true")

    trained = script("train", tiny_yaml, *values)
    assert trained.status == 0
    begun = f"# differs from the defaults; complete: {run_dir / 'config.yaml'}\nrun_dir: {run_dir}\nseed: 7\n"
    assert trained.out.startswith(begun)
    assert re.search(r"\nparameters: [\d,]+ \(vocabulary of 307\)\n", trained.out)
    assert re.search(r"\nstep 5: validation nll [\d.]+  ppl [\d.]+  bleu [\d.]+  chrf [\d.]+  \(best\)\n", trained.out)
    ended = trained.out.partition("\ntrain.max_steps=5 reached ")[2]
    assert ended == (
        f"after step 5; checkpoints are in {run_dir}\n"
        f"checkpoint to translate and score with: {run_dir / 'best' / 'step-00000005'}\n"
        "next:\n"
        f"  {sys.executable} {SCRIPTS['translate']} {run_dir}\n"
        f"  {sys.executable} {SCRIPTS['evaluate']} {run_dir}\n"
        f"  {sys.executable} {SCRIPTS['average']} {run_dir} --last 3\n"
    )
    assert "\nstep 3  loss " in trained.err
    assert [line["step"] for line in read_metrics(run_dir)] == [1, 3, 5]

    again = script("train", tiny_yaml, *values)
    assert again.status == 0
    assert "\nresuming after step 5\n" in again.out
    assert again.out.partition("\ntrain.max_steps=5 reached ")[2] == ended

    averaged = script("average", run_dir, "--last", 2)
    names = "step-00000004, step-00000005"
    assert averaged == (0, f"averaged {names} into {run_dir / 'averaged'}\n", "")

    for i, name in enumerate(("src", "ref")):
        (tmp_path / name).write_text("".join(f"{pair[i]}\n" for pair in references))
    files = ("--src", tmp_path / "src", "--ref", tmp_path / "ref")
    scored = script("evaluate", run_dir, *files, "--precision", "fp32", "--output", tmp_path / "hypotheses")
    assert (scored.status, scored.err) == (0, "warning: every line of the translation is empty\n")
    first, *_, last = scored.out.splitlines()
    averaged_on_files = f"{run_dir / 'averaged'} on {tmp_path / 'src'} and {tmp_path / 'ref'}"
    assert first == f"{averaged_on_files}: 23 sentences, beam 3, alpha 0.6, max_length_offset 7"
    assert re.fullmatch(r"BLEU = \d+\.\d\d  nrefs:1\|case:mixed\|.*\|tok:13a\|smooth:exp\|version:[\d.]+", last)

    hypotheses = (tmp_path / "hypotheses").read_text().splitlines()
    as_json = script("evaluate", run_dir, *files, "--json")
    report = json.loads(as_json.out)
    assert (as_json.status, as_json.err, as_json.out.count("\n")) == (0, scored.err, 1)
    bleu = sacrebleu.corpus_bleu(hypotheses, [[target for _, target in references]], force=True)
    assert (report["sentences"], report["bleu"]) == (23, round(bleu.score, 2))
    assert last == f"BLEU = {report['bleu']:.2f}  {report['bleu_signature']}"

    translated = script("translate", run_dir, tmp_path / "src")
    assert translated == (0, (tmp_path / "hypotheses").read_text(), "")


def test_the_test_split_of_the_run_is_scored_by_default(script: Script, trained_run: Path, tiny_corpus: str) -> None:
    status, out, _ = script("evaluate", trained_run, "--beam", 1, "--json")
    report = json.loads(out)
    assert status == 0
    src, ref = (tiny_corpus.format(split="test", lang=lang) for lang in ("en", "de"))
    found = (report["corpus"], report["sentences"], report["beam"], report["alpha"])
    assert found == (f"{src} and {ref}", 53, 1, 0.6)
    assert report["checkpoint"] == str(trained_run / "best" / "step-00000010")


def test_a_translation_scored_against_itself_is_perfect(
    script: Script, babbler: Path, tmp_path: Path, translations: list[str]
) -> None:
    for name, lines in (("src", SENTENCES), ("ref", translations)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    status, out, _ = script("evaluate", babbler, "--src", tmp_path / "src", "--ref", tmp_path / "ref")
    assert status == 0
    assert out.splitlines()[-1].startswith("BLEU = 100.00  nrefs:1|")


def test_scoring_that_takes_long_is_shown_on_stderr(
    script: Script, babbler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, line in (("src", "A man is sleeping.\n"), ("ref", "Ein Mann schläft.\n")):
        (tmp_path / name).write_text(line * 7)
    command = ("evaluate", babbler, "--src", tmp_path / "src", "--ref", tmp_path / "ref", "--json")
    quick = script(*command)
    monkeypatch.setattr("transformer.progress._LONG_S", 1e-9)
    long = script(*command)
    assert (quick.status, quick.err, long.status) == (0, "", 0)
    assert long.err.splitlines()[-1] == "translating: 7 sentences in 0s"
    assert [json.loads(done.out)["bleu"] for done in (quick, long)][1] == json.loads(quick.out)["bleu"]


class Words:
    """Replaces Moses' tokenizer, which may not be installed; tokenises nothing."""

    lang = "de"

    def tokenize(self, text: str, return_str: bool) -> str:
        assert return_str
        return text


def test_the_bleu_of_the_papers_authors_comes_before_sacrebleus_and_is_labelled(
    script: Script, babbler: Path, tmp_path: Path, translations: list[str]
) -> None:
    for name, lines in (("src", SENTENCES), ("ref", [f"{line} well-known" for line in translations])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    arguments = (babbler, "--src", tmp_path / "src", "--ref", tmp_path / "ref")
    plain = script("evaluate", *arguments)
    both = script("evaluate", *arguments, "--compound-split", moses_tokenizer=lambda _: Words())
    assert (plain.status, both.status) == (0, 0)
    report = json.loads(
        script("evaluate", *arguments, "--json", "--compound-split", moses_tokenizer=lambda _: Words()).out
    )

    lines = both.out.splitlines()
    (added,) = (line for line in lines if "compound" in line)
    label = "tokenised, compound-split BLEU (as the paper's authors counted; not comparable with the last line)"
    assert added.startswith(f"{label}: {report['compound_split_bleu']:.2f} ")
    assert added.endswith(f"  {report['compound_split_signature']}")
    assert lines[-1] == plain.out.splitlines()[-1] == f"BLEU = {report['bleu']:.2f}  {report['bleu_signature']}"
    assert report["compound_split_bleu"] < report["bleu"] < 100, "three words for one that is missing"
    assert "compound" not in plain.out


def test_a_published_test_set_is_scored_by_its_name_with_all_its_references(
    script: Script,
    trained_run: Path,
    tmp_path: Path,
    references: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    for name, side in (("src", 0), ("ref", 1), ("other", 1)):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in references))

    def published_test_set(*names: str) -> tuple[Path, list[Path]]:
        asked.append(names)
        return tmp_path / "src", [tmp_path / "ref", tmp_path / "other"]

    monkeypatch.setattr(evaluation_set, "published_test_set", published_test_set)
    result = script("evaluate", trained_run, "--test-set", "wmt14/full")
    assert (result.status, asked) == (0, [("wmt14/full", "en", "de")])
    assert " on wmt14/full en-de of sacreBLEU: 23 sentences" in result.out.splitlines()[0]
    assert "  nrefs:2|" in result.out.splitlines()[-1]


def test_the_learning_curve_is_a_table(script: Script, trained_run: Path) -> None:
    status, out, err = script("plot", trained_run)
    assert (status, err) == (0, "")
    _, _, *rows = out.splitlines()
    validations = [line for line in read_metrics(trained_run) if line["kind"] == "validation"]
    assert (
        [row.split(" | ")[0] for row in rows]
        == [f"| {line['step']}" for line in validations]
        == ["| 5", "| 10", "| 11"]
    )
    both = script("plot", trained_run, trained_run)
    assert both == (0, f"\n{trained_run}\n\n{out}" * 2, "")


def test_the_table_says_the_tokenizer_of_bleu(script: Script, tmp_path: Path) -> None:
    def table(*tokenizers: str | None) -> list[str]:
        lines = []
        for step, name in enumerate(tokenizers, start=1):
            record = {"kind": "validation", "step": step, "elapsed_s": 61.5, "nll": 1.5, "ppl": 4.5, "bleu": 7.25}
            lines.append(json.dumps(record | ({"bleu_tokenizer": name} if name else {})))
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
        first, _, *rows = script("plot", tmp_path).out.splitlines()
        return [line.split(" | ")[-1].removesuffix(" |") for line in (first, *rows)]

    assert table(None, None) == ["greedy BLEU", "7.2", "7.2"]
    assert table("zh", "zh") == ["greedy BLEU (zh)", "7.2", "7.2"]
    assert table("13a") == ["greedy BLEU (13a)", "7.2"]
    assert table(None, "zh") == ["greedy BLEU", "7.2 (13a)", "7.2 (zh)"]


def test_further_sets_and_chrf_have_their_places_in_the_table(script: Script, tmp_path: Path) -> None:
    records = [
        {
            **{"kind": kind, "step": 3, "elapsed_s": 61.5, "nll": nll, "ppl": 4.5, "bleu": 7.25, "chrf": 31.26},
            "bleu_tokenizer": "zh",
        }
        for kind, nll in (("validation", 1.5), ("validation/news", 2.5))
    ]
    records.append({**records[0], "step": 5})
    del records[2]["chrf"]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    header = "| step | minutes | validation NLL | perplexity | greedy BLEU (zh) | greedy chrF |\n|" + 6 * "---:|"
    assert script("plot", tmp_path).out == (
        f"{header}\n| 3 | 1 | 1.500 | 4.50 | 7.2 | 31.3 |\n| 5 | 1 | 1.500 | 4.50 | 7.2 |  |\n"
        f"\nnews\n\n{header}\n| 3 | 1 | 2.500 | 4.50 | 7.2 | 31.3 |\n"
    )


@pytest.mark.parametrize("name", ["plot", "attend"])
def test_no_figure_replaces_a_part_of_a_run(script: Script, trained_run: Path, name: str) -> None:
    path = max((trained_run / "checkpoints").iterdir()) / "training.json"
    before = path.read_bytes()
    result = script(name, trained_run, *(["a"] if name == "attend" else []), "--out", path)
    assert_one_line(result, r"training\.json: \S* is a checkpoint, to which no other file belongs")
    assert path.read_bytes() == before
    assert_one_line(script("plot", trained_run, "--out", trained_run / "metrics.jsonl"), "jsonl: is the same file")


def test_learning_curves_of_several_runs_are_drawn_together(script: Script, trained_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curves.svg"
    assert script("plot", trained_run, trained_run, "--out", path) == (0, "", "")
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    "what",
    [
        ("--positions", 7, 11),
        ("--schedule", 512, 13, "--schedule", 11, 17),
        ("--schedule-of", "quickstart", "train.schedule=cosine", "train.learning_rate=0.1", "--schedule-of", "base"),
    ],
)
def test_formulae_are_drawn_without_a_run(script: Script, tmp_path: Path, what: tuple[object, ...]) -> None:
    pytest.importorskip("matplotlib")
    assert script("plot", *what, "--out", tmp_path / "figure.png") == (0, "", "")
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("theme", THEMES)
def test_figures_have_the_theme_that_is_asked_for(
    script: Script, trained_run: Path, tmp_path: Path, theme: str
) -> None:
    pytest.importorskip("matplotlib")
    commands = [
        ("plot", trained_run),
        ("plot", "--positions", 7, 11),
        ("attend", trained_run, "a", "--translation", "b"),
    ]
    for i, command in enumerate(commands):
        path = tmp_path / f"{i}.svg"
        assert script(*command, "--theme", theme, "--out", path).status == 0
        # The first thing drawn is the background.
        assert re.search(r"fill: (#\w{6})", path.read_text())[1] == THEMES[theme].background  # type: ignore[index]


@pytest.mark.parametrize("name", ["page.html", "figure.png", "weights.json"])
def test_attention_is_drawn(script: Script, trained_run: Path, tmp_path: Path, name: str) -> None:
    if name.endswith("png"):
        pytest.importorskip("matplotlib")
    path = tmp_path / name
    arguments = ("attend", trained_run, "A man is sleeping.", "--translation", "Ein Mann schläft.", "--out", path)
    assert script(*arguments) == (0, f"{path}\n", "")
    assert path.stat().st_size > 1000


# Translating.


@pytest.fixture(scope="module")
def translations(babbler: Path) -> list[str]:
    """The library's translations of the sentences."""
    translations = Translator.load(babbler).translate(SENTENCES)
    assert [bool(line) for line in translations] == [bool(line.strip()) for line in SENTENCES]
    assert len(set(translations)) == 4
    return translations


def test_there_is_a_line_out_for_every_line_in(
    script: Script,
    stdin: Callable[..., None],
    babbler: Path,
    translations: list[str],
    tmp_path: Path,
) -> None:
    expected = Result(0, "".join(f"{line}\n" for line in translations), "")
    data = "".join(f"{line}\n" for line in SENTENCES).encode()
    stdin(data)
    assert script("translate", babbler) == expected
    stdin(data)
    assert script("translate", babbler, "-") == expected
    stdin(b"")
    assert script("translate", babbler) == (0, "", "")
    (tmp_path / "plain").write_bytes(data.removesuffix(b"\n"))
    # The last of the sentences is empty: without its line feed it is no line any more.
    assert script("translate", babbler, tmp_path / "plain") == (0, expected.out.removesuffix("\n"), "")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(data))
    assert script("translate", babbler, tmp_path / "packed.gz") == expected
    texts = (part for sentence in SENTENCES for part in ("--text", sentence))
    assert script("translate", babbler, *texts) == expected


def test_windows_line_ends_and_a_byte_order_mark_are_not_text(
    script: Script, stdin: Callable[..., None], babbler: Path, translations: list[str]
) -> None:
    stdin(b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in SENTENCES).encode())
    assert script("translate", babbler).out.splitlines() == translations


@pytest.mark.parametrize("lines_at_a_time", [1, 2, 5])
def test_input_is_translated_in_order_however_much_is_read_at_a_time(
    script: Script, stdin: Callable[..., None], babbler: Path, translations: list[str], lines_at_a_time: int
) -> None:
    stdin("".join(f"{line}\n" for line in SENTENCES).encode())
    out = script("translate", babbler, _LINES_AT_A_TIME=lines_at_a_time).out
    assert out.splitlines() == translations


def test_nbest_lists_have_their_number_of_lines_best_first(
    script: Script, stdin: Callable[..., None], babbler: Path, translations: list[str]
) -> None:
    stdin("".join(f"{line}\n" for line in SENTENCES).encode())
    status, out, err = script("translate", babbler, "--nbest", 3, "--scores")
    assert (status, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    groups = [lines[i : i + 3] for i in range(0, len(lines), 3)]
    assert len(groups) == len(SENTENCES)
    assert [text for (_, text), *_ in groups] == translations
    for group, sentence in zip(groups, SENTENCES, strict=True):
        scores = [float(score) for score, _ in group]
        assert scores == sorted(scores, reverse=True)
        if sentence.strip():
            assert len({text for _, text in group}) > 1
            assert scores[0] < 0
        else:
            assert group == [["0.0000", ""], ["-inf", ""], ["-inf", ""]]


def test_beam_and_alpha_can_be_chosen(script: Script, babbler: Path) -> None:
    text = SENTENCES[2]
    translator = Translator.load(babbler)
    (expected,) = translator.translate_nbest([text], nbest=1, beam=5, alpha=1.5)
    _, out, _ = script("translate", babbler, "--text", text, "--beam", 5, "--alpha", 1.5, "--scores")
    assert out == f"{expected[0].score:.4f}\t{expected[0].text}\n"


def test_interactive_input_is_translated_by_line_and_files_by_chunk(
    script: Script,
    stdin: Callable[..., None],
    babbler: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Line by line, sentences are not batched, which is many times slower."""
    sizes: list[int] = []
    translate_nbest = Translator.translate_nbest

    def count(translator: Translator, texts: list[str], **options: int) -> object:
        sizes.append(len(texts))
        return translate_nbest(translator, texts, **options)

    monkeypatch.setattr(Translator, "translate_nbest", count)
    data = "".join(f"{line}\n" for line in SENTENCES).encode()
    stdin(data, is_terminal=True)
    script("translate", babbler)
    assert sizes == [1] * 6
    sizes.clear()
    (tmp_path / "file").write_bytes(data)
    stdin(b"", is_terminal=True)
    script("translate", babbler, tmp_path / "file")
    assert sizes == [6]


def test_the_output_file_appears_when_it_is_complete(
    script: Script, babbler: Path, translations: list[str], tmp_path: Path
) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.write_text("".join(f"{line}\n" for line in SENTENCES))
    output.write_text("of an earlier run")
    assert script("translate", babbler, source, "--output", output) == (0, "", "")
    assert output.read_text().splitlines() == translations
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "source"]


def test_output_never_replaces_a_pipe_or_a_device(script: Script, babbler: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert_one_line(script("translate", babbler, "--text", "a", "--output", pipe), "pipe: is not a regular file")
    assert pipe.is_fifo()


def test_an_interrupted_evaluation_keeps_the_earlier_output(
    script: Script, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "output"
    output.write_text("of an earlier evaluation")
    monkeypatch.setattr(Translator, "translate", stop)
    assert script("evaluate", trained_run, "--output", output).status == 130
    assert output.read_text() == "of an earlier evaluation"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_translation_resumes_where_it_stopped(
    script: Script,
    babbler: Path,
    translations: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: BaseException,
) -> None:
    source, output, part = tmp_path / "source", tmp_path / "output", tmp_path / "output.part"
    source.write_text("".join(f"{line}\n" for line in SENTENCES))
    command = ("translate", babbler, source, "--output", output)
    translate_nbest = Translator.translate_nbest
    numbers: list[int] = []

    def translate(translator: Translator, texts: list[str], **options: int) -> object:
        numbers.append(options["first_number"])
        if len(numbers) == 3:
            raise stop
        return translate_nbest(translator, texts, **options)

    monkeypatch.setattr(Translator, "translate_nbest", translate)
    assert script(*command, _LINES_AT_A_TIME=2).status in (2, 130)
    assert not output.exists()
    assert part.read_text().splitlines() == translations[:4]
    result = script(*command, _LINES_AT_A_TIME=2)
    assert result.err == f"{part}: going on after line 4 of the input; delete it to start again\n"
    assert output.read_text().splitlines() == translations
    assert numbers == [1, 3, 5, 5]
    assert not part.exists()


@pytest.fixture
def interrupted(script: Script, babbler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """A command whose translation of `source` to `output` was interrupted after 4 of the 6 lines."""
    (tmp_path / "source").write_text("".join(f"{line}\n" for line in SENTENCES))
    output = tmp_path / "output"
    command = ("translate", babbler, tmp_path / "source", "--output", output, "--nbest", 2, "--scores")
    translate_nbest = Translator.translate_nbest

    def translate(translator: Translator, texts: list[str], **options: int) -> object:
        if options["first_number"] == 5:
            raise KeyboardInterrupt
        return translate_nbest(translator, texts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Translator, "translate_nbest", translate)
        assert script(*command, _LINES_AT_A_TIME=2).status == 130
    assert (tmp_path / "output.part").read_bytes().count(b"\n") == 8
    return command


@pytest.mark.parametrize("share", [0.0, 0.03, 0.2, 0.51, 0.7, 0.97, 1.0])
def test_a_killed_translation_loses_and_repeats_no_line(
    script: Script, interrupted: tuple[object, ...], tmp_path: Path, share: float
) -> None:
    output, part, record = (tmp_path / name for name in ("output", "output.part", "output.part.json"))
    begun, recorded = part.read_bytes(), record.read_bytes()
    script(*interrupted)
    complete = output.read_bytes()
    assert complete.count(b"\n") == 2 * len(SENTENCES)
    assert complete.startswith(begun)
    output.unlink()
    part.write_bytes(complete[: len(begun) + round(share * (len(complete) - len(begun)))])
    record.write_bytes(recorded)
    status, _, err = script(*interrupted)
    assert (status, err) == (0, f"{part}: going on after line 4 of the input; delete it to start again\n")
    assert output.read_bytes() == complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "source"]


def test_a_translation_does_not_resume_with_changed_lines(
    script: Script, interrupted: tuple[object, ...], tmp_path: Path
) -> None:
    source, part = tmp_path / "source", tmp_path / "output.part"
    begun = part.read_bytes()
    source.write_text("A man is sleeping.\n")
    pattern = r"output\.part: has the translations of 4 lines, more than the 1 of the input; restore the input"
    assert_one_line(script(*interrupted), pattern)
    source.write_text("".join(f"{line}\n" for line in [*SENTENCES[:3], "A dog is sleeping.", *SENTENCES[4:]]))
    assert_one_line(script(*interrupted), r"output\.part: was made from other lines than the first 4 of the input")
    assert part.read_bytes() == begun
    source.write_text("".join(f"{line}\n" for line in [*SENTENCES[:4], "A dog is sleeping."]))
    assert script(*interrupted).status == 0, "lines that were not done yet may be mended"
    assert (tmp_path / "output").read_bytes().startswith(begun)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--beam", 2], "was made with beam=3, and now it is 2; set it back"),
        (["--alpha", 1.5], "was made with alpha=0.6, and now it is 1.5"),
        (["--nbest", 3], "was made with nbest=2, and now it is 3"),
        (["--precision", "int8"], r"was made with precision=b?float\d+, and now it is int8"),
    ],
    ids=str,
)
def test_a_translation_does_not_resume_with_changed_settings(
    script: Script, interrupted: tuple[object, ...], tmp_path: Path, arguments: list[object], pattern: str
) -> None:
    begun = (tmp_path / "output.part").read_bytes()
    assert_one_line(script(*interrupted, *arguments), pattern)
    assert (tmp_path / "output.part").read_bytes() == begun


def test_a_translation_does_not_resume_with_another_model(
    script: Script, interrupted: tuple[object, ...], trained_run: Path
) -> None:
    name, _, *arguments = interrupted
    assert_one_line(script(name, trained_run, *arguments), r"output\.part: was made with weights=\w{64}, and now")


def test_a_line_that_cannot_be_translated_is_named_before_the_work(
    script: Script, interrupted: tuple[object, ...], tmp_path: Path
) -> None:
    source, part = tmp_path / "source", tmp_path / "output.part"
    begun = part.read_bytes()
    lines = [*SENTENCES, *["A man is sleeping."] * 3]
    source.write_text("".join(f"{line}\n" for line in [*lines, "a " * 1031]))
    pattern = r"source: sentence 10 has \d{4} pieces, more than the limit of 1024: split it"
    assert_one_line(script(*interrupted, _LINES_AT_A_TIME=2), pattern)
    source.write_bytes("".join(f"{line}\n" for line in lines).encode() + b"\xff\n")
    assert_one_line(script(*interrupted, _LINES_AT_A_TIME=2), "source, line 10: not UTF-8")
    assert part.read_bytes() == begun
    source.write_text("".join(f"{line}\n" for line in [*lines, "A cat."]))
    assert script(*interrupted).status == 0
    assert (tmp_path / "output").read_bytes().count(b"\n") == 20


@pytest.fixture
def fed_pipe(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Makes named pipes that another process writes to, once."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    with contextlib.ExitStack() as writers:

        def make(name: str, data: str) -> Path:
            path = tmp_path / name
            os.mkfifo(path)
            code = f"open({str(path)!r}, 'w').write({data!r})"
            writers.enter_context(subprocess.Popen([sys.executable, "-c", code]))
            return path

        yield make


def test_a_named_pipe_is_read_once(
    script: Script,
    babbler: Path,
    translations: list[str],
    tmp_path: Path,
    fed_pipe: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in `translate.py RUN <(zcat FILE) --output OUT` at a terminal, which shows no progress then."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    pipe = fed_pipe("pipe", "".join(f"{line}\n" for line in SENTENCES))
    assert script("translate", babbler, pipe, "--output", tmp_path / "output").status == 0
    assert (tmp_path / "output").read_text().splitlines() == translations


def test_named_pipes_are_scored(script: Script, babbler: Path, fed_pipe: Callable[[str, str], Path]) -> None:
    """As in `evaluate.py RUN --src <(zcat SRC) --ref <(zcat REF)`."""
    src, *refs = (fed_pipe(name, f"{text}\n" * 7) for name, text in (("src", "A."), ("ref", "B."), ("other", "C.")))
    status, out, err = script("evaluate", babbler, "--src", src, "--ref", *refs)
    assert (status, err) == (0, "")
    assert f" on {src} and {refs[0]} and {refs[1]}: 7 sentences" in out.splitlines()[0]
    assert "  nrefs:2|" in out.splitlines()[-1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["translate", "evaluate", "attend"])
def test_a_configuration_that_is_a_pipe_does_not_block(
    script: Script, babbler: Path, tmp_path: Path, name: str
) -> None:
    directory = Path(shutil.copytree(babbler, tmp_path / "piped", ignore=shutil.ignore_patterns("SHA256SUMS")))
    (directory / "config.yaml").unlink()
    os.mkfifo(directory / "config.yaml")
    arguments = ["a", "--out", tmp_path / "x.html"] if name == "attend" else []
    assert_one_line(script(name, directory, *arguments), "config.yaml")


def test_progress_is_shown_on_a_terminal_that_shows_nothing_else(
    script: Script,
    babbler: Path,
    interrupted: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    err = script(*interrupted).err
    assert "4/6" in err
    assert "6/6" in err
    assert "/1" not in script("translate", babbler, "--text", "A man is sleeping.").err
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "/6" not in script("translate", babbler, tmp_path / "source").err


def test_a_closed_pipe_ends_the_program_quietly(babbler: Path, tmp_path: Path) -> None:
    """As in `translate.py RUN FILE | head -1`, also when Python flushes once more at its end."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPTS["translate"]), str(babbler), "--text", "A man is sleeping."],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), without_checkpoint(err)) == (141, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", *(pytest.param(one, marks=slow) for one in ("<&-", ">&-", "2>&-"))])
def test_training_works_without_standard_streams(tiny_yaml: Path, tmp_path: Path, closed: str) -> None:
    values = ("train.max_steps=2", "train.validate_steps=100")
    command = shlex.join([sys.executable, str(SCRIPTS["train"]), str(tiny_yaml), *values])
    done = subprocess.run(["bash", "-c", f"{command} {closed}"], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("stderr", [pytest.param("2>&-", marks=slow), "2>/dev/full"])
def test_an_error_that_cannot_be_printed_has_its_status_and_stays_out_of_stdout(
    trained_run: Path, tmp_path: Path, stderr: str
) -> None:
    command = shlex.join([sys.executable, str(SCRIPTS["translate"]), str(trained_run), str(tmp_path / "absent")])
    done = subprocess.run(["bash", "-c", f"{command} {stderr}"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")


# Errors: one line on standard error, exit status 2.


def assert_one_line(result: Result, pattern: str) -> None:
    assert result.status == 2, result
    assert re.fullmatch(r"error: [^\n]+\n", result.err), result.err
    assert re.search(pattern, result.err), result.err


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        (["model.d_modell=512"], r"unknown key model\.d_modell; did you mean model\.d_model\?"),
        (["dropout=0.1"], r"unknown key dropout; did you mean model\.dropout\?"),
        (["train.adam_eps=small"], r"train\.adam_eps must be a number, got 'small'"),
        (["--train.max_steps=5"], r"unknown argument --train\.max_steps=5; keys have no dashes: train\.max_steps=5"),
        (
            ["--train.max_steps", "5"],
            r"unknown argument --train\.max_steps; keys have no dashes: train\.max_steps=VALUE",
        ),
        (["train.max_steps=many"], r"train\.max_steps must be a whole number, got 'many'"),
        (["model.dropout=1.5"], r"model\.dropout=1\.5 must be less than 1"),
        (["model.d_k=null", "model.d_model=23"], r"d_model=23 is not a multiple of model\.num_heads=2"),
        (["model.norm=none"], r"model\.norm='none' is not one of post, pre"),
        (["max_steps"], r"'max_steps' is not of the form section\.key=value"),
        (["data.vocab_size=99991"], r"data\.vocab_size=99991 is too large for this corpus; at most \d+ pieces"),
        (["data.vocab_size=11"], r"data\.vocab_size=11 is too small for this corpus"),
        (["data.corpus=/nowhere/{split}.{lang}"], r"no such file: /nowhere/train\.en"),
        (
            ["data.corpus=builtin", "data.train_split=tarin"],
            r"unknown split 'tarin': the built-in corpus has train, validation, test",
        ),
        (["data.max_length=2"], r"no sentence pair is left to use; dropped: .*too_long 397"),
    ],
    ids=str,
)
def test_bad_values_are_named(script: Script, tiny_yaml: Path, values: list[str], pattern: str) -> None:
    assert_one_line(script("train", tiny_yaml, *values), pattern)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("model: {d_model: [}", "not YAML: "),
        ("- seed", r"expected `key: value` lines, got \['seed'\]"),
        (b"seed: \xff", "cannot be read: "),
        ("model: 512", "model: expected a section of keys, got 512"),
        (None, "no such configuration file"),
    ],
    ids=str,
)
def test_a_bad_configuration_file_is_named(
    script: Script, tmp_path: Path, text: str | bytes | None, pattern: str
) -> None:
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    result = script("train", path)
    assert_one_line(result, pattern)
    if text != "model: 512":
        assert str(path) in result.err


@pytest.mark.parametrize(
    ("en", "de", "pattern"),
    [
        ("a\nb\nc\n", "a\nb\n", r"differ in length: \S*/train\.en has 3 lines, \S*/train\.de has 2"),
        ("", "", r"train\.en and \S*/train\.de: the corpus is empty"),
        ("\n\n\n", "\n\n\n", r"train\.en and \S*/train\.de: (the corpus is empty|there is no text)"),
        ("a\nb\nc\n", b"a\nb\n\xe4\n", r"train\.de, line 3: not UTF-8 \(byte 1 of the line\)"),
    ],
    ids=["lengths", "empty", "empty lines", "not UTF-8"],
)
def test_a_bad_corpus_is_named(
    script: Script, tiny_yaml: Path, tmp_path: Path, en: str | bytes, de: str | bytes, pattern: str
) -> None:
    override = write_corpus(tmp_path / "corpus", en=en, de=de)
    assert_one_line(script("train", tiny_yaml, override, "data.vocab_size=11"), pattern)


def test_learned_positions_that_are_too_few_for_the_data_are_named(script: Script, tiny_yaml: Path) -> None:
    values = ("model.positional=learned", "model.max_positions=17")
    assert_one_line(script("train", tiny_yaml, *values), "max_positions=17")


def test_a_validation_sentence_beyond_the_limit_does_not_end_training(
    script: Script, tiny_yaml: Path, tmp_path: Path
) -> None:
    """It is left out of the validation loss."""
    pairs = list(builtin_pairs("train", 101))
    en, de = ("".join(f"{sentence}\n" for sentence in side) for side in zip(*pairs, strict=True))
    corpus = write_corpus(tmp_path / "corpus", en=f"{en}{'a ' * 1031}\n", de=f"{de}ein\n")
    values = ("data.vocab_size=197", "train.max_steps=2", "train.validate_steps=2", "train.validation_bleu=true")
    result = script("train", tiny_yaml, corpus, *values)
    assert "train.max_steps=2 reached after step 2" in result.out, result.err[-200:]


def test_the_hub_without_a_network_is_named(script: Script, tiny_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    # What HF_HUB_OFFLINE=1 does, had it been set before the first import.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    corpus = "data.corpus=nobody/no-such-corpus"
    pattern = r"data\.corpus=nobody/no-such-corpus: cannot load 'train' from the hub .* or data\.corpus=builtin"
    assert_one_line(script("train", tiny_yaml, corpus, "data.subset=null"), pattern)
    pattern = "nobody/no-such-model: no such directory, and no such model on the hub"
    assert_one_line(script("translate", "nobody/no-such-model", "--text", "a"), pattern)


def test_an_absent_device_is_named(
    script: Script, tiny_yaml: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pattern = "device=cuda: torch .* sees no CUDA device; use cpu or auto"
    assert_one_line(script("train", tiny_yaml, "train.device=cuda"), pattern)
    assert_one_line(script("translate", trained_run, "--text", "a", "--device", "cuda"), pattern)
    assert_one_line(script("evaluate", trained_run, "--device", "cuda"), pattern)


def test_a_directory_that_cannot_be_made_is_named(script: Script, tiny_yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below, itself = (f"run_dir={tmp_path / path}" for path in ("file/x", "file"))
    assert_one_line(script("train", tiny_yaml, below), r"/file/x: Not a directory")
    assert_one_line(script("train", tiny_yaml, itself), r"/file: (is a file; choose another|Not a directory)")


def test_a_directory_that_is_not_a_run_is_not_written_to(script: Script, tiny_yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    assert_one_line(script("train", tiny_yaml), "run: the directory is not empty and contains no run; choose another")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_run_of_another_configuration_is_not_continued(
    script: Script, tiny_yaml: Path, trained_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    values = ("model.d_ff=31", "train.warmup_steps=17", "train.max_steps=97")
    differing = r"\(model\.d_ff: 29 there, 31 here; train\.warmup_steps: 13 there, 17 here\)"
    assert_one_line(script("train", tiny_yaml, *values), rf"run belongs to another configuration {differing}; choose")


def test_a_checkpoint_of_another_vocabulary_is_not_used(script: Script, trained_run: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(trained_run / "best" / "step-00000010", checkpoint)
    other = Tokenizer.train((text for pair in builtin_pairs("train", 101) for text in pair), 151)
    (checkpoint / "tokenizer.model").write_bytes(other.model)
    pattern = r"tokenizer\.model: is damaged or of another checkpoint"
    assert_one_line(script("translate", checkpoint, "--text", "a"), pattern)
    (checkpoint / "SHA256SUMS").unlink()
    pattern = r"embedding\.weight has shape \(307, 22\), .* require \(151, 22\): vocabulary or model size differs"
    assert_one_line(script("translate", checkpoint, "--text", "a"), pattern)
    assert_one_line(script("evaluate", checkpoint), pattern)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("translate", []),
        ("evaluate", []),
        ("average", []),
        ("plot", []),
        ("plot", ["--out", "figure.png"]),
        ("attend", ["A man is sleeping."]),
    ],
)
def test_a_run_that_is_not_there_is_named(script: Script, tmp_path: Path, name: str, arguments: list[str]) -> None:
    reasons = ": no such run| contains 0 checkpoints|: no validation is recorded|: nothing is recorded"
    assert_one_line(script(name, tmp_path / "absent", *arguments), f"{tmp_path / 'absent'}({reasons})")


def test_a_run_is_not_averaged_while_another_process_writes_it(script: Script, trained_run: Path) -> None:
    """Training would go on to better models, over which the average would be preferred."""
    with (trained_run / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one lock per opened file: to the script it is another process's
        result = script("average", trained_run, "--last", 2)
    assert_one_line(result, f"run_dir={trained_run}: in use by another process")
    assert not (trained_run / "averaged").exists()


def test_more_checkpoints_than_there_are_cannot_be_averaged(script: Script, trained_run: Path) -> None:
    assert_one_line(script("average", trained_run, "--last", 5), "contains 3 checkpoints; 5 cannot be averaged")
    assert_one_line(script("average", trained_run, "--last", 0), "contains 3 checkpoints; 0 cannot be averaged")
    assert not (trained_run / "averaged").exists()


def test_a_sentence_beyond_the_limit_is_counted_from_the_first_line(
    script: Script, stdin: Callable[..., None], trained_run: Path
) -> None:
    stdin(b"a man\n" * 6 + b"a " * 1031 + b"\n")
    result = script("translate", trained_run, _LINES_AT_A_TIME=5)
    assert_one_line(result, r"sentence 7 has \d{4} pieces, more than the limit of 1024: split it")
    assert result.out.count("\n") == 5, "what was read before is translated"


def test_input_that_is_not_utf8_is_named(
    script: Script, stdin: Callable[..., None], trained_run: Path, tmp_path: Path
) -> None:
    stdin(b"a man\n\xff\n")
    assert_one_line(script("translate", trained_run), r"standard input, line 2: not UTF-8 \(byte 1 of the line\)")
    (tmp_path / "latin.gz").write_bytes(gzip.compress("ein Mädchen\n".encode("latin-1")))
    pattern = r"latin\.gz, line 1: not UTF-8 \(byte 6 of the line\)"
    assert_one_line(script("translate", trained_run, tmp_path / "latin.gz"), pattern)
    assert_one_line(script("translate", trained_run, "--text", "\udcff"), "contains surrogates")


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["absent"], "absent: no such file; did you mean --text"),
        (["--text", "a", "--nbest", "4"], "--nbest 4 must be between 1 and the beam size, 3"),
        (["--text", "a", "--nbest", "3", "--beam", "2"], "--nbest 3 must be between 1 and the beam size, 2"),
        (["--text", "a", "--nbest", "0"], "--nbest=0 must be a whole number of at least 1"),
        (
            ["--text", "a", "--nbest", "9"],
            r"between 1 and the beam size, 3: raise --beam, or draw samples by --sample$",
        ),
        (["--text", "a", "--top-k", "3"], "--top-k is of samples: give --sample too"),
        (["--text", "a", "--sample", "--beam", "2"], "--beam 2 and --sample exclude each other"),
        (["--text", "a", "--sample", "--temperature", "0"], "temperature=0.0 must be positive and finite"),
        (["--text", "a", "--sample", "--top-p", "nan"], "top_p=nan must be more than 0 and at most 1"),
        (["--text", "a", "--sample", "--seed", "-1"], "seed=-1 must be a whole number of at least 0"),
        (["--text", "a", "--token-scores"], "--token-scores is for --json"),
        (["--text", "a", "--json", "--scores"], "--scores is for plain lines"),
        (["--text", "a", "--alpha", "1", "--length-penalty", "none"], "--alpha 1.0 has no effect"),
        (["--text", "a", "--min-length", "7", "--max-length", "5"], "search.min_length=7 is more than"),
        (["--text", "a", "--prefix", "здесь"], "prefix 1 .* has characters that the tokenizer does not know"),
        (["--text", "a", "--prefix", "a b c d", "--max-length", "3"], r"prefix 1 has \d+ pieces, too many for a"),
        (["--text", "a", "--prefix-file", "absent"], "--prefix-file absent: is not a file with a prefix per line"),
        (["--text", "a", "--ensemble", "absent/run"], "absent/run"),
        (["--text", "a", "--ensemble", __file__], r"is a file, not a run; put FILE before --ensemble$"),
        (["--text", "a", "--beam", "0"], "beam"),
    ],
    ids=str,
)
def test_bad_arguments_of_translate_are_named(
    script: Script, trained_run: Path, arguments: list[str], pattern: str
) -> None:
    assert_one_line(script("translate", trained_run, *arguments), pattern)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--src", "FILE"], "--src and --ref go together"),
        (["--ref", "FILE"], "--src and --ref go together"),
        (["--src", "FILE", "--ref", "FILE", "FILE"], r"--ref \S*FILE is the same file as --ref \S*FILE"),
        (
            ["--src", "FILE", "--ref", "FILE", "--ref", "LONGER"],
            "differ in length: ",
        ),
        (["--lang", "de"], "--lang is for --hyp without RUN"),
        (["--hyp", "FILE", "--src", "FILE"], "--hyp needs its references: --ref FILE, or RUN for those of its corpus"),
        (["--hyp", "FILE", "--ref", "FILE", "--split", "test"], "--split and --ref exclude each other"),
        (["--hyp", "FILE", "--ref", "FILE", "--beam", "3"], "--beam is of a translation by RUN; with --hyp nothing is"),
        (["--hyp", "FILE", "--ref", "FILE", "--output", "absent"], "--output is of a translation by RUN"),
        (["--hyp", "FILE", "--ref", "LONGER"], r"differ in length: \S*FILE has 2 lines, \S*LONGER has 3"),
        (["--hyp", "FILE"], r"differ in length: \S*FILE has 2 lines, the references of .* has 53"),
        (["--hyp", "absent", "--ref", "FILE"], "absent: cannot be read: No such file"),
        (["--src", "FILE", "--ref", "FILE", "--split", "test"], "--split and --src exclude each other"),
        (["--split", "test", "--test-set", "wmt14"], "--split and --test-set exclude each other"),
        (["--src", "FILE", "--ref", "FILE", "--test-set", "wmt14"], "--test-set and --src exclude each other"),
        (["--test-set", "wmt1914"], "sacreBLEU has no test set 'wmt1914' for en-de; it has .*wmt14/full"),
        (["--compound-split", "--tokenize", "none"], "--compound-split tokenises raw text; --tokenize none says that"),
        (["--src", "FILE", "--ref", "LONGER"], r"differ in length: \S*FILE has 2 lines, \S*LONGER has 3"),
        (["--src", "EMPTY", "--ref", "EMPTY"], "nothing to score"),
        (["--src", "FILE", "--ref", "absent"], "absent: cannot be read: No such file"),
        (["--split", "tset"], r"no such file: \S*/tset\.en"),
        (["--src", "FILE", "--ref", "FILE", "--beam", "0"], "beam"),
        (["--src", "FILE", "--ref", "FILE", "--output", "FILE/below"], "FILE/below: Not a directory"),
        (["--src", "FILE", "--ref", "FILE", "--output", "PIPE"], "PIPE: is not a regular file"),
    ],
    ids=str,
)
def test_bad_arguments_of_evaluate_are_named(
    script: Script, trained_run: Path, tmp_path: Path, arguments: list[str], pattern: str
) -> None:
    for name, text in (("FILE", "a\nb\n"), ("LONGER", "a\nb\nc\n"), ("EMPTY", "")):
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "PIPE")
    places = {name: tmp_path / name for name in ("FILE", "LONGER", "EMPTY", "FILE/below", "PIPE", "absent")}
    assert_one_line(script("evaluate", trained_run, *(places.get(word, word) for word in arguments)), pattern)


@pytest.mark.skipif(importlib.util.find_spec("MeCab") is not None, reason="MeCab is installed")
def test_a_bleu_tokenizer_that_is_not_installed_is_named(script: Script, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a\nb\n")
    files = ("--src", tmp_path / "file", "--ref", tmp_path / "file")
    result = script("evaluate", trained_run, *files, "--tokenize", "ja-mecab")
    assert result.status == 2
    assert result.err.splitlines()[-1].find("ja-mecab") > 0


def test_a_tokenizer_of_moses_that_is_not_installed_is_named_before_the_work(
    script: Script, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    result = script("evaluate", trained_run, "--compound-split", "--output", tmp_path / "translations")
    assert_one_line(result, "compound-split BLEU needs Moses' tokenizer: pip install sacremoses")
    assert not (tmp_path / "translations").exists()


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["RUN", "--every", "0"], "--every 0 must be at least 1"),
        ([], "give either runs, or --positions, or --schedule, or --schedule-of"),
        (["RUN", "--positions", "3", "5"], "give either runs, or --positions, or --schedule, or --schedule-of"),
        (["--positions", "3", "5"], "--positions, --schedule and --schedule-of need --out FILE"),
        (["RUN", "--theme", "dark"], "--theme is that of a drawing: give --out FILE"),
        (["absent/FILE.png"], "absent/FILE.png: no such run directory"),
        (["--positions", "3", "0", "--out", "FILE.png"], "--positions 3 0 must be at least 1"),
        (["--positions", "9973", "1009", "--out", "FILE.png"], "9973 1009: more than 10,000,000 values cannot be"),
        (["--schedule", "1" * 400, "5", "--out", "FILE.png"], "1 5 must be at least 1 and at most 1,000,000,000"),
        (["--schedule", "3", "5", "--schedule", "-1", "5", "--out", "FILE.png"], "--schedule -1 5 must be at least 1"),
        (["--positions", "3", "5", "--out", "FILE.xyz"], r"FILE\.xyz: .*supported formats"),
        (["RUN", "--out", "FILE"], "FILE: its suffix must say what kind of file"),
        (["RUN", "--out", "absent/FILE.png"], "absent/FILE.png: No such file or directory"),
    ],
    ids=str,
)
def test_bad_arguments_of_plot_are_named(
    script: Script, trained_run: Path, tmp_path: Path, arguments: list[str], pattern: str
) -> None:
    pytest.importorskip("matplotlib")
    places = {word: tmp_path / word for word in ("FILE", "FILE.png", "FILE.xyz", "absent/FILE.png")}
    assert_one_line(script("plot", *({"RUN": trained_run, **places}.get(word, word) for word in arguments)), pattern)
    assert list(tmp_path.iterdir()) == []


def test_a_translation_too_long_to_draw_is_refused_before_attention_is_computed(
    script: Script, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention weights take memory quadratic in the length."""
    monkeypatch.setattr(attention, "attention_maps", None)
    long = "a " * 60_013
    result = script("attend", trained_run, "a", "--translation", long, "--out", tmp_path / "page.html")
    assert_one_line(result, r"the translation has 60\d{3} pieces; at most 100 can be drawn: shorten it")


@pytest.mark.parametrize(
    ("sentence", "name", "pattern"),
    [
        ("", "page.html", "the sentence is empty: there is nothing to attend to"),
        ("a " * 1031, "page.html", r"sentence 1 has \d{4} pieces, more than the limit of 1024: split it"),
        ("a " * 101, "page.html", "the sentence has 102 pieces; at most 100 can be drawn: shorten it"),
        ("a", "absent/page.html", "absent/page.html: No such file or directory"),
        ("a", "figure.xyz", r"figure\.xyz: .*supported formats"),
        ("a", "absent/figure.png", "absent/figure.png: No such file or directory"),
    ],
    ids=["empty", "too long", "too long to draw", "no directory", "unknown suffix", "no directory for an image"],
)
def test_bad_arguments_of_attend_are_named(
    script: Script, trained_run: Path, tmp_path: Path, sentence: str, name: str, pattern: str
) -> None:
    pytest.importorskip("matplotlib")
    assert_one_line(script("attend", trained_run, sentence, "--translation", "a", "--out", tmp_path / name), pattern)
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_matplotlib_is_named(
    script: Script, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    pattern = "a figure needs matplotlib: pip install matplotlib"
    assert_one_line(script("attend", trained_run, "a", "--out", tmp_path / "figure.png"), pattern)
    assert_one_line(script("plot", trained_run, "--out", tmp_path / "figure.png"), pattern)


# Exit status of any script.


def end_of(main: Callable[[], int | None], capfd: pytest.CaptureFixture[str]) -> Result:
    with pytest.raises(SystemExit) as end:
        run(main)
    return Result(end.value.code, *capfd.readouterr())


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (143, 143)])
def test_the_exit_status_is_what_main_returns(
    capfd: pytest.CaptureFixture[str], returned: int | None, status: int
) -> None:
    assert end_of(lambda: returned, capfd) == (status, "", "")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("the key, the value and the mend"), 2, "error: the key, the value and the mend"),
        (OSError(28, "No space left on device", "runs/x"), 2, "error: runs/x: No space left on device"),
        (OSError(28, "No space left on device"), 2, "error: input or output: No space left on device"),
        (OSError("odd"), 2, "error: input or output: odd"),
        (MemoryError(), 2, "error: out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=repr,
)
def test_expected_errors_are_one_line(
    capfd: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    def fail() -> None:
        raise error

    assert end_of(fail, capfd) == (status, "", f"{line}\n")


@pytest.mark.parametrize("error", [ValueError("d_k=0"), KeyError("train"), RuntimeError("shapes")], ids=repr)
def test_bugs_keep_their_traceback(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(fail)
    assert caught.value is error


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux lists them")
def test_a_discarded_stream_takes_text_and_no_descriptor_is_left(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        stream.write("buffered")
        before = len([*Path("/proc/self/fd").iterdir()])
        discard(stream)
        assert len([*Path("/proc/self/fd").iterdir()]) == before
        print("more", file=stream, flush=True)
    assert (tmp_path / "file").read_text() == ""
    discard(io.StringIO())  # has no descriptor

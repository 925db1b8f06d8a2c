"""The translate command: requests through pipes, notes on the input, limits, and outputs that spare their inputs."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from transformer.commands import translate
from transformer.errors import ConfigError, DataError
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import load_checkpoint, save_checkpoint

KNOWN = ["A man is sleeping.", "Two small dogs are playing.", "The women are singing."]


@pytest.fixture(scope="module")
def babbler(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an untrained checkpoint, whose translations are not empty."""
    config, tokenizer, _ = load_checkpoint(trained_run / "best" / "step-00000010")
    torch.manual_seed(5)
    run = tmp_path_factory.mktemp("babbler") / "run"
    weights = build_model(len(tokenizer), config.model).state_dict()
    (run / "checkpoints").mkdir(parents=True)
    save_checkpoint(run / "checkpoints" / "step-00000010", config, tokenizer, weights)
    (run / "config.yaml").write_text((trained_run / "config.yaml").read_text())
    return run


@pytest.fixture(scope="module")
def known(babbler: Path) -> list[str]:
    translations = Translator.load(babbler).translate(KNOWN)
    assert all(translations)
    return translations


Run = Callable[..., tuple[list[str], list[str]]]


@pytest.mark.parametrize("place", [0, 2, 4])
def test_the_file_may_stand_before_and_after_options(run: Run, known: list[str], tmp_path: Path, place: int) -> None:
    (tmp_path / "in.txt").write_text("".join(f"{line}\n" for line in KNOWN))
    options: list[object] = ["--engine", "torch", "--nbest", "1"]
    assert run(*options[:place], tmp_path / "in.txt", *options[place:])[0] == known


@pytest.fixture
def run(babbler: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command; returns the lines of standard output and error."""

    def call(*arguments: object) -> tuple[list[str], list[str]]:
        capsys.readouterr()
        assert translate.main([str(babbler), *map(str, arguments)]) == 0
        out, err = capsys.readouterr()
        return out.splitlines(), [line for line in err.splitlines() if not line.startswith("checkpoint: ")]

    return call


@pytest.fixture
def sentencex(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its place, something that splits at vertical bars."""
    monkeypatch.setitem(sys.modules, "sentencex", SimpleNamespace(segment=lambda _, text: text.split("|")))


def without_checkpoint(*outputs: str) -> tuple[str, ...]:
    """Outputs without the line of the checkpoint, which has tests of its own."""
    return tuple(re.sub(r"^checkpoint: .*\n", "", output, flags=re.MULTILINE) for output in outputs)


def texts(*lines: str) -> list[str]:
    return [f"--text={line}" for line in lines]


# What is not translated as it stands


def test_lines_of_nothing_known_are_copied_and_counted_once(run: Run, known: list[str]) -> None:
    out, err = run(*texts("здесь.", KNOWN[0], "👍", "", KNOWN[1]))
    assert out == ["здесь.", known[0], "👍", "", known[1]]
    assert err == ["2 lines without a known word are copied: 1, 3"]


def test_a_copy_is_the_first_of_an_nbest_list(run: Run) -> None:
    out, _ = run(*texts("здесь."), "--nbest", 3, "--scores")
    assert out == ["0.0000\tздесь.", "-inf\t", "-inf\t"]


def test_several_sentences_in_a_line_are_counted(run: Run) -> None:
    _, err = run(*texts(*KNOWN, " ".join(KNOWN[:2])))
    assert err == [
        "1 of 4 lines seem to have several sentences; a model trained on single sentences drops all but the first: "
        "--split-sentences"
    ]


@pytest.mark.usefixtures("sentencex")
def test_sentences_are_split_on_request(run: Run, known: list[str]) -> None:
    out, err = run(*texts("|".join(KNOWN), KNOWN[1]), "--split-sentences")
    assert (out, err) == ([" ".join(known), known[1]], [])
    out, _ = run(*texts("|".join(KNOWN)), "--split-sentences", "--nbest", 3)
    assert out[0] == " ".join(known)
    assert len(set(out)) == 3


def test_without_sentencex_nothing_is_split(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(DataError, match="pip install sentencex"):
        run("--split-sentences")


def test_a_file_is_spoken_of_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").write_text(f"{KNOWN[0]} {KNOWN[1]}\nздесь\n")
    heard: list[str] = []
    translate_nbest = Translator.translate_nbest

    def listen(*arguments: Any, **options: Any) -> Any:
        heard.append(capsys.readouterr().err)
        return translate_nbest(*arguments, **options)

    monkeypatch.setattr(Translator, "translate_nbest", listen)
    out, err = run(tmp_path / "in")
    assert len(out) == 2
    assert err == []
    (before,) = heard
    assert [line[:7] for line in before.splitlines()] == ["checkpo", "1 line ", "1 of 2 "]


# Limits


def test_the_limit_on_the_source_can_be_chosen(run: Run) -> None:
    with pytest.raises(DataError, match=r"^sentence 2 has \d+ pieces, more than the limit of 3: split it, raise the "):
        run(*texts("", KNOWN[0]), "--max-source-length", 3)
    long = " ".join(KNOWN * 43)
    with pytest.raises(DataError, match=r"more than the limit of 1024"):
        run(*texts(long))
    assert run(*texts(long), "--max-source-length", 5003, "--max-length-offset", 0, "--beam", 1)[0] != [""]
    with pytest.raises(ConfigError, match="max_source_length"):
        run(*texts("A man."), "--max-source-length", 0)


def test_the_limit_on_the_translation_can_be_chosen(run: Run) -> None:
    shortest, longest = (run(*texts(KNOWN[0]), "--max-length-offset", n, "--beam", 1)[0][0] for n in (0, 31))
    assert longest.startswith(shortest)
    assert len(longest) > len(shortest)


def test_long_lines_are_cut_or_split_on_request(run: Run, known: list[str], babbler: Path) -> None:
    sizes = [len(ids) for ids in Translator.load(babbler).encode(KNOWN)]
    options = ("--max-source-length", max(sizes))
    out, err = run(*texts(" ".join(KNOWN), KNOWN[2]), *options, "--too-long", "split")
    assert out == [" ".join(known), known[2]]
    out, err = run(*texts(KNOWN[2], " ".join(KNOWN)), *options, "--too-long", "truncate")
    assert len(out) == 2
    assert err[0] == "1 line beyond the limit is cut: 2"


def test_an_output_is_resumed_with_the_same_rules_only(
    run: Run, babbler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in KNOWN))
    command = (tmp_path / "in", "--output", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(translate, "_as_text", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*command, "--too-long", "split")
    (tmp_path / "out.part").write_text("x")  # an empty one could begin again
    with pytest.raises(DataError, match=r"was made with too_long=split, and now it is unset"):
        run(*command)
    with pytest.raises(DataError, match=r"was made with max_source_length=1024, and now it is 31"):
        run(*command, "--too-long", "split", "--max-source-length", 31)
    run(*command, "--too-long", "split")
    assert (tmp_path / "out").read_text().splitlines() == Translator.load(babbler).translate(KNOWN)


# Outputs


@pytest.mark.parametrize("name", ["out", "out.part", "out.part.json", "./out", "link", "hard"])
def test_the_output_is_not_the_input(run: Run, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    (tmp_path / ("out" if name in ("link", "hard") else name)).write_text("A man.\n")
    if name == "link":
        source.symlink_to(tmp_path / "out")
    elif name == "hard":
        source.hardlink_to(tmp_path / "out")
    with pytest.raises(ConfigError, match="choose another"):
        run(source, "--output", tmp_path / "out")
    assert source.read_text() == "A man.\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/stdin")
def test_the_output_is_not_what_standard_input_reads(babbler: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("A man.\n")
    with (tmp_path / "in").open() as stdin:
        done = start(babbler, "--output", tmp_path / "in", stdin=stdin)
        assert "choose another" in done.communicate()[1]
    assert done.returncode == 2
    assert (tmp_path / "in").read_text() == "A man.\n"


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/step-00000010/model.safetensors"])
def test_the_output_is_no_file_of_the_run(run: Run, babbler: Path, name: str) -> None:
    before = (babbler / name).read_bytes()
    with pytest.raises(ConfigError, match="choose another"):
        run(*texts("A man."), "--output", babbler / name)
    assert (babbler / name).read_bytes() == before


def test_the_output_is_no_file_of_the_corpus(run: Run, tiny_corpus: str) -> None:
    with pytest.raises(ConfigError, match="choose another"):
        run(*texts("A man."), "--output", tiny_corpus.format(split="train", lang="de"))
    assert Path(tiny_corpus.format(split="train", lang="de")).stat().st_size


def test_an_output_in_the_runs_directory_is_replaced(run: Run, babbler: Path, known: list[str]) -> None:
    for _ in range(2):
        run(*texts(KNOWN[0]), "--output", babbler / "out.de")
    assert (babbler / "out.de").read_text() == f"{known[0]}\n"


# Inputs


def test_a_text_in_the_place_of_the_file_is_hinted_at_before_the_model_is_loaded() -> None:
    with pytest.raises(DataError, match=r"^A cat is sleeping\.: no such file; did you mean --text\?$"):
        translate.main(["absent run", "A cat is sleeping."])


def test_an_empty_text_is_a_line(run: Run) -> None:
    assert run("--text", "") == ([""], [])


@pytest.mark.parametrize("text", ["\x00", "\x07\x1b[31m", "\u200b", "\t\v", "\u2028", "a\nb"])
def test_odd_characters_give_one_line(babbler: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert translate.main([str(babbler), "--text", text]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "\x1b" not in err


# Pipes


def start(babbler: Path, *arguments: object, stdin: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "transformer.commands", "translate", str(babbler), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1, encoding="utf-8"
    )


@pytest.fixture
def server(babbler: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    process = start(babbler, *getattr(request, "param", ()))
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    "server",
    [(), pytest.param(("-",), marks=pytest.mark.slow), pytest.param(("/dev/stdin",), marks=pytest.mark.slow)],
    indirect=True,
    ids=str,
)
def test_each_request_through_a_pipe_is_answered(server: subprocess.Popen[str], known: list[str]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    for _ in range(2):
        for text, translation in zip(KNOWN, known, strict=True):
            # The first half of a line waits for the second.
            server.stdin.write(text[:5])
            server.stdin.flush()
            server.stdin.write(f"{text[5:]}\n")
            assert server.stdout.readline() == f"{translation}\n"
    server.stdin.write(KNOWN[1])  # without a line feed, at the end
    out, err = server.communicate()
    assert (server.returncode, out) == (0, f"{known[1]}\n")
    assert err.startswith("checkpoint: ") and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_requests_through_a_named_pipe_are_answered_and_kept(babbler: Path, known: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    process = start(babbler, tmp_path / "fifo")
    assert process.stdout is not None
    with (tmp_path / "fifo").open("w", buffering=1) as fifo:
        for text, translation in zip(KNOWN, known, strict=True):
            fifo.write(f"{text}\n")
            assert process.stdout.readline() == f"{translation}\n"
    assert without_checkpoint(*process.communicate()) == ("", "")


@pytest.mark.slow
def test_an_endless_input_ends_with_its_reader(babbler: Path) -> None:
    code = "while True: print('A man is sleeping.')"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        process = start(babbler, "--beam", 1, stdin=writer.stdout)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert (process.wait(60), *without_checkpoint(process.stderr.read())) == (141, "")
        process.stderr.close()
        assert writer.stdout is not None
        writer.stdout.close()
        writer.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_an_interrupt_while_waiting_for_input_ends_quietly(server: subprocess.Popen[str], known: list[str]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{KNOWN[0]}\n")
    assert server.stdout.readline() == f"{known[0]}\n"
    server.send_signal(2)
    assert server.wait(60) == 130
    assert server.stderr is not None
    assert without_checkpoint(server.stderr.read()) == ("interrupted\n",)


def test_a_pipe_that_is_full_is_translated_in_whole_chunks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in KNOWN * 3001))
    sizes: list[int] = []

    def translations(_: Translator, lines: list[str], **__: object) -> list[list[object]]:
        sizes.append(len(lines))
        return [[] for _ in lines]

    monkeypatch.setattr(Translator, "translate_nbest", translations)
    with subprocess.Popen(["cat", tmp_path / "in"], stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(cat.stdout))
        out, _ = run()
    assert len(out) == sum(sizes) == 9003
    assert len(sizes) <= 4, "at most one more than the 3 of a file"


# Options of the search


def test_the_search_is_chosen_by_options(run: Run, known: list[str], babbler: Path) -> None:
    translator = Translator.load(babbler)
    for options, settings in (
        (("--no-repeat-ngram", 2), {"no_repeat_ngram": 2}),
        (("--length-penalty", "power", "--alpha", "1.5"), {"length_penalty": "power", "alpha": 1.5}),
        (("--min-length", 7, "--max-length", 11), {"min_length": 7, "max_length": 11}),
        (("--no-allow-unknown",), {"allow_unknown": False}),
        (("--prefix", "Zwei"), {"prefixes": ["Zwei"] * len(KNOWN)}),
    ):
        out, _ = run(*texts(*KNOWN), *options)
        assert out == translator.translate(KNOWN, **settings)
    assert run(*texts(*KNOWN), "--allow-unknown")[0] == known


def test_each_line_may_have_its_prefix(run: Run, tmp_path: Path) -> None:
    (tmp_path / "prefixes.gz").write_bytes(gzip.compress(b"Zwei kleine\n\nDie\n"))
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in KNOWN))
    out, _ = run(tmp_path / "in", "--prefix-file", tmp_path / "prefixes.gz", "--beam", 1)
    plain, _ = run(tmp_path / "in", "--beam", 1)
    assert out[0].startswith("Zwei kleine")
    assert out[1] == plain[1]
    assert out[2].startswith("Die")
    assert out == run(*texts(*KNOWN), "--prefix-file", tmp_path / "prefixes.gz", "--beam", 1)[0]


@pytest.mark.parametrize(("prefixes", "message"), [("Zwei\n", "has fewer lines"), ("Zwei\n" * 4, "has more lines")])
def test_prefixes_are_one_per_line(run: Run, tmp_path: Path, prefixes: str, message: str) -> None:
    (tmp_path / "prefixes").write_text(prefixes)
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in KNOWN))
    for source in ([tmp_path / "in"], texts(*KNOWN)):
        with pytest.raises(DataError, match=rf"prefixes: {message} than the input"):
            run(*source, "--prefix-file", tmp_path / "prefixes")


def test_a_bad_prefix_of_a_file_is_an_error_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in KNOWN))
    (tmp_path / "prefixes").write_text("Zwei\n\nдва\n")
    monkeypatch.setattr(Translator, "translate_nbest", lambda *_, **__: pytest.fail("translated"))
    with pytest.raises(DataError, match=r"in: prefix 3 \('два'\) has characters that the tokenizer does not know"):
        run(tmp_path / "in", "--prefix-file", tmp_path / "prefixes")
    with pytest.raises(ConfigError, match="choose another"):
        run(tmp_path / "in", "--prefix-file", tmp_path / "prefixes", "--output", tmp_path / "prefixes")


# Samples


def test_samples_depend_on_the_seed_and_the_number_of_the_line(run: Run, babbler: Path) -> None:
    options = ("--sample", "--nbest", 5, "--scores")
    out, _ = run(*texts(*KNOWN), *options)
    assert len(out) == 15 and len(set(out)) > 5
    assert out == run(*texts(*KNOWN), *options, "--seed", 1)[0]
    assert out != run(*texts(*KNOWN), *options, "--seed", 2)[0]
    # Another line beside it, or fewer samples, change no sample.
    other, _ = run(*texts("", KNOWN[1], KNOWN[0]), *options)
    assert other[5:10] == out[5:10]
    fewer, _ = run(*texts(*KNOWN), "--sample", "--nbest", 2, "--scores")
    assert fewer == [line for i, line in enumerate(out) if i % 5 < 2]
    cold, _ = run(*texts(*KNOWN), "--sample", "--temperature", 1e-6)
    assert cold == Translator.load(babbler).translate(KNOWN, beam=1)
    assert run(*texts(*KNOWN), "--sample", "--top-k", 1)[0] == cold


def test_samples_of_lines_in_parts_and_copied_lines(run: Run, babbler: Path) -> None:
    sizes = [len(ids) for ids in Translator.load(babbler).encode(KNOWN)]
    options = ("--max-source-length", max(sizes), "--too-long", "split", "--sample", "--nbest", 3)
    out, _ = run(*texts(" ".join(KNOWN), "здесь."), *options)
    assert len(set(out[:3])) == 3
    assert out[3:] == ["здесь."] * 3


@pytest.mark.parametrize("size", [1, 2])
def test_samples_are_the_same_after_a_resumption(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in KNOWN))
    options = (tmp_path / "in", "--sample", "--nbest", 3, "--prefix", "Zwei", "--json", "--token-scores", "--output")
    run(*options, tmp_path / "whole")
    monkeypatch.setattr(translate, "_LINES_AT_A_TIME", size)
    add, calls = translate.ResumableOutput.add, []

    def stop(output: Any, lines: list[str], text: str) -> None:
        calls.append(lines)
        if len(calls) == 2:
            raise KeyboardInterrupt
        add(output, lines, text)

    with monkeypatch.context() as patch:
        patch.setattr(translate.ResumableOutput, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            run(*options, tmp_path / "out")
    for other, name in (
        (("--seed", 3), "sampling"),
        (("--top-k", 3), "sampling"),
        (("--prefix", "Die"), "prefix"),
    ):
        with pytest.raises(DataError, match=f"was made with {name}="):
            run(*options, tmp_path / "out", *other)
    run(*options, tmp_path / "out")
    found, whole = ([json.loads(x) for x in (tmp_path / name).read_text().splitlines()] for name in ("out", "whole"))
    assert [[t["text"] for t in x["translations"]] for x in found] == [
        [t["text"] for t in x["translations"]] for x in whole
    ]
    assert [x["line"] for x in found] == [1, 2, 3]


# JSON lines


def test_a_line_is_an_object_with_its_translations(run: Run, babbler: Path) -> None:
    lines = [KNOWN[0], "", "здесь.", f"{KNOWN[1]}\u2028\x85"]
    out, err = run(*texts(*lines), "--json", "--nbest", 3, "--token-scores")
    assert len(out) == 4
    found = [json.loads(line) for line in out]
    assert [x["line"] for x in found] == [1, 2, 3, 4]
    assert [x["source"] for x in found] == lines
    assert err == ["1 line without a known word is copied: 3"]
    translator = Translator.load(babbler)
    wanted = translator.translate_nbest(lines, nbest=3)
    for one, nbest in zip(found, wanted, strict=True):
        assert [(x["text"], x["score"]) for x in one["translations"]] == [(x.text, x.score) for x in nbest]
        for x in one["translations"]:
            assert x["log_prob"] == pytest.approx(sum(x.get("token_log_probs", [])), abs=1e-3)
            assert len(x["tokens"]) == len(x.get("token_log_probs", []))
        assert [tuple(x["tokens"]) for x in one["translations"]] == [
            tuple(translator.tokenizer.pieces(x.ids)) for x in nbest
        ]
    assert found[1]["translations"] == [{"text": "", "score": 0.0, "log_prob": 0.0, "tokens": []}]
    assert found[2]["translations"] == [{"text": "здесь.", "score": 0.0, "log_prob": 0.0, "tokens": []}]
    plain = [json.loads(line) for line in run(*texts(*lines), "--json")[0]]
    assert "token_log_probs" not in plain[0]["translations"][0]


def test_an_ensemble_translates(run: Run, babbler: Path, known: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*texts(*KNOWN), "--ensemble", babbler, babbler)[0] == known
    capsys.readouterr()
    translate.main([str(babbler), "--text", "A man.", "--ensemble", str(babbler)])
    assert capsys.readouterr().err.count("checkpoint: ") == 2

"""The translate command with documents."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from word_documents import body, document, parts, run

from transformer.cli import run as run_command
from transformer.commands import translate
from transformer.errors import ConfigError, DataError
from transformer.inference.translator import Translator

Call = Callable[..., int]
PAGE = "<p>A <b>man</b> is sleeping.</p>\n"
SUBTITLES = "1\n00:00:01,000 --> 00:00:02,000\nA man is sleeping.\n"


@pytest.fixture
def call(babbler: Path) -> Call:
    return lambda *arguments: translate.main([str(babbler), *map(str, arguments), "--device", "cpu"])


def test_the_name_decides_the_format(
    call: Call, babbler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (translation,) = Translator.load(babbler, device="cpu").translate(["A man is sleeping."])
    (tmp_path / "film.srt").write_text(SUBTITLES)
    assert call(tmp_path / "film.srt", "--output", tmp_path / "out.srt") == 0
    text = " ".join(translation.split())
    assert (tmp_path / "out.srt").read_text() == SUBTITLES.replace("A man is sleeping.", text)
    capsys.readouterr()
    assert call(tmp_path / "film.srt", "--format", "lines") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert call(tmp_path / "film.srt") == 0
    assert capsys.readouterr().out == (tmp_path / "out.srt").read_text()


def test_a_page_keeps_its_tags(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    assert call(tmp_path / "page.html", "--alignment-layer", 1) == 0
    out = capsys.readouterr().out
    assert out != PAGE
    assert [out.count(tag) for tag in ("<p>", "<b>", "</b>", "</p>\n")] == [1, 1, 1, 1]


def test_a_word_document_is_written(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("lxml")
    (tmp_path / "in.docx").write_bytes(document(body(run("A man is sleeping."))))
    assert call(tmp_path / "in.docx", "--output", tmp_path / "out.docx") == 0
    assert b"sleeping" not in parts((tmp_path / "out.docx").read_bytes())["word/document.xml"]


def test_standard_input_is_read(
    call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"- A man is sleeping.\n\n  42\n")))
    assert call("-", "--format", "text") == 0
    out = capsys.readouterr().out
    assert out.startswith("- ")
    assert out.endswith("\n\n  42\n")


def test_what_happened_to_sentences_is_printed(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.html").write_text("<p>A man {name} is sleeping.</p>")
    assert call(tmp_path / "page.html") == 0
    out, err = capsys.readouterr()
    assert out.count("{name}") == 1
    assert "1 sentence is translated again without placeholders" in err


def test_what_is_cut_or_unknown_is_printed(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.html").write_text("<p>A man is sleeping on a bench.</p><p>здесь</p>", encoding="utf-8")
    assert call(tmp_path / "page.html", "--max-source-length", 5, "--too-long", "truncate") == 0
    messages = capsys.readouterr().err.splitlines()
    assert "1 of 2 sentences without a known word: left as in the source" in messages
    assert "1 of 2 sentences beyond the limit: cut" in messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nbest", "2"], "--nbest is for lines, and this is a document (--format html); with --format lines"),
        (["--json"], "--json is for lines"),
        (["--scores"], "--scores is for lines"),
        (["--sample"], "--sample is for lines"),
        (["--prefix", "Die"], "--prefix is for lines"),
        (["--constraints", "x"], "--constraints is for lines"),
        (["--output", "x.docx"], "--output x.docx: the translation has the format of FILE, html"),
        (["--format", "docx"], "a translated .docx is no text to print: give --output FILE.docx"),
        (["--alignment-layer", "3"], "--alignment-layer=3 must be a whole number between 1 and"),
    ],
)
def test_options_that_do_not_go_together_are_an_error(
    call: Call, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    with pytest.raises(ConfigError) as error:
        call(tmp_path / "page.html", *options)
    assert str(error.value).startswith(message)


def test_a_text_is_a_line(call: Call) -> None:
    with pytest.raises(ConfigError, match=r"^--format html is of FILE; --text is a line$"):
        call("--text", "A", "--format", "html")


def test_a_compressed_document_is_not_taken_for_lines(call: Call, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "film.srt.gz", "wt") as stream:
        stream.write(SUBTITLES)
    with pytest.raises(ConfigError, match=r"film\.srt\.gz: unpack it first, or choose --format lines"):
        call(tmp_path / "film.srt.gz")
    assert call(tmp_path / "film.srt.gz", "--format", "lines") == 0


@pytest.mark.parametrize("name", ["film.vtt", "film.ASS", "strings.po", "report.odt", "report.doc", "paper.pdf"])
def test_documents_that_are_not_read_are_not_taken_for_lines(call: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nA man is sleeping.\n")
    with pytest.raises(ConfigError, match=r"documents of this kind are not read, .* choose --format lines"):
        call(tmp_path / name)
    assert call(tmp_path / name, "--format", "lines") == 0


def test_lines_do_not_become_a_document_by_the_name_of_the_output(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("A man is sleeping.\n")
    output = tmp_path / "out.docx"
    for source in ((tmp_path / "in.txt",), ("--text", "A man.")):
        with pytest.raises(ConfigError, match=r"out\.docx: the input is read as lines; give --format docx if it is a"):
            call(*source, "--output", output)
    assert not output.exists()
    assert call(tmp_path / "in.txt", "--output", output, "--format", "lines") == 0
    assert output.read_text().count("\n") == 1


def test_the_output_is_not_the_input(call: Call, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    with pytest.raises(ConfigError, match=r"is the same file as the input"):
        call(tmp_path / "page.html", "--output", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == PAGE


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.docx", b"no zip", "x.docx: is no zip container, or damaged: "),
        ("x.srt", b"no times", "x.srt: has no line as 00:00:01,000"),
        ("x.html", b"\xff\xfe\x00", "x.html: is not utf-16-le (byte "),
        ("x.srt", None, "x.srt: no such file"),
    ],
)
def test_a_broken_file_is_one_line_and_leaves_no_output(
    call: Call,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(SystemExit) as end:
        run_command(lambda: call(name, "--output", f"out{Path(name).suffix}"))
    assert end.value.code == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if not one.startswith("checkpoint: ")]
    assert line.startswith(f"error: {message}")
    assert [path.name for path in tmp_path.iterdir()] == [name] * (content is not None)


def test_a_sentence_that_is_too_long_names_the_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "x.html").write_text("<p>" + "word " * 2000)
    with pytest.raises(DataError, match=r"x\.html: the sentence 'word word .*--too-long truncate or split$"):
        call(tmp_path / "x.html")

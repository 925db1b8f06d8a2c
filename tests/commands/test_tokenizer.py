"""transformer tokenizer: what it prints is what training would do, and comes back."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from transformer.commands import tokenizer as command
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError, DataError

PAIRS = list(builtin_pairs("train", 211))
LINES = ["A man is sleeping.", "", "<2de> Der Hund", "漢字 Hund ½", "  two   blanks ", "no\u00a0break <s>"]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A file per language, the second one compressed."""
    (tmp_path / "a.en").write_text("".join(f"{source}\n" for source, _ in PAIRS))
    (tmp_path / "a.de.gz").write_bytes(gzip.compress("".join(f"{target}\n" for _, target in PAIRS).encode()))
    return [f"{tmp_path}/a.en", f"{tmp_path}/a.de.gz"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    sentences = [side for pair in PAIRS for side in pair]
    (tmp_path / "m.model").write_bytes(Tokenizer.train(sentences, 307, user_symbols=["<2de>"]).model)
    return f"{tmp_path}/m.model"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with lines on standard input; returns its lines."""

    def call(*arguments: object, lines: list[str] | None = None) -> list[str]:
        text = "".join(f"{line}\n" for line in lines or [])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
        assert command.main([*map(str, arguments)]) == 0
        return capsys.readouterr().out.split("\n")[:-1]

    return call


def spaced(line: str) -> str:
    return " ".join(filter(None, line.split(" ")))


def test_a_model_is_that_of_the_same_keys(call: Any, files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "new.model"
    options = ("--vocab-size", 523, "--tokenizer-type", "unigram", "--byte-fallback", "--user-symbol", "<2de>")
    lines = call("train", *files, "--output", path, *options, "--normalization", "nmt_nfkc")
    sentences = [source for source, _ in PAIRS] + [target for _, target in PAIRS]
    expected = Tokenizer.train(
        sentences, 523, tokenizer_type="unigram", byte_fallback=True, user_symbols=["<2de>"], normalization="nmt_nfkc"
    )
    assert path.read_bytes() == expected.model
    assert lines == [f"{path}: 523 pieces, unigram, normalization nmt_nfkc"]


def test_a_model_is_not_written_over_its_input_and_values_have_the_ranges_of_the_keys(
    call: Any, files: list[str], tmp_path: Path
) -> None:
    before = Path(files[0]).read_bytes()
    with pytest.raises(ConfigError, match=r"is the same file as the input"):
        call("train", *files, "--output", files[0], "--vocab-size", 307)
    assert Path(files[0]).read_bytes() == before
    with pytest.raises(ConfigError, match=r"^data\.vocab_size"):
        call("train", *files, "--output", tmp_path / "x.model", "--vocab-size", 3)
    with pytest.raises(DataError, match=r"^data\.vocab_size=37000 is too large for this corpus; at most \d+ pieces"):
        call("train", *files, "--output", tmp_path / "x.model")
    assert not (tmp_path / "x.model").exists()


@pytest.mark.parametrize("options", [(), ("--sample", 0.4, "--seed", 7)], ids=str)
def test_pieces_come_back_as_their_text_with_unknown_characters(
    call: Any, model: str, options: tuple[Any, ...]
) -> None:
    pieces = call("encode", model, *options, lines=LINES)
    assert len(pieces) == len(LINES)
    assert call("decode", model, lines=pieces) == [*map(spaced, LINES)]
    assert "漢字" in pieces[3].split(" ")


def test_ids_are_those_of_the_tokenizer_and_come_back(call: Any, model: str) -> None:
    ids = call("encode", model, "--ids", lines=LINES)
    assert [[*map(int, line.split())] for line in ids] == Tokenizer.load(model).encode(LINES)
    assert call("decode", model, "--ids", lines=ids)[:3] == [*map(spaced, LINES[:3])]


def test_samples_depend_on_seed_and_line(call: Any, model: str) -> None:
    lines = [LINES[0]] * 19
    first, again, other = (call("encode", model, "--sample", 0.3, "--seed", seed, lines=lines) for seed in (7, 7, 8))
    assert first == again != other
    assert len({*first}) > 3
    assert call("encode", model, "--sample", 0, lines=lines) == call("encode", model, lines=lines)
    assert call("encode", model, "--sample", 0.3, lines=lines) == call(
        "encode", model, "--sample", 0.3, "--seed", 1, lines=lines
    )
    with pytest.raises(ConfigError, match=r"^--seed is of --sample: give --sample too$"):
        call("encode", model, "--seed", 1, lines=lines)


@pytest.mark.parametrize("value", ["1", "-0.1", "nan"])
def test_dropout_beyond_its_range_is_refused(call: Any, model: str, value: str) -> None:
    with pytest.raises(ConfigError, match=r"^--sample .* must be in \[0, 1\), as BPE dropout$"):
        call("encode", model, f"--sample={value}", lines=LINES)


def test_a_unigram_model_is_sampled_with_alpha(call: Any, tmp_path: Path) -> None:
    path, sentences = tmp_path / "u.model", [side for pair in PAIRS for side in pair]
    path.write_bytes(Tokenizer.train(sentences, 307, tokenizer_type="unigram").model)
    pieces = call("encode", path, "--sample", 0.1, lines=LINES)
    assert call("decode", path, lines=pieces) == [*map(spaced, LINES)]
    assert pieces != call("encode", path, lines=LINES)
    with pytest.raises(ConfigError, match=r"must be above 0 and at most 100, as alpha of a unigram model$"):
        call("encode", path, "--sample", 0, lines=LINES)


@pytest.mark.parametrize("word", ["307", "x", "-1", "1.5", "٣", "9" * 30])
def test_what_is_not_an_id_is_refused_with_its_line(call: Any, model: str, word: str) -> None:
    with pytest.raises(DataError, match=rf"^line 2: '{re.escape(word[:20])}' is not an id from 0 to 306$"):
        call("decode", model, "--ids", lines=["4 5", f"4 {word}"])


def test_figures_are_those_counted_by_hand(call: Any, model: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    (found,) = json.loads("\n".join(call("stats", model, path, "--json", "--longest", 2)))
    tokenizer = Tokenizer.load(model)
    ids = tokenizer.encode(LINES)
    lengths = [len(x) for x in ids if x]
    assert found["file"] == str(path)
    assert [found[x] for x in ("lines", "blank_lines", "words", "characters")] == [
        6,
        1,
        4 + 3 + 3 + 2 + 3,
        15 + 12 + 7 + 9 + 10,
    ]
    assert (found["pieces"], found["unknown_pieces"]) == (sum(lengths), sum(x.count(1) for x in ids))
    assert found["unknown_characters"] >= 3  # 漢字 and ½
    assert found["coverage"] == 1 - found["unknown_characters"] / found["characters"]
    assert found["pieces_per_word"] == sum(lengths) / found["words"]
    assert found["distinct_pieces"] == len({id_ for x in ids for id_ in x})
    assert (found["length_median"], found["length_max"]) == (sorted(lengths)[2], max(lengths))
    assert found["longest_lines"][0]["pieces"] == max(lengths)
    assert len(found["longest_lines"]) == 2


def test_the_table_has_a_column_per_file(call: Any, model: str, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    lines = call("stats", model, *files, tmp_path / "empty")
    assert lines[0].split() == [*files, f"{tmp_path}/empty"]
    rows = {line[:22].strip(): line[22:].split() for line in lines}
    assert rows["lines"] == ["211", "211", "0"]
    assert rows["coverage"] == ["100.00%", "100.00%", "-"]
    with pytest.raises(ConfigError, match=r"^--longest -1 must be at least 0$"):
        call("stats", model, *files, "--longest", -1)


def test_bytes_are_counted(call: Any, tmp_path: Path) -> None:
    sentences = [side for pair in PAIRS for side in pair]
    (tmp_path / "b.model").write_bytes(Tokenizer.train(sentences, 523, byte_fallback=True).model)
    (tmp_path / "text").write_text("漢 Hund\n", encoding="utf-8")
    (found,) = json.loads("\n".join(call("stats", tmp_path / "b.model", tmp_path / "text", "--json")))
    assert (found["byte_pieces"], found["unknown_pieces"], found["coverage"]) == (3, 0, 1.0)


def test_a_run_and_a_checkpoint_are_read_as_their_file(call: Any, trained_run: Path, tmp_path: Path) -> None:
    expected = call("encode", trained_run / "tokenizer.model", lines=LINES)
    checkpoint = next((trained_run / "checkpoints").iterdir())
    assert call("encode", trained_run, lines=LINES) == call("encode", checkpoint, lines=LINES) == expected
    shutil.copytree(trained_run, tmp_path / "run")
    (tmp_path / "run" / "tokenizer.model").unlink()
    assert call("encode", tmp_path / "run", lines=LINES) == expected, "its checkpoints have it too"


def test_of_two_tokenizers_one_is_chosen(call: Any, model: str, tmp_path: Path) -> None:
    directory = tmp_path / "two"
    directory.mkdir()
    shutil.copy(model, directory / "tokenizer.model")
    (directory / "source_tokenizer.model").write_bytes(Tokenizer.train([source for source, _ in PAIRS], 211).model)
    found = [call("encode", directory, "--side", side, lines=LINES) for side in ("source", "target")]
    assert found[1] == call("encode", model, lines=LINES) != found[0]
    with pytest.raises(
        ConfigError, match=r"each side has a tokenizer of its own: choose --side source or --side target$"
    ):
        call("encode", directory, lines=LINES)


def test_a_model_from_elsewhere_has_the_ids_that_training_would_give_it(call: Any, tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=(source for source, _ in PAIRS), model_writer=model, vocab_size=97, minloglevel=2
    )
    (tmp_path / "x.spm").write_bytes(model.getvalue())
    ids = call("encode", tmp_path / "x.spm", "--ids", lines=LINES[:1])
    original = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).Encode(LINES[0])
    assert [int(word) - 1 for word in ids[0].split()] == original  # padding was added before all others
    with pytest.raises(DataError, match=r"^absent\.model: cannot be read: No such file or directory$"):
        call("encode", "absent.model", lines=LINES)


def test_a_normaliser_that_makes_bytes_is_an_error(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    tokenizer = Tokenizer.load(model)

    class Broken:
        def Encode(self, *_: object, out_type: type, **__: object) -> list[list[int]]:  # noqa: N802
            if out_type is str:
                raise UnicodeDecodeError("utf-8", b"\x8c", 0, 1, "invalid start byte")
            return [[]]

    monkeypatch.setattr(tokenizer, "_processor", Broken())
    with pytest.raises(DataError, match=r"^the tokenizer's normalisation makes text that is not UTF-8$"):
        tokenizer.encode_as_pieces(["x"])

"""Sources and references are read together, and wrong pairings are noticed."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from transformer.config import Config, DataConfig
from transformer.errors import ConfigError, DataError
from transformer.inference.evaluation_set import (
    EvaluationSet,
    check_distinct,
    check_lengths,
    read_hypotheses,
    signs_of_swapped_files,
)

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pyarrow.compress(data, codec="zstd", asbytes=True)),
}


def write(directory: Path, **texts: str) -> list[Path]:
    """Files with these names and texts; __ stands for a full stop."""
    paths = [directory / name.replace("__", ".") for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    return paths


def test_files_are_read_as_sources_and_references(tmp_path: Path) -> None:
    src, one, other = write(tmp_path, src="a\nb\n", one="A\nB\n", other="\nBB")
    found = EvaluationSet.from_files(src, [one, other])
    assert (found.sources, found.references) == (["a", "b"], [["A", "B"], ["", "BB"]])
    assert (len(found), found.names, found.files) == (2, [str(one), str(other)], [src, one, other])
    assert found.name == f"{src} and {one} and {other}"
    assert EvaluationSet.from_files(None, [one]).sources is None


def test_a_split_is_read_as_the_corpus_has_it(tiny_config: Config) -> None:
    found = EvaluationSet.from_split(tiny_config.data, "test")
    assert found.sources is not None
    assert (len(found.sources), len(found.references[0]), len(found.references), len(found)) == (53, 53, 1, 53)
    assert found.sources[0] != found.references[0][0]


def test_texts_of_different_length_are_an_error_with_every_count(tmp_path: Path) -> None:
    src, one, other = write(tmp_path, src="a\nb\n", one="A\nB\n", other="A\nB\nC\n")
    with pytest.raises(DataError, match=rf"^the two sides differ in length: {src} has 2 lines, {other} has 3$"):
        EvaluationSet.from_files(src, [other])
    message = rf"^the texts differ in length: {src} has 2 lines, {one} has 2, {other} has 3$"
    with pytest.raises(DataError, match=message):
        EvaluationSet.from_files(src, [one, other])
    check_lengths({"a": 5, "b": 5})


def test_a_set_without_a_reference_is_refused(tmp_path: Path) -> None:
    (src,) = write(tmp_path, src="a\n")
    with pytest.raises(DataError, match=r"^there is no reference to score against$"):
        EvaluationSet.from_files(src, [])


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_hypotheses_are_read_without_line_ends_which_are_reported(tmp_path: Path, suffix: str) -> None:
    def put(name: str, data: bytes) -> Path:
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(PACK[suffix](data))
        return path

    assert read_hypotheses(put("unix", b"a\n\nc d")) == (["a", "", "c d"], False)
    assert read_hypotheses(put("windows", b"\xef\xbb\xbfa\r\nb\r\n")) == (["a", "b"], True)
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        read_hypotheses(put("binary", b"a\n\xff\n"))


@pytest.mark.parametrize(
    ("name", "data"), [("absent", None), ("plain.gz", b"text"), ("short.gz", b"\x1f\x8b\x08"), ("plain.xz", b"text")]
)
def test_hypotheses_that_cannot_be_read_are_named(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}: cannot be read: "):
        read_hypotheses(tmp_path / name)


@pytest.mark.parametrize(
    ("src", "refs", "signs"),
    [
        ("x.en", ["x.de"], []),
        ("x.en.gz", ["ref.0", "ref.1"], []),
        ("newstest.deen.src", ["x.ref"], []),
        ("x.de", ["x.en"], ["--src x.de is in 'de'", "--ref x.en is in 'en'"]),
        ("x.de.gz", ["x"], ["--src x.de.gz is in 'de'"]),
        ("x", ["x.de", "x.en.txt"], ["--ref x.en.txt is in 'en'"]),
        (None, ["x.en"], ["--ref x.en is in 'en'"]),
    ],
)
def test_files_that_are_swapped_by_their_names_are_noticed(src: str | None, refs: list[str], signs: list[str]) -> None:
    found = signs_of_swapped_files(None if src is None else Path(src), [*map(Path, refs)], DataConfig())
    assert [line.partition(" by its name")[0] for line in found] == signs
    assert all(line.endswith("translates 'en' into 'de': are sources and references swapped?") for line in found)


def test_languages_of_the_same_name_cannot_be_swapped() -> None:
    data = DataConfig(src_lang="txt", tgt_lang="txt")
    assert signs_of_swapped_files(Path("a.txt"), [Path("b.txt")], data) == []


def test_a_reference_is_not_counted_twice(tmp_path: Path) -> None:
    one, other = write(tmp_path, one="a\n", other="a\n")
    check_distinct([one, other])
    (tmp_path / "link").hardlink_to(one)
    with pytest.raises(ConfigError, match=r"--ref \S*/link is the same file as --ref \S*/one$"):
        check_distinct([one, other, tmp_path / "link"])

"""Corpora from files, the hub and registered readers: pairs are aligned, or an error names the place."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pytest
import sacrebleu.dataset
from mutators import PACK

import transformer
import transformer.data.corpus
from transformer.config import DataConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import (
    Corpus,
    aligned_files,
    aligned_lines,
    checked_files,
    decode_lines,
    find_files,
    load_split,
    published_test_set,
    read_lines,
)
from transformer.data.dataset import corpus_tokenizer, encode_corpus
from transformer.errors import ConfigError, DataError

PAIRS = [("A dog.", "Ein Hund."), ("Two cats.", "Zwei Katzen."), ("Größe", "größer als ß")]
NAMES = ("{split}.{lang}", *(f"{{split}}.{{lang}}{suffix}" for suffix in PACK))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a cache directory of the test for `datasets`, offline."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(PACK.get(path.suffix, bytes)(raw))
    return path


def write_pairs(directory: Path, name: str, split: str, pairs: list[tuple[str, str]] = PAIRS) -> None:
    for lang, side in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
        write(directory / name.format(split=split, lang=lang), "".join(f"{line}\n" for line in side))


def load(corpus: Path | str, split: str = "train", **options: Any) -> Corpus:
    return load_split(DataConfig(corpus=str(corpus), **options), split)


# Files with a language each


@pytest.mark.parametrize("name", [*NAMES, "{split}/corpus.{lang}", "{lang}/{split}.txt", "{lang}.{split}"])
def test_files_of_a_pattern_give_their_lines_as_pairs(tmp_path: Path, name: str) -> None:
    write_pairs(tmp_path, name, "train")
    assert list(load(tmp_path / name)) == PAIRS


def test_source_and_target_languages_can_be_swapped(tmp_path: Path) -> None:
    write_pairs(tmp_path, "{split}.{lang}", "train")
    swapped = load(tmp_path / "{split}.{lang}", src_lang="de", tgt_lang="en")
    assert list(swapped) == [(tgt, src) for src, tgt in PAIRS]


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus_can_be_read_again_and_by_two_readers_at_once(tmp_path: Path, name: str) -> None:
    write_pairs(tmp_path, name, "train")
    corpus = load(tmp_path / name)
    assert list(corpus) == list(corpus) == PAIRS
    assert list(zip(corpus, corpus, strict=True)) == list(zip(PAIRS, PAIRS, strict=True))


def test_a_pattern_without_split_serves_every_split(tmp_path: Path) -> None:
    write_pairs(tmp_path, "all.{lang}", "")
    assert list(load(tmp_path / "all.{lang}", "validation")) == PAIRS


def test_a_last_line_without_an_end_counts_and_an_empty_file_has_none(tmp_path: Path) -> None:
    src, tgt = write(tmp_path / "a.en", "one\ntwo"), write(tmp_path / "a.de", "eins\nzwei\n")
    assert list(aligned_files(src, tgt)) == [("one", "eins"), ("two", "zwei")]
    write(src, "")
    write(tgt, "")
    assert list(aligned_files(src, tgt)) == []


@pytest.mark.parametrize("found", ["validation", "valid", "val", "dev"])
def test_validation_is_found_under_the_names_that_people_use(tmp_path: Path, found: str) -> None:
    write_pairs(tmp_path, "{split}.{lang}", found)
    write_pairs(tmp_path, "{split}.{lang}", "train", [("wrong", "falsch")])
    assert list(load(tmp_path / "{split}.{lang}", "validation")) == PAIRS


def test_the_exact_name_is_taken_before_a_synonym_and_before_a_beginning(tmp_path: Path) -> None:
    write_pairs(tmp_path, "{split}.{lang}", "validation")
    for other in ("val", "dev", "validation_2"):
        write_pairs(tmp_path, "{split}.{lang}", other, [("wrong", "falsch")])
    assert list(load(tmp_path / "{split}.{lang}", "validation")) == PAIRS


def test_a_split_is_found_by_the_only_name_that_begins_with_it(tmp_path: Path) -> None:
    write_pairs(tmp_path, "{split}.{lang}", "test_2016_flickr")
    write_pairs(tmp_path, "{split}.{lang}", "train", [("wrong", "falsch")])
    assert list(load(tmp_path / "{split}.{lang}", "test")) == PAIRS


@pytest.mark.parametrize("name", ["corpus-{split}-v2.{lang}.gz", "{split}.{lang}.txt", "[1]{split}.{lang}"])
def test_a_beginning_is_looked_for_around_the_rest_of_the_name(tmp_path: Path, name: str) -> None:
    write_pairs(tmp_path, name, "test2014-full")
    write(tmp_path / "test2014.fr", "autre chose")
    (tmp_path / name.format(split="test_directory", lang="en")).mkdir()
    assert list(load(tmp_path / name, "test")) == PAIRS


def test_a_beginning_of_two_names_is_an_error_that_lists_both(tmp_path: Path) -> None:
    for split in ("test_2016", "test_2017"):
        write_pairs(tmp_path, "{split}.{lang}", split)
    message = r"split 'test' could be any of test_2016, test_2017; name one in data\.\*_split or --split$"
    with pytest.raises(DataError, match=message):
        load(tmp_path / "{split}.{lang}", "test")
    assert list(load(tmp_path / "{split}.{lang}", "test_2017")) == PAIRS
    (tmp_path / "test_2016.de").unlink()
    assert list(load(tmp_path / "{split}.{lang}", "test")) == PAIRS  # only one is left in both languages


def test_a_beginning_does_not_find_one_of_several_shards_but_the_name_does(tmp_path: Path) -> None:
    write_pairs(tmp_path, "{split}.{lang}", "train-00000-of-00003")
    with pytest.raises(
        DataError, match=r"train-00000-of-00003\.en is one of 3 shards, .*; join them, or name this one"
    ):
        load(tmp_path / "{split}.{lang}")
    load(tmp_path / "{split}.{lang}", "train-00000-of-00003")


def test_both_languages_come_from_the_same_split(tmp_path: Path) -> None:
    write(tmp_path / "test_2016.en", "A dog.\n")
    write(tmp_path / "test_2017.de", "Eine Katze.\n")
    with pytest.raises(DataError, match="test"):
        load(tmp_path / "{split}.{lang}", "test")
    write(tmp_path / "val.en", "A dog.\n")
    for lang in ("en", "de"):
        write(tmp_path / f"dev.{lang}", f"{lang} of dev\n")
    assert list(load(tmp_path / "{split}.{lang}", "validation")) == [("en of dev", "de of dev")]


def test_a_missing_file_is_named_with_all_that_was_tried(tmp_path: Path) -> None:
    write(tmp_path / "train.en", "A dog.\n")
    with pytest.raises(DataError, match=r"data\.corpus=.*no such file: .*train\.de$"):
        load(tmp_path / "{split}.{lang}")
    with pytest.raises(DataError, match=r"no such file: .*test.corpus\.en, .*test.corpus\.de$"):
        load(tmp_path / "{split}" / "corpus.{lang}", "test")
    with pytest.raises(DataError, match=r"validation\.en, .*valid\.en, .*val\.en, .*dev\.en"):
        load(tmp_path / "{split}.{lang}", "validation")


@pytest.mark.parametrize("shorter", ["en", "de"])
def test_sides_of_different_length_are_an_error_with_both_counts(tmp_path: Path, shorter: str) -> None:
    write_pairs(tmp_path, "{split}.{lang}", "train")
    write(tmp_path / f"train.{shorter}", "a\n")
    num_en, num_de = (1, 3) if shorter == "en" else (3, 1)
    message = rf"sides differ in length: .*train\.en has {num_en} lines, .*train\.de has {num_de}$"
    with pytest.raises(DataError, match=message):
        list(load(tmp_path / "{split}.{lang}"))


@pytest.mark.parametrize("name", ["train.en", "train.en.gz"])
def test_bytes_that_are_not_utf8_are_an_error_with_file_line_and_byte(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"fine\nfine too\nGr\xf6\xdfe\n")
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}, line 3: not UTF-8 \(byte 3 of the line\)$"):
        list(read_lines(path))


@pytest.mark.parametrize("name", ["train.en", "train.en.gz"])
@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf16_is_an_error_that_says_so_at_the_beginning_of_a_file_only(tmp_path: Path, name: str, mark: bytes) -> None:
    with pytest.raises(DataError, match=r"train\.en(\.gz)?: is UTF-16; save it as UTF-8$"):
        list(read_lines(write(tmp_path / name, mark + b"a\0\n\0")))
    with pytest.raises(DataError, match=r", line 2: not UTF-8 \(byte 1 of the line\)$"):
        list(read_lines(write(tmp_path / name, b"a\n" + mark)))


def test_a_file_without_line_feeds_that_is_too_long_for_a_line_is_an_error_that_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r", line 1: longer than 4194304 bytes: does each line end with a line feed\?$"):
        list(read_lines(write(tmp_path / "train.en", b"a dog\r" * 700_001)))


@pytest.mark.parametrize(
    "odd",
    [
        "line\u2028separator",
        "paragraph\u2029separator",
        "next\x85line",
        "form\x0cfeed",
        "vertical\x0btab",
        "file\x1cgroup\x1drecord\x1eseparator",
        "carriage\rreturn",
        "\rcarriage return before",
        "nul\x00byte",
        "\ufeff after the first line",
        "  outer spaces\t",
        "",
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, odd: str, suffix: str) -> None:
    pairs = [("one", "eins"), (odd, "zwei"), ("three", "drei")]
    write_pairs(tmp_path, f"{{split}}.{{lang}}{suffix}", "train", pairs)
    assert list(load(tmp_path / f"{{split}}.{{lang}}{suffix}")) == pairs


def test_windows_line_ends_and_byte_order_marks_are_removed(tmp_path: Path) -> None:
    src = write(tmp_path / "a.en", b"\xef\xbb\xbfone\r\ntwo\r\n\r\nlast\r\n")
    assert list(read_lines(src)) == ["one", "two", "", "last"]
    tgt = write(tmp_path / "a.de", "eins\nzwei\n\nletzte\n")
    assert list(aligned_files(src, tgt))[3] == ("last", "letzte")


def test_lines_of_a_stream_are_decoded_as_those_of_a_file() -> None:
    stream = io.BytesIO(b"\xef\xbb\xbfone\r\ntwo\x0c\nthree")
    assert list(decode_lines(stream, "input")) == ["one", "two\x0c", "three"]
    with pytest.raises(DataError, match=r"^standard input, line 2: not UTF-8 \(byte 1 of the line\)$"):
        list(decode_lines(io.BytesIO(b"one\n\xff\n"), "standard input"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-11], "ended before"),  # truncated
        (lambda _: b"plain text", "[Nn]ot a gzip"),
        (lambda raw: raw[:13] + bytes(byte ^ 0x5A for byte in raw[13:31]) + raw[31:], ""),  # corrupt inside
    ],
)
def test_a_damaged_gzip_file_is_an_error_that_names_it(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "a.en.gz"
    text = "".join(f"sentence {i * i}\n" for i in range(97))
    path.write_bytes(damage(gzip.compress(text.encode())))
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}.*(cannot be read|not UTF-8).*{message}"):
        list(read_lines(path))


def test_a_file_that_cannot_be_opened_is_an_error_that_names_it(tmp_path: Path) -> None:
    there = write(tmp_path / "a.en", "a\n")
    with pytest.raises(DataError, match=r"absent\.de: cannot be read: No such file or directory"):
        aligned_files(there, tmp_path / "absent.de")
    with pytest.raises(DataError, match=r"absent\.de: cannot be read: No such file or directory"):
        list(read_lines(tmp_path / "absent.de"))


# Registered forms


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the registrations of a test."""
    monkeypatch.setattr(transformer.data.corpus, "_READERS", dict(transformer.data.corpus._READERS))


def read_tabs(data: DataConfig, split: str) -> Corpus:
    """Read tab-separated pairs, as a user's program may."""
    fingerprint, (file,) = checked_files(*find_files(data.corpus, split))

    def read() -> Iterator[tuple[str, str]]:
        for line in read_lines(file):
            source, _, target = line.partition("\t")
            yield source, target

    return Corpus(str(file.path), fingerprint, read, lambda: ["dog"])


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", ["{split}.tabs", "{split}.tabs.gz", "{split}.v2.tabs"])
def test_a_registered_suffix_is_read_from_file_to_ids(tmp_path: Path, name: str) -> None:
    transformer.register_corpus(".tabs", read_tabs)
    for split in ("train", "dev"):
        pairs = builtin_pairs("train" if split == "train" else "validation", 97)
        write(tmp_path / name.format(split=split), "".join(f"{source}\t{target}\n" for source, target in pairs))
    corpus = load(tmp_path / name)
    assert list(corpus) == list(corpus) == list(builtin_pairs("train", 97))
    assert list(load(tmp_path / name, "validation")) == list(builtin_pairs("validation", 97))
    tokenizer = corpus_tokenizer(corpus, 211, tmp_path / "cache")
    assert "▁dog" in tokenizer.pieces(range(211)), "a user-defined symbol"
    assert len(encode_corpus(corpus, tokenizer, tmp_path / "cache")) == 97
    with pytest.raises(DataError, match=r"no such file: .*test\."):
        load(tmp_path / name, "test")


@pytest.mark.usefixtures("registry")
def test_a_registered_suffix_stands_last_but_for_the_compression(tmp_path: Path) -> None:
    transformer.register_corpus(".tabs", read_tabs)
    write(tmp_path / "my.tabs.csv", "en,de\na,b\n")
    write_pairs(tmp_path, "my.tabs.{split}.{lang}.xz", "train")
    assert list(load(tmp_path / "my.tabs.csv")) == [("a", "b")]
    assert list(load(tmp_path / "my.tabs.{split}.{lang}.xz")) == PAIRS
    transformer.register_corpus(".gz", lambda _data, _split: Corpus("packed", "packed", lambda: iter([("c", "d")])))
    assert list(load(tmp_path / "any.gz")) == [("c", "d")]


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        (("a", "b", "c"), r"\('a', 'b', 'c'\)"),
        (None, "None"),
        (7, "7"),
        ("ab", "'ab'"),
        (("a", None), r"\('a', None\)"),
        ((b"a", "b"), r"\(b'a', 'b'\)"),
    ],
)
def test_a_reader_that_yields_something_other_than_two_texts_is_named(tmp_path: Path, bad: Any, shown: str) -> None:
    corpus = Corpus("mine", "mine", lambda: iter([("a", "b"), ["c", "d"], bad]))
    for read in (list, lambda corpus: corpus_tokenizer(corpus, 11, tmp_path)):
        with pytest.raises(DataError, match=rf"^mine, pair 3: must be two texts, got {shown}$"):
            read(corpus)


@pytest.mark.parametrize("pair", [("ä", "half \ud800 a character"), ("\udc80", "")])
def test_surrogates_of_a_reader_are_an_error_with_the_number_of_the_pair(pair: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"^mine, pair 2 contains surrogates, which UTF-8 cannot encode"):
        list(Corpus("mine", "mine", lambda: iter([("ä", "\U0001f600"), pair])))


def test_a_fingerprint_is_text() -> None:
    with pytest.raises(TypeError, match=r"^mine: fingerprint must be a str, got bytes$"):
        Corpus("mine", b"digest", lambda: iter(()))  # type: ignore[arg-type]


@pytest.mark.usefixtures("registry")
def test_a_registered_name_is_read_with_its_configuration_and_split() -> None:
    transformer.register_corpus(
        "mine", lambda data, split: Corpus("mine", split, lambda: iter([(data.src_lang, split)]))
    )
    assert list(load("mine", "test", src_lang="nl")) == [("nl", "test")]
    with pytest.raises(ConfigError, match=r"split='\.\./x' must be a plain name"):
        load("mine", "../x")


@pytest.mark.parametrize("form", ["builtin", "treebank", ".trees"])
def test_a_form_is_registered_once(form: str) -> None:
    with pytest.raises(ValueError, match=f"^a reader for the corpus form '{form}' is already registered$"):
        transformer.register_corpus(form, read_tabs)


def test_an_unregistered_name_is_one_line_that_names_it() -> None:
    with pytest.raises(DataError, match=r"^data\.corpus=mine: cannot load 'train' from the hub ") as caught:
        load("mine", subset=None)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_treebanks_are_registered_by_parsing_which_data_does_not_import() -> None:
    for path in Path(transformer.data.corpus.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(from|import) .*\bparsing\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    program = "from transformer.data import corpus; print(sorted(corpus._READERS))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['.tmx', '.trees', 'builtin', 'treebank']\n"


# Fingerprints


def test_the_fingerprint_changes_with_the_content_and_not_with_the_name(tmp_path: Path) -> None:
    src, tgt = write(tmp_path / "a.en", "one\ntwo\n"), write(tmp_path / "a.de", "eins\nzwei\n")
    before = aligned_files(src, tgt).fingerprint
    assert aligned_files(write(tmp_path / "b.en", "one\ntwo\n"), tgt).fingerprint == before
    assert aligned_files(tgt, src).fingerprint != before
    write(tgt, "eins\nzwo\n")
    assert aligned_files(src, tgt).fingerprint != before


def test_the_fingerprint_changes_when_a_line_moves_to_the_other_side(tmp_path: Path) -> None:
    one = aligned_files(write(tmp_path / "a.en", "x\ny\n"), write(tmp_path / "a.de", "z\n"))
    other = aligned_files(write(tmp_path / "b.en", "x\n"), write(tmp_path / "b.de", "y\nz\n"))
    assert one.fingerprint != other.fingerprint


# Test sets of sacreBLEU


@pytest.fixture
def statmt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local archive of newstest2014 in place of the one at statmt.org."""
    for lang, lines in (("en", ["A dog.", "Two  cats. "]), ("de", ["Ein Hund.", "Zwei Katzen."])):
        kind = "src" if lang == "en" else "ref"
        segments = "".join(f'<seg id="{i}">{line}</seg>\n' for i, line in enumerate(lines, start=1))
        write(tmp_path / f"newstest2014-deen-{kind}.{lang}.sgm", f'<doc docid="a" origlang="en">\n{segments}</doc>\n')
    archive = tmp_path / "test-full.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(tmp_path.glob("*.sgm")):
            tar.add(path, f"test-full/{path.name}")
    full = sacrebleu.dataset.DATASETS["wmt14/full"]
    monkeypatch.setattr(full, "data", [archive.as_uri()])
    monkeypatch.setattr(full, "md5", [hashlib.md5(archive.read_bytes()).hexdigest()])
    monkeypatch.setattr(full, "_outdir", str(tmp_path / "sacrebleu"))
    monkeypatch.setattr(full, "_rawdir", str(tmp_path / "sacrebleu" / "raw"))
    return archive


def test_a_published_test_set_is_fetched_once(statmt: Path) -> None:
    source, references = published_test_set("wmt14/full", "en", "de")
    assert list(aligned_lines(source, *references)) == [("A dog.", "Ein Hund."), ("Two cats.", "Zwei Katzen.")]
    statmt.unlink()
    assert published_test_set("wmt14/full", "en", "de") == (source, references)
    assert published_test_set("wmt14/full", "eng", "deu") == (source, references), "the same languages"


def test_a_test_set_that_cannot_be_fetched_is_one_line_that_names_the_way_out(
    statmt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = r"^the test set wmt14/full cannot be fetched \((URLError|SystemExit): .*\); without a network, score the "
    monkeypatch.setattr(sacrebleu.dataset.DATASETS["wmt14/full"], "md5", ["0" * 32])
    with pytest.raises(DataError, match=message):
        published_test_set("wmt14/full", "en", "de")
    shutil.rmtree(statmt.parent / "sacrebleu")
    statmt.unlink()
    with pytest.raises(DataError, match=message) as caught:
        published_test_set("wmt14/full", "en", "de")
    assert "\n" not in str(caught.value)


def test_without_a_home_directory_a_test_set_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("SACREBLEU", raising=False)
    with pytest.raises(ConfigError, match=r"^no home directory to keep downloads in: set SACREBLEU to a directory$"):
        published_test_set("wmt14/full", "en", "de")


def test_an_unknown_test_set_or_direction_is_an_error_with_those_there_are() -> None:
    with pytest.raises(DataError, match=r"no test set 'wmt14-full' for en-de; it has .*, wmt14, wmt14/full, "):
        published_test_set("wmt14-full", "en", "de")
    with pytest.raises(DataError, match=r"no test set 'wmt14/full' for en-tlh; it has none$"):
        published_test_set("wmt14/full", "en", "tlh")


def test_a_test_set_may_have_several_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sacrebleu.dataset.DATASETS["wmt14/full"], "get_files", lambda _: ["src", "ref", "other"])
    monkeypatch.setattr(sacrebleu.dataset.DATASETS["wmt14/full"], "fieldnames", lambda _: ["src", "ref:A", "ref:B"])
    assert published_test_set("wmt14/full", "en", "de") == (Path("src"), [Path("ref"), Path("other")])


def test_a_test_set_without_a_reference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sacrebleu.dataset.DATASETS["wmt14/full"], "get_files", lambda _: ["src"])
    monkeypatch.setattr(sacrebleu.dataset.DATASETS["wmt14/full"], "fieldnames", lambda _: ["src"])
    with pytest.raises(DataError, match=r"^the test set wmt14/full has no reference for en-de$"):
        published_test_set("wmt14/full", "en", "de")


# Builtin


def test_the_builtin_corpus_is_the_grammars() -> None:
    corpus = load("builtin", builtin_size=17)
    assert list(corpus) == list(corpus) == list(builtin_pairs("train", 17))


def test_builtin_size_applies_to_the_training_split_only() -> None:
    small, large = (load("builtin", "test", builtin_size=size) for size in (3, 5))
    assert small.fingerprint == large.fingerprint
    assert next(iter(small)) == next(iter(large))
    fingerprints = {load("builtin", "train", builtin_size=size).fingerprint for size in (3, 5)}
    assert len(fingerprints | {small.fingerprint}) == 3


def test_a_split_that_the_builtin_corpus_lacks_is_an_error_with_those_it_has() -> None:
    with pytest.raises(DataError, match=r"unknown split 'dev': .* train, validation, test"):
        load("builtin", "dev")

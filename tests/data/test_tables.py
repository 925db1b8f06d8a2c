"""Tables in csv and tsv: a cell is the text that stands there, and a malformed row is an error that names its line."""

from __future__ import annotations

import csv
import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from mutators import PACK

from transformer.config import DataConfig
from transformer.data import json_rows
from transformer.data.corpus import Corpus, load_split
from transformer.data.dataset import corpus_tokenizer, encode_corpus
from transformer.data.tables import TABLE_SUFFIXES
from transformer.errors import DataError

PAIRS = [("A dog.", "Ein Hund."), ("Two cats.", "Zwei Katzen."), ("Größe", "größer als ß")]


def load(corpus: Path | str, split: str = "train", **options: Any) -> Corpus:
    return load_split(DataConfig(corpus=str(corpus), **options), split)


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(PACK.get(path.suffix, bytes)(raw))
    return path


def error_of(path: Path, **options: Any) -> str:
    """The error of a table, after its path."""
    with pytest.raises(DataError) as caught:
        list(load(path, **options))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


# All tables


@pytest.mark.parametrize("packing", ["", *PACK])
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".csv", "en,id,de\n" + "".join(f"{en},7,{de}\n" for en, de in PAIRS)),
        (".tsv", "id\ten\tde\n" + "".join(f"7\t{en}\t{de}\n" for en, de in PAIRS)),
        (".tab", "".join(f"{en}\t{de}\n" for en, de in PAIRS)),
        (".jsonl", "".join(f'{{"id": 7, "en": "{en}", "de": "{de}"}}\n' for en, de in PAIRS)),
        (".json", "[" + ",".join(f'{{"id": 7, "en": "{en}", "de": "{de}"}}' for en, de in PAIRS) + "]"),
    ],
)
def test_tables_give_their_rows_plain_and_compressed(tmp_path: Path, suffix: str, content: str, packing: str) -> None:
    write(tmp_path / f"dev{suffix}{packing}", content)
    corpus = load(tmp_path / f"{{split}}{suffix}{packing}", "validation")
    assert list(corpus) == list(corpus) == PAIRS
    assert list(zip(corpus, corpus, strict=True)) == list(zip(PAIRS, PAIRS, strict=True))


@pytest.mark.parametrize("text", ["007", "3.10", "1e5", "TRUE", "null", "NA", "None", "nan", "2012-01-01", "", " x "])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_cell_is_the_text_that_stands_there_whatever_it_looks_like(tmp_path: Path, suffix: str, text: str) -> None:
    separator = "," if suffix == ".csv" else "\t"
    rows = [(text, text)] * 10_007 + [("a", "b")] + [(text, "c")]
    path = write(tmp_path / f"a{suffix}", "".join(f"{separator.join(row)}\n" for row in [("en", "de"), *rows]))
    assert list(load(path)) == rows


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".jsonl", ".json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_table_in_utf16_is_called_so(tmp_path: Path, suffix: str, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"  # which the first writes itself
    content = f"{mark}en,de\na,b\n".encode(encoding)
    error = error_of(write(tmp_path / f"a{suffix}", content))
    assert error in (": is UTF-16; save it as UTF-8", ", row 1: UTF-16; save it as UTF-8")


def test_a_tab_separated_line_without_line_feeds_is_called_so(tmp_path: Path) -> None:
    error = error_of(write(tmp_path / "a.tsv", "a b\tc d\re f\tg h\r"))
    assert error.endswith("among them; each line must end with a line feed, not with a carriage return alone")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_table_replaced_at_the_same_path_and_time_is_read_anew(tmp_path: Path, suffix: str) -> None:
    def content(word: str) -> str:
        texts = [f"{word} of apple grape melon" for _ in range(97)]
        if suffix == ".jsonl":
            return "".join(f'{{"en": "{text}", "de": "{text}"}}\n' for text in texts)
        separator = "," if suffix == ".csv" else "\t"
        return "".join(f"{separator.join(row)}\n" for row in [("en", "de"), *zip(texts, texts, strict=True)])

    path = write(tmp_path / f"a{suffix}", content("apple"))
    corpus = load(path)
    tokenizer = corpus_tokenizer(corpus, 31, tmp_path / "cache")
    before = encode_corpus(corpus, tokenizer, tmp_path / "cache")
    stat = path.stat()
    write(path, content("grape"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = encode_corpus(load(path), tokenizer, tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert tokenizer.decode([after.src.ids[: after.src.lengths[0]].tolist()]) == ["grape of apple grape melon"]
    write(path, content("melon"))
    (tmp_path / "cache2").mkdir()
    with pytest.raises(DataError, match="changed after it was first read"):
        encode_corpus(corpus, tokenizer, tmp_path / "cache2")
    assert list((tmp_path / "cache2").iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_bytes_that_are_not_utf8_are_an_error_with_file_and_place(tmp_path: Path, suffix: str) -> None:
    first = {".csv": "en,de\na,b\n", ".tsv": "a\tb\nc\td\n"}.get(suffix, '{"en": "a", "de": "b"}\n')
    row = {".csv": "Gr\xf6\xdfe,c\n", ".tsv": "Gr\xf6\xdfe\tc\n"}.get(suffix, '{"en": "Gr\xf6\xdfe", "de": "c"}\n')
    path = write(tmp_path / f"a{suffix}", first.encode() + row.encode("latin-1"))
    place = ", row 2: not UTF-8" if "json" in suffix else ", line 3: not UTF-8 (byte 3 of the line)"
    assert error_of(path) == place


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(json_rows, "_BLOCK", 1 << 12)  # of which each table has many

    def peak(num_rows: int) -> int:
        row = {".csv": '"a, b",c\n', ".tsv": "a\tb\n"}.get(suffix, '{"en": "a", "de": "b"}\n')
        head = "en,de\n" if suffix == ".csv" else "[" if suffix == ".json" else ""
        body = (row + ",") * (num_rows - 1) + row + "]" if suffix == ".json" else row * num_rows
        corpus = load(write(tmp_path / f"a{suffix}", head + body))
        tracemalloc.start()
        assert sum(1 for _ in corpus) == num_rows
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_011) < 1.2 * peak(5_003)


def test_a_path_with_brackets_is_a_path_and_no_pattern(tmp_path: Path) -> None:
    assert list(load(write(tmp_path / "odd[1].csv", "en,de\na,b\n"))) == [("a", "b")]


@pytest.mark.parametrize("name", ["{split}.txt", "train.gz", "train.txt", "train.dat", "{split}.csv.zip"])
def test_another_suffix_is_an_error_that_lists_the_tables(tmp_path: Path, name: str) -> None:
    write(tmp_path / name.format(split="train"), "text\n")
    with pytest.raises(DataError) as caught:
        load(tmp_path / name)
    assert str(caught.value).endswith(
        f"without {{lang}} in data.corpus the file must be one of {', '.join(TABLE_SUFFIXES)}, which .gz, .xz, .zst "
        "may follow"
    )


@pytest.mark.parametrize("suffix", [*TABLE_SUFFIXES, ".csv.gz"])
def test_a_table_per_language_is_refused(tmp_path: Path, suffix: str) -> None:
    for lang in ("en", "de"):
        write(tmp_path / f"train.{lang}{suffix}", "text\n")
    with pytest.raises(DataError, match=r"files with \{lang\} in their name hold a sentence per line; a table has a "):
        load(tmp_path / f"{{split}}.{{lang}}{suffix}")


def test_languages_choose_and_order_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "fr,de,en\nchien,Hund,dog\n")
    assert list(load(path)) == [("dog", "Hund")]
    assert list(load(path, src_lang="de", tgt_lang="fr")) == [("Hund", "chien")]
    assert load(path).fingerprint != load(path, tgt_lang="fr").fingerprint


def test_the_fingerprint_of_a_table_changes_with_content_and_languages(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"en": "a", "de": "b", "fr": "c"}\n')
    before = load(path).fingerprint
    assert load(path).fingerprint == before
    assert load(path, tgt_lang="fr").fingerprint != before
    write(path, '{"en": "a", "de": "B", "fr": "c"}\n')
    changed = load(path)
    assert changed.fingerprint != before
    assert list(changed) == [("a", "B")]


def test_the_fingerprint_of_a_table_is_that_of_older_checkpoints(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "en,de\na,b\n")
    digest = hashlib.sha256(path.read_bytes() + b"end of file").hexdigest()
    assert load(path).fingerprint == f"{digest} en de"


# csv


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        ('en,de\n"""Well,"" he said.","„Nun“, sagte er."\n', [('"Well," he said.', "„Nun“, sagte er.")]),
        ('en,de\n"two\nlines","zwei\r\nZeilen"\nc,d\n', [("two\nlines", "zwei\r\nZeilen"), ("c", "d")]),
        ('en,de\n"","""\n"""\n', [("", '"\n"')]),
        ('en,de\n"a""\n""b",c\n', [('a"\n"b', "c")]),
        ('en,de\n,\n"\n\n",x\n', [("", ""), ("\n\n", "x")]),
        ('"en","de"\r\na,"b"\r\n"c",d', [("a", "b"), ("c", "d")]),
        ("\ufeffen,de\r\na,b\r\n", [("a", "b")]),
        ('\ufeff"en",de\na,b\n', [("a", "b")]),
        ("\n\r\nen,de\n\na,b\n\n\nc,d\n\n", [("a", "b"), ("c", "d")]),
        ('en,de\n5" pipe,a "b" c\n', [('5" pipe', 'a "b" c')]),
        ("en,de\na\0b,c\rd\n", [("a\0b", "c\rd")]),
        ("en,de\na\u2028b,c\x0bd\x85\n", [("a\u2028b", "c\x0bd\x85")]),
        ('en,de\n" a , b ", c\n', [(" a , b ", " c")]),
        ('en,de\n"a, ""b""","c,  ""d"", e"\n', [('a, "b"', 'c,  "d", e')]),
        ('en,de\n" ""a""\n, ""b""",c "d"\n', [(' "a"\n, "b"', 'c "d"')]),
        ("a b,en,x y,de\n1,2,3,4\n", [("2", "4")]),
        ("en,de\n", []),
    ],
)
def test_csv_is_read_as_rfc_4180_defines_it(tmp_path: Path, content: str, pairs: list[tuple[str, str]]) -> None:
    assert list(load(write(tmp_path / "a.csv", content))) == pairs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("en,de,fr\na,b,c,\n", ", line 2: 4 fields, but the header has 3; a field with a comma needs quotes"),
        ("en,de\na,b\n\nHello, world,Hallo Welt\n", ", line 4: 3 fields, but the header has 2; a field with a comma "),
        ('en,de\n"a\nb",c\nd\n', ", line 4: 1 field, but the header has 2"),
        ('en,de\n""\n', ", line 2: 1 field, but the header has 2"),
        ("en,de\n   \n", ", line 2: 1 field, but the header has 2"),
        ("en,fr\na,b\n", ": needs columns 'en' and 'de', has ['en', 'fr']"),
        ("en, de\na,b\n", ": needs columns 'en' and 'de', has ['en', ' de']; case and spaces count: rename the"),
        ("EN,DE\na,b\n", ": needs columns 'en' and 'de', has ['EN', 'DE']; case and spaces count: rename the columns"),
        ("en;de\na;b\n", ": needs columns 'en' and 'de', has ['en;de']; the fields are separated by semicolons, and"),
        ("en\tde\na\tb\n", ": needs columns 'en' and 'de', has ['en\\tde']; the fields are separated by tabs, and m"),
        ("sep=;\nen;de\n", ": needs columns 'en' and 'de', has ['sep=;']; remove this line, and separate the fields b"),
        ("sep=,\nen,de\n", ": needs columns 'en' and 'de', has ['sep=', '']; remove this line, and separate the fiel"),
        ("en,de\ra,b\r", ": needs columns 'en' and 'de', has ['en', 'de\\ra', 'b']; each line must end with a line "),
        ("en,de,de\na,b,c\n", ": 2 columns are called 'de': rename all but one"),
        ("", ": is empty; the first line must name the columns"),
        ("\n\n", ": is empty; the first line must name the columns"),
        ('en,de\na,b\n"c,d\ne,f\n', ", line 3: a quote is not closed"),
        ('en,de\n"a"b,c\n', ", line 2: text follows a closing quote; a quote inside a field must be doubled"),
        ('en,de\n"a" ,c\n', ", line 2: text follows a closing quote"),
        ('en,de\n"a\nb"c,d\n', ", line 2: text follows a closing quote"),
        ('"en", "de"\n', ", line 1: a space stands before an opening quote: remove it, or quote the whole field and"),
        ('en,de\n"A man", "Ein Mann"\n', ", line 2: a space stands before an opening quote"),
        ('en,de\na,b\n  "A man, old", b\n', ", line 3: a space stands before an opening quote"),
        ('en,de\n"a\nb",\t"c"\n', ", line 2: a space stands before an opening quote"),
        ("e\0n\0,\0d\0e\0\n\0", ": needs columns 'en' and 'de', has ['e\\x00n"),
    ],
)
def test_malformed_csv_is_an_error_that_names_the_line(tmp_path: Path, content: str, message: str) -> None:
    assert error_of(write(tmp_path / "a.csv", content)).startswith(message)


def test_a_long_field_is_read_without_changing_the_limit_of_the_csv_module(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "word, " * 100_003
    word, lines = "x" * 1_000_003, "y\n" * 200_003
    path = write(tmp_path / "a.csv", f'en,de\n"{long}",b\n{word},"d"\ne,"{lines}"\n')
    assert list(load(path)) == [(long, "b"), (word, "d"), ("e", lines)]
    assert csv.field_size_limit() == limit


def test_a_quote_that_is_not_closed_does_not_take_the_rest_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'en,de\n"a,b\n' + "a line without any quote\n" * 400_000)
    assert error_of(path) == ", line 2: a field of more than 4194304 characters: is a quote not closed?"
    path = write(tmp_path / "c.csv", "en,de\n" + '"a line\n",' * 700_000)
    assert error_of(path) == ", line 2: a record of more than 4194304 characters: is a quote not closed?"
    path = write(tmp_path / "b.csv", "en,de\n" + "x" * (4 << 20) + ",y\n")
    assert error_of(path) == ", line 2: longer than 4194304 bytes: is it text?"


def test_a_bad_column_is_found_when_a_corpus_is_loaded_not_when_it_is_read(tmp_path: Path) -> None:
    for content in ("en,fr\n", "en,de\na\n"):
        with pytest.raises(DataError):
            load(write(tmp_path / "a.csv", content))


# tsv


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        ("en\tde\na\tb\n", [("a", "b")]),
        ("de\tid\ten\nb\t7\ta\n", [("a", "b")]),
        ("a\tb\nc\td", [("a", "b"), ("c", "d")]),
        ('"Hi," he said.\t"Hallo\n', [('"Hi," he said.', '"Hallo')]),
        ("\ufeffa, b\t\r\n\r\n\tb\r\n", [("a, b", ""), ("", "b")]),
        ("a\rb\tc\0d\n", [("a\rb", "c\0d")]),
        ("", []),
        ("\n\n", []),
        ("Go on.\tWeiter.\nen\tde\n", [("Go on.", "Weiter."), ("en", "de")]),
    ],
)
def test_tsv_is_read_with_and_without_a_header(tmp_path: Path, content: str, pairs: list[tuple[str, str]]) -> None:
    assert list(load(write(tmp_path / "a.tsv", content))) == pairs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "A cat.\tEine Katze.\tCC-BY 2.0\n",
            ": 3 columns and no header: keep two, or put a line before them that names ",
        ),
        ("A cat.\n", ": 1 columns and no header"),
        ("a b.\tc d.\ne f.\n", ", line 2: 1 field, but the lines before have 2"),
        ("a b.\tc d.\n\ne\tf\tg\n", ", line 3: 3 fields, but the lines before have 2"),
        ("en\tde\tx\na\tb\n", ", line 2: 2 fields, but the header has 3"),
        ("en\tfr\na\tb\n", ": needs columns 'en' and 'de', has ['en', 'fr']"),
        ("deu\teng\na\tb\n", ": needs columns 'en' and 'de', has ['deu', 'eng']; if that is a pair, put a line with "),
        ("EN\tDE\na\tb\n", ": needs columns 'en' and 'de', has ['EN', 'DE']; case and spaces count: rename the col"),
        ("Source\tTarget\na\tb\n", ": needs columns 'en' and 'de', has ['Source', 'Target']"),
        ("en\tde\ten\na\tb\tc\n", ": 2 columns are called 'en': rename all but one"),
        ("a b.\t" + "x" * (4 << 20) + "\n", ", line 1: longer than 4194304 bytes: is it text?"),
    ],
)
def test_malformed_and_ambiguous_tsv_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    assert error_of(write(tmp_path / "a.tsv", content)).startswith(message)


@pytest.mark.parametrize(
    ("name", "is_swapped"),
    [
        ("train.tsv", False),
        ("train.en-de.tsv", False),
        ("train.de-en.tsv", True),
        ("Tatoeba.DE_EN.tsv.gz", True),
        ("de-en-to-en-de.tsv", False),
        ("wide-end.tsv", False),
        ("news-de-en2.tsv", True),
    ],
)
def test_without_a_header_the_file_name_may_tell_the_order_of_the_languages(
    tmp_path: Path, name: str, is_swapped: bool
) -> None:
    path = write(tmp_path / name, "first text\tsecond text\nthird text\tfourth text\n")
    pairs = [("first text", "second text"), ("third text", "fourth text")]
    assert list(load(path)) == [pair[::-1] if is_swapped else pair for pair in pairs]


def content_digest(content: str) -> str:
    return hashlib.sha256(content.encode() + b"end of file").hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "order"),
    [
        ("train.csv", "en,de\na b,c d\n", ""),
        ("train.de-en.csv", "en,de\na b,c d\n", ""),
        ("train.jsonl", '{"en": "a b", "de": "c d"}\n', ""),
        ("train.tsv", "a b\tc d\n", ""),
        ("train.en-de.tsv", "a b\tc d\n", ""),
        ("train.de-en.tsv", "en\tde\na b\tc d\n", ""),
        ("train.de-en.tsv", "", ""),
        ("train.de-en.tsv", "c d\ta b\n", " target first: 0"),
        ("train.de-en.tab", "\n\nc d\ta b\n", " target first: 0"),
    ],
)
def test_a_fingerprint_has_the_content_the_languages_and_the_order_that_a_name_gives(
    tmp_path: Path, name: str, content: str, order: str
) -> None:
    corpus = load(write(tmp_path / name, content))
    assert list(corpus) == [("a b", "c d")] * bool(content)
    assert corpus.fingerprint == f"{content_digest(content)} en de{order}"


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_a_file_renamed_to_tell_its_order_is_encoded_anew(tmp_path: Path, packing: str) -> None:
    rows = "".join(f"hund {i} läuft schnell\tdog {i} runs fast\n" for i in range(53))
    path = write(tmp_path / f"train.tsv{packing}", rows)
    wrong = load(path)
    tokenizer = corpus_tokenizer(wrong, 43, tmp_path / "cache")
    before = encode_corpus(wrong, tokenizer, tmp_path / "cache")
    right = load(path.rename(tmp_path / f"train.de-en.tsv{packing}"))
    after = encode_corpus(right, tokenizer, tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert [side.ids.tolist() for side in (after.src, after.tgt)] == [
        side.ids.tolist() for side in (before.tgt, before.src)
    ]


@pytest.mark.parametrize(
    "header",
    [
        "German\tEnglish",
        "English\tGerman",
        " english \tGerman ",
        "English sentence\tGerman sentence",
        "sentence_en\tsentence_de",
        "sentence_eng\tsentence_deu",
        "source_text\ttarget_text",
        "sourceText\ttargetText",
        "input\toutput",
        "INPUT\tOUTPUT",
        "Source\tTarget",
        "source sentence\ttarget sentence",
        "text 1\ttext 2",
        "en-text\tde-text",
        "Englisch\tDeutsch",
        "lang1\tlang2",
    ],
)
@pytest.mark.parametrize("name", ["a.tsv", "a.de-en.tab"])
def test_a_header_of_other_words_does_not_become_a_pair(tmp_path: Path, name: str, header: str) -> None:
    path = write(tmp_path / name, f"{header}\na b\tc d\n")
    assert error_of(path).startswith(": needs columns 'en' and 'de', has ['")


@pytest.mark.parametrize(
    "pair",
    [
        "Hi\tHallo",
        "Go.\tGeh.",
        "English is easy.\tEnglisch ist leicht.",
        "The text\tDer Text",
        "My source\tMeine Quelle",
        "textbook\tLehrbuch",
        "1\t1",
        "--\t--",
        "\t",
    ],
)
def test_a_pair_of_short_texts_is_no_header(tmp_path: Path, pair: str) -> None:
    source, target = pair.split("\t")
    assert list(load(write(tmp_path / "a.tsv", f"{pair}\na b\tc d\n"))) == [(source, target), ("a b", "c d")]

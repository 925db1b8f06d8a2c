"""The keys of several corpora: files, command line, round trips and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from transformer.config import Config, CorpusEntry, DataConfig, load_config
from transformer.errors import ConfigError

TWO = (CorpusEntry(path="a/{split}.{lang}", weight=2.0), CorpusEntry(src="b.en", tgt="b.de", tag="<bt>"))


def load(tmp_path: Path, text: str, *overrides: str) -> DataConfig:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_config(path, ["data.corpus=my/{split}.{lang}", *overrides]).data


YAML = """
data:
  corpora:
  - path: a/{split}.{lang}
    weight: 2
  - {src: b.en, tgt: b.de, tag: <bt>}
"""


@pytest.mark.parametrize(
    ("text", "override"),
    [
        (YAML, None),
        ("", "data.corpora=[{path: 'a/{split}.{lang}', weight: 2}, {src: b.en, tgt: b.de, tag: <bt>}]"),
        (
            "data: {corpora: [x]}",
            'data.corpora=[{"path": "a/{split}.{lang}", "weight": 2.0}, {src: b.en, tgt: b.de, tag: <bt>}]',
        ),
    ],
)
def test_entries_are_read_from_files_and_the_command_line(tmp_path: Path, text: str, override: str | None) -> None:
    assert load(tmp_path, text, *([override] if override else [])).corpora == TWO


@pytest.mark.parametrize("value", ["a.csv", "[a.csv]", "{path: a.csv}", "[{path: a.csv}]", "'a.csv'"])
def test_a_path_alone_and_an_entry_alone_are_lists_of_one(tmp_path: Path, value: str) -> None:
    assert load(tmp_path, "", f"data.corpora={value}").corpora == (CorpusEntry(path="a.csv"),)
    assert DataConfig(corpora=["a.csv"]).corpora == DataConfig(corpora=Path("a.csv")).corpora  # type: ignore[arg-type]


def test_a_pattern_needs_no_quotes_where_it_is_all(tmp_path: Path) -> None:
    assert load(tmp_path, "", "data.corpora=a/{split}.{lang}").corpora == (CorpusEntry(path="a/{split}.{lang}"),)


def test_a_saved_configuration_is_complete_and_the_same(tmp_path: Path) -> None:
    config = Config(
        data=DataConfig(corpus="my.csv", corpora=TWO, hold_out=("test",), validation_size=7, filters=("copies",))
    )
    (tmp_path / "saved.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "saved.yaml", saved=True) == config
    (tmp_path / "short.yaml").write_text(config.differences())
    assert load_config(tmp_path / "short.yaml") == config
    assert "- {path: 'a/{split}.{lang}', weight: 2.0}\n" in config.differences()
    assert config.flat()["data.corpora"][1] == {"src": "b.en", "tgt": "b.de", "tag": "<bt>"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.corpora=[a, b, {path: c, weight: 0}]", r"data\.corpora\[2\]\.weight=0 must be more than 0"),
        ("data.corpora=[{path: c, weight: 1001}]", r"data\.corpora\[0\]\.weight=1001 must be at most 1000"),
        (
            "data.corpora=[a, {path: b, wieght: 2}]",
            r"unknown key data\.corpora\[1\]\.wieght; did you mean data\.corpora\[1\]",
        ),
        (
            "data.corpora=[{path: a, lang: x}]",
            r"unknown key data\.corpora\[0\]\.lang; known keys: data\.corpora\[0\]\.path",
        ),
        (
            "data.corpora=[{src: a}]",
            r"data\.corpora\[0\]: path=None, src=a, tgt=None: give a path, or both src and tgt",
        ),
        ("data.corpora=[{path: a, src: a}]", r"data\.corpora\[0\]: path=a, src=a, tgt=None: give a path, or both"),
        ("data.corpora=[{weight: 2}]", r"data\.corpora\[0\]: path=None, src=None"),
        (
            "data.corpora=[a, {src: a, tgt: b, split: dev}]",
            r"data\.corpora\[1\]: split=dev is for a path, and not used by src and tgt",
        ),
        ("data.corpora=[{src: a, tgt: b, tgt_lang: fr}]", r"data\.corpora\[0\]: tgt_lang=fr is for a path"),
        ("data.corpora=[3]", r"data\.corpora\[0\] must be a path or keys, got 3"),
        ("data.corpora=[a, [b]]", r"data\.corpora\[1\] must be a path or keys, got \['b'\]"),
        ("data.corpora=null", r"data\.corpora must be a list, got None"),
        ("data.corpora=[{path: a.{lang}}]", r"not YAML: .*; text with braces needs quotes: path: 'a\.\{lang\}'"),
        ("data.corpora=[a", r"not YAML"),
        ("data.corpora=[{path: a, tag: bt}]", r"data\.corpora\[0\]\.tag='bt' must be one word in angle brackets"),
        ("data.tag=<s>", r"data\.tag='<s>' must be one word in angle brackets, .* and no piece such as <s>"),
        ("data.tag=<a b>", r"data\.tag='<a b>' must be one word"),
        ("data.tag=<0x41>", r"data\.tag='<0x41>' must be"),
        (
            "data.filters=[copies, html]",
            r"data\.filters='html' is not one of copies, encoding, markup, no_letters, numb",
        ),
        ("data.hold_out=train", r"data\.hold_out='train' is not one of validation, test"),
        ("data.validation_size=7", r"data\.validation_size=7 needs data\.hold_out: \[validation\], or"),
        ("data.corpus=none", r"data\.corpus=none needs data\.corpora, and data\.hold_out: \[validation, test\]"),
    ],
)
def test_errors_name_the_key_with_its_number(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "", override)


def test_the_default_corpus_is_not_validated_on_by_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {corpora: [a.csv]}")
    with pytest.raises(
        ConfigError, match=r"^data\.corpora without data\.corpus: give it .* \(its default is wmt/wmt14\)"
    ):
        load_config(path)
    with pytest.raises(ConfigError, match=r"data\.corpora without data\.corpus"):
        load_config(path, ["data.hold_out=validation"])
    for overrides in (
        ["data.corpus=b.csv"],
        ["data.hold_out=[validation, test]"],
        ["data.corpora=[a.csv, {path: wmt/wmt14, subset: de-en}]"],
        ["data.revision=main"],
    ):
        assert load_config(path, overrides).data.corpora


def test_held_out_pairs_have_the_tag_of_their_corpus() -> None:
    entry = CorpusEntry(path="a", tag="<x>")
    with pytest.raises(ConfigError, match=r"data\.tag=None must be data\.corpora\[0\]\.tag=<x>"):
        DataConfig(corpora=(entry,), hold_out=("validation",))
    assert DataConfig(corpora=(entry,), hold_out=("validation",), tag="<x>").tags == ["<x>"]


def test_the_tags_are_those_of_all_corpora() -> None:
    assert DataConfig(corpora=TWO, tag="<2de>").tags == ["<2de>", "<bt>"]
    assert DataConfig().tags == []

"""Datasets of the hub, through `datasets`: pairs, or one line that names the way out."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pytest

from transformer.config import DataConfig
from transformer.data.corpus import Corpus, load_split
from transformer.data.hub_dataset import row_reader
from transformer.errors import ConfigError, DataError

PAIRS = [("A dog.", "Ein Hund."), ("Two cats.", "Zwei Katzen."), ("Größe", "größer als ß")]
ROWS = [{"en": en, "de": de, "id": str(i)} for i, (en, de) in enumerate(PAIRS)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a cache directory of the test for `datasets`, offline."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def load(corpus: Path | str, split: str = "train", **options: Any) -> Corpus:
    return load_split(DataConfig(corpus=str(corpus), **options), split)


def test_a_hub_corpus_gives_its_translations(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_list([{"translation": {"de": de, "en": en}} for en, de in PAIRS])
    asked = []

    def load_dataset(*args: Any, **kwargs: Any) -> datasets.Dataset:
        asked.append((args, kwargs))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = load("some/corpus", "test", subset="de-en", revision="b199e40")
    assert list(corpus) == list(corpus) == PAIRS
    assert asked == [(("some/corpus", "de-en"), {"split": "test", "revision": "b199e40"})]
    assert corpus.name == "some/corpus de-en test"
    assert load("some/corpus", "test", src_lang="de", tgt_lang="en").fingerprint != corpus.fingerprint


def test_a_hub_corpus_with_a_column_per_language_needs_no_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    corpus = load("some/corpus", subset=None)
    assert list(corpus) == PAIRS
    assert corpus.name == "some/corpus train"


def test_the_fingerprint_of_a_hub_corpus_changes_with_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = []
    for rows in (ROWS, ROWS[:2]):
        dataset = datasets.Dataset.from_list(rows)
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, dataset=dataset, **__: dataset)
        fingerprints.append(load("some/corpus").fingerprint)
    assert len(set(fingerprints)) == 2


def test_without_a_network_a_hub_corpus_is_one_line_that_names_the_way_out() -> None:
    message = (
        r"^data\.corpus=wmt/wmt14: cannot load 'train' from the hub \(ConnectionError: .*\); without a network, give "
        r"local files as data\.corpus='path/\{split\}\.\{lang\}', or data\.corpus=builtin$"
    )
    with pytest.raises(DataError, match=message) as caught:
        load("wmt/wmt14", subset="de-en")
    assert "\n" not in str(caught.value)


def test_whatever_the_hub_raises_becomes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise RuntimeError("first line\n   second line")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"\(RuntimeError: first line second line\)"):
        load("some/corpus")


def test_a_hub_corpus_that_is_not_utf8_is_named() -> None:
    rows = datasets.Dataset(pa.table({lang: pa.array([b"\xff"]).view(pa.string()) for lang in ("en", "de")}))
    with pytest.raises(DataError, match=r"^rows: contains text that is not UTF-8$"):
        list(row_reader("rows", rows, "en", "de")())


def test_a_hub_corpus_without_a_column_or_with_other_values_is_an_error() -> None:
    rows = datasets.Dataset.from_list([{"en": "a", "fr": "b"}])
    with pytest.raises(DataError, match=r"^rows: needs columns 'en' and 'de' or 'translation', has \['en', 'fr'\]$"):
        row_reader("rows", rows, "en", "de")
    for row in ({"en": 3, "de": 5}, {"en": None, "de": "b"}, {"translation": "c"}, {"translation": {"en": "a"}}):
        reader = row_reader("rows", datasets.Dataset.from_list([row]), "en", "de")
        with pytest.raises(DataError, match=r"^rows, row 1: 'en' and 'de' must be text, got "):
            list(reader())


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_directory_of_downloads_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise OSError(code, "cannot", "/nowhere/.cache")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = r": /nowhere/\.cache cannot be written \(cannot\); downloads are kept in the directory that HF_HOME "
    with pytest.raises(DataError, match=message):
        load("some/corpus")


def test_without_a_home_directory_nothing_is_downloaded_to_a_directory_named_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^no home directory to keep downloads in: set HF_HOME to a directory$"):
        load("some/corpus")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(DataError, match="cannot load 'train' from the hub"):
        load("some/corpus")

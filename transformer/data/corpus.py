"""Parallel corpora (section 5.1): hub datasets, local files, the builtin grammar and registered forms."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from transformer.config import DataConfig
from transformer.config_file import plain_name
from transformer.data.builtin import builtin_pairs
from transformer.data.compression import COMPRESSION_SUFFIXES, inner_suffix
from transformer.data.hub_dataset import hub_pairs
from transformer.data.languages import short_code
from transformer.data.new_words import NAME as NEW_WORDS
from transformer.data.new_words import with_new_words
from transformer.data.pairs import Corpus
from transformer.data.repository import repository_pairs
from transformer.data.tables import TABLE_SUFFIXES, check_table, is_table, swapped_tables, table_pairs
from transformer.data.text_files import (
    aligned_lines,
    checked_files,
    decode_lines,
    find_files,
    read_lines,
    text_pattern,
)
from transformer.data.tmx import Units, first_unit
from transformer.errors import ConfigError, DataError
from transformer.hub import check_home

# With the names that a reader of another form needs.
__all__ = [
    "Corpus",
    "CorpusReader",
    "aligned_files",
    "aligned_lines",
    "builtin_size",
    "checked_files",
    "decode_lines",
    "find_files",
    "in_chunks",
    "load_split",
    "published_test_set",
    "read_lines",
    "register_corpus",
]

_HELD_OUT_BUILTIN_SIZE = 1000

Text = TypeVar("Text")  # a line, or the two sides of a pair


CorpusReader = Callable[[DataConfig, str], Corpus]
_READERS: dict[str, CorpusReader] = {}


def register_corpus(form: str, reader: CorpusReader) -> None:
    """Register a reader for a name or a file suffix.

    `form` is a value of `data.corpus` such as "treebank", or a suffix such as ".trees", which that of a compression
    (".gz") may follow. The reader is called with the configuration and a split. ValueError if the form is already
    registered.
    """
    if form in _READERS:
        raise ValueError(f"a reader for the corpus form {form!r} is already registered")
    _READERS[form] = reader


def load_split(data: DataConfig, split: str) -> Corpus:
    """Load one split of the configured corpus, or what `data.hold_out` takes out of the training corpus for it.

    Errors and forms as of `read_split`; DataError also if too few pairs could be held out.
    """
    names = {"validation": data.validation_split, "test": data.test_split}
    held_out = next((name for name in data.hold_out if split in (name, names[name])), None)
    if held_out is None:
        if data.corpus == "none":
            raise DataError(f"data.corpus=none has no split {split!r}, only {', '.join(data.hold_out)}")
        return read_split(data, split)
    from transformer.data.holdout import held_out_split  # imports numpy, which takes a tenth of a second

    whole = read_entry(data, 0) if data.corpora else read_split(data, data.train_split)
    return held_out_split(whole, held_out, data.hold_out, data.validation_size, Path(data.cache_dir))


def read_entry(data: DataConfig, index: int) -> Corpus:
    """One of `data.corpora`, without its tag. DataError as of `read_split`, by the key of the entry."""
    entry = data.corpora[index]
    try:
        if entry.path is None:
            return aligned_files(Path(str(entry.src)), Path(str(entry.tgt)))
        alone = dataclasses.replace(
            data,
            corpus=entry.path,
            subset=entry.subset,
            revision=entry.revision,
            src_lang=entry.src_lang or data.src_lang,
            tgt_lang=entry.tgt_lang or data.tgt_lang,
            corpora=(),
            hold_out=(),
            validation_size=None,
        )
        return read_split(alone, entry.split or data.train_split)
    except DataError as error:
        raise DataError(str(error).replace("data.corpus=", f"data.corpora[{index}].path=")) from None


def read_split(data: DataConfig, split: str) -> Corpus:
    """Read one split of `data.corpus`.

    `data.corpus` is one of

    - a registered name: `builtin`, or `treebank` of `transformer.parsing`;
    - a local pattern with a registered suffix: `.trees` of `transformer.parsing`;
    - a local pattern with `{split}` and `{lang}`, one file per language, plain or compressed;
    - a local pattern of csv, tsv, jsonl, json or parquet files with a column per language, or of tmx files;
    - a Hugging Face hub id, read at `data.revision`, or a local directory with the layout of the hub.

    In patterns, `validation` also finds `valid`, `val` and `dev`, and an unambiguous prefix of a name finds its file.

    Raises:
        ConfigError: the split is not a plain name.
        DataError: unknown corpus, split or column, or the hub is not reachable.
    """
    try:
        plain_name(split)
    except ValueError as error:
        raise ConfigError(f"split={split!r} {error}") from None
    for form in (data.corpus, inner_suffix(data.corpus), Path(data.corpus).suffix):
        if form in _READERS:
            return _READERS[form](data, split)
    if "{lang}" in data.corpus:
        if is_table(data.corpus):
            raise DataError(
                f"data.corpus={data.corpus}: files with {{lang}} in their name hold a sentence per line; "
                f"a table has a column per language, so its name has only {{split}}"
            )
        return aligned_files(*find_files(data.corpus, split, (data.src_lang, data.tgt_lang)))
    path = Path(data.corpus)
    if "{" in data.corpus or path.is_file() or path.suffix in (*TABLE_SUFFIXES, *COMPRESSION_SUFFIXES, ".txt"):
        return _table(find_files(data.corpus, split)[0], data.src_lang, data.tgt_lang)
    return _repository(data, split) if path.is_dir() else _hub(data, split)


def published_test_set(name: str, src_lang: str, tgt_lang: str) -> tuple[Path, list[Path]]:
    """Source and references of one of sacreBLEU's test sets, such as `wmt14/full`, downloaded to `~/.sacrebleu`.

    Codes of ISO 639-3 are those of ISO 639-1 there. DataError if it does not exist for these languages, cannot be
    downloaded, or has no reference.
    """
    if "SACREBLEU" not in os.environ:
        check_home("SACREBLEU")
    from sacrebleu.dataset import DATASETS

    direction = f"{short_code(src_lang)}-{short_code(tgt_lang)}"
    known = [known for known, test_set in DATASETS.items() if direction in test_set.langpairs]
    if name not in known:
        raise DataError(f"sacreBLEU has no test set {name!r} for {direction}; it has {', '.join(known) or 'none'}")
    try:
        source = DATASETS[name].get_source_file(direction)
        references = DATASETS[name].get_reference_files(direction)
    except (Exception, SystemExit) as error:  # it exits if a checksum is wrong
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DataError(
            f"the test set {name} cannot be fetched ({reason}); without a network, score the corpus' own test split, "
            "or files with --src and --ref"
        ) from None
    if not references:
        raise DataError(f"the test set {name} has no reference for {direction}")
    return Path(source), [Path(reference) for reference in references]


def aligned_files(src: Path, tgt: Path) -> Corpus:
    """Pair two line-aligned files, plain or compressed.

    DataError if they differ in length, with both counts, for a line that is not UTF-8, or if one changes meanwhile.
    """
    fingerprint, files = checked_files(src, tgt)
    return Corpus(f"{src} and {tgt}", fingerprint, lambda: aligned_lines(*files))


def in_chunks(
    texts: Iterable[Text], size: int, max_characters: int, num_characters: Callable[[Text], int]
) -> Iterator[list[Text]]:
    """Chunk texts by `size`, or earlier once `max_characters` are reached."""
    chunk: list[Text] = []
    total = 0
    for text in texts:
        chunk.append(text)
        total += num_characters(text)
        if len(chunk) == size or total >= max_characters:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def builtin_size(data: DataConfig, split: str) -> int:
    """Number of sentences of a builtin split; only that of `train` is configured."""
    return data.builtin_size if split == "train" else _HELD_OUT_BUILTIN_SIZE


def _builtin(data: DataConfig, split: str) -> Corpus:
    size = builtin_size(data, split)
    builtin_pairs(split, size)  # raises for an unknown split
    if data.subset == NEW_WORDS:
        fingerprint = f"builtin {split} {size} {NEW_WORDS}"
        return Corpus(f"builtin {NEW_WORDS} {split}", fingerprint, lambda: with_new_words(builtin_pairs(split, size)))
    if data.subset is not None and not re.fullmatch(r"\w\w-\w\w", data.subset):  # of a corpus on the hub
        raise DataError(f"data.subset={data.subset}: the builtin corpus has {NEW_WORDS}, or null for the whole corpus")
    return Corpus(f"builtin {split}", f"builtin {split} {size}", lambda: builtin_pairs(split, size))


register_corpus("builtin", _builtin)


def _memory(data: DataConfig, split: str) -> Corpus:
    """A translation memory."""
    (path,) = find_files(data.corpus, split)
    fingerprint, (file,) = checked_files(path)
    first_unit(path, data.src_lang, data.tgt_lang)
    units = Units(file, data.src_lang, data.tgt_lang)
    return Corpus(str(path), f"{fingerprint} tmx {data.src_lang} {data.tgt_lang}", units.read, dropped=units.dropped)


register_corpus(".tmx", _memory)


def _table(path: Path, src_lang: str, tgt_lang: str) -> Corpus:
    fingerprint, (file,) = checked_files(path)
    check_table(path, src_lang, tgt_lang)
    fingerprint += f" {src_lang} {tgt_lang}{swapped_tables([path], src_lang, tgt_lang)}"
    return Corpus(str(path), fingerprint, lambda: table_pairs(file, src_lang, tgt_lang))


def _repository(data: DataConfig, split: str) -> Corpus:
    """A local directory of tables, or else of what `datasets` reads."""
    found = repository_pairs(Path(data.corpus), data.subset, split, data.src_lang, data.tgt_lang)
    if found is None:
        if pattern := text_pattern(Path(data.corpus), (data.src_lang, data.tgt_lang)):
            raise DataError(f"{data.corpus}: has no tables; for text files give data.corpus={pattern!r}")
        return _hub(data, split, cache_dir=Path(data.cache_dir) / "datasets")
    fingerprint, read = found
    name = " ".join(part for part in (data.corpus, data.subset, split) if part)
    return Corpus(name, fingerprint, read)


def _hub(data: DataConfig, split: str, cache_dir: Path | None = None) -> Corpus:
    name, fingerprint, read = hub_pairs(data, split, cache_dir)
    return Corpus(name, fingerprint, read)

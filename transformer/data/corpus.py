"""Parallel corpora (section 5.1): a hub id, local files or the builtin grammar, all as pairs of sentences."""

from __future__ import annotations

import dataclasses
import glob
import gzip
import hashlib
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from transformer.config import DataConfig, check_plain_name
from transformer.data.builtin import builtin_pairs, builtin_trees
from transformer.errors import DataError
from transformer.parsing.treebank import sentence_pairs, tree_symbols

# What other people call the splits; tried in order after the name itself.
_SYNONYMS = {"validation": ("valid", "val", "dev")}
_HELD_OUT_BUILTIN_SIZE = 1000
_TABLE_SUFFIXES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_ROWS_AT_A_TIME = 1000  # some ten times as fast as one by one
# Bytes: what has longer lines is no text. Some characters are 18 when normalised, and take 360 bytes to be tokenised.
_LONGEST_LINE = 1 << 22

Text = TypeVar("Text")  # a line, or the two sides of a pair


@dataclass(frozen=True)
class Corpus:
    """Sentence pairs that can be read again and again, one at a time.

    Attributes:
        name: for messages.
        fingerprint: changes when the content does.
        read: starts a new reading of (source, target) pairs. DataError where the files are at fault.
        symbols: the words that must stay one piece each, for the tokenizer.
    """

    name: str
    fingerprint: str
    read: Callable[[], Iterator[tuple[str, str]]]
    symbols: Callable[[], Sequence[str]] = list

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self.read()


def load_split(data: DataConfig, split: str) -> Corpus:
    """Find one split of the corpus that a configuration names.

    `data.corpus` is `builtin`; or a local pattern with `{split}`, and `{lang}` where each language has a file of its
    own, plain or `.gz` (otherwise jsonl, parquet or csv with a column per language); or a Hugging Face hub id, read at
    `data.revision`; or a local directory laid out as the hub's, such as a download from it.
    Bracketed trees to parse into are `treebank`, of the builtin grammar, or a local pattern of `.trees` files, plain or
    `.gz`, with a tree per line.
    For local files `validation` also finds `valid`, `val` and `dev`, and a name that is the beginning of just one
    file's finds that file.

    Raises:
        ConfigError: the split is no plain name.
        DataError: there is no such corpus, split or column, or no network to reach the hub.
    """
    check_plain_name("split", split)
    if data.corpus in ("builtin", "treebank"):
        return _builtin(split, data.builtin_size, as_trees=data.corpus == "treebank")
    if ".trees" in Path(data.corpus).suffixes:
        path = Path(data.corpus.replace("{split}", _find_split(data.corpus, split, [""])))
        return _treebank(str(path), _digest(path), lambda: read_lines(path))
    if "{" in data.corpus or Path(data.corpus).suffix in (*_TABLE_SUFFIXES, ".gz", ".txt"):
        return _local(data.corpus, split, data.src_lang, data.tgt_lang)
    return _hub(data, split)


def published_test_set(name: str, src_lang: str, tgt_lang: str) -> Corpus:
    """A test set of sacreBLEU's by its name there, such as `wmt14/full`; fetched once and kept in `~/.sacrebleu`.

    DataError if sacreBLEU has no such set for these languages, it cannot be fetched, or it has several references.
    """
    from sacrebleu.dataset import DATASETS

    direction = f"{src_lang}-{tgt_lang}"
    known = [known for known, test_set in DATASETS.items() if direction in test_set.langpairs]
    if name not in known:
        raise DataError(f"sacreBLEU has no test set {name!r} for {direction}; it has {', '.join(known) or 'none'}")
    try:
        source = DATASETS[name].get_source_file(direction)
        references = DATASETS[name].get_reference_files(direction)
    except (Exception, SystemExit) as error:  # it exits where a checksum is wrong
        raise DataError(
            f"the test set {name} cannot be fetched ({_one_line(error)}); without a network, score the "
            "corpus' own test split, or files with --src and --ref"
        ) from None
    if len(references) != 1:
        raise DataError(f"the test set {name} has {len(references)} references for {direction}; one is scored")
    corpus = aligned_files(Path(source), Path(references[0]))
    return dataclasses.replace(corpus, name=f"{name} {direction} of sacreBLEU")


def aligned_files(src: Path, tgt: Path) -> Corpus:
    """Two files, plain or `.gz`, whose lines are each other's translations.

    DataError, with both counts, if they differ in length; it names the file and line that is not UTF-8.
    """
    return Corpus(f"{src} and {tgt}", _digest(src, tgt), lambda: aligned_lines(src, tgt))


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, plain or `.gz`, without their ends. DataError names what is not UTF-8."""
    try:
        with _opened(path) as file:
            yield from decode_lines(file, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def decode_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """UTF-8 lines of a binary stream called `name`, without their ends; only a line feed ends a line.

    Splitting at U+2028 and the like, as text streams may, would misalign two sides. DataError as in `read_lines`, and
    for a line of more than 4 MiB.
    """
    for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), start=1):
        if len(line) > _LONGEST_LINE:
            raise DataError(f"{name}, line {number}: longer than {_LONGEST_LINE} bytes: is it text?")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: not UTF-8 (byte {error.start + 1} of the line)") from None
        yield text.removeprefix("\ufeff" if number == 1 else "").removesuffix("\n").removesuffix("\r")


def in_chunks(
    texts: Iterable[Text], size: int, most_characters: int, num_characters: Callable[[Text], int]
) -> Iterator[list[Text]]:
    """Texts in lists of `size`, shorter ones where they hold `most_characters` or more, and at the end."""
    chunk: list[Text] = []
    total = 0
    for text in texts:
        chunk.append(text)
        total += num_characters(text)
        if len(chunk) == size or total >= most_characters:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def _treebank(name: str, fingerprint: str, lines: Callable[[], Iterator[str]]) -> Corpus:
    def read() -> Iterator[tuple[str, str]]:
        return sentence_pairs(lines(), name)

    return Corpus(name, f"linearised {fingerprint}", read, lambda: tree_symbols(read()))


def _builtin(split: str, train_size: int, *, as_trees: bool) -> Corpus:
    size = train_size if split == "train" else _HELD_OUT_BUILTIN_SIZE
    try:
        builtin_pairs(split, size)
    except ValueError as error:
        raise DataError(str(error)) from None
    if as_trees:
        return _treebank(f"treebank {split}", f"treebank {split} {size}", lambda: builtin_trees(split, size))
    return Corpus(f"builtin {split}", f"builtin {split} {size}", lambda: builtin_pairs(split, size))


def _local(pattern: str, split: str, src_lang: str, tgt_lang: str) -> Corpus:
    if "{lang}" not in pattern:
        return _table(Path(pattern.replace("{split}", _find_split(pattern, split, [""]))), src_lang, tgt_lang)
    name = _find_split(pattern, split, [src_lang, tgt_lang])
    src, tgt = (Path(pattern.replace("{lang}", lang).replace("{split}", name)) for lang in (src_lang, tgt_lang))
    return aligned_files(src, tgt)


def _find_split(pattern: str, split: str, langs: Sequence[str]) -> str:
    """What to put for {split}: the name, a synonym, or the only longer name, for which there is a file per language."""
    names = (split, *_SYNONYMS.get(split, ()))
    for name in names:
        if all(Path(pattern.replace("{lang}", lang).replace("{split}", name)).is_file() for lang in langs):
            return name
    longer = sorted(set.intersection(*(_longer_names(pattern.replace("{lang}", lang), split) for lang in langs)))
    if len(longer) == 1:
        return longer[0]
    if longer:
        raise DataError(
            f"data.corpus={pattern}: split {split!r} could be any of {', '.join(longer)}; "
            "name one in data.*_split or --split"
        )
    tried = [pattern.replace("{lang}", lang).replace("{split}", name) for name in names for lang in langs]
    missing = ", ".join(path for path in dict.fromkeys(tried) if not Path(path).is_file())
    raise DataError(f"data.corpus={pattern}: no such file: {missing}")


def _longer_names(pattern: str, split: str) -> set[str]:
    """The names beginning with `split` that make the pattern a file, where {split} stands once, in the last part."""
    path = Path(pattern)
    before, found, after = path.name.partition("{split}")
    if not found or "{split}" in after or not path.parent.is_dir():
        return set()
    beginning = f"{before}{split}"
    files = (file.name for file in path.parent.iterdir() if file.is_file())
    return {
        name[len(before) : len(name) - len(after)]
        for name in files
        if name.startswith(beginning) and name.endswith(after) and len(name) >= len(beginning) + len(after)
    }


def aligned_lines(src: Path, tgt: Path) -> Iterator[tuple[str, str]]:
    """The pairs of `aligned_files`, read once, as pipes can be."""
    num_src = num_tgt = 0
    for source, target in itertools.zip_longest(read_lines(src), read_lines(tgt)):
        num_src += source is not None
        num_tgt += target is not None
        if num_src == num_tgt:
            yield source, target
    if num_src != num_tgt:
        raise DataError(f"the two sides differ in length: {src} has {num_src} lines, {tgt} has {num_tgt}")


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        digest.update(b"end of file")
    return digest.hexdigest()


def _table(path: Path, src_lang: str, tgt_lang: str) -> Corpus:
    import datasets

    suffix = next((s for s in reversed(path.suffixes) if s in _TABLE_SUFFIXES), None)
    if suffix is None:
        accepted = ", ".join(_TABLE_SUFFIXES)
        raise DataError(f"{path}: without {{lang}} in data.corpus the file must be one of {accepted}")
    # Words such as "null" and "NA" are words here.
    options = {"keep_default_na": False, "na_filter": False} if suffix == ".csv" else {}
    try:
        file = glob.escape(str(path))
        rows = datasets.load_dataset(_TABLE_SUFFIXES[suffix], data_files=file, split="train", **options)
    except Exception as error:  # datasets raises whatever its many readers raise
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {_one_line(error.__cause__ or error)}") from None
    return _rows_corpus(str(path), rows, src_lang, tgt_lang, _digest(path))


def _hub(data: DataConfig, split: str) -> Corpus:
    import datasets

    try:
        rows = datasets.load_dataset(data.corpus, data.subset, split=split, revision=data.revision)
    except ValueError as error:  # no such subset or split: the message lists those there are
        raise DataError(
            f"data.corpus={data.corpus}, data.subset={data.subset}: cannot load split {split!r}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from None
    except Exception as error:
        raise DataError(
            f"data.corpus={data.corpus}: cannot load {split!r} from the hub ({_one_line(error)}); without a network, "
            "give local files as data.corpus='path/{split}.{lang}', or data.corpus=builtin"
        ) from None
    name = " ".join(part for part in (data.corpus, data.subset, split) if part)
    return _rows_corpus(name, rows, data.src_lang, data.tgt_lang, str(rows._fingerprint))


def _rows_corpus(name: str, rows: Any, src_lang: str, tgt_lang: str, fingerprint: str) -> Corpus:
    columns = rows.column_names
    nested = "translation" in columns and not {src_lang, tgt_lang} <= set(columns)
    if not nested and not {src_lang, tgt_lang} <= set(columns):
        raise DataError(f"{name}: needs columns {src_lang!r} and {tgt_lang!r} or 'translation', has {columns}")

    def pairs(batch: dict[str, list[Any]]) -> list[Any]:
        if nested:
            return batch["translation"]
        return [{src_lang: src, tgt_lang: tgt} for src, tgt in zip(batch[src_lang], batch[tgt_lang], strict=True)]

    def batches() -> Iterator[dict[str, list[Any]]]:
        try:
            yield from rows.iter(_ROWS_AT_A_TIME)
        except UnicodeDecodeError:  # Arrow looks at bytes only when they are wanted
            raise DataError(f"{name}: holds text that is not UTF-8") from None

    def read() -> Iterator[tuple[str, str]]:
        for number, pair in enumerate(itertools.chain.from_iterable(map(pairs, batches())), start=1):
            source, target = (pair.get(lang) if isinstance(pair, dict) else None for lang in (src_lang, tgt_lang))
            if not isinstance(source, str) or not isinstance(target, str):
                shown = json.dumps(pair, ensure_ascii=False, default=str)[:200]
                raise DataError(f"{name}, row {number}: {src_lang!r} and {tgt_lang!r} must be text, got {shown}")
            yield source, target

    return Corpus(name, f"{fingerprint} {src_lang} {tgt_lang}", read)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

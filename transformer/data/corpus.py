"""Parallel corpora (section 5.1): hub datasets, local files, the builtin grammar and registered forms."""

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

from transformer.config import DataConfig
from transformer.config_file import plain_name
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError, DataError

_SYNONYMS = {"validation": ("valid", "val", "dev")}  # other names of a split, tried in order
_HELD_OUT_BUILTIN_SIZE = 1000
_TABLE_SUFFIXES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_ROWS_PER_READ = 1000  # about ten times as fast as single rows
# Bytes; longer lines are not text. Normalisation expands some characters to 18, tokenizing one needs up to 360 bytes.
_MAX_LINE = 1 << 22

Text = TypeVar("Text")  # a line, or the two sides of a pair


@dataclass(frozen=True)
class Corpus:
    """Sentence pairs, streamed, that can be read repeatedly.

    Attributes:
        name: for messages.
        fingerprint: changes with the content; key of the cache.
        read: returns a new iterator over (source, target) pairs. DataError if the files are invalid.
        symbols: returns the tokenizer's user-defined symbols, words that are never split.
    """

    name: str
    fingerprint: str
    read: Callable[[], Iterator[tuple[str, str]]]
    symbols: Callable[[], Sequence[str]] = list

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self.read()


CorpusReader = Callable[[DataConfig, str], Corpus]
_READERS: dict[str, CorpusReader] = {}


def register_corpus(form: str, reader: CorpusReader) -> None:
    """Register a reader for a name or a file suffix.

    `form` is a value of `data.corpus` such as "treebank", or a suffix such as ".trees", which others (".gz") may
    follow. The reader is called with the configuration and a split. ValueError if the form is already registered.
    """
    if form in _READERS:
        raise ValueError(f"a reader for the corpus form {form!r} is already registered")
    _READERS[form] = reader


def load_split(data: DataConfig, split: str) -> Corpus:
    """Load one split of the configured corpus.

    `data.corpus` is one of

    - a registered name: `builtin`, or `treebank` of `transformer.parsing`;
    - a local pattern with a registered suffix: `.trees` of `transformer.parsing`;
    - a local pattern with `{split}` and `{lang}`, one plain or `.gz` file per language;
    - a local pattern of jsonl, parquet or csv files with a column per language;
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
    for form in (data.corpus, *Path(data.corpus).suffixes):
        if form in _READERS:
            return _READERS[form](data, split)
    if "{" in data.corpus or Path(data.corpus).suffix in (*_TABLE_SUFFIXES, ".gz", ".txt"):
        if "{lang}" in data.corpus:
            return aligned_files(*find_files(data.corpus, split, (data.src_lang, data.tgt_lang)))
        return _table(find_files(data.corpus, split)[0], data.src_lang, data.tgt_lang)
    return _hub(data, split)


def published_test_set(name: str, src_lang: str, tgt_lang: str) -> tuple[Path, list[Path]]:
    """Source and references of one of sacreBLEU's test sets, such as `wmt14/full`, downloaded to `~/.sacrebleu`.

    DataError if it does not exist for these languages, cannot be downloaded, or has no reference.
    """
    from sacrebleu.dataset import DATASETS

    direction = f"{src_lang}-{tgt_lang}"
    known = [known for known, test_set in DATASETS.items() if direction in test_set.langpairs]
    if name not in known:
        raise DataError(f"sacreBLEU has no test set {name!r} for {direction}; it has {', '.join(known) or 'none'}")
    try:
        source = DATASETS[name].get_source_file(direction)
        references = DATASETS[name].get_reference_files(direction)
    except (Exception, SystemExit) as error:  # it exits if a checksum is wrong
        raise DataError(
            f"the test set {name} cannot be fetched ({_one_line(error)}); without a network, score the "
            "corpus' own test split, or files with --src and --ref"
        ) from None
    if not references:
        raise DataError(f"the test set {name} has no reference for {direction}")
    return Path(source), [Path(reference) for reference in references]


def aligned_files(src: Path, tgt: Path) -> Corpus:
    """Pair two line-aligned files, plain or `.gz`.

    DataError if they differ in length, with both counts, or for a line that is not UTF-8.
    """
    return Corpus(f"{src} and {tgt}", digest_files(src, tgt), lambda: aligned_lines(src, tgt))


def read_lines(path: Path) -> Iterator[str]:
    """Read the lines of a UTF-8 file, plain or `.gz`, without line ends. DataError as in `decode_lines`."""
    try:
        with cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as file:
            yield from decode_lines(file, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def decode_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Decode the UTF-8 lines of a binary stream called `name`, without line ends.

    Only a line feed ends a line: splitting at U+2028 and the like, as text streams may, would misalign two sides.
    DataError for a line that is not UTF-8 or has more than 4 MiB.
    """
    for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE + 1), b""), start=1):
        if len(line) > _MAX_LINE:
            raise DataError(f"{name}, line {number}: longer than {_MAX_LINE} bytes: is it text?")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: not UTF-8 (byte {error.start + 1} of the line)") from None
        yield text.removeprefix("\ufeff" if number == 1 else "").removesuffix("\n").removesuffix("\r")


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
    return Corpus(f"builtin {split}", f"builtin {split} {size}", lambda: builtin_pairs(split, size))


register_corpus("builtin", _builtin)


def find_files(pattern: str, split: str, langs: Sequence[str] = ("",)) -> list[Path]:
    """Find the file of a split for each language.

    {split} is the name, a synonym or the only name with this prefix. DataError if there is no such file or several.
    """
    patterns = [pattern.replace("{lang}", lang) for lang in langs]
    names = (split, *_SYNONYMS.get(split, ()))
    tried = [[Path(one.replace("{split}", name)) for one in patterns] for name in names]
    for paths in tried:
        if all(path.is_file() for path in paths):
            return paths
    longer = sorted(set.intersection(*(_names_with_prefix(one, split) for one in patterns)))
    if len(longer) == 1:
        return [Path(one.replace("{split}", longer[0])) for one in patterns]
    if longer:
        raise DataError(
            f"data.corpus={pattern}: split {split!r} could be any of {', '.join(longer)}; "
            "name one in data.*_split or --split"
        )
    missing = ", ".join(str(path) for path in dict.fromkeys(itertools.chain(*tried)) if not path.is_file())
    raise DataError(f"data.corpus={pattern}: no such file: {missing}")


def _names_with_prefix(pattern: str, prefix: str) -> set[str]:
    """Existing values of {split} with this prefix, if {split} occurs once, in the file name."""
    path = Path(pattern)
    before, found, after = path.name.partition("{split}")
    if not found or "{split}" in after or not path.parent.is_dir():
        return set()
    start = f"{before}{prefix}"
    return {
        file.name[len(before) : len(file.name) - len(after)]
        for file in path.parent.iterdir()
        if file.name.startswith(start) and file.name.endswith(after) and len(file.name) >= len(start) + len(after)
        if file.is_file()
    }


def aligned_lines(src: Path, tgt: Path) -> Iterator[tuple[str, str]]:
    """Iterate once over the pairs of two aligned files, which may be pipes. DataError as in `aligned_files`."""
    num_src = num_tgt = 0
    for source, target in itertools.zip_longest(read_lines(src), read_lines(tgt)):
        num_src += source is not None
        num_tgt += target is not None
        if num_src == num_tgt:
            yield source, target
    if num_src != num_tgt:
        raise DataError(f"the two sides differ in length: {src} has {num_src} lines, {tgt} has {num_tgt}")


def digest_files(*paths: Path) -> str:
    """SHA-256 of the files' content. DataError if one cannot be read."""
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
    # pandas would read words such as "null" and "NA" as missing values.
    options = {"keep_default_na": False, "na_filter": False} if suffix == ".csv" else {}
    try:
        file = glob.escape(str(path))
        rows = datasets.load_dataset(_TABLE_SUFFIXES[suffix], data_files=file, split="train", **options)
    except Exception as error:  # those of many file readers
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {_one_line(error.__cause__ or error)}") from None
    return _rows_corpus(str(path), rows, src_lang, tgt_lang, digest_files(path))


def _hub(data: DataConfig, split: str) -> Corpus:
    import datasets

    try:
        rows = datasets.load_dataset(data.corpus, data.subset, split=split, revision=data.revision)
    except ValueError as error:  # unknown subset or split; the message lists the available ones
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
    langs, columns = (src_lang, tgt_lang), rows.column_names
    nested = "translation" in columns and not set(langs) <= set(columns)
    if not nested and not set(langs) <= set(columns):
        raise DataError(f"{name}: needs columns {src_lang!r} and {tgt_lang!r} or 'translation', has {columns}")

    def read() -> Iterator[tuple[str, str]]:
        numbers = itertools.count(1)
        try:
            for batch in rows.iter(_ROWS_PER_READ):
                for index, number in zip(range(len(batch[columns[0]])), numbers, strict=False):
                    pair = batch["translation"][index] if nested else {lang: batch[lang][index] for lang in langs}
                    texts: list[Any] = [pair.get(lang) for lang in langs] if isinstance(pair, dict) else [None]
                    if not all(isinstance(text, str) for text in texts):
                        shown = json.dumps(pair, ensure_ascii=False, default=str)[:200]
                        problem = f"{src_lang!r} and {tgt_lang!r} must be text, got {shown}"
                        raise DataError(f"{name}, row {number}: {problem}")
                    yield texts[0], texts[1]
        except UnicodeDecodeError:  # Arrow decodes lazily
            raise DataError(f"{name}: contains text that is not UTF-8") from None

    return Corpus(name, f"{fingerprint} {src_lang} {tgt_lang}", read)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

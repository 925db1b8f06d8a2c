"""Treebanks as parallel corpora of sentences and linearised trees."""

from collections.abc import Callable, Iterable, Iterator

from transformer.config import DataConfig
from transformer.data.builtin import builtin_trees
from transformer.data.corpus import Corpus, builtin_size, checked_files, find_files, read_lines, register_corpus
from transformer.errors import DataError
from transformer.parsing.trees import PUNCTUATION, linearise, read_tree, words


def sentence_pairs(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    """Convert bracketed trees, one per line, to sentences and linearised trees.

    Blank lines are skipped. DataError for a malformed tree, with the line's number in `name`.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                tree = read_tree(line)
            except DataError as error:
                raise DataError(f"{name}, line {number}: {error}") from None
            yield " ".join(words(tree)), linearise(tree)


def tree_symbols(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """User-defined symbols: the brackets and XX, but not punctuation, which sentences share."""
    return sorted({symbol for _, target in pairs for symbol in target.split()} - PUNCTUATION)


def _corpus(name: str, fingerprint: str, lines: Callable[[], Iterator[str]]) -> Corpus:
    def read() -> Iterator[tuple[str, str]]:
        return sentence_pairs(lines(), name)

    return Corpus(name, f"linearised {fingerprint}", read, lambda: tree_symbols(read()))


def _read_files(data: DataConfig, split: str) -> Corpus:
    (path,) = find_files(data.corpus, split)
    fingerprint, (file,) = checked_files(path)
    return _corpus(str(path), fingerprint, lambda: read_lines(file))


def _read_builtin(data: DataConfig, split: str) -> Corpus:
    size = builtin_size(data, split)
    builtin_trees(split, size)  # raises for an unknown split
    return _corpus(f"treebank {split}", f"treebank {split} {size}", lambda: builtin_trees(split, size))


register_corpus(".trees", _read_files)
register_corpus("treebank", _read_builtin)

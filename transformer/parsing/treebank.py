"""Treebanks as parallel corpora: sentences, and the symbols of their trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transformer.errors import DataError
from transformer.parsing.trees import PUNCTUATION, linearise, read_tree, words


def sentence_pairs(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    """Of bracketed trees, one per line, the sentences and the linearised trees; blank lines hold none.

    DataError names the line of `name` that is no tree.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                tree = read_tree(line)
            except DataError as error:
                raise DataError(f"{name}, line {number}: {error}") from None
            yield " ".join(words(tree)), linearise(tree)


def tree_symbols(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The brackets of linearised trees, and XX. Punctuation, which sentences have too, is left to be learned."""
    return sorted({symbol for _, target in pairs for symbol in target.split()} - PUNCTUATION)

"""Constituency trees, and the sequences that stand for them when parsing is transduction (section 6.3).

Vinyals & Kaiser et al. 2015 write a tree depth first, a closing bracket with its label, and no words:

    (S (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog))) (. .))
    (S (NP XX )NP (VP XX (NP XX XX )NP )VP . )S

Parts of speech, which F1 does not look at, are all XX but those of punctuation, which F1 deletes.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformer.errors import DataError

PUNCTUATION = frozenset({",", ":", ".", "``", "''"})  # parts of speech of the Penn Treebank
ROOT = "TOP"
_ROOTS = {"", "TOP", "ROOT", "S1"}  # labels that treebanks and parsers put around a sentence
_TRACE = "-NONE-"
_TOKEN = re.compile(r"\(\s*([^\s()]+)\s+([^\s()]+)\s*\)|\(\s*([^\s()]*)|(\))|[^\s()]+")


@dataclass(frozen=True)
class Leaf:
    """A word and its part of speech."""

    tag: str
    word: str


@dataclass(frozen=True)
class Tree:
    """A constituent. Trees are walked without recursion: a model may nest brackets as deeply as it likes."""

    label: str
    children: tuple[Tree | Leaf, ...]


def read_tree(text: str) -> Tree:
    """The tree of one bracketed sentence, cleaned as is usual for parsing.

    Traces (-NONE-) go, and constituents without words; functions go from labels (NP-SBJ=2 is NP); a root without a
    label, or called TOP, ROOT or S1, goes unless it has several children or a word, and is then TOP.

    Raises:
        DataError: the brackets do not match, a word stands outside of `(TAG word)`, or it is not one tree with words.
    """
    opened: list[tuple[str, list[Tree | Leaf]]] = [("", [])]
    for match in _TOKEN.finditer(text):
        tag, word, label, closing = match.groups()
        if tag is not None:
            if tag != _TRACE:
                opened[-1][1].append(Leaf(tag, word))
        elif label is not None:
            opened.append((re.split("[-=]", label)[0] or label, []))
        elif closing is None:
            raise DataError(f"not a bracketed tree: {match[0]!r} does not stand in a bracket with its part of speech")
        elif len(opened) == 1:
            raise DataError(f"not a bracketed tree: the ) at character {match.start() + 1} closes nothing")
        else:
            _close(opened)
    if len(opened) > 1:
        raise DataError("not a bracketed tree: a bracket is not closed")
    ((_, roots),) = opened
    if len(roots) != 1:
        raise DataError(f"not a bracketed tree: {len(roots)} trees with words where one is expected")
    if isinstance(roots[0], Tree) and roots[0].label in _ROOTS:
        return _rooted(roots[0].children)
    return _rooted(roots)


def bracketed(tree: Tree) -> str:
    """The tree on one line, as `read_tree` and evalb read it."""
    symbols = (
        f" ({symbol.tag} {symbol.word})" if isinstance(symbol, Leaf) else f" {symbol}" if symbol[0] == "(" else ")"
        for symbol in walk(tree)
    )
    return "".join(symbols).lstrip()


def leaves(tree: Tree) -> list[Leaf]:
    """The words of a tree with their parts of speech, in order."""
    return [symbol for symbol in walk(tree) if isinstance(symbol, Leaf)]


def words(tree: Tree) -> list[str]:
    """The sentence of a tree."""
    return [leaf.word for leaf in leaves(tree)]


def walk(tree: Tree) -> Iterator[str | Leaf]:
    """`(LABEL`, leaves and `)LABEL`, as a reader meets them."""
    pending: list[str | Tree | Leaf] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Tree):
            yield f"({node.label}"
            pending += [f"){node.label}", *reversed(node.children)]
        else:
            yield node


def linearise(tree: Tree) -> str:
    """The symbols of a tree, separated by blanks: the target of the transduction. A root called TOP is left out."""
    symbols = [_tag(symbol.tag) if isinstance(symbol, Leaf) else symbol for symbol in walk(tree)]
    return " ".join(symbols[1:-1] if tree.label == ROOT else symbols)


def restore(sequence: str, sentence: Sequence[str], tags: Sequence[str] | None = None) -> Tree:
    """The tree over exactly these words that a sequence means: the inverse of `linearise`, but for parts of speech.

    Whatever a model writes is mended, always in the same way:

    - `)X` closes the innermost open X and whatever is open inside it; without an open X it is dropped;
    - what is open at the end is closed; a constituent without words is dropped;
    - each other symbol is the next word; without a next word it is dropped;
    - words without a symbol, and several trees side by side, come under a root called TOP.

    Args:
        sequence: symbols with blanks between them.
        sentence: the words.
        tags: their parts of speech; by default those of the sequence, which are of punctuation or XX.
    """
    opened: list[tuple[str, list[Tree | Leaf]]] = [(ROOT, [])]
    num_opened: collections.Counter[str] = collections.Counter()  # by label: looking through `opened` takes too long
    unread = list(enumerate(sentence))[::-1]

    def next_leaf(symbol: str) -> Leaf:
        index, word = unread.pop()
        return Leaf(_tag(symbol) if tags is None else tags[index], word)

    for symbol in sequence.split():
        label = symbol[1:]
        if symbol[0] == "(" and label not in ("", ROOT):
            opened.append((label, []))
            num_opened[label] += 1
        elif symbol[0] == ")" and num_opened[label]:
            closed = None
            while closed != label:
                closed = _close(opened)
                num_opened[closed] -= 1
        elif symbol[0] not in "()" and unread:
            opened[-1][1].append(next_leaf(symbol))
    while len(opened) > 1:
        _close(opened)
    ((_, nodes),) = opened
    while unread:
        nodes.append(next_leaf(""))
    return _rooted(nodes)


def _close(opened: list[tuple[str, list[Tree | Leaf]]]) -> str:
    """Close the innermost constituent; returns its label."""
    label, children = opened.pop()
    if children:
        opened[-1][1].append(Tree(label, tuple(children)))
    return label


def _rooted(nodes: Sequence[Tree | Leaf]) -> Tree:
    return nodes[0] if len(nodes) == 1 and isinstance(nodes[0], Tree) else Tree(ROOT, tuple(nodes))


def _tag(tag: str) -> str:
    return tag if tag in PUNCTUATION else "XX"

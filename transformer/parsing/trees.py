"""Constituency trees and their linearisation for sequence transduction (section 6.3).

Vinyals & Kaiser et al. 2015 linearise a tree depth first, with labelled closing brackets and without words:

    (S (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog))) (. .))
    (S (NP XX )NP (VP XX (NP XX XX )NP )VP . )S

Part-of-speech tags, which F1 ignores, become XX, except those of punctuation, which F1 deletes.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformer.errors import DataError

PUNCTUATION = frozenset({",", ":", ".", "``", "''"})  # tags of the Penn Treebank
ROOT = "TOP"
_ROOTS = {"", "TOP", "ROOT", "S1"}  # root labels of treebanks and parsers
_TRACE = "-NONE-"
_TOKEN = re.compile(r"\(\s*([^\s()]+)\s+([^\s()]+)\s*\)|\(\s*([^\s()]*)|(\))|[^\s()]+")


@dataclass(frozen=True)
class Leaf:
    """A word and its part-of-speech tag."""

    tag: str
    word: str


@dataclass(frozen=True)
class Tree:
    """A constituent. Traversal is iterative: a model may nest brackets arbitrarily deep."""

    label: str
    children: tuple[Tree | Leaf, ...]


def read_tree(text: str) -> Tree:
    """Parse one bracketed sentence, with the usual clean-up.

    Traces (-NONE-) and empty constituents are removed, and function labels stripped (NP-SBJ=2 is NP). A root that is
    unlabelled or labelled TOP, ROOT or S1 is removed if its only child is a constituent, and becomes TOP otherwise.
    DataError for unbalanced brackets, a word outside `(TAG word)`, or anything but one tree with words.
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
            raise DataError(f"not a bracketed tree: {match[0]!r} is not in a bracket with its tag")
        elif len(opened) == 1:
            raise DataError(f"not a bracketed tree: the ) at character {match.start() + 1} closes nothing")
        else:
            _close(opened)
    if len(opened) > 1:
        raise DataError("not a bracketed tree: a bracket is not closed")
    ((_, roots),) = opened
    if len(roots) != 1:
        raise DataError(f"not a bracketed tree: expected one tree with words, found {len(roots)}")
    if isinstance(roots[0], Tree) and roots[0].label in _ROOTS:
        return _rooted(roots[0].children)
    return _rooted(roots)


def bracketed(tree: Tree) -> str:
    """Format a tree on one line, for `read_tree` and evalb."""
    symbols = (
        f" ({symbol.tag} {symbol.word})" if isinstance(symbol, Leaf) else f" {symbol}" if symbol[0] == "(" else ")"
        for symbol in walk(tree)
    )
    return "".join(symbols).lstrip()


def leaves(tree: Tree) -> list[Leaf]:
    """Leaves of a tree, in order."""
    return [symbol for symbol in walk(tree) if isinstance(symbol, Leaf)]


def words(tree: Tree) -> list[str]:
    """Words of a tree, in order."""
    return [leaf.word for leaf in leaves(tree)]


def walk(tree: Tree) -> Iterator[str | Leaf]:
    """Yield `(LABEL`, leaves and `)LABEL`, depth first."""
    pending: list[str | Tree | Leaf] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Tree):
            yield f"({node.label}"
            pending += [f"){node.label}", *reversed(node.children)]
        else:
            yield node


def linearise(tree: Tree) -> str:
    """Linearise a tree as the target sentence; a TOP root is left out."""
    symbols = [_tag(symbol.tag) if isinstance(symbol, Leaf) else symbol for symbol in walk(tree)]
    return " ".join(symbols[1:-1] if tree.label == ROOT else symbols)


def restore(sequence: str, sentence: Sequence[str], tags: Sequence[str] | None = None) -> Tree:
    """Rebuild the tree over these words from its linearisation, repairing malformed output.

    Inverse of `linearise`, except for tags. Repairs are deterministic:

    - `)X` closes the innermost open X and everything open inside it; without an open X it is dropped;
    - open constituents are closed at the end; empty ones are dropped;
    - every other symbol consumes the next word; without one it is dropped;
    - remaining words and multiple trees are joined under a TOP root.

    The tags are by default those of the sequence, punctuation or XX.
    """
    opened: list[tuple[str, list[Tree | Leaf]]] = [(ROOT, [])]
    num_opened: collections.Counter[str] = collections.Counter()  # by label, since searching `opened` is quadratic
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

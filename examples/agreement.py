"""Sentences of the built-in grammar with a verb that agrees with its subject or does not."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transformer.data.builtin import builtin_trees

NUMBER = {"is": "are", "has": "have", "wants": "want"}
NUMBER |= {plural: singular for singular, plural in NUMBER.items()}


class Sentence(NamedTuple):
    """A sentence and one of its finite verbs."""

    words: list[str]
    verb: int  # its position
    distance: int  # from the last word of the subject's noun, in words


def sentence(tree: str) -> Sentence | None:
    """The words of a bracketed sentence, and its finite verb that is farthest from its subject, if it has one."""
    words: list[str] = []
    open_nodes: list[list[Any]] = [[]]  # label and children; of a word, label and position
    for token in re.findall(r"[()]|[^\s()]+", tree):
        if token == "(":
            open_nodes.append([])
        elif token == ")":
            node = open_nodes.pop()
            open_nodes[-1].append(node)
        elif not open_nodes[-1]:
            open_nodes[-1].append(token)
        else:
            open_nodes[-1].append(len(words))
            words.append(token.lower())
    verbs = [(verb - noun, verb) for noun, verb in agreements(open_nodes[0][0]) if words[verb] in NUMBER]
    return Sentence(words, max(verbs)[1], max(verbs)[0]) if verbs else None


def agreements(node: list[Any]) -> Iterator[tuple[int, int]]:
    """Positions of the last word of each subject's noun, and of the first of the verb behind it."""
    children = [child for child in node[1:] if isinstance(child, list)]
    for left, right in pairwise(children):
        if left[0] == "NP" and right[0] == "VP":
            noun = left
            while noun[1][0] == "NP":  # before a relative clause, or the last one behind "and"
                noun = noun[1] if noun[-1][0] == "SBAR" else noun[-1]
            yield noun[-1][1], right[1][1]
    for child in children:
        yield from agreements(child)


def corpus(split: str, size: int, seed: int = 0) -> list[Sentence]:
    """Of so many sentences those with a verb away from its subject, and equally many others."""
    found = [one for one in map(sentence, builtin_trees(split, size, seed)) if one is not None]
    far = [one for one in found if one.distance > 1]
    return far + [one for one in found if one.distance == 1][: len(far)]


def examples(sentences: Sequence[Sentence], rng: random.Random) -> tuple[list[list[str]], Tensor]:
    """Words of sentences, and labels: 1 for every second at random, of which the verb is in the wrong number."""
    labels = [rng.randrange(2) for _ in sentences]
    texts = [list(one.words) for one in sentences]
    for words, one, label in zip(texts, sentences, labels, strict=True):
        if label:
            words[one.verb] = NUMBER[words[one.verb]]
    return texts, torch.tensor(labels)

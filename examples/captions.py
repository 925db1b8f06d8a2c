"""Captions of the built-in grammar as word ids: the corpus that several examples share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from transformer import BOS_ID, EOS_ID, PAD_ID
from transformer.data.builtin import builtin_pairs

NUM_SPECIAL = 4  # padding, the unknown word, <s> and </s>
UNKNOWN_ID = 1


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a sentence."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def english(split: str, size: int, seed: int = 0) -> list[list[str]]:
    """The words of English captions."""
    return [words(source) for source, _ in builtin_pairs(split, size, seed)]


class Vocabulary:
    """All words of sentences, in alphabetical order behind the special ids."""

    def __init__(self, sentences: Iterable[Sequence[str]]) -> None:
        self.words = sorted({word for sentence in sentences for word in sentence})
        self.ids = {word: index for index, word in enumerate(self.words, NUM_SPECIAL)}

    def __len__(self) -> int:
        return NUM_SPECIAL + len(self.words)

    def encode(self, sentence: Iterable[str]) -> list[int]:
        """Ids of words, without <s> and </s>."""
        return [self.ids.get(word, UNKNOWN_ID) for word in sentence]

    def encode_batch(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """<s> words </s> of each sentence, padded: (B, L) int64."""
        return padded([[BOS_ID, *self.encode(sentence), EOS_ID] for sentence in sentences])


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids, filled up with padding to (B, L) int64."""
    length = max(map(len, rows))
    return torch.tensor([[*row, *[PAD_ID] * (length - len(row))] for row in rows])

"""How a tokenizer splits a text: fertility, lengths, unknown characters and use of the vocabulary."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from transformer.data.sentencepiece_model import BYTE
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.machine import num_cpus

_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass
class TokenizerStats:
    """Counts over the lines of a text; lengths are in pieces, without </s>.

    Characters are those that are not white space.
    """

    lines: int = 0
    blank_lines: int = 0
    words: int = 0  # between spaces
    characters: int = 0
    pieces: int = 0
    unknown_pieces: int = 0
    unknown_characters: int = 0
    byte_pieces: int = 0
    distinct_pieces: int = 0
    vocab_size: int = 0
    lengths: list[int] = field(default_factory=list)  # of the lines that are not blank
    longest: list[tuple[int, int]] = field(default_factory=list)  # number and pieces of the longest lines

    def summary(self) -> dict[str, object]:
        """The counts with their ratios, under plain names; None where there is nothing to divide."""
        counts = {name: value for name, value in vars(self).items() if name not in ("lengths", "longest")}
        lengths = np.array(self.lengths or [0])
        values = np.quantile(lengths, _QUANTILES, method="inverted_cdf")
        return counts | {
            "pieces_per_word": _ratio(self.pieces, self.words),
            "characters_per_piece": _ratio(self.characters, self.pieces),
            "coverage": _ratio(self.characters - self.unknown_characters, self.characters),
            "vocabulary_used": _ratio(self.distinct_pieces, self.vocab_size),
            "mean_length": _ratio(self.pieces, len(self.lengths)),
            **{f"length_{name}": int(x) for name, x in zip(("median", "p90", "p99", "max"), values, strict=True)},
            "longest_lines": [{"line": number, "pieces": length} for number, length in self.longest],
        }


def tokenizer_stats(
    tokenizer: Tokenizer, chunks: Iterable[Sequence[str]], num_longest: int = 5
) -> Iterator[TokenizerStats]:
    """The statistics after each chunk of lines; the same object, which grows.

    DataError as of `Tokenizer.encode`.
    """
    stats, used, longest = TokenizerStats(vocab_size=len(tokenizer)), set[int](), list[tuple[int, int]]()
    byte_ids = {id_ for id_, piece in enumerate(tokenizer.scored_pieces()) if piece.kind == BYTE}
    for lines in chunks:
        encoded, split = tokenizer.encode(lines, num_cpus()), tokenizer.encode_as_pieces(lines, num_cpus())
        for line, ids, pieces in zip(lines, encoded, split, strict=True):
            stats.lines += 1
            if not ids:
                stats.blank_lines += 1
                continue
            stats.words += len(line.split())
            stats.characters += sum(not character.isspace() for character in line)
            stats.pieces += len(ids)
            unknown = [piece for id_, piece in zip(ids, pieces, strict=True) if id_ == UNK_ID]
            stats.unknown_pieces += len(unknown)
            stats.unknown_characters += sum(map(len, unknown))
            stats.byte_pieces += sum(id_ in byte_ids for id_ in ids)
            used.update(ids)
            stats.lengths.append(len(ids))
            longest = heapq.nlargest(num_longest, [*longest, (len(ids), -stats.lines)])
        stats.distinct_pieces = len(used)
        stats.longest = [(-number, length) for length, number in longest]
        yield stats


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None

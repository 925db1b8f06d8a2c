"""Constraints as text: phrases that must occur in translations, and files of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.data.corpus import read_lines
from transformer.data.normalization import is_blank
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.errors import DataError
from transformer.inference.sources import list_numbers
from transformer.inference.translation import Translation

TextConstraints = Sequence[Sequence[str]]  # per text its phrases
PhraseIds = list[list[int]]  # of the phrases of one text


@dataclass(frozen=True)
class ConstraintFile:
    """The phrases of each line of an input, from a file.

    Each line of the file has those of the line with its number, separated by tabs.

    Without a path there are none.
    """

    path: Path | None
    phrases: Sequence[Sequence[str]] = ()

    @classmethod
    def read(cls, path: Path | None) -> ConstraintFile:
        """Read them. DataError if the file cannot be read."""
        if path is None:
            return cls(None)
        try:
            phrases = [() if is_blank(line) else tuple(line.split("\t")) for line in read_lines(path)]
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        return cls(path, phrases)

    def check(self, tokenizer: Tokenizer) -> None:
        """DataError for a phrase that is empty or has unknown pieces. It names the line."""
        try:
            encode_phrases(self.phrases, tokenizer, kind="line")
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None

    def of(self, first_number: int, num_lines: int) -> TextConstraints | None:
        """Those of some lines, counted from 1. DataError if the file has not so many."""
        if self.path is None:
            return None
        if first_number + num_lines - 1 > len(self.phrases):
            raise DataError(f"{self.path}: has {len(self.phrases)} lines, and the input has more; leave lines empty")
        return self.phrases[first_number - 1 :][:num_lines]

    def finish(self, num_lines: int) -> None:
        """DataError unless the input has as many lines."""
        if self.path is not None and len(self.phrases) != num_lines:
            raise DataError(f"{self.path}: has {len(self.phrases)} lines, and the input has {num_lines}")

    def settings(self) -> dict[str, object]:
        """What translations depend on, if there is a file."""
        content = "\n".join(map("\t".join, self.phrases)).encode()
        return {} if self.path is None else {"constraints": hashlib.sha256(content).hexdigest()}


def unmet_messages(
    constraints: TextConstraints | None, translations: Sequence[Sequence[Translation]], *, first_number: int
) -> list[str]:
    """Names the texts without a translation that has their phrases.

    At most one line.
    """
    pairs = enumerate(zip(constraints or (), translations, strict=constraints is not None), start=first_number)
    numbers = [number for number, (phrases, (best, *_)) in pairs if phrases and not math.isfinite(best.score)]
    if not numbers:
        return []
    what = "1 line is" if len(numbers) == 1 else f"{len(numbers)} lines are"
    found = "as no translation with the phrases was found"
    return [f"{what} left empty, {found}: {list_numbers(numbers)}; a larger --beam may find one"]


def encode_constraints(
    tokenizer: Tokenizer, constraints: TextConstraints | None, num_texts: int, first_number: int
) -> list[PhraseIds]:
    """Ids of the phrases of each text; none at all without constraints.

    TypeError unless constraints are a list per text; otherwise as `encode_phrases`.
    """
    if constraints is None:
        return []
    constraints = constraints if isinstance(constraints, str | bytes) else list(constraints)
    if isinstance(constraints, str | bytes) or len(constraints) != num_texts:
        raise TypeError(f"constraints must be {num_texts} lists of phrases, one per sentence")
    return encode_phrases(constraints, tokenizer, first_number=first_number)


def encode_phrases(
    constraints: TextConstraints, tokenizer: Tokenizer, *, first_number: int = 1, kind: str = "sentence"
) -> list[PhraseIds]:
    """Ids of the phrases of each text, as at the beginning of words.

    Raises:
        DataError: nothing is left of a phrase after normalisation, it has unknown characters or surrogates.
        TypeError: the phrases of a text are one string, or one is not text.
    """
    encoded = []
    for number, phrases in enumerate(constraints, start=first_number):
        phrases = phrases if isinstance(phrases, str | bytes) else list(phrases)
        if isinstance(phrases, str | bytes) or not all(isinstance(phrase, str) for phrase in phrases):
            raise TypeError(f"the constraints of {kind} {number} must be a list of texts, got {phrases!r}")
        try:
            ids = tokenizer.encode_inside(phrases) if phrases else []
        except DataError as error:
            raise DataError(f"the constraints of {kind} {number}: {error}") from None
        for phrase, pieces in zip(phrases, ids, strict=True):
            if not pieces:
                raise DataError(f"{kind} {number} has an empty phrase; a tab must separate two")
            if UNK_ID in pieces:
                raise DataError(f"{kind} {number}: the phrase {phrase!r} has characters that the model cannot write")
        encoded.append(ids)
    return encoded

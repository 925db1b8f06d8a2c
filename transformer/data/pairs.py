"""A corpus: sentence pairs, streamed."""

import dataclasses
import hashlib
import json
import operator
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from transformer.data.normalization import surrogates_error
from transformer.errors import DataError


def digest_of(*parts: object) -> str:
    """A hash of values that JSON can write, also of numpy, as 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, default=operator.methodcaller("item")).encode()).hexdigest()[:32]


def added(*counts: Mapping[str, int]) -> dict[str, int]:
    """Sums of numbers by name, in the order in which the names first occur."""
    total: dict[str, int] = {}
    for one in counts:
        for name, number in one.items():
            total[name] = total.get(name, 0) + number
    return total


@dataclass(frozen=True)
class Corpus:
    """Sentence pairs, streamed, that can be read repeatedly.

    Attributes:
        name: for messages.
        fingerprint: changes with the content; key of the cache. TypeError unless it is a str.
        read: returns a new iterator over (source, target) pairs. DataError if the files are invalid.
        symbols: returns the tokenizer's user-defined symbols, words that are never split.
        dropped: returns the pairs that the last complete reading left out, by reason.

    Iterating over it reads it, with a DataError for what is not two texts.
    """

    name: str
    fingerprint: str
    read: Callable[[], Iterator[tuple[str, str]]]
    symbols: Callable[[], Sequence[str]] = list
    dropped: Callable[[], Mapping[str, int]] = dict

    def __post_init__(self) -> None:
        if not isinstance(self.fingerprint, str):
            raise TypeError(f"{self.name}: fingerprint must be a str, got {type(self.fingerprint).__name__}")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for number, pair in enumerate(self.read(), start=1):
            is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
            if not is_pair or not isinstance(pair[0], str) or not isinstance(pair[1], str):
                raise DataError(f"{self.name}, pair {number}: must be two texts, got {reprlib.repr(pair)}")
            try:
                pair[0].encode()
                pair[1].encode()
            except UnicodeEncodeError:
                raise surrogates_error(f"{self.name}, pair {number}") from None
            yield pair

    def without(self, reason: str, is_dropped: Callable[[str, str], bool], key: str) -> "Corpus":
        """The corpus without some of its pairs, which are counted under `reason`.

        `key` changes with which they are.
        """
        return self.sorted_out(lambda source, target: reason if is_dropped(source, target) else None, f"{reason} {key}")

    def sorted_out(self, reason_of: Callable[[str, str], str | None], key: str) -> "Corpus":
        """The corpus without the pairs for which there is a reason, counted by reason.

        `key` changes with the reasons.
        """
        counts: dict[str, int] = {}

        def read() -> Iterator[tuple[str, str]]:
            found: dict[str, int] = {}
            for source, target in self.read():
                if reason := reason_of(source, target):
                    found[reason] = found.get(reason, 0) + 1
                else:
                    yield source, target
            counts.clear()
            counts.update(found)

        return dataclasses.replace(
            self,
            fingerprint=hashlib.sha256(f"{self.fingerprint}\n{key}".encode()).hexdigest(),
            read=read,
            dropped=lambda: added(self.dropped(), counts),
        )

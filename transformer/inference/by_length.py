"""Scores by sentence length: one corpus-level score for each bucket of lengths."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformer.errors import ConfigError, DataError
from transformer.inference.scoring import MetricScore, Scorer, check_sides
from transformer.inference.text_checks import needs_other_tokenizer

NUM_BUCKETS = 7  # but for empty lines; the last one is open
STEP = 10  # words
_CHARACTERS_PER_WORD = 2  # in scripts without spaces, so that buckets are about as long


@dataclass(frozen=True)
class LengthBucket:
    """The sentences of some lengths, with their scores.

    Attributes:
        low, high: shortest and longest length; `high` is None in the last bucket.
        sentences: how many there are.
        scores: by metric, none if there is no sentence.
    """

    low: int
    high: int | None
    sentences: int
    scores: dict[str, MetricScore]

    @property
    def name(self) -> str:
        """Such as 0, 1-10 or 61+."""
        if self.high is None:
            return f"{self.low}+"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def text_lengths(lines: Sequence[str]) -> tuple[str, list[int]]:
    """The unit, "words" or "characters", and the length of each line.

    Words are separated by white space. Of text without spaces between words, as in Chinese, characters are counted.
    """
    lines = list(lines)
    if needs_other_tokenizer(lines):
        return "characters", [sum(map(len, line.split())) for line in lines]
    return "words", [len(line.split()) for line in lines]


def default_step(unit: str) -> int:
    """The size of buckets by default: 10 words or 20 characters."""
    return STEP * _CHARACTERS_PER_WORD if unit == "characters" else STEP


def score_by_length(
    scorer: Scorer,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    lengths: Sequence[int],
    step: int = STEP,
) -> list[LengthBucket]:
    """Score the sentences of each length.

    Buckets have the lengths 1 to `step`, the next `step`, and so on; the seventh is open.

    A bucket's score is the corpus-level score of its sentences, not a mean of sentences. Empty buckets are kept between
    others. Sentences of length 0 have a bucket of their own.

    Args:
        scorer: with the metrics.
        hypotheses: a line per sentence.
        references: one or more, with equally many lines each.
        lengths: of each sentence, such as those of the source by `text_lengths`.
        step: lengths per bucket.

    Raises:
        ConfigError: `step` is less than 1.
        DataError: the sides differ in length, or there is nothing to score.
    """
    if step < 1:
        raise ConfigError(f"step={step} must be at least 1")
    check_sides(hypotheses, references)
    if len(lengths) != len(hypotheses):
        raise DataError(f"there are {len(lengths)} lengths of {len(hypotheses)} sentences")
    members: dict[int, list[int]] = {}
    for sentence, length in enumerate(lengths):
        members.setdefault(min(-(-int(length) // step), NUM_BUCKETS), []).append(sentence)
    buckets = []
    for number in range(min(members), max(members) + 1):
        chosen = members.get(number, [])
        scores = {}
        if chosen:
            sides = [[side[i] for i in chosen] for side in (hypotheses, *references)]
            scores = scorer.score(sides[0], sides[1:])
        low, high = ((number - 1) * step + 1, number * step) if number else (0, 0)
        buckets.append(LengthBucket(low, high if number < NUM_BUCKETS else None, len(chosen), scores))
    return buckets

"""A bucket's score is the corpus score of its sentences, and no sentence is lost."""

from __future__ import annotations

import random

import numpy as np
import pytest

from transformer.errors import ConfigError, DataError
from transformer.inference.by_length import default_step, score_by_length, text_lengths
from transformer.inference.scoring import Scorer

SCORER = Scorer("13a", ("bleu", "chrf"))
WORDS = ["a", "b", "c", "d", "e", "f"]


def lines(rng: random.Random, number: int) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=rng.randrange(4, 9))) for _ in range(number)]


def test_a_bucket_has_the_corpus_score_of_its_sentences() -> None:
    rng = random.Random(5)
    hypotheses, first, second = (lines(rng, 43) for _ in range(3))
    lengths = [rng.randrange(0, 38) for _ in range(43)]
    found = score_by_length(SCORER, hypotheses, [first, second], lengths, 5)
    assert [bucket.name for bucket in found] == ["0", "1-5", "6-10", "11-15", "16-20", "21-25", "26-30", "31+"]
    assert sum(bucket.sentences for bucket in found) == 43
    for bucket in found:
        chosen = [i for i, n in enumerate(lengths) if bucket.low <= n and (bucket.high is None or n <= bucket.high)]
        sides = [[side[i] for i in chosen] for side in (hypotheses, first, second)]
        assert bucket.sentences == len(chosen) > 0
        assert bucket.scores == SCORER.score(sides[0], sides[1:])


def test_one_bucket_has_the_score_of_the_corpus() -> None:
    rng = random.Random(6)
    hypotheses, references = lines(rng, 17), lines(rng, 17)
    (bucket,) = score_by_length(SCORER, hypotheses, [references], [3] * 17)
    assert (bucket.name, bucket.low, bucket.high) == ("1-10", 1, 10)
    assert bucket.scores == SCORER.score(hypotheses, [references])
    ratio = sum(len(line.split()) for line in hypotheses) / sum(len(line.split()) for line in references)
    assert bucket.scores["bleu"].length_ratio == pytest.approx(ratio)
    assert bucket.scores["chrf"].length_ratio is None


def test_empty_buckets_are_kept_between_others_only() -> None:
    found = score_by_length(SCORER, ["a", "b", "c"], [["a", "b", "c"]], [11, 12, 35])
    assert [(bucket.name, bucket.sentences) for bucket in found] == [("11-20", 2), ("21-30", 0), ("31-40", 1)]
    assert found[1].scores == {}


def test_single_lengths_are_buckets_of_step_1() -> None:
    found = score_by_length(SCORER, ["a", "b", "c"], [["a", "b", "c"]], [1, 3, 99], 1)
    assert [bucket.name for bucket in found] == ["1", "2", "3", "4", "5", "6", "7+"]


def test_text_without_spaces_is_counted_in_characters() -> None:
    assert text_lengths(["ein Hund", "", " a  b c "]) == ("words", [2, 0, 3])
    assert text_lengths(["我非常喜欢这只小猫。", "", "他在公园里 看书。"]) == ("characters", [10, 0, 8])
    assert text_lengths(line for line in ["ein Hund", ""]) == ("words", [2, 0])  # type: ignore[arg-type]
    assert (default_step("words"), default_step("characters")) == (10, 20)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_lengths_may_be_integers_of_numpy(dtype: type) -> None:
    lengths = np.array([0, 3, 25], dtype=dtype)
    found = score_by_length(SCORER, ["a", "b", "c"], [["a", "b", "c"]], lengths)  # type: ignore[arg-type]
    assert [bucket.name for bucket in found if bucket.sentences] == ["0", "1-10", "21-30"]


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(ConfigError, match="step=0 must be at least 1"):
        score_by_length(SCORER, ["a"], [["a"]], [1], 0)
    with pytest.raises(DataError, match="there are 2 lengths of 1 sentences"):
        score_by_length(SCORER, ["a"], [["a"]], [1, 2])
    with pytest.raises(DataError, match="1 translations cannot be scored against 2 references"):
        score_by_length(SCORER, ["a"], [["a", "b"]], [1])

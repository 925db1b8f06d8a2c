"""Sentence scores are sacreBLEU's, and the worst are found in the order of the text."""

from __future__ import annotations

import pytest
from sacrebleu import sentence_bleu, sentence_chrf

from transformer.errors import ConfigError, DataError
from transformer.inference.sentence_scores import sentence_scores, worst

HYPOTHESES = ["Ein Hund läuft.", "", "DIE Katze schläft im Park.", "x"]
FIRST = ["Ein Hund rennt.", "Sie lacht.", "Die Katze schläft im Park.", ""]
SECOND = ["Ein kleiner Hund läuft.", "", "Im Park schläft eine Katze.", ""]


def test_scores_are_sacrebleus() -> None:
    rows = [[first, second] for first, second in zip(FIRST, SECOND, strict=True)]
    rows[1].remove("")  # a missing reference
    found = sentence_scores(HYPOTHESES, [FIRST, SECOND])
    assert found == [sentence_chrf(line, row).score for line, row in zip(HYPOTHESES, rows, strict=True)]
    found = sentence_scores(HYPOTHESES, [FIRST, SECOND], "bleu", lowercase=True)
    expected = [
        sentence_bleu(line, row, lowercase=True, use_effective_order=True).score
        for line, row in zip(HYPOTHESES, rows, strict=True)
    ]
    assert found == [min(score, 100.0) for score in expected]
    assert found[2] == pytest.approx(100)


def test_short_sentences_can_be_perfect_and_empty_ones_too() -> None:
    for metric in ("chrf", "bleu"):
        assert sentence_scores(["a b", " "], [["a b", ""]], metric) == pytest.approx([100, 100])
        assert sentence_scores(["", "a"], [["a b", ""]], metric) == [0, 0]


def test_no_score_is_more_than_100() -> None:
    line = "Die kleine Katze schläft im Park."
    assert sentence_bleu(line, [line], use_effective_order=True).score > 100, "by rounding"
    for metric in ("chrf", "bleu"):
        assert sentence_scores([line], [[line]], metric) == [100.0]


def test_characters_are_words_where_the_tokenizer_says_so() -> None:
    (as_words,) = sentence_scores(["我喜欢猫"], [["我喜欢狗"]], "bleu")
    (as_characters,) = sentence_scores(["我喜欢猫"], [["我喜欢狗"]], "bleu", tokenize="zh")
    assert as_words < as_characters


def test_the_worst_come_first_and_equal_ones_in_their_order() -> None:
    assert worst([5.0, 1.0, 9.0, 1.0], 3) == [1, 3, 0]
    assert worst([5.0, 1.0], 7) == [1, 0]


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(ConfigError, match="metric='ter' must be one of chrf, bleu"):
        sentence_scores(["a"], [["a"]], "ter")
    with pytest.raises(DataError, match="cannot be scored against"):
        sentence_scores(["a"], [["a", "b"]])

"""Scores: sacreBLEU's numbers, called in one way only."""

from __future__ import annotations

import pytest
import sacrebleu

from transformer.errors import DataError
from transformer.inference import bleu
from transformer.inference.bleu import TOKENIZERS, score

REFERENCES = [
    "Ein kleiner Hund läuft über die Wiese, und zwei Kinder sehen zu.",
    "Die Frau gibt dem Mann ein Buch.",
    "Im Park schlafen drei Katzen unter einem Baum.",
]
HYPOTHESES = [
    "Ein Hund läuft über die Wiese, und zwei Kinder schauen zu.",
    "Die Frau gibt dem Mann das rote Buch.",
    "Drei Katzen schlafen im Park unter einem Baum.",
]


@pytest.mark.parametrize("tokenize", ["13a", "none", "intl", "char"])
def test_scores_are_those_of_sacrebleu(tokenize: str) -> None:
    found = score(HYPOTHESES, REFERENCES, tokenize)
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize=tokenize)
    assert 0 < found.bleu < 100
    assert found.bleu == expected.score
    assert found.chrf == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score


def test_the_default_tokenizer_is_the_one_that_papers_compare_with() -> None:
    assert score(HYPOTHESES, REFERENCES) == score(HYPOTHESES, REFERENCES, "13a")


def test_signatures_say_how_the_scores_were_computed() -> None:
    found = score(HYPOTHESES, REFERENCES)
    for part in ("nrefs:1", "case:mixed", "tok:13a", "smooth:exp", f"version:{sacrebleu.__version__}"):
        assert part in found.bleu_signature
    for part in ("nrefs:1", "case:mixed", "nc:6", "nw:0"):
        assert part in found.chrf_signature
    assert "tok:none" in score(HYPOTHESES, REFERENCES, "none").bleu_signature


def test_details_hold_the_precisions_and_the_brevity_penalty() -> None:
    found = score(HYPOTHESES, REFERENCES)
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
    assert all(f"{precision:.1f}" in found.bleu_details for precision in expected.precisions)
    assert f"BP = {expected.bp:.3f}" in found.bleu_details


def test_a_translation_equal_to_its_reference_scores_100() -> None:
    found = score(REFERENCES, REFERENCES)
    assert found.bleu == pytest.approx(100.0)
    assert found.chrf == pytest.approx(100.0)


def test_a_translation_with_no_word_in_common_scores_nothing() -> None:
    assert score(["xyz"] * 3, REFERENCES).bleu == pytest.approx(0.0)
    assert score([""] * 3, REFERENCES).bleu == pytest.approx(0.0)


def test_references_that_are_tokenised_already_are_left_alone() -> None:
    written, tokenised = ["Heute bellt der kleine Hund."], ["Heute bellt der kleine Hund ."]
    assert score(written, tokenised, "13a").bleu == pytest.approx(100.0)
    assert score(written, tokenised, "none").bleu < 100
    assert score(tokenised, tokenised, "none").bleu == pytest.approx(100.0)


def test_upper_and_lower_case_differ() -> None:
    assert score([line.lower() for line in REFERENCES], REFERENCES).bleu < 100


def test_a_tokenised_hypothesis_is_scored_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    score(["a b c d e ."] * 101, ["a b c d e ."] * 101)
    assert caplog.records == []


def test_the_tokenizers_are_sacrebleus() -> None:
    assert {"13a", "none", "intl"} <= set(TOKENIZERS)


@pytest.mark.parametrize("error", [ImportError, RuntimeError])
def test_a_tokenizer_whose_library_is_missing_is_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise error("Please install\n  mecab")

    monkeypatch.setattr(bleu, "BLEU", missing)
    with pytest.raises(DataError, match=r"^the BLEU tokenizer 'ja-mecab' cannot be used: Please install mecab$"):
        score(HYPOTHESES, REFERENCES, "ja-mecab")


def test_sides_of_different_length_are_an_error_with_both_counts() -> None:
    with pytest.raises(DataError, match=r"^3 translations cannot be scored against 2 references$"):
        score(HYPOTHESES, REFERENCES[:2])
    with pytest.raises(DataError, match=r"^0 translations cannot be scored against 3 references$"):
        score([], REFERENCES)


def test_nothing_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="there is nothing to score: the references are empty"):
        score([], [])

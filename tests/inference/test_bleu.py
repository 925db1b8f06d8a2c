"""BLEU and chrF against sacreBLEU, and compound-split BLEU against values worked out by hand."""

from __future__ import annotations

import math
import sys

import pytest
import sacrebleu
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_char import TokenizerChar
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

from transformer.errors import DataError
from transformer.inference.bleu import (
    compound_split_score,
    moses_tokenizer,
    multi_bleu,
    score,
    split_compounds,
)

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


def test_one_string_in_the_place_of_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^hypotheses must be a list"):
        score("abc", "abc")
    for references in ("abc", [None] * len(HYPOTHESES)):
        with pytest.raises(TypeError, match=r"^references"):
            score(HYPOTHESES, references)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^references"):
            compound_split_score(HYPOTHESES, [references], None)  # type: ignore[list-item]


def test_the_default_tokenizer_is_13a() -> None:
    assert score(HYPOTHESES, REFERENCES) == score(HYPOTHESES, REFERENCES, "13a")


@pytest.mark.parametrize(
    ("tokenize", "kind"), [("13a", Tokenizer13a), ("13a", TokenizerRegexp), ("char", TokenizerChar)]
)
def test_no_line_stays_in_sacrebleus_cache(tokenize: str, kind: type) -> None:
    cache = kind.__call__
    score(HYPOTHESES, REFERENCES, tokenize)
    assert cache.cache_info().currsize == 0


def test_signatures_say_how_scores_were_computed() -> None:
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


def test_references_that_are_already_tokenised_are_not_tokenised_again() -> None:
    written, tokenised = ["Heute bellt der kleine Hund."], ["Heute bellt der kleine Hund ."]
    assert score(written, tokenised, "13a").bleu == pytest.approx(100.0)
    assert score(written, tokenised, "none").bleu < 100
    assert score(tokenised, tokenised, "none").bleu == pytest.approx(100.0)


def test_upper_and_lower_case_differ() -> None:
    assert score([line.lower() for line in REFERENCES], REFERENCES).bleu < 100


def test_a_tokenised_hypothesis_is_scored_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    score(["a b c d e ."] * 101, ["a b c d e ."] * 101)
    assert caplog.records == []


def test_sides_of_different_length_are_an_error_with_both_counts() -> None:
    with pytest.raises(DataError, match=r"^3 translations cannot be scored against 2 references$"):
        score(HYPOTHESES, REFERENCES[:2])
    with pytest.raises(DataError, match=r"^0 translations cannot be scored against 3 references$"):
        score([], REFERENCES)


def test_nothing_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="there is nothing to score: the references are empty"):
        score([], [])


# BLEU as the paper's authors computed it


@pytest.mark.parametrize(
    ("tokenised", "split"),
    [
        ("rich-text format", "rich ##AT##-##AT## text format"),
        ("Science-Fiction-Film", "Science ##AT##-##AT## Fiction ##AT##-##AT## Film"),
        ("a-b-c", "a ##AT##-##AT## b-c"),  # b is the neighbour of the first hyphen
        ("2-3", "2 ##AT##-##AT## 3"),
        ("Über-Öl", "Über ##AT##-##AT## Öl"),
        ("Vor- und Nachteile", "Vor- und Nachteile"),
        ("hier - dort", "hier - dort"),
        ("-er", "-er"),
        ("a–b", "a–b"),  # a dash is not a hyphen
        ("", ""),
    ],
)
def test_only_words_joined_by_a_hyphen_are_split(tokenised: str, split: str) -> None:
    assert split_compounds(tokenised) == split


def test_multi_bleu_is_the_one_worked_out_by_hand() -> None:
    # Matches, clipped to their number in the reference, of all n-grams of the translation:
    #   words       der 1 of 2 (clipped), alte 1, Hund 1, sieht 1, die 1, Katze 1, nicht 0      6 of 8
    #   pairs       der alte, alte Hund, Hund sieht, sieht die, die Katze; not: der der ...     5 of 7
    #   triples     der alte Hund, alte Hund sieht, Hund sieht die, sieht die Katze             4 of 6
    #   quadruples  der alte Hund sieht, alte Hund sieht die, Hund sieht die Katze              3 of 5
    translation = "der der alte Hund sieht die Katze nicht"
    reference = "der alte Hund sieht die Katze am Abend im Garten"  # 10 words
    result = multi_bleu([translation], [[reference]])
    assert (result.counts, result.totals) == ([6, 5, 4, 3], [8, 7, 6, 5])
    by_hand = math.exp(1 - 10 / 8) * (6 / 8 * 5 / 7 * 4 / 6 * 3 / 5) ** (1 / 4)
    assert result.score == pytest.approx(100 * by_hand)


def test_multi_bleu_adds_the_counts_of_all_sentences() -> None:
    # 5 of 5, 4 of 4, 3 of 3, 2 of 2 and 2 of 3, 1 of 2, 0 of 1, none of none; 8 words against 5 + 2: nothing is brief.
    result = multi_bleu(["a b c d e", "x y z"], [["a b c d e", "x y"]])
    assert result.score == pytest.approx(100 * (7 / 8 * 5 / 6 * 3 / 4 * 2 / 2) ** (1 / 4))


@pytest.mark.parametrize("translation", ["a b c x d e", "a b c", "x", ""])
def test_multi_bleu_is_0_without_a_match_of_four_words(translation: str) -> None:
    assert multi_bleu([translation], [["a b c d e"]]).score == 0


def test_multi_bleu_is_unsmoothed_sacrebleu_of_the_same_words() -> None:
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize="none", smooth_method="none")
    smoothed = score(HYPOTHESES, REFERENCES, "none")
    assert min(expected.counts) > 0
    assert multi_bleu(HYPOTHESES, [REFERENCES]).score == expected.score == smoothed.bleu


def test_without_mosess_tokenizer_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(DataError, match=r"^compound-split BLEU needs Moses' tokenizer: pip install sacremoses$"):
        moses_tokenizer("de")


class Words:
    """Stands in for Moses' tokenizer: splits off full stops."""

    lang = "de"

    def tokenize(self, text: str, return_str: bool) -> str:
        assert return_str
        return text.replace(".", " .")


def test_a_correct_compound_counts_as_three_words() -> None:
    # A-B . and C-D . become A ##AT##-##AT## B . (4 words); one sentence is correct, the other except for its D:
    # words 7 of 8, pairs 4 of 6 and so on.
    result = compound_split_score(["A-B.", "C-X."], [["A-B.", "C-D."]], Words())
    by_hand = 100 * (7 / 8 * 4 / 6 * 2 / 4 * 1 / 2) ** (1 / 4)
    assert result.bleu == pytest.approx(by_hand)
    assert result.details.startswith(f"{by_hand:.2f} 87.5/66.7/50.0/50.0 (BP = 1.000 ")
    assert result.signature == "nrefs:1|case:mixed|tok:moses-de|compounds:split|smooth:none"


def test_compound_split_scores_need_equally_many_lines_and_at_least_one() -> None:
    with pytest.raises(DataError, match=r"^2 translations cannot be scored against 1 references$"):
        compound_split_score(["a", "b"], [["a"]], Words())
    with pytest.raises(DataError, match="there is nothing to score"):
        compound_split_score([], [[]], Words())


MOSES_GERMAN = [
    ("Das kostet 5,300 Euro, z.B. bei Dr. Müller.", "Das kostet 5,300 Euro , z.B. bei Dr. Müller ."),
    ("„Gut!“ – sagte sie (schnell)...", "„ Gut ! “ – sagte sie ( schnell ) ..."),
    ("Am 3. Mai um 14:30 Uhr.", "Am 3. Mai um 14 : 30 Uhr ."),
    ("Wie geht's der EU-Kommission?", "Wie geht &apos; s der EU-Kommission ?"),
    ('R&B [1] "x|y"', "R &amp; B &#91; 1 &#93; &quot; x &#124; y &quot;"),
]


@pytest.mark.parametrize(("raw", "tokenised"), MOSES_GERMAN)
def test_mosess_tokenizer_splits_german_as_tokenizer_perl_does(raw: str, tokenised: str) -> None:
    # The expected text is the output of tokenizer.perl 1.1 -l de.
    pytest.importorskip("sacremoses")
    assert moses_tokenizer("de").tokenize(raw, return_str=True) == tokenised


def test_the_compound_split_score_goes_through_all_three_steps() -> None:
    pytest.importorskip("sacremoses")
    translation, reference = "Die EU-Kommission sagt „Nein“, z.B. hier.", "Die EU-Kommission sagt: „Nein“."
    split = (
        "Die EU ##AT##-##AT## Kommission sagt „ Nein “ , z.B. hier .",
        "Die EU ##AT##-##AT## Kommission sagt : „ Nein “ .",
    )
    result = compound_split_score([translation], [[reference]], moses_tokenizer("de"))
    assert result.bleu == multi_bleu(split[:1], [split[1:]]).score > score([translation], [reference]).bleu

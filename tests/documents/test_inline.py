"""Text with tags as flat text with marks."""

from __future__ import annotations

from transformer.documents.inline import Content, Flat, Tag, flatten
from transformer.documents.pairs import PairBuilder, tags_of, written, written_in_text


def shown(flat: Flat) -> str:
    """The flat text, with a bracket where a mark begins or ends, or a bar for a single tag."""
    at: dict[int, str] = {}
    for mark in flat.marks:
        if mark.start == mark.end:
            at[mark.start] = at.get(mark.start, "") + "|"
        else:
            at[mark.start] = at.get(mark.start, "") + "["
    for mark in reversed(flat.marks):
        if mark.start < mark.end:
            at[mark.end] = "]" + at.get(mark.end, "")
    return "".join(at.get(i, "") + flat.text[i : i + 1] for i in range(len(flat.text) + 1))


def test_white_space_is_one_space() -> None:
    assert shown(flatten([tags_of(" \n A<i>  red \n</i>cat<u></u> ")])) == "A[ red] cat|"


def test_a_break_separates_words_and_another_single_tag_does_not() -> None:
    assert flatten([tags_of("a<br>b<img>c")]).text == "a bc"


def test_lines_are_joined() -> None:
    flat = flatten([["One "], [], ["two"]])
    assert (flat.text, flat.lines) == ("One two", [(0, 3), (4, 4), (4, 7)])
    assert [flat.line_of(i) for i in (0, 2, 4)] == [0, 0, 2]
    assert flatten([["一"], ["二"]], "").text == "一二"


def test_marks_know_their_parents_and_the_white_space_beside_them() -> None:
    marks = flatten([tags_of("<b>a <i>b</i></b><img> c")]).marks
    assert [(mark.parent, mark.space_left, mark.space_right) for mark in marks] == [
        (-1, True, True),
        (0, True, True),
        (-1, False, True),
    ]


def test_a_placeholder_is_a_kept_tag_in_the_tag_around_it() -> None:
    flat = flatten([tags_of("To <b>{name} and</b> %s")])
    assert shown(flat) == "To [[{name}] and] [%s]"
    assert [(mark.tag.kind, mark.parent) for mark in flat.marks] == [("span", -1), ("kept", 0), ("kept", -1)]


def test_a_placeholder_that_a_tag_divides_is_text() -> None:
    assert shown(flatten([tags_of("{na<b>me</b>}")])) == "{na[me]}"
    assert shown(flatten([tags_of("{a<b>b} c</b>")])) == "{a[b} c]"
    assert shown(flatten([["{{ a"], ["b }}"]])) == "{{ a b }}"


def test_a_single_tag_inside_a_placeholder_comes_after_it() -> None:
    assert shown(flatten([tags_of("{na<img>me}s")])) == "[{name}]|s"


def test_text_that_is_kept_is_one_mark() -> None:
    content: Content = ["Run ", Tag("<code>git  pull</code>", "kept", text="git pull"), "."]
    assert shown(flatten([content])) == "Run [git pull]."


def test_tags_in_text_are_paired() -> None:
    (tag,) = tags_of("<i>a</i>")
    assert isinstance(tag, Tag)
    assert (tag.source, tag.kind, tag.children) == (("<i>", "</i>"), "span", ["a"])


def test_tags_without_a_partner_are_single() -> None:
    kinds = [one if isinstance(one, str) else one.kind for one in tags_of("</b>a<i>b<u>c</i>d{\\an8}e<x/>f")]
    assert kinds == ["single", "a", "span", "d", "single", "e", "single", "f"]
    text = "</b>a<i>b<u>c</i>d"
    assert written(tags_of(text)) == text


def test_tags_that_are_nested_too_deeply_are_single() -> None:
    text = "<b>" * 150 + "x" + "</b>" * 150
    content, depth = tags_of(text), 0
    assert written(content) == text
    while any(isinstance(one, Tag) and one.kind == "span" for one in content):
        content, depth = next(one.children for one in content if isinstance(one, Tag) and one.kind == "span"), depth + 1
    assert depth == 100


def test_a_builder_joins_text() -> None:
    builder = PairBuilder()
    builder.text("a")
    builder.text("b")
    assert builder.content() == ["ab"]


def test_text_that_would_be_read_as_a_tag_loses_what_begins_one() -> None:
    tag = Tag("<br>")
    assert written_in_text(["a < b", tag, "c > d, {x}"]) == "a < b<br>c > d, {x}"
    assert written_in_text(["a <i", tag, "c> d {\\an8}"]) == "a i<br>c> d an8}"


def test_a_model_reads_no_soft_hyphens() -> None:
    assert shown(flatten([["hy\u00adphen", Tag("x"), "\u00adated"]])) == "hyphen|ated"


def test_gaps_between_columns_are_tags() -> None:
    content = tags_of("a \t b   c  d")
    assert [one if isinstance(one, str) else one.source for one in content] == ["a", " \t ", "b", "   ", "c  d"]
    assert flatten([content]).text == "a b c d"
    assert all(one.divides for one in content if isinstance(one, Tag))

"""Two inputs read together: pairs, n-best lists by size and by ids, and where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from transformer.errors import ConfigError, DataError
from transformer.inference.line_input import LineInput
from transformer.inference.paired_input import lines_of, nbest_input, paired_input


def given(name: str, lines: Sequence[str], pace: str = "file") -> LineInput:
    return LineInput(name, lambda: iter(lines), pace)  # type: ignore[arg-type]


def test_pairs_are_read_line_by_line_and_again() -> None:
    pairs = paired_input(given("src", ["a", "", "c\u2028"]), given("tgt", ["b", "", "\r"]))
    assert pairs.name == "src and tgt"
    for _ in range(2):
        assert [lines_of(item) for item in pairs.read()] == [["a", "b"], ["", ""], ["c\u2028", "\r"]]


@pytest.mark.parametrize(("num_src", "num_tgt"), [(2, 5), (5, 2), (0, 1)])
def test_other_numbers_of_lines_are_an_error_with_both_counts(num_src: int, num_tgt: int) -> None:
    items = paired_input(given("src", ["a"] * num_src), given("tgt", ["b"] * num_tgt)).read()
    for _ in range(min(num_src, num_tgt)):
        next(items)
    with pytest.raises(DataError, match=rf"differ in length: src has {num_src} lines, tgt has {num_tgt}$"):
        next(items)


@pytest.mark.parametrize(
    ("first", "second", "pace"),
    [
        ("file", "file", "file"),
        ("file", "memory", "memory"),
        ("arriving", "file", "arriving"),
        ("file", "typing", "typing"),
    ],
)
def test_the_slower_input_decides_the_pace(first: str, second: str, pace: str) -> None:
    assert paired_input(given("a", [], first), given("b", [], second)).pace == pace


def test_standard_input_is_one_of_them_at_most() -> None:
    stdin = given("standard input", [], "arriving")
    for join in (paired_input, nbest_input):
        with pytest.raises(ConfigError, match=r"^only one of the inputs can be standard input$"):
            join(stdin, stdin)


# N-best lists

MOSES = ["0 ||| a ||| F= 1 ||| 2", "0 ||| b ||| F= 1 ||| 1", "2 ||| c ||| F= 1 ||| 0"]


def test_a_list_by_size_gives_each_source_as_many_candidates() -> None:
    items = nbest_input(given("src", ["x", "y"]), given("nb", ["-1\ta", "-2\tb", "-1\tc", "-inf\t"]), 2)
    assert [lines_of(item) for item in items.read()] == [
        ["scores", "x", "-1\ta", "-2\tb"],
        ["scores", "y", "-1\tc", "-inf\t"],
    ]


def test_a_list_by_ids_gives_each_source_its_own() -> None:
    items = nbest_input(given("src", ["x", "y", "z", ""]), given("nb", MOSES))
    assert [lines_of(item) for item in items.read()] == [
        ["moses", "x", *MOSES[:2]],
        ["moses", "y"],
        ["moses", "z", MOSES[2]],
        ["moses", ""],
    ]


def test_an_empty_list_has_no_candidates() -> None:
    assert list(nbest_input(given("src", []), given("nb", []), 3).read()) == []
    assert [lines_of(item) for item in nbest_input(given("src", ["x"]), given("nb", [])).read()] == [["text", "x"]]


@pytest.mark.parametrize("number", [0, 3, 5, 6])
def test_too_few_or_many_candidates_are_an_error_with_both_counts(number: int) -> None:
    items = nbest_input(given("src", ["x", "y"]), given("nb", ["a"] * number), 2)
    with pytest.raises(DataError, match=f"^nb has {number} lines; with 2 for each of the 2 lines of src .* 4$"):
        list(items.read())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*MOSES, "1 ||| d ||| F= 1 ||| 0"], r"^nb, line 4: its id 1 comes after 2; sort the list$"),
        ([*MOSES, "3 ||| d ||| F= 1 ||| 0"], r"^nb, line 4: its id is 3, and the 3 lines of src are counted from 0$"),
        ([*MOSES, "2 ||| d"], r"^nb, line 4: has 2 fields; expected"),
        (["0 ||| a ||| F= 1 ||| x"], r"^nb, line 1: its score 'x' is not a number$"),
    ],
)
def test_ids_that_go_back_or_have_no_source_are_errors(lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(nbest_input(given("src", ["x", "y", "z"]), given("nb", lines)).read())


def test_a_line_of_another_form_is_an_error_with_its_number() -> None:
    with pytest.raises(DataError, match=r"^nb, line 3: has no tab"):
        list(nbest_input(given("src", ["x", "y"]), given("nb", ["-1\ta", "-2\tb", "c", "d"]), 2).read())


def test_the_size_is_given_for_lists_without_ids_only() -> None:
    with pytest.raises(ConfigError, match=r"^nb: its lines do not say which source .*: give --nbest-size K$"):
        nbest_input(given("src", ["x"]), given("nb", ["a"])).read()
    with pytest.raises(ConfigError, match=r"^nb: its lines say which source they belong to: leave out --nbest-size$"):
        nbest_input(given("src", ["x"]), given("nb", MOSES), 3).read()


@pytest.mark.parametrize("lines", [["睡\t睡", "a"], ["0.0000\t睡\t睡", "-1\ta"]])
def test_a_list_with_copied_sources_is_read_whichever_comes_first(lines: list[str]) -> None:
    for order in (1, -1):
        items = nbest_input(given("src", ["睡\t睡", "x"][::order]), given("nb", lines[::order]), 1)
        assert [lines_of(item)[2] for item in items.read()] == lines[::order]


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("line", ["nan\tb", "H-0\t-0.5\tb", "b\t-0.5", "0 ||| b ||| -0.5"])
def test_lists_of_other_tools_are_refused_by_their_first_line(line: str, size: int | None) -> None:
    with pytest.raises(DataError, match=r"^nb, line 1: (its score '.*' is not a number|has 3 fields; expected `id )"):
        nbest_input(given("src", ["x"]), given("nb", [line]), size).read()

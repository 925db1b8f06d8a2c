"""What a translation must have as it is."""

from __future__ import annotations

import pytest

from transformer.documents.placeholders import find_placeholders, invented, occurrences


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in find_placeholders(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello {name}, you have {0} of {total:.2f}.", ["{name}", "{0}", "{total:.2f}"]),
        ("{{ user.name }} and {{x}} and ${price} and {}", ["{{ user.name }}", "{{x}}", "${price}", "{}"]),
        ("{% if a %}yes{% endif %}", ["{% if a %}", "{% endif %}"]),
        (
            "%s, %d, %(name)s, %1$s, %.2f, %-5d, %lu and %@",
            ["%s", "%d", "%(name)s", "%1$s", "%.2f", "%-5d", "%lu", "%@"],
        ),
        ("See https://example.org/a?b=c#d, or www.example.org.", ["https://example.org/a?b=c#d", "www.example.org"]),
        ("(http://example.org/)", ["http://example.org/"]),
        ("Write to a.b+c@mail.example.org!", ["a.b+c@mail.example.org"]),
        ("One<br/>two <b class='x'>three</b>", ["<br/>", "<b class='x'>", "</b>"]),
        ("a&nbsp;b &#169; &#xA9;", ["&nbsp;", "&#169;", "&#xA9;"]),
        ("{\\an8}Above", ["{\\an8}"]),
        ("{a{b}c}", ["{b}"]),
        # Nothing of these.
        ("100% der Fälle, 100%ig, 50 % sind, 5%", []),
        ("a < b and c > d, AT&T, x & y", []),
        ("{ein Satz in Klammern}, example.org, @name, a@b", []),
        ("Tom&Jerry; or", ["&Jerry;"]),
    ],
)
def test_placeholders_are_found(text: str, expected: list[str]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text", ["a" * 400_000, "{" * 400_000, "<a" * 200_000, "a@" * 200_000, "http://." * 50_000, "%" * 400_000]
)
def test_the_time_is_linear(text: str) -> None:
    assert isinstance(found(text), list)  # takes minutes if it is not


def test_what_the_source_does_not_have_is_invented() -> None:
    text = "Hallo {name} %s <b>du</b>"
    assert [text[a:b] for a, b in invented(text, "Hello {name} <b>you")] == ["%s", "</b>"]


@pytest.mark.parametrize(
    ("text", "kept", "places"),
    [
        ("a {x} b {y}", ["{y}", "{x}"], [(8, 11), (2, 5)]),
        ("{x} {x}", ["{x}", "{x}"], [(0, 3), (4, 7)]),
        ("run git or git pull", ["git", "git pull"], [(4, 7), (11, 19)]),
        ("gitter git", ["git"], [(7, 10)]),
        ("nothing", [], []),
        ("{x} {x}", ["{x}"], None),
        ("{x}", ["{x}", "{x}"], None),
        ("gitter", ["git"], None),
        ("x" * 2000, ["x"] * 2000, None),
    ],
)
def test_kept_texts_are_found_as_often_as_they_are_kept(
    text: str, kept: list[str], places: list[tuple[int, int]] | None
) -> None:
    assert occurrences(text, kept) == places

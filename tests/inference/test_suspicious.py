"""What looks like a failure of a model is told apart from text that is meant to be so."""

from __future__ import annotations

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.errors import DataError
from transformer.inference.suspicious import KINDS, find_suspicious

SOURCE = "A small dog is running over the green meadow."
REFERENCE = "Ein kleiner Hund läuft über die grüne Wiese."


@pytest.mark.parametrize(
    ("hypothesis", "kinds"),
    [
        (REFERENCE, []),
        ("Ein Hund rennt auf der Wiese.", []),
        ("", ["empty"]),
        (" \t", ["empty"]),
        ("Ein Hund.", ["short"]),
        (f"{REFERENCE} Dahinter stehen die beiden anderen Tiere und warten auf ihr Futter.", ["long"]),
        ("Ein kleiner Hund läuft über die die die grüne Wiese.", ["repetition"]),
        ("Ein kleiner Hund läuft, Hund läuft, Hund läuft,", ["repetition"]),
        ("Ein Hund " + "und der Hund und der Hund und " * 9, ["long", "repetition"]),
        # A phrase of five words, three times: its 4-grams occur twice more often than any of the source.
        ("auf der Wiese läuft er " * 3, ["repetition"]),
        (SOURCE, ["copy"]),
        (SOURCE.upper(), ["copy"]),
        ("Ein kleiner dog is running over die Wiese.", ["untranslated"]),
        ("A small dog is running over the meadow now.", ["untranslated"]),
    ],
)
def test_kinds_of_suspicion(hypothesis: str, kinds: list[str]) -> None:
    assert find_suspicious([hypothesis], [[REFERENCE]], [SOURCE]) == [kinds]
    assert set(kinds) <= KINDS.keys()


@pytest.mark.parametrize(
    ("source", "reference", "hypothesis"),
    [
        ("no no no", "nein nein nein", "nein nein nein"),
        ("It is very, very, very good.", "Es ist sehr, sehr, sehr gut.", "Es ist sehr, sehr, sehr gut."),
        ("Angela Merkel, Berlin", "Angela Merkel, Berlin", "Angela Merkel, Berlin"),  # is to be copied
        ("3 4 5", "3 4 5.", "3 4 5"),  # so are numbers
        ("Stop", "Halt", "Nein danke"),  # short phrases may be twice as long
        ("", "", ""),
        ("Yes.", "", "Ja."),  # without a reference, no length is wrong
    ],
)
def test_what_is_meant_to_be_so_is_not_suspicious(source: str, reference: str, hypothesis: str) -> None:
    assert find_suspicious([hypothesis], [[reference]], [source]) == [[]]


def test_without_sources_repetitions_are_found_and_copies_are_not() -> None:
    hypotheses = [SOURCE, "Hund " * 9, ""]
    assert find_suspicious(hypotheses, [[REFERENCE] * 3]) == [[], ["repetition"], ["empty"]]


def test_any_reference_is_as_good() -> None:
    hypotheses = ["sehr sehr sehr gut und so lang wie die zweite Referenz es ist"]
    references = [["gut, in der Tat"], ["sehr sehr sehr gut und so lang wie die erste es leider nicht ist"]]
    assert find_suspicious(hypotheses, references, ["very good"]) == [[]]
    assert find_suspicious(hypotheses, references[:1], ["very good"]) == [["long", "repetition"]]


def test_text_without_spaces_is_looked_at_by_characters() -> None:
    reference = "他在公园里看书，然后回家。"
    loop, plain = "他在公园里公园里公园里公园里看书。", "他在1000个公园里看书，1999年。"
    assert find_suspicious([loop, plain], [[reference] * 2], ["x", "y"]) == [["repetition"], []]


def test_references_of_the_grammar_are_not_suspicious() -> None:
    sources, references = (list(side) for side in zip(*builtin_pairs("test", 997), strict=True))
    assert find_suspicious(references, [references], sources) == [[]] * 997


def test_sides_of_different_lengths_are_an_error() -> None:
    with pytest.raises(DataError, match="1 translations cannot be scored against 2 references"):
        find_suspicious(["a"], [["a"]], ["a", "b"])

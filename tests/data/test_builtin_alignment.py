"""Gold alignments of the grammar: links of sentences aligned by hand, and the error rate by its definition."""

from __future__ import annotations

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.data.builtin_alignment import GoldLinks, alignment_error_rate, gold_alignment
from transformer.data.new_words import with_new_words
from transformer.errors import DataError


def links_of(english: str, german: str, text: str) -> set[tuple[int, int]]:
    """The positions of links such as "dog-Hund the-der"; each word is once in its sentence."""
    sides = [[word.strip(".,?").lower() for word in sentence.split()] for sentence in (english, german)]
    found = set()
    for link in text.lower().split():
        words = link.split("-")
        assert all(side.count(word) == 1 for side, word in zip(sides, words, strict=True))
        found.add((sides[0].index(words[0]), sides[1].index(words[1])))
    return found


@pytest.mark.parametrize(
    ("english", "german", "sure", "possible"),
    [
        ("The dog is big.", "Der Hund ist groß.", "the-der dog-Hund is-ist big-groß", ""),
        (
            "Seven old mice want to sit.",
            "Sieben alte Mäuse wollen sitzen.",
            "seven-sieben old-alte mice-Mäuse want-wollen sit-sitzen",
            "to-wollen",
        ),
        (
            "A doctor is picking up this egg.",
            "Ein Arzt hebt dieses Ei auf.",
            "a-ein doctor-Arzt picking-hebt this-dieses egg-Ei",
            "is-hebt up-hebt is-auf up-auf picking-auf",
        ),
        (
            "Is the cat being washed by a boy?",
            "Wird die Katze von einem Jungen gewaschen?",
            "is-wird the-die cat-Katze by-von a-einem boy-Jungen washed-gewaschen",
            "being-wird",
        ),
        (
            "The man who cannot sleep must walk to our lake.",
            "Der Mann, der nicht schlafen kann, muss zu unserem See gehen.",
            None,
            "",
        ),
        (
            "This morning, our farmer is not chasing strong birds.",
            "Heute Morgen jagt unser Bauer keine starken Vögel.",
            "this-heute morning-Morgen our-unser farmer-Bauer not-keine chasing-jagt strong-starken birds-Vögel",
            "is-jagt",
        ),
        (
            "In the evening, a cat can stand under two trees.",
            "Am Abend kann eine Katze unter zwei Bäumen stehen.",
            "in-am the-am evening-Abend a-eine cat-Katze can-kann stand-stehen under-unter two-zwei trees-Bäumen",
            "",
        ),
        (
            "My aunt has waited for the bus.",
            "Meine Tante hat auf den Bus gewartet.",
            "my-meine aunt-Tante has-hat waited-gewartet for-auf the-den bus-Bus",
            "for-gewartet",
        ),
        ("nothing of it", "nichts davon", "", ""),
        ("", "", "", ""),
    ],
)
def test_links_are_those_made_by_hand(english: str, german: str, sure: str | None, possible: str) -> None:
    found = gold_alignment(english, german)
    if sure is None:  # with a word that is there twice
        words = english.split(), [word.strip(",.") for word in german.split()]
        assert {(words[0][i], words[1][j]) for i, j in found.sure} == {
            *(("The", "Der"), ("man", "Mann"), ("who", "der"), ("cannot", "nicht"), ("cannot", "kann")),
            *(("sleep", "schlafen"), ("must", "muss"), ("walk", "gehen"), ("to", "zu"), ("our", "unserem")),
            ("lake.", "See"),
        }
        return
    assert found.sure == links_of(english, german, sure)
    assert found.possible - found.sure == links_of(english, german, possible)


def test_a_word_that_is_there_twice_has_possible_links_only() -> None:
    found = gold_alignment("A farmer will greet a farmer.", "Ein Bauer wird einen Bauern grüßen.")
    assert found.possible - found.sure >= {(1, 1), (1, 4), (5, 1), (5, 4)}
    assert found.sure == {(2, 2), (3, 5)}


def test_nearly_all_words_have_a_sure_link() -> None:
    num_words = num_linked = 0
    for english, german in builtin_pairs("validation", 199):
        found = gold_alignment(english, german)
        assert found.sure <= found.possible
        assert all(i < len(english.split()) and j < len(german.split()) for i, j in found.possible)
        num_words += len(german.split())
        num_linked += len({j for _, j in found.sure})
    assert num_linked > 0.9 * num_words


def test_the_error_rate_is_that_of_its_definition() -> None:
    gold = [
        GoldLinks(frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (1, 1), (2, 1)})),
        GoldLinks(frozenset(), frozenset()),
    ]
    found = [[(0, 0), (2, 1), (3, 3)], []]
    # |A ∩ S| = 1, |A ∩ P| = 2, |A| = 3, |S| = 2
    assert alignment_error_rate(found, gold) == pytest.approx(1 - 3 / 5)
    assert alignment_error_rate([[(0, 0), (1, 1)], []], gold) == 0
    assert alignment_error_rate([[], []], gold) == 1
    assert alignment_error_rate([], []) == 0


def test_new_words_are_refused_instead_of_left_without_links() -> None:
    usual = list(builtin_pairs("validation", 199))
    num_refused = 0
    for pair, (english, german) in zip(usual, with_new_words(iter(usual)), strict=True):
        gold_alignment(*pair)
        if (english, german) != pair:
            num_refused += 1
            with pytest.raises(
                DataError, match=r"^'.*' is of data\.subset=new_words: gold alignments are of the usual"
            ):
                gold_alignment(english, german)
    assert num_refused > 150

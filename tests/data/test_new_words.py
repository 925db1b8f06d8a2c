"""The built-in corpus with other words: the same grammar, whose German stays a function of the English."""

from __future__ import annotations

import collections
import dataclasses
import re

import pytest

from transformer.config import DataConfig
from transformer.data import new_words
from transformer.data.builtin import NOUNS, builtin_pairs
from transformer.data.corpus import load_split
from transformer.data.new_words import WORDS, new_forms, replaced, with_new_words
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.errors import DataError

SENTENCES = """
The old man sees a dog. = The ancient smith sees a wolf.
Dogs are old. = Wolves are ancient.
Is an old woman buying the books? = Is an ancient nurse selling the poems?
Has the mouse slept? = Has the toad rested?
"""
GERMAN = """
Der alte Mann kauft einen Hund. = Der uralte Schmied verkauft einen Wolf.
Kauft die alte Frau die Bücher? = Verkauft die uralte Schwester die Gedichte?
Müde Lehrer haben den Bauern geholfen. = Böse Bäcker haben den Matrosen vergeben.
Der Junge ist müde. = Der Pilot ist böse.
"""


@pytest.mark.parametrize(("side", "text"), [(0, SENTENCES), (1, GERMAN)])
def test_words_are_replaced_in_their_form(side: int, text: str) -> None:
    for line in text.strip().splitlines():
        old, new = line.split(" = ")
        assert replaced(old, dict(new_forms()[side])) == new


@pytest.mark.parametrize("side", [0, 1])
def test_equal_forms_stay_equal(side: int) -> None:
    news = collections.defaultdict(set)
    for old, new in new_forms()[side]:
        news[old].add(new)
    assert {old: new for old, new in news.items() if len(new) > 1} == {}


def test_different_english_words_stay_different() -> None:
    forms = dict(new_forms()[0])
    assert not {*forms.values()} & forms.keys()
    pairs = list(builtin_pairs("train", 2003))
    assert len({source for source, _ in with_new_words(iter(pairs))}) == len(pairs)


def test_the_article_before_a_new_word_is_right() -> None:
    for section in ("nouns", "adjectives"):
        for old, entry in WORDS[section].items():
            assert (old[0] in "aeiou") == (entry[0] in "aeiou"), old
    for source, _ in with_new_words(builtin_pairs("train", 2003)):
        assert not re.search(r"\b(a [aeiou]|an [^aeiou])", source, re.IGNORECASE), source


def test_genders_stay() -> None:
    nouns = {noun.english[0]: noun for group in NOUNS.values() for noun in group}
    for word, entry in WORDS["nouns"].items():
        assert {"der": "m", "die": "f", "das": "n"}[entry.split()[1]] == nouns[word].gender, word


def test_most_sentences_have_new_words_and_all_have_known_letters() -> None:
    pairs = list(builtin_pairs("train", 997))
    changed = [new for old, new in zip(pairs, with_new_words(iter(pairs)), strict=True) if old[0] != new[0]]
    assert len(changed) > 0.95 * len(pairs)
    letters = {letter for pair in pairs for text in pair for letter in text}
    assert {letter for pair in changed for text in pair for letter in text} <= letters


def test_it_is_a_subset_of_the_builtin_corpus() -> None:
    data = DataConfig(corpus="builtin", builtin_size=7)
    plain, other = load_split(data, "train"), load_split(dataclasses.replace(data, subset=new_words.NAME), "train")
    assert (other.name, other.fingerprint) == ("builtin new_words train", "builtin train 7 new_words")
    assert list(other) == list(with_new_words(iter(plain)))
    assert plain.fingerprint == "builtin train 7"


@pytest.mark.parametrize("subset", [None, "de-en", "fr-en"])
def test_a_subset_of_a_corpus_on_the_hub_means_the_whole(subset: str | None) -> None:
    assert load_split(DataConfig(corpus="builtin", subset=subset), "test").name == "builtin test"


def test_another_subset_is_refused() -> None:
    with pytest.raises(DataError, match=r"^data.subset=newwords: the builtin corpus has new_words, or null"):
        load_split(DataConfig(corpus="builtin", subset="newwords"), "test")


def test_the_tokenizer_of_the_builtin_corpus_knows_all_letters() -> None:
    tokenizer = Tokenizer.train([text for pair in builtin_pairs("train", 499) for text in pair], 307)
    texts = [text for pair in with_new_words(builtin_pairs("train", 499)) for text in pair]
    assert not any(UNK_ID in ids for ids in tokenizer.encode(texts))

"""Filters drop what their examples show and nothing else; what is dropped is counted."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.data.dataset import encode_corpus
from transformer.data.filters import FILTERS, filtered, reason_to_drop
from transformer.data.pairs import Corpus
from transformer.data.tokenizer import Tokenizer

BAD = {
    "copies": [("Das ist gleich.", "Das  ist gleich. "), ("a", "a")],
    "encoding": [
        ("Die TÃ¼r", "The door"),
        ("a", "â€œquotedâ€\x9d"),
        ("itâ€™s", "x"),
        ("x", "\ufffd"),
        ("bell\x07", "x"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Hello"),
        ("æ—¥æœ¬", "Japan"),
        ("ï»¿x", "y"),
        ("x", "Gr\x9c\xdfe\x84n"),
        ("Ã–sterreich", "SCHÃ–N"),
        ("Ã„rger", "x"),
        ("« oui Â»", "x"),
        ("BelgiÃ«", "x"),
    ],
    "markup": [
        ("a &amp; b", "x"),
        ("x", "&#8222;y&#8220;"),
        ("x<br/>", "y"),
        ("x", '<a href="z">y</a>'),
        ("&nbsp;x", "y"),
    ],
    "no_letters": [("123", "zwölf"), ("x", "* * *"), ("—", "x")],
    "numbers": [("In 1999.", "Im Jahr 1998."), ("two", "2"), ("3 and 4", "3")],
}
GOOD = [
    ("A man is sleeping.", "Ein Mann schläft."),
    ("Über 1,000.50 €", "1.000,50 Öre"),
    ("MENÜ“ und «CAFÉ»", "ÇA À É, «NÃO»"),
    ("NÃO ÂNGULO, Ñandú", "à la «É»"),
    ("Ela disse “A IRMÃ”.", "IRMÃ… chegou"),
    ("“MANHÃ” é, ‘LÃ’ – IRMÃ– IRMÃ—", "Il est «LÂ»"),
    ("x < y and a > b, R&D; AT&T", "x < y <z"),
    ("१२ घर", "12 houses"),
    ("007 men", "7 Männer"),
    ("日本語", "Привет"),
    ("ligne\u00a0: oui", "tab\tok"),
    ("", ""),
    ("", "nur eine Seite 12"),
]


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_drops_its_examples(name: str) -> None:
    for pair in BAD[name]:
        assert reason_to_drop(*pair, [name]) == name, pair


@pytest.mark.parametrize("pair", GOOD)
def test_what_is_only_unusual_is_kept(pair: tuple[str, str]) -> None:
    assert reason_to_drop(*pair, list(FILTERS)) is None


def test_the_grammar_has_nothing_to_drop() -> None:
    pairs = list(builtin_pairs("train", 997))
    assert {reason_to_drop(*pair, list(FILTERS)) for pair in pairs} == {None}


def test_the_first_filter_that_applies_counts_whatever_the_order_of_the_names() -> None:
    pair = ("&amp; 1 Ã¤", "&amp; 1 Ã¤")
    for names in itertools.permutations(FILTERS, 5):
        assert reason_to_drop(*pair, names) == "encoding"
    assert reason_to_drop(*pair, ["numbers", "copies"]) == "copies"


def test_the_numbers_add_up_to_the_input_after_every_complete_reading() -> None:
    pairs = [*BAD["copies"], *GOOD, *BAD["markup"], *BAD["numbers"]]
    corpus = filtered(Corpus("mine", "mine", lambda: iter(pairs)), ("copies", "markup", "numbers"))
    for _ in range(2):
        kept = list(corpus)
        assert len(kept) + sum(corpus.dropped().values()) == len(pairs)
        assert dict(corpus.dropped()) == {"copies": 2, "markup": 5, "numbers": 3}
    next(iter(corpus))
    assert sum(corpus.dropped().values()) == 10, "a reading that ends early counts nothing"


def test_the_fingerprint_follows_the_set_of_filters() -> None:
    corpus = Corpus("mine", "mine", lambda: iter(()))
    assert filtered(corpus, ()) is corpus
    prints = [
        filtered(corpus, names).fingerprint for names in (("copies",), ("copies", "numbers"), ("numbers", "copies"))
    ]
    assert prints[1] == prints[2]
    assert len({*prints, corpus.fingerprint}) == 3


def test_pairs_left_out_twice_for_one_reason_are_all_counted(tmp_path: Path) -> None:
    texts = [("a b c", "x y"), ("a b", "x"), ("b c", "y"), ("c", "z"), ("", "w"), ("x", "y")]
    corpus = Corpus("mine", "mine", lambda: iter(texts))
    for word in "ab":
        corpus = corpus.without("r", lambda source, _, word=word: source.startswith(word), word)  # type: ignore[misc]
    corpus = corpus.without("empty", lambda source, _: source == "c", "c")
    assert len(list(corpus)) == 2
    assert corpus.dropped() == {"r": 3, "empty": 1}
    sentences = [side for pair in builtin_pairs("train", 97) for side in pair]
    found = encode_corpus(corpus, Tokenizer.train(sentences, 199), tmp_path)
    assert found.dropped == {"empty": 2, "too_long": 0, "ratio": 0, "r": 3}

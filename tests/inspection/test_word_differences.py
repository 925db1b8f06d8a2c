"""Words are compared in order, in any script, and put together again they are the text."""

from __future__ import annotations

import random

import pytest

from transformer.inspection.word_differences import MAX_TOKENS, tokens, unlike, unlike_references


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Ein Hund, hier.", ["Ein", " ", "Hund", ",", " ", "hier", "."]),
        ("我喜欢 cat猫", ["我", "喜", "欢", " ", "cat", "猫"]),
        ("a  \tb_c 3.5", ["a", "  \t", "b", "_", "c", " ", "3", ".", "5"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("हिन्दी में", ["हिन्दी", " ", "में"]),
        ("مرحبا بالعالم", ["مرحبا", " ", "بالعالم"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("", []),
    ],
)
def test_tokens_of_scripts(text: str, parts: list[str]) -> None:
    assert tokens(text) == parts


def test_tokens_are_the_text() -> None:
    rng = random.Random(2)
    for _ in range(997):
        text = "".join(rng.choice("ab \t\n.,_-\u0301\u200d猫あ한गि\u0600\U0001f600\x00<&") for _ in range(23))
        assert "".join(tokens(text)) == text


def test_words_without_a_counterpart_are_found() -> None:
    a, b = tokens("der kleine Hund läuft  heute"), tokens("der Hund rennt heute")
    assert [word for word, is_unlike in zip(a, unlike(a, b), strict=True) if is_unlike] == ["kleine", "läuft"]
    assert [word for word, is_unlike in zip(b, unlike(b, a), strict=True) if is_unlike] == ["rennt"]
    assert not any(unlike(a, a))
    assert unlike(tokens("a b"), []) == [True, False, True]
    assert unlike(tokens("a  b"), tokens("a b")) == [False] * 3  # white space counts for nothing


def test_the_closest_reference_counts() -> None:
    text = tokens("ein Hund läuft")
    assert unlike_references(text, [tokens("zwei Katzen"), tokens("ein Hund rennt")]) == [False] * 4 + [True]


def test_very_long_texts_are_not_compared() -> None:
    assert unlike(["a"] * (MAX_TOKENS + 1), ["b"]) == [False] * (MAX_TOKENS + 1)
    assert unlike(["a"], ["b"] * (MAX_TOKENS + 1)) == [False]
    assert unlike(["a"] * MAX_TOKENS, ["b"]) == [True] * MAX_TOKENS

"""Normalisation: what each rule changes, and that it travels in the bytes of a model."""

from __future__ import annotations

import unicodedata

import pytest

from transformer.data.normalization import (
    _CONTROL_SPACE,
    Normalizer,
    read_spec,
    rule_name,
    train_sentencepiece,
    without_control_space,
    write_spec,
)
from transformer.data.protobuf import read_fields
from transformer.data.tokenizer import Tokenizer
from transformer.errors import DataError

RULES = ["minimal", "identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"]
WHITE_SPACE = [chr(code) for code in (*range(0x9, 0xE), *range(0x1C, 0x20), 0x85, 0x2028, 0x2029)]


def train(rule: str) -> Tokenizer:
    return Tokenizer.train(["a b c Å"], 13, normalization=rule)


def test_minimal_changes_nothing_but_control_white_space() -> None:
    normalizer = Normalizer("minimal")
    changed = [
        character
        for character in map(chr, [*range(0xD800), *range(0xE000, 0x110000)])
        if normalizer.words(f"a{character}b") != [f"a{character}b"]
    ]
    assert changed == sorted([*WHITE_SPACE, " ", "▁"])
    assert all(normalizer.words(f"a{character}b") == ["a", "b"] for character in changed)
    assert sorted(_CONTROL_SPACE) == WHITE_SPACE


def test_control_white_space_is_where_python_sees_it_below_u_0100_and_at_ends_of_lines() -> None:
    control = [
        chr(code) for code in range(0x110000) if chr(code).isspace() and unicodedata.category(chr(code))[0] != "Z"
    ]
    ends_of_lines = [chr(code) for code in range(0x110000) if len(f"a{chr(code)}b".splitlines()) == 2]
    assert sorted({*control, *ends_of_lines}) == WHITE_SPACE


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("minimal", "Ａ，10²\u200cfi\u00a0½ Å"),
        ("identity", "Ａ，10²\u200cfi\u00a0½ Å"),
        ("nfkc", "A,102\u200cfi 1⁄2 Å"),
        ("nmt_nfkc", "A,102 fi 1⁄2 Å"),
        ("nfkc_cf", "a,102\u200cfi 1⁄2 å"),
        ("nmt_nfkc_cf", "a,102 fi 1⁄2 å"),
    ],
)
def test_each_rule_changes_what_its_name_says(rule: str, expected: str) -> None:
    text = "Ａ，10²\u200cfi\u00a0½ Å"
    assert Normalizer(rule).words(text) == expected.split(" ")
    assert rule_name(train(rule).model) == rule


def test_decomposed_text_stays_decomposed_and_composed_text_composed() -> None:
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, "Å가が")
        assert Normalizer("minimal").words(text) == [text]


@pytest.mark.parametrize("rule", RULES)
def test_a_model_applies_its_rule_from_its_bytes_alone(rule: str) -> None:
    text = "\u0085a\tb\u2028c Ａ② \u00c5\u0344"
    tokenizer = Tokenizer(train(rule).model)
    assert tokenizer._processor.Normalize(text).strip("▁").split("▁") == Normalizer(rule).words(text)
    assert Tokenizer(tokenizer.model).normalization == rule


def test_a_model_has_no_trace_of_where_the_program_is_installed() -> None:
    model = train("minimal").model
    assert b"tsv" not in read_spec(model)
    assert b"transformer" not in model


def test_surrogates_are_refused_when_words_are_counted() -> None:
    with pytest.raises(DataError, match=r"^the text '.ud800' contains surrogates, which UTF-8 cannot encode"):
        Tokenizer.train(["half \ud800 a character"], 13)


def test_control_white_space_becomes_one_space_each() -> None:
    assert without_control_space("a\n\tb\r\u2028\u0085c \u3000\u00a0d\x1b") == "a  b   c \u3000\u00a0d\x1b"


def test_fields_are_read_and_written_back() -> None:
    model = train_sentencepiece(["a\t3"], model_type="char", vocab_size=6)
    assert b"".join(field for _, field, _ in read_fields(model)) == model
    assert write_spec(model, read_spec(model)) == model
    long = bytes(300)
    changed = write_spec(model, long)
    assert read_spec(changed) == long
    assert [number for number, _, _ in read_fields(changed)] == [number for number, _, _ in read_fields(model)]


def test_a_model_without_a_rule_has_no_name() -> None:
    assert rule_name(b"") == ""

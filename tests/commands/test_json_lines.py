"""Translations as JSON lines: what each object has, and that it is one line."""

from __future__ import annotations

import json
import math

import pytest

from transformer.commands.json_lines import json_lines
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.inference.translator import Translation


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train((side for pair in builtin_pairs("train", 99) for side in pair), 150)


def test_an_object_has_the_line_and_its_translations(tokenizer: Tokenizer) -> None:
    found = [[Translation("A", -0.5, -0.7, (7, 3), (-0.3, -0.4)), Translation("B", -1.5, -1.7, (11,))], []]
    text = json_lines(["a", "b"], found, tokenizer, first_number=23)
    first, second = map(json.loads, text.splitlines())
    assert first == {
        "line": 23,
        "source": "a",
        "translations": [
            {
                "text": "A",
                "score": -0.5,
                "log_prob": -0.7,
                "tokens": tokenizer.pieces([7, 3]),
                "token_log_probs": [-0.3, -0.4],
            },
            {"text": "B", "score": -1.5, "log_prob": -1.7, "tokens": tokenizer.pieces([11])},
        ],
    }
    assert second == {"line": 24, "source": "b", "translations": []}


def test_each_object_says_how_it_was_made(tokenizer: Tokenizer) -> None:
    text = json_lines(["a", "b"], [[], []], tokenizer, first_number=1, made={"precision": "bfloat16"})
    assert [json.loads(line)["precision"] for line in text.splitlines()] == ["bfloat16"] * 2


def test_scores_that_are_not_numbers_are_null(tokenizer: Tokenizer) -> None:
    text = json_lines(["a"], [[Translation("", -math.inf, math.nan)]], tokenizer, first_number=1)
    assert json.loads(text)["translations"] == [{"text": "", "score": None, "log_prob": None, "tokens": []}]


@pytest.mark.parametrize("odd", ["\x85", "\u2028", "\u2029", "\n", "\r", "\x1c", "\v", "\f", '"', "\\u2028", "ß漢😀"])
def test_an_object_is_one_line_whatever_the_text(tokenizer: Tokenizer, odd: str) -> None:
    text = json_lines([f"a{odd}b"], [[Translation(f"A{odd}B", -0.5, -0.7)]], tokenizer, first_number=1)
    (line,) = text.splitlines()
    assert json.loads(line)["source"] == f"a{odd}b"
    assert json.loads(line)["translations"][0]["text"] == f"A{odd}B"


def test_each_translation_may_have_its_alignment(tokenizer: Tokenizer) -> None:
    found = [[Translation("A B", -0.5, -0.7), Translation("", 0.0, 0.0)]]
    text = json_lines(["a b"], found, tokenizer, first_number=1, alignments=[[[(0, 1), (1, 0)], []]])
    assert [one["alignment"] for one in json.loads(text)["translations"]] == [[[0, 1], [1, 0]], []]

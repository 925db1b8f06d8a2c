"""Rows of json: objects on lines or in an array; a value that is not text, or not json, is an error of its row."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from transformer.config import DataConfig
from transformer.data import json_rows
from transformer.data.corpus import load_split
from transformer.data.json_rows import json_pairs
from transformer.errors import DataError

PAIRS = [("A dog.", "Ein Hund."), ("Two\ncats.", 'Zwei "Katzen".'), ("Größe \U0001f600", "größer\\ als ß"), ("", "{")]
ROWS = [{"id": i, "en": en, "meta": {"a": [1, None, 2.5e300, True]}, "de": de} for i, (en, de) in enumerate(PAIRS)]


def pairs_of(content: str | bytes) -> list[tuple[str, str]]:
    raw = content.encode() if isinstance(content, str) else content
    return list(json_pairs(io.BytesIO(raw), "a.jsonl", "en", "de"))


def lines(rows: list[Any], **options: Any) -> str:
    return "".join(json.dumps(row, **options) + "\n" for row in rows)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 61, 1 << 18])
@pytest.mark.parametrize(
    "content",
    [
        lines(ROWS),
        lines(ROWS, ensure_ascii=False),
        lines(ROWS, indent=1),
        "\n\r\n" + lines(ROWS).replace("\n", "\r\n\n"),
        "\ufeff" + lines(ROWS, ensure_ascii=False).rstrip(),
        lines(ROWS).replace("\n", " "),
        json.dumps(ROWS),
        " \n" + json.dumps(ROWS, ensure_ascii=False, indent=3) + "\n\n",
        lines([{"translation": row} for row in ROWS]),
        lines([{"translation": "a column of text", **row} for row in ROWS]),
    ],
)
def test_lines_and_arrays_give_their_rows_wherever_blocks_end(
    monkeypatch: pytest.MonkeyPatch, content: str, block: int
) -> None:
    monkeypatch.setattr(json_rows, "_BLOCK", block)
    assert pairs_of(content) == PAIRS


@pytest.mark.parametrize("content", ["", "\n \n", "[]", " [ ] "])
def test_nothing_and_an_empty_array_have_no_rows(content: str) -> None:
    assert pairs_of(content) == []


GOOD = '{"en": "a", "de": "b"}'


@pytest.mark.parametrize("block", [1, 5, 1 << 18])
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"en": 3, "de": "b"}', '\'en\' and \'de\' must be text, got {"en": 3, "de": "b"}'),
        ('{"en": "a", "de": null}', '\'en\' and \'de\' must be text, got {"en": "a", "de": null}'),
        ('{"en": "a", "de": ["b"]}', "'en' and 'de' must be text"),
        ('{"en": NaN, "de": "b"}', "'en' and 'de' must be text, got {\"en\": NaN"),
        ('{"en": "a"}', "needs columns 'en' and 'de' or 'translation', has ['en']"),
        ('{"EN": "a", "de": "b"}', "needs columns 'en' and 'de' or 'translation', has ['EN', 'de']"),
        ('{"translation": {"en": "a", "fr": "b"}}', "needs columns 'en' and 'de' in 'translation', has ['en', 'fr']"),
        ('{"translation": {"en": "a", "de": null}}', "'en' and 'de' must be text"),
        ('{"translation": null}', "'translation' must be an object, got null"),
        ('{"translation": "c", "en": "a"}', "'translation' must be an object, got \"c\""),
        ('["a", "b"]', 'must be an object, got ["a", "b"]'),
        ("3", "must be an object, got 3"),
        ('{"en": "a", "de": "b", "en": "c"}', "the key 'en' occurs twice"),
        ('{"en": "a", "de": "b", "x": {"y": 1, "y": 1}}', "the key 'y' occurs twice"),
        ('{"en": "\\ud800", "de": "b"}', "half of a surrogate pair ('\\ud800'), which is not text"),
        ('{"en": "a", "de": "\\ude00\\ud83d"}', "half of a surrogate pair"),
        ('{"en": "a", "de": "b",}', "not JSON: "),
        ("{'en': 'a', 'de': 'b'}", "not JSON: "),
        ('{"en": "a" "de": "b"}', "not JSON: Expecting ',' delimiter"),
        ('{"en": "a\nb", "de": "b"}', "not JSON: Invalid control character at"),
        ('{"en": "a", "de": "\\x"}', "not JSON: Invalid \\escape"),
        ('{"en": "a", "de": b}', "not JSON: Expecting value"),
        ("[" * 100_000, "nested too deeply"),
        ('{"en": "a", "de": "b", "n": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ],
)
def test_a_malformed_row_is_an_error_with_its_number(
    monkeypatch: pytest.MonkeyPatch, row: str, problem: str, block: int
) -> None:
    if block < 10 and len(row) > 1000:
        return
    monkeypatch.setattr(json_rows, "_BLOCK", block)
    for content in (f"{GOOD}\n{row}\n{GOOD}\n", f"[{GOOD},\n{row},\n{GOOD}]"):
        with pytest.raises(DataError) as caught:
            pairs_of(content)
        assert str(caught.value).startswith(f"a.jsonl, row 2: {problem}")


@pytest.mark.parametrize("block", [1, 1 << 18])
@pytest.mark.parametrize(
    ("content", "row", "problem"),
    [
        (f"{GOOD},\n{GOOD}\n", 2, "not JSON: Expecting value"),
        (f"[{GOOD},]", 2, "a comma before ]"),
        (f"[{GOOD} {GOOD}]", 2, "a comma or ] is missing"),
        (f"[{GOOD}", 2, "a comma or ] is missing"),
        (f"[{GOOD},", 2, "not JSON: Expecting value"),
        (f"[{GOOD}] {GOOD}", 2, "text after the array"),
        (f"{GOOD}\n" + GOOD[:-2], 2, "not JSON: Unterminated string"),
        (f"{GOOD}\n" + GOOD[:-1], 2, "not JSON: Expecting ',' delimiter"),
        (f"{GOOD}\n]", 2, "not JSON: Expecting value"),
        ('{"data": [' + GOOD + "]}", 1, "needs columns 'en' and 'de' or 'translation', has ['data']"),
    ],
)
def test_text_between_and_after_the_rows_is_an_error(
    monkeypatch: pytest.MonkeyPatch, content: str, row: int, problem: str, block: int
) -> None:
    monkeypatch.setattr(json_rows, "_BLOCK", block)
    with pytest.raises(DataError) as caught:
        pairs_of(content)
    assert str(caught.value).startswith(f"a.jsonl, row {row}: {problem}")


@pytest.mark.parametrize("block", [1, 1 << 18])
@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80", b"\xc3"])
def test_rows_before_bytes_that_are_not_utf8_are_read(monkeypatch: pytest.MonkeyPatch, bad: bytes, block: int) -> None:
    monkeypatch.setattr(json_rows, "_BLOCK", block)
    for rest in (b'{"en": "a", "de": "' + bad + b'"}\n', bad):
        reader = json_pairs(io.BytesIO(GOOD.encode() + b"\n" + rest), "a.jsonl", "en", "de")
        assert next(reader) == ("a", "b")
        with pytest.raises(DataError, match=r"^a\.jsonl, row 2: not UTF-8$"):
            next(reader)


def test_a_value_is_limited_in_length() -> None:
    for rest in ('{"en": "' + "x" * (10 << 20), "{" + " " * (10 << 20), '{"x": [' + "1,\n" * (4 << 20)):
        with pytest.raises(DataError, match=r"^a\.jsonl, row 2: longer than 4194304 characters: is a bracket not clo"):
            pairs_of(f"{GOOD}\n{rest}")


def test_a_row_of_another_column_may_hold_anything() -> None:
    assert pairs_of('{"en": "a", "de": "b", "score": NaN, "n": 1e999, "x": "\\ud800"}') == [("a", "b")]


def test_the_first_row_is_checked_when_the_corpus_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"en": "a", "fr": "b"}\n')
    with pytest.raises(
        DataError, match=r"a\.jsonl, row 1: needs columns 'en' and 'de' or 'translation', has \['en', 'fr'\]$"
    ):
        load_split(DataConfig(corpus=f"{tmp_path}/a.jsonl"), "train")

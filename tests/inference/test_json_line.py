"""Objects as lines of JSON."""

from __future__ import annotations

import json
import math

import pytest

from transformer.inference.json_line import finite_or_none, json_line


def test_a_line_has_no_line_ends_of_any_kind() -> None:
    record = {"text": "a\nb\x85c\u2028d\u2029e", "ü": 1.5}
    line = json_line(record)
    assert line.splitlines() == [line]
    assert '"ü"' in line
    assert json.loads(line) == record


def test_numbers_that_are_not_finite_are_null_or_an_error() -> None:
    assert [finite_or_none(x) for x in (0.5, math.inf, -math.inf, math.nan)] == [0.5, None, None, None]
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_line({"score": math.nan})

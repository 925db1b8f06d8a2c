"""Objects as lines of JSON."""

from __future__ import annotations

import json
import math

# Programs that split text into lines may take these for line ends; in JSON they may be escaped.
_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


def json_line(record: dict[str, object]) -> str:
    """An object as one line, without its end; ValueError if it has a number that JSON has not."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS)


def finite_or_none(number: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return number if math.isfinite(number) else None

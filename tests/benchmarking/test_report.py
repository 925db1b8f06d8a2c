"""The table and the JSON of a report carry the same numbers."""

from __future__ import annotations

import json
from typing import Any

from benchmarking.report import as_json, as_text

REPORT: dict[str, Any] = {
    "name": "tiny model",
    "count": 1234567,
    "speed": 98765.4321,
    "tiny": 1.234567e-7,
    "nothing": None,
    "phases": {"data": 0.25, "deep": {"er": 3}},
    "values": [1, 2.5],
    "rows": [{"n": 2, "s": 0.125}, {"n": 4096, "s": 17.0}],
}


def test_json_is_rounded_and_otherwise_the_report() -> None:
    assert json.loads(as_json(REPORT)) == {**REPORT, "speed": 98765.0, "tiny": 1.2346e-7}


def test_text_has_a_line_for_every_number_and_a_table_for_rows() -> None:
    assert as_text(REPORT) == (
        "name            tiny model\n"
        "count           1,234,567\n"
        "speed           98,765\n"
        "tiny            1.2346e-07\n"
        "nothing         -\n"
        "phases.data     0.25\n"
        "phases.deep.er  3\n"
        "values          1 2.5\n"
        "\n"
        "rows\n"
        "    n      s\n"
        "    2  0.125\n"
        "4,096     17"
    )


def test_text_and_json_carry_the_same_numbers() -> None:
    numbers = json.loads(as_json(REPORT))
    lines = dict(line.split(maxsplit=1) for line in as_text(REPORT).splitlines()[:6])
    for name in ("count", "speed", "tiny"):
        assert float(lines[name].replace(",", "")) == numbers[name]

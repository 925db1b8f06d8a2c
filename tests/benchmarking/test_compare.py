"""Paired ratios of commands whose numbers are known."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from benchmarking.compare import CommandError, compare, json_metric, regex_metric, verdict, wall_time


def command(program: str) -> str:
    return shlex.join([sys.executable, "-S", "-c", program])


def test_commands_alternate_and_each_pair_has_its_ratio(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()

    def program(name: str, values: list[int]) -> str:
        # Each run notes itself, and gives the next of its values.
        return command(
            f"log = open({str(log)!r}, 'r+'); n = log.read().count('{name}'); log.write('{name}')\n"
            f"print('working', '{{}}', sep='\\n')\nprint('{{\"speed\": {{\"x\": %d}}}}' % {values}[n])"
        )

    lines: list[str] = []
    a, b = program("A", [2, 4, 8]), program("B", [3, 4, 20])
    report = compare(a, b, runs=3, metric=json_metric("speed.x"), log=lines.append)
    assert log.read_text() == "ABABAB"
    assert [(pair["a"], pair["b"], pair["ratio"]) for pair in report["pairs"]] == [(2, 3, 1.5), (4, 4, 1), (8, 20, 2.5)]
    assert report["ratio"] == {"median": 1.5, "lowest": 1.0, "highest": 2.5}
    assert report["verdict"] == "1 lies inside the spread: no difference is shown"
    assert lines[2] == "pair 3 of 3: 8 20 ratio 2.5000"


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.01, 2.0], "B is larger in every pair"),
        ([0.9, 0.99], "B is smaller in every pair"),
        ([1.0, 2.0], "1 lies inside the spread: no difference is shown"),
        ([0.9, 1.1], "1 lies inside the spread: no difference is shown"),
    ],
)
def test_a_verdict_needs_all_pairs(ratios: list[float], expected: str) -> None:
    assert verdict(ratios) == expected


def test_wall_time_is_the_default() -> None:
    pair = compare("exit 0", "exit 0", runs=1)["pairs"][0]
    assert pair["a"] > 0
    assert wall_time("whatever", 3.5) == 3.5


@pytest.mark.parametrize(
    ("pattern", "output", "expected"),
    [(r"speed (\S+)", "speed 3\nspeed 1,234.5 a second", 1234.5), (r"^x=(\d+)$", "y\nx=7\nz", 7.0)],
)
def test_a_regular_expression_takes_the_last_match(pattern: str, output: str, expected: float) -> None:
    assert regex_metric(pattern)(output, 0.0) == expected


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("3\nnot json", "the last line printed is not JSON: 'not json'"),
        ('{"speed": {"y": 3}}', r"no 'speed\.x' in the JSON printed: "),
        ('{"speed": 3}', r"no 'speed\.x' in the JSON printed: "),
        ('{"speed": {"x": "fast"}}', r"'speed\.x' is not a number: 'fast'"),
        ('{"speed": {"x": true}}', r"'speed\.x' is not a number: True"),
    ],
)
def test_json_without_the_number_is_an_error(output: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        json_metric("speed.x")(output, 0.0)


@pytest.mark.parametrize(("pattern", "message"), [("(", "is not a regular expression"), ("x", r"has no group \(")])
def test_a_bad_pattern_is_an_error_at_once(pattern: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        regex_metric(pattern)


@pytest.mark.parametrize(("output", "message"), [("y", "nothing in the output matches"), ("x=-", "is not a number")])
def test_a_pattern_that_finds_no_number_is_an_error(output: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        regex_metric("x=(.)")(output, 0.0)


@pytest.mark.parametrize(
    ("a", "message"),
    [
        ("echo first >&2; echo second >&2; exit 3", "exit 3: exit status 3: second"),
        ("echo 0", "the number is 0"),
        ("echo nothing", r"^echo nothing: nothing in the output matches"),
    ],
)
def test_errors_name_the_command(a: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        compare(a, "echo 1", runs=1, metric=regex_metric(r"(\d)"))

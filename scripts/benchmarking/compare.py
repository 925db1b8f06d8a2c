"""Compare two commands run alternately, so that noise affects both."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

from benchmarking.report import Report
from transformer.errors import UserError

# The number to compare, from the output of a command and its wall time.
Metric = Callable[[str, float], float]


class CommandError(UserError):
    """A command failed or did not print the metric."""


def wall_time(_output: str, seconds: float) -> float:
    """Wall time in seconds, including start-up."""
    return seconds


def json_metric(key: str) -> Metric:
    """The number at a dotted key, such as `padding.target`, of the JSON object printed last."""

    def metric(output: str, _seconds: float) -> float:
        last = output.strip().rpartition("\n")[2]
        try:
            value: Any = json.loads(last)
        except json.JSONDecodeError:
            raise CommandError(f"the last line printed is not JSON: {last[:200]!r}") from None
        for name in key.split("."):
            if not isinstance(value, dict) or name not in value:
                raise CommandError(f"no {key!r} in the JSON printed: {last[:200]}")
            value = value[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CommandError(f"{key!r} is not a number: {value!r}")
        return float(value)

    return metric


def regex_metric(pattern: str) -> Metric:
    """Group 1 of the last match of a regular expression. CommandError if that is invalid."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise CommandError(f"{pattern!r} is not a regular expression: {error}") from None
    if compiled.groups < 1:
        raise CommandError(f"{pattern!r} has no group (...) around the number")

    def metric(output: str, _seconds: float) -> float:
        matches = list(compiled.finditer(output))
        if not matches:
            raise CommandError(f"nothing in the output matches {pattern!r}")
        text = str(matches[-1][1])
        try:
            return float(text.replace(",", ""))
        except ValueError:
            raise CommandError(f"{pattern!r} matches {text!r}, which is not a number") from None

    return metric


def compare(a: str, b: str, *, runs: int, metric: Metric = wall_time, log: Callable[[str], None] = print) -> Report:
    """Run two shell commands alternately, A B A B ..., and report the ratio B / A of each pair.

    Args:
        a, b: the commands.
        runs: number of runs of each.
        metric: extracts the number from a run.
        log: receives a line per pair.

    Raises:
        CommandError: a command fails, its number is missing, or A's number is 0.
    """
    pairs = []
    for number in range(1, runs + 1):
        first, second = (_measure(command, metric) for command in (a, b))
        if not first:
            raise CommandError(f"{a}: the number is 0, so there is no ratio")
        pairs.append({"pair": number, "a": first, "b": second, "ratio": second / first})
        log(f"pair {number} of {runs}: {first:.5g} {second:.5g} ratio {second / first:.4f}")
    ratios = [pair["ratio"] for pair in pairs]
    return {
        "a": a,
        "b": b,
        "ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
        "verdict": verdict(ratios),
        "pairs": pairs,
    }


def verdict(ratios: list[float]) -> str:
    """Whether all pairs agree on which is larger."""
    if min(ratios) > 1:
        return "B is larger in every pair"
    if max(ratios) < 1:
        return "B is smaller in every pair"
    return "1 lies inside the spread: no difference is shown"


def _measure(command: str, metric: Metric) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, shell=True, capture_output=True, text=True, encoding="utf-8", errors="replace")
    seconds = time.perf_counter() - began
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise CommandError(f"{command}: exit status {done.returncode}: {last[:300]}")
    try:
        return metric(done.stdout, seconds)
    except CommandError as error:
        raise CommandError(f"{command}: {error}") from None

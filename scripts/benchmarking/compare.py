"""Two commands run alternately, so that what slows the machine down for a while slows both."""

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

# From what a command printed and the seconds that it took: a number.
Metric = Callable[[str, float], float]


class CommandError(UserError):
    """A command that failed, or that did not print the number asked for."""


def wall_time(_output: str, seconds: float) -> float:
    """The seconds that the command took, its start included."""
    return seconds


def json_metric(key: str) -> Metric:
    """The number at a dotted key, such as `padding.target`, of the JSON object in the last line that was printed."""

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
    """The number in the first group of the last match of a regular expression. CommandError if it is not one."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise CommandError(f"{pattern!r} is not a regular expression: {error}") from None
    if compiled.groups < 1:
        raise CommandError(f"{pattern!r} has no group (...) around the number")

    def metric(output: str, _seconds: float) -> float:
        matches = list(compiled.finditer(output))
        if not matches:
            raise CommandError(f"nothing that was printed matches {pattern!r}")
        text = str(matches[-1][1])
        try:
            return float(text.replace(",", ""))
        except ValueError:
            raise CommandError(f"{pattern!r} matches {text!r}, which is not a number") from None

    return metric


def compare(a: str, b: str, *, runs: int, metric: Metric = wall_time, say: Callable[[str], None] = print) -> Report:
    """Run two shell commands in turn, A B A B ..., and divide B's number by A's in each pair.

    Args:
        a, b: the commands.
        runs: of each.
        metric: takes the number from a run.
        say: is told about each pair as it ends.

    Raises:
        CommandError: a command fails, or its number cannot be found, or A's is 0.
    """
    pairs = []
    for number in range(1, runs + 1):
        first, second = (_measure(command, metric) for command in (a, b))
        if not first:
            raise CommandError(f"{a}: the number is 0, by which nothing can be divided")
        pairs.append({"pair": number, "a": first, "b": second, "ratio": second / first})
        say(f"pair {number} of {runs}: {first:.5g} {second:.5g} ratio {second / first:.4f}")
    ratios = [pair["ratio"] for pair in pairs]
    return {
        "a": a,
        "b": b,
        "ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
        "verdict": verdict(ratios),
        "pairs": pairs,
    }


def verdict(ratios: list[float]) -> str:
    """Whether the pairs agree on which is larger."""
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

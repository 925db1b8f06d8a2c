"""What training shows: a line of at most 80 columns on a terminal, a line per log step elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from transformer.training import display
from transformer.training.display import Display

VALUES = {"loss": 2.3449, "nll": 2.2, "ppl": 9.04, "lr": 4.4194e-3, "tokens_per_s": 5123.4, "epoch": 1}
# The longest numbers that one meets: the first updates of a long run on fast hardware.
LONGEST = {"loss": 10.5187, "nll": 10.5, "ppl": 36_999.9, "lr": 6.9877e-4, "tokens_per_s": 99_999.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list with the time, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def train(shown: Display, clock: list[float], num_steps: int, seconds: float, first: int = 0) -> None:
    """Updates of equal length, with metrics after every third."""
    for step in range(first + 1, first + num_steps + 1):
        clock[0] += seconds
        shown.advance()
        if step % 3 == 0:
            shown.show(step, VALUES)


def test_without_a_terminal_each_log_step_is_a_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    shown = Display(0, 2000)
    train(shown, clock, 7, seconds=2)
    shown.note("validating")
    shown.print("step 7: validation")
    shown.close()
    assert capsys.readouterr() == (
        "step 7: validation\n",
        "step 3  loss 2.345  ppl 9.04  lr 4.42e-03  5,123 tokens/s  1h06m left\n"
        "step 6  loss 2.345  ppl 9.04  lr 4.42e-03  5,123 tokens/s  1h06m left\n",
    )


def test_the_longest_line_has_80_columns_and_nothing_is_left_out(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Display(99_990, 999_999)
    for _ in range(10):
        clock[0] += 0.001
        shown.advance()
    shown.show(100_000, LONGEST)
    line = capsys.readouterr().err.rstrip("\n")
    assert line == "step 100000  loss 10.52  ppl 37.0k  lr 6.99e-04  99,999 tokens/s  14m59s left"
    assert len(line) <= 80


@pytest.mark.parametrize("columns", [80, 81, 120, 200, 0])
@pytest.mark.parametrize("values", [VALUES, LONGEST])
def test_a_terminal_of_80_columns_or_more_shows_everything_in_a_line(
    terminal: Callable[[int], Any], clock: list[float], columns: int, values: dict[str, float]
) -> None:
    screen = terminal(columns)
    shown = Display(0, 100_000)
    clock[0] += 0.008 * 99_999
    for _ in range(99_999):
        shown._step += 1
    shown.advance()
    shown.show(100_000, values)
    shown._step = 10_000
    clock[0] += 1
    shown.advance()
    line = screen.texts()[-1]
    assert len(line) < 80
    numbers = r"loss [\d.]+  ppl [\d.]+k?  lr \d\.\d\de-0\d  \d+,\d\d\d tokens/s  (\d+h\d\dm|\d+m\d\ds) left"
    assert re.fullmatch(rf"10001/100000  (\[[#.]+\]  )?{numbers}", line)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (60, "9/13  [##..]  loss 2.345  ppl 9.04  5,123 tokens/s  8s left"),
        (40, "9/13  [######....]  loss 2.345  8s left"),
        (20, "9/13  8s left"),
        (8, "9/13"),
    ],
)
def test_a_narrow_terminal_shows_what_matters_most(
    terminal: Callable[[int], Any], clock: list[float], columns: int, line: str
) -> None:
    screen = terminal(columns)
    shown = Display(0, 13)
    train(shown, clock, 9, seconds=2)
    assert screen.texts()[-1] == line
    assert max(map(len, screen.texts())) < columns
    shown.close()


def test_a_terminal_is_not_drawn_more_than_twice_a_second(terminal: Callable[[int], Any], clock: list[float]) -> None:
    screen = terminal(80)
    train(Display(0, 1000), clock, 500, seconds=0.01)
    assert len(screen.texts()) == 10


def test_a_validation_is_announced_and_its_line_stands_above(
    terminal: Callable[[int], Any], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(80)
    monkeypatch.setattr("sys.stdout", screen.stream)
    shown = Display(0, 13)
    train(shown, clock, 6, seconds=2)
    shown.note("validating")
    assert screen.screen() == ["6/13  [#########...........]  validating"]
    shown.print("step 6: validation nll 1.234")
    shown.advance()
    shown.close()
    above, last, after = screen.screen()
    assert (above, after) == ("step 6: validation nll 1.234", "")
    assert last.startswith("7/13  [")


def test_a_resumed_run_goes_on_from_its_step_and_counts_its_own_time(
    terminal: Callable[[int], Any], clock: list[float]
) -> None:
    screen = terminal(80)
    shown = Display(100, 110)
    train(shown, clock, 3, seconds=5, first=100)
    assert re.fullmatch(r"103/110  \[#+\.+\]  loss .*  35s left", screen.texts()[-1])
    shown.close()


def test_a_run_without_an_update_leaves_nothing_behind(
    terminal: Callable[[int], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    screen = terminal(80)
    Display(13, 13).close()
    assert screen.read() == ""
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("max_seconds", "left"), [(None, "1m40s"), (30.0, "20s"), (10_000.0, "1m40s"), (5.0, "0s"), (float("inf"), "1m40s")]
)
def test_the_time_left_ends_with_the_hours_of_training(
    clock: list[float], capsys: pytest.CaptureFixture[str], max_seconds: float | None, left: str
) -> None:
    shown = Display(0, 55, max_seconds)
    train(shown, clock, 5, seconds=2)
    shown.show(5, VALUES)
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"  {left} left")

"""Progress on stderr: lines of at most 80 columns, on terminals of any width and elsewhere."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transformer import progress
from transformer.progress import Part, TerminalLine, duration, fit, line_width, no_stage, rate, say, short, stage

PARTS = [Part("11/13", 0), Part("loss 2.345", 2), Part("ppl 9.04", 3), Part("7s left", 1)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are long after 0.1 s."""
    monkeypatch.setattr(progress, "DRAW_S", 0.02)
    monkeypatch.setattr(progress, "_LONG_S", 0.1)


# Numbers.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((-3.0, "0s"), (0.99, "0s"), (59.9, "59s"), (60, "1m00s"), (754, "12m34s"), (3599, "59m59s")),
        *((3600, "1h00m"), (3720, "1h02m"), (86399, "23h59m"), (86400, "1d00h"), (273600, "3d04h")),
        *((99 * 86400, "99d00h"), (100 * 86400, "100d"), (1e9, "11574d")),
    ],
)
def test_durations_have_two_units_and_at_most_six_characters(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert len(text) <= 6


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0.0, "0.00"), (0.8774, "0.88"), (9.04, "9.04"), (57.06, "57.1"), (571.4, "571"), (999.4, "999")),
        *((999.6, "1.00k"), (31571.2, "31.6k"), (3_141_592, "3.14M"), (1e14, "100T"), (1.1e17, "1e+17")),
        *((1e304, "1e+304"),),
    ],
)
def test_short_numbers_have_three_digits_and_at_most_six_characters(number: float, text: str) -> None:
    assert short(number) == text
    assert len(text) <= 6


def test_losses_have_four_digits() -> None:
    assert [short(x, 4) for x in (0.8774, 2.345, 10.52)] == ["0.877", "2.345", "10.52"]


def test_rates_are_written_in_full_below_a_hundred_thousand() -> None:
    assert [rate(x) for x in (0.4, 9.996, 5123.4, 99_999.4, 99_999.6, 3.1e6)] == [
        "0.40",
        "10.0",
        "5,123",
        "99,999",
        "100k",
        "3.10M",
    ]


# Lines.


def test_parts_of_a_high_rank_are_left_out_first() -> None:

    lines = [fit(PARTS, width) for width in (36, 35, 25, 13, 5, 3)]
    assert lines == [
        *("11/13  loss 2.345  ppl 9.04  7s left", "11/13  loss 2.345  7s left", "11/13  7s left"),
        *("11/13", "11/13", "11/"),
    ]


@pytest.mark.parametrize(
    ("width", "bar"), [(43, None), (44, "[##..]"), (46, "[###...]"), (60, f"[{'#' * 10}{'.' * 10}]"), (99, None)]
)
def test_a_bar_takes_the_columns_that_are_left(width: int, bar: str | None) -> None:
    line = fit(PARTS, width, 0.5)
    assert len(line) <= width
    if bar is not None:
        assert line == f"11/13  {bar}  loss 2.345  ppl 9.04  7s left"
    assert ("[" in line) == (width >= 44)


@pytest.mark.parametrize(("fraction", "bar"), [(0, "...."), (0.99, "###."), (1, "####"), (-1, "...."), (7, "####")])
def test_a_bar_is_full_at_the_end_only(fraction: float, bar: str) -> None:
    assert fit([Part("a", 0)], 9, fraction) == f"a  [{bar}]"


@pytest.mark.parametrize(("columns", "width"), [(7, 6), (60, 59), (80, 79), (81, 79), (120, 79), (1, 1), (0, 79)])
def test_a_line_fits_the_terminal_and_has_less_than_80_columns(
    terminal: Callable[[int], Any], columns: int, width: int
) -> None:
    """Of 0 columns are terminals that do not know their size."""
    terminal(columns)
    assert line_width() == width


def test_a_stream_that_is_no_terminal_has_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert line_width() == 79


def test_a_line_is_redrawn_in_place_and_others_are_printed_above(terminal: Callable[[int], Any]) -> None:
    screen = terminal(80)
    line = TerminalLine()
    for text in ("a long text", "short"):
        line.draw(text)
    assert screen.screen() == ["short"]
    say("above")
    assert screen.screen() == ["above", "short"]
    say("above, to another stream", screen.stream)
    assert screen.screen() == ["above", "above, to another stream", "short"]
    line.close(keep=True)
    say("below")
    assert screen.screen() == ["above", "above, to another stream", "short", "below", ""]


def test_a_closed_line_leaves_nothing_behind(terminal: Callable[[int], Any]) -> None:
    screen = terminal(80)
    line = TerminalLine()
    line.draw("text")
    line.close()
    say("after")
    assert screen.screen() == ["after", ""]


def test_a_terminal_that_shrinks_gets_shorter_lines(terminal: Callable[[int], Any]) -> None:
    screen = terminal(120)
    line = TerminalLine()
    line.draw(fit(PARTS, line_width(), 0.5))
    first = screen.read()
    screen.resize(20)
    line.draw(fit(PARTS, line_width(), 0.5))
    last = screen.read()[len(first) :]
    assert last.removeprefix("\r").rstrip() == "11/13  7s left"
    assert len(last.removeprefix("\r")) <= 19
    line.close()


# Stages.


@pytest.mark.usefixtures("quick")
def test_a_long_stage_is_a_bar_on_a_terminal(terminal: Callable[[int], Any]) -> None:
    screen = terminal(80)
    with stage("encoding", "pairs", 17) as advance:
        advance(11)
        time.sleep(0.15)
        advance(6)
    shown = screen.texts()
    assert re.fullmatch(r"encoding: 11 of 17 pairs  \[#+\.+\]  [\d,]+ pairs/s  0s  0s left", shown[0])
    assert screen.screen() == ["encoding: 17 pairs in 0s", ""]


@pytest.mark.usefixtures("quick")
def test_a_long_stage_is_some_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("encoding", "pairs") as advance:
        advance(1_234_567)
        time.sleep(0.5)
    out, err = capsys.readouterr()
    *lines, last = err.splitlines()
    # After 0.1 s and 0.2 s and 0.4 s, unless the machine is busy.
    assert 1 <= len(lines) <= 3
    assert all(re.fullmatch(r"encoding: 1,234,567 pairs  [\d.,]+[kM]? pairs/s  0s", line) for line in lines)
    assert (out, last) == ("", "encoding: 1,234,567 pairs in 0s")


@pytest.mark.usefixtures("quick")
def test_a_stage_without_counts_shows_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("learning 17 pieces"):
        time.sleep(0.15)
    assert set(capsys.readouterr().err.splitlines()) == {"learning 17 pieces  0s", "learning 17 pieces: 0s"}


def test_a_short_stage_shows_nothing(terminal: Callable[[int], Any], capsys: pytest.CaptureFixture[str]) -> None:
    with stage("encoding", "pairs", 17) as advance:
        advance(17)
    assert capsys.readouterr() == ("", "")
    screen = terminal(80)
    with stage("encoding", "pairs", 17) as advance:
        advance(17)
    assert screen.read() == ""


@pytest.mark.usefixtures("quick")
def test_a_stage_that_fails_leaves_no_line_that_says_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), stage("encoding", "pairs"):
        time.sleep(0.15)
        raise ZeroDivisionError
    assert "in 0s" not in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_more_than_the_total_is_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("translating", "sentences", 3) as advance:
        advance(4)
        time.sleep(0.15)
    assert "translating: 3 of 3 sentences  " in capsys.readouterr().err


def test_no_stage_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with no_stage("encoding", "pairs", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.usefixtures("quick")
def test_work_goes_on_if_its_progress_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True))
    with stage("encoding", "pairs") as advance:
        advance(1)
        time.sleep(0.15)
    say("still here")

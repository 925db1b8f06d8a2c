"""Error messages that quote arbitrary input."""

from __future__ import annotations

import pytest

from transformer.errors import ConfigError, one_line, warn


def test_a_message_is_one_line_that_a_terminal_can_show() -> None:
    assert str(ConfigError("a\nb\x1b[2J\ud800\u202e ä 漢")) == "a\\nb\\x1b[2J\\ud800\\u202e ä 漢"


def test_a_long_message_is_shortened_in_the_middle() -> None:
    message = one_line("file: got " + "m" * 10_000_000 + "; give a number")
    assert len(message) < 2010
    assert message.startswith("file: got mmm")
    assert message.endswith("mmm; give a number")
    assert one_line("m" * 2000) == "m" * 2000


def test_a_warning_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    warn("a\nb")
    assert capsys.readouterr() == ("", "warning: a\\nb\n")

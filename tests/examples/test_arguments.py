"""The options of an example."""

from __future__ import annotations

import pytest
from arguments import arguments


def test_options_have_their_defaults_and_take_whole_numbers() -> None:
    args = arguments(["--batch-size", "7"], None, updates=11, batch_size=5)
    assert (args.updates, args.batch_size) == (11, 7)


def test_help_prints_the_description_line_by_line_and_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(["--help"], "One line.\nAnother one.", updates=11)
    printed = capsys.readouterr().out
    assert ended.value.code == 0 and "One line.\nAnother one.\n" in printed and "11 by default" in printed


def test_another_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(["--batch-size", "x"], None, batch_size=5)
    assert ended.value.code == 2 and "invalid int value: 'x'" in capsys.readouterr().err

"""Figure files and their errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from transformer.errors import ConfigError
from transformer.inspection.canvas import COLOURS, new_figure, save


def test_colours_are_distinct() -> None:
    assert len({*COLOURS}) == len(COLOURS)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="a figure needs matplotlib: pip install matplotlib"):
        new_figure(2, 3)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_suffix_names_the_format(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"figure.{suffix}"
    save(new_figure(2, 3), path)
    start = path.read_bytes()[:5]
    assert start == {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}[suffix]


@pytest.mark.parametrize(
    ("name", "message"),
    [("figure.xyz", r"figure\.xyz: .*supported formats"), ("figure", "figure: its suffix must")],
)
def test_other_suffixes_are_errors(tmp_path: Path, name: str, message: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=message):
        save(new_figure(2, 3), tmp_path / name)
    assert list(tmp_path.iterdir()) == []

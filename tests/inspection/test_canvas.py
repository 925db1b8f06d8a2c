"""Themes, figure files and their errors."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from transformer.errors import ConfigError
from transformer.inspection import canvas
from transformer.inspection.canvas import THEMES, colour_map, new_figure, palette, save, theme


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    """From 1, the same, to 21, black on white."""
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("name", THEMES)
def test_colours_are_distinct_and_stand_out_from_the_background(name: str) -> None:
    background, text, faint, colours = THEMES[name]
    assert len({*colours}) == len(colours) == len(THEMES["light"].colours)
    assert contrast(text, background) > 12
    assert contrast(faint, background) < 2.5
    assert all(contrast(colour, background) > 2.5 for colour in colours)


def test_text_is_dark_on_light_and_light_on_dark() -> None:
    assert luminance(THEMES["light"].text) < 0.1 < 0.9 < luminance(THEMES["light"].background)
    assert luminance(THEMES["dark"].background) < 0.1 < 0.8 < luminance(THEMES["dark"].text)


@pytest.mark.parametrize("name", THEMES)
def test_a_theme_colours_all_of_a_figure_and_ends_with_its_block(name: str) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_hex

    before = dict(rcParams)
    with theme(name):
        figure = new_figure(2, 2)
        axes = figure.subplots()
        axes.set(title="title", xlabel="x", ylabel="y")
        FigureCanvasAgg(figure).draw()
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
        assert {to_hex(text.get_color()) for text in texts} == {THEMES[name].text}
        assert {to_hex(patch.get_facecolor()) for patch in (figure.patch, axes.patch)} == {THEMES[name].background}
        assert palette() == THEMES[name].colours
        assert to_hex(colour_map()(0.0)) == to_hex(colour_map(diverging=True)(0.5)) == THEMES[name].background
    assert dict(rcParams) == before


def test_without_a_place_for_its_cache_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.setattr("builtins.__import__", refuse_matplotlib)
    with pytest.raises(ConfigError, match="has no place for its cache: set MPLCONFIGDIR to a writable directory"):
        new_figure(1, 1)


real_import = builtins.__import__


def refuse_matplotlib(name: str, *arguments: Any) -> Any:
    """As matplotlib does where nothing is writable."""
    if name.startswith("matplotlib"):
        raise OSError("Matplotlib requires access to a writable cache directory")
    return real_import(name, *arguments)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="a figure needs matplotlib: pip install matplotlib"):
        new_figure(2, 3)
    with pytest.raises(ConfigError, match="a figure needs matplotlib: pip install matplotlib"), theme("dark"):
        pass


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_suffix_names_the_format_and_files_are_reproduced(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        with theme():
            figure = new_figure(2, 3)
            figure.subplots().plot([1, 2], [3, 5])
            save(figure, tmp_path / f"{name}.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    assert data[:5] == {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}[suffix]
    assert data == (tmp_path / f"b.{suffix}").read_bytes()
    assert b"dc:date" not in data


def test_a_png_has_200_dots_per_inch_but_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    save(new_figure(2, 3), tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").size == (400, 600)
    monkeypatch.setattr(canvas, "_MAX_PIXELS", 60_000)
    save(new_figure(2, 3), tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").size == (200, 300)


@pytest.mark.parametrize(
    ("name", "message"),
    [("figure.xyz", r"figure\.xyz: .*supported formats"), ("figure", "figure: its suffix must")],
)
def test_other_suffixes_are_errors(tmp_path: Path, name: str, message: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=message):
        save(new_figure(2, 3), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "figure.svg"
    save(new_figure(1, 1), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformer.files.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save(new_figure(2, 2), path)
    assert caught.value.filename == str(path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("name", ["a.svg", "a.SVG", "a.png", "a.pdf"])
def test_a_figure_has_the_same_bytes_each_time_without_a_theme_too(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    written = []
    for _ in range(2):
        figure = new_figure(2, 2)
        axes = figure.subplots()
        axes.fill_between([0, 1], [1, 2], hatch="/")
        axes.plot([0, 3], [1, 2])
        save(figure, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]

"""The figures in docs/figures are those that the code draws now, all of them and no others."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import figures
import pytest
from drawing.architecture import draw_architecture
from drawing.attention_cost import draw_attention_cost

from transformer.errors import ConfigError
from transformer.inspection.canvas import THEMES, theme

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "figures"


def is_pinned_version() -> bool:
    """Whether matplotlib is the version that drew the kept figures: others place things differently."""
    matplotlib = pytest.importorskip("matplotlib")
    pinned = re.search(r"^matplotlib==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    return pinned is not None and matplotlib.__version__ == pinned[1]


@pytest.mark.parametrize("suffix", [suffix for suffix in figures.FILES if suffix.endswith(".svg")])
@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_kept_figure_is_what_is_drawn_now(name: str, suffix: str, tmp_path: Path) -> None:
    if not is_pinned_version():
        pytest.skip("another version of matplotlib draws differently")
    drawn = figures.write(name, suffix, tmp_path).read_bytes()
    assert drawn == (KEPT / f"{name}{suffix}").read_bytes(), "older than its code or data: python scripts/figures.py"


def test_no_file_is_missing_or_left_over() -> None:
    expected = {f"{name}{suffix}" for name in figures.FIGURES for suffix in figures.FILES}
    assert {path.name for path in KEPT.iterdir()} == expected
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < 3_000_000


def test_every_figure_is_shown_by_a_document() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    shown = set(re.findall(r"figures/([a-z0-9_]+(?:-dark)?\.(?:svg|png))", text))
    assert {name.split(".")[0].removesuffix("-dark") for name in shown} == figures.FIGURES.keys()
    assert shown <= {path.name for path in KEPT.iterdir()}


def test_named_figures_are_written_in_both_themes_and_as_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    assert figures.main(["learning_rates", "--out", str(tmp_path / "new")]) == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert files.keys() == {"learning_rates.svg", "learning_rates-dark.svg", "learning_rates.png"}
    for name, suffix in (("light", ".svg"), ("dark", "-dark.svg")):
        assert f"fill: {THEMES[name].background}".encode() in files[f"learning_rates{suffix}"]
    with Image.open(tmp_path / "new" / "learning_rates.png") as image:
        assert image.size == (1400, 760)
        assert round(image.info["dpi"][0]) == 200


def test_an_unknown_figure_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mona_lisa is not one of the figures architecture, attention, "):
        figures.main(["mona_lisa", "--out", str(tmp_path)])


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="a figure needs matplotlib: pip install matplotlib"):
        figures.main(["positions", "--out", str(tmp_path)])


def test_the_cost_of_attention_is_drawn_as_it_was_measured() -> None:
    pytest.importorskip("matplotlib")
    points = [
        {"of": name, "size": size, "ms": size / 7 + ms, "multiply_adds": size * 5}
        for size in (11, 13, 17)
        for name, ms in (("a", 2), ("b", 3))
    ]
    with theme():
        figure = draw_attention_cost({"points": points})
    for axes, key in zip(figure.axes, ("ms", "multiply_adds"), strict=True):
        assert axes.get_xscale() == axes.get_yscale() == "log"
        for line, name in zip(axes.lines, "ab", strict=True):
            assert list(line.get_xdata()) == [11, 13, 17]
            assert list(line.get_ydata()) == [point[key] for point in points if point["of"] == name]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_texts_of_the_architecture_do_not_overlap_and_stay_inside() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with theme():
        figure = draw_architecture()
        renderer = FigureCanvasAgg(figure).get_renderer()
        texts = [text for text in figure.axes[0].texts if text.get_text()]
        boxes = [text.get_window_extent(renderer) for text in texts]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
        # Line boxes of one label may touch.
        shrunk = box.padded(-1)
        overlapping = [other for other, its in zip(texts, boxes[:i], strict=False) if shrunk.overlaps(its)]
        assert not overlapping, (texts[i], overlapping)


def test_names_in_the_architecture_exist() -> None:
    pytest.importorskip("matplotlib")
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "transformer").rglob("*.py")))
    words = {
        word
        for text in draw_architecture().axes[0].texts
        for word in re.findall(r"\w*[a-z]_\w+|\b[A-Z]\w*[a-z][A-Z]\w*\b", text.get_text())
    }
    assert {"MultiHeadAttention", "norm_cross", "linear_cross_entropy", "w_q"} <= words
    assert [word for word in sorted(words) if not re.search(rf"\b{word}\b", source)] == []

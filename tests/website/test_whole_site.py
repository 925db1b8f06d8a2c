"""The site as its command builds it, once: all pages, the reference, the walk through the paper with its pictures."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from website import build as building
from website.build import ROOT, build
from website.executed import SUFFIXES, Executed, Output, execute

import transformer

pytestmark = [pytest.mark.slow, pytest.mark.longest]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WALK = (ROOT / "docs" / "WALKTHROUGH.md").read_text(encoding="utf-8")


class Whole(NamedTuple):
    """A site, the outputs of the blocks of the walk, and the names that these defined."""

    directory: Path
    warned: list[str]
    outputs: list[Output]
    names: dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """The site; read it, do not change it."""
    walks: list[Executed] = []

    def kept(page: Path, pictures: Path) -> Executed:
        walks.append(execute(page, pictures))
        return walks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "execute", kept)
        directory = tmp_path_factory.mktemp("whole") / "site"
        warned = build(directory)
    (walk,) = walks
    yield Whole(directory, warned, *walk)


def test_every_module_and_public_name_is_in_the_reference(whole: Whole) -> None:
    assert whole.warned == []
    reference = whole.directory / "api"
    names = (reference / "transformer.html").read_text(encoding="utf-8")
    assert [name for name in transformer.__all__ if f'id="{name}"' not in names] == []
    modules = {path.relative_to(ROOT).with_suffix(".html") for path in (ROOT / "transformer").rglob("*.py")}
    skipped = {"__init__.html", "__main__.html", "loss_triton.html"}
    assert [str(path) for path in modules if path.name not in skipped and not (reference / path).is_file()] == []


def test_the_reference_has_a_search_of_a_size_that_a_browser_loads_at_once(whole: Whole) -> None:
    search = (whole.directory / "api" / "search.js").read_text(encoding="utf-8")
    assert all(word in search for word in ("DotProductAttention.scores", "from_torch", "beam_search"))
    assert len(search) < 3_000_000


def test_the_walk_has_equations_lines_of_the_package_and_a_picture_per_section(whole: Whole) -> None:
    page = (whole.directory / "docs" / "WALKTHROUGH.html").read_text(encoding="utf-8")
    assert page.count("<math ") == 7
    assert "if kernels.prefers_fused(q, k):" in re.sub(r"<[^>]*>", "", page)
    drawn = [output for output in whole.outputs if output.picture is not None]
    assert page.count("<picture>") == len(drawn) == 14
    assert all(output.caption for output in drawn)
    pictures = whole.directory / "docs" / "walkthrough"
    assert {path.name for path in pictures.iterdir()} == {
        f"{output.picture}{suffix}" for output in drawn for suffix in SUFFIXES.values()
    }
    assert len(whole.outputs) == WALK.count("\n```python\n")


def test_what_the_text_says_of_its_pictures_is_so(whole: Whole) -> None:
    names = whole.names
    post, pre = ([*names["gradients"][f"{norm}-norm"][1]] for norm in ("post", "pre"))
    assert post[-1] > 2 * max(pre)
    unscaled, scaled = (curve[1] for curve in names["largest"].values())
    assert unscaled[-1] > 0.85 and max(scaled) < 0.3
    times_root, plain, positions = (curve[1] for curve in names["strengths"].values())
    assert all(0.9 < value < 1.1 for value in times_root) and plain[-1] < 0.1 * positions[-1]
    for number, reached in enumerate((1, 2, 4)):
        assert [*names["local"].values()][number][10].nonzero().flatten().tolist() == [
            *range(10 - 2 * reached, 11 + 2 * reached)
        ]
    similar, anyhow = (curve[1] for curve in names["shares"].values())
    assert all(few < many for few, many in zip(similar, anyhow, strict=True))
    assert abs(names["probabilities"][names["smoothed"].index(min(names["smoothed"]))] - 0.9001) < 0.0006


def test_the_printed_parameters_are_those_of_the_readme(whole: Whole) -> None:
    printed = "".join(output.text for output in whole.outputs)
    counts = {name: int(count.replace(",", "")) for name, count in re.findall(r"^([a-z-]+) +([\d,]+)$", printed, re.M)}
    assert counts.pop("all") == sum(counts.values()) == 63_045_632


def test_the_trained_model_reverses_digits_and_looks_where_they_stand(whole: Whole) -> None:
    printed = "".join(output.text for output in whole.outputs)
    assert "read:    0 1 2 3 4 5 6 7\nwritten: 7 6 5 4 3 2 1 0\n" in printed
    assert whole.names["losses"][-1] < 0.65 < 2 < whole.names["losses"][0]
    mean = sum(whole.names["learned"].values()) / len(whole.names["learned"])
    assert (mean.argmax(dim=1) == 7 - mean.new_tensor(range(8))).sum() >= 6


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("index.html?q=label+smoothing", 'href="docs/WALKTHROUGH.html#54-regularization">The paper in code: 5.4 '),
        ("docs/FAQ.html?q=NOAM_LR", "<mark>noam_lr</mark>"),
        ("docs/FAQ.html?q=no+such+wörd", '<p role="status">0 sections</p>'),
        ("api/transformer.html?search=noam_lr", 'href="transformer/training/schedule.html#noam_lr"'),
    ],
)
def test_a_browser_searches_a_site_that_is_opened_from_a_disk(
    whole: Whole, tmp_path: Path, page: str, found: str
) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    address = f"{whole.directory.as_uri()}/{page}"
    command = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path}", "--dump-dom", address]
    shown = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=120).stdout
    assert found in shown

"""The whole site is built by one command, has no dead link, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import build_site
import pytest
from website import build as building
from website.build import GROUPS, ROOT, build
from website.executed import SUFFIXES, Executed, Output
from website.pages import Rendered

import transformer
from transformer.errors import ConfigError, DataError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site of the pages without the reference, whose blocks are not run."""

    def write_api(directory: Path) -> list[str]:
        for path in (ROOT / "transformer").rglob("*.py"):
            names = path.relative_to(ROOT).with_suffix("").parts
            names = names[:-1] if names[-1] == "__init__" else names
            page = directory.joinpath(*names).with_suffix(".html")
            page.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8")
            defined = re.findall(r"^(?:class|def|    def) (\w+)", text, re.M)
            classes = re.findall(r"^class (\w+)", text, re.M)
            anchors = defined + [f"{cls}.{name}" for cls in classes for name in defined]
            page.write_text("".join(f'<p id="{anchor}">' for anchor in anchors))
        return ["one warning"]

    class NothingRun:
        outputs: tuple[()] = ()

    monkeypatch.setattr(building, "write_api", write_api)
    monkeypatch.setattr(building, "execute", lambda *_: NothingRun)


@pytest.mark.usefixtures("small")
def test_every_page_of_the_documentation_is_a_page_of_the_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "new" / "site"
    assert build_site.main(["--output", str(site)]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r".*site: \d+ pages; open .*index\.html\n", out)
    assert err == "warning: one warning\n"
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"first_steps"}
    assert {path.stem for path in (site / "docs").glob("*.html")} == pages
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "<h1 id=" in index and 'href="docs/FAQ.html"' in index and 'href="files/LICENSE.html"' in index
    assert 'href="index.html" aria-current="page"' in index
    assert (site / "docs" / "figures" / "architecture.svg").is_file()
    assert [path.name for path in site.parent.iterdir()] == ["site"], "nothing else is left"


@pytest.mark.usefixtures("small")
def test_a_site_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    build(site)
    (site / "old.html").write_text("x")
    build(site)
    assert not (site / "old.html").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own page")
    with pytest.raises(ConfigError, match=r"mine: is neither empty nor a site that this command has built$"):
        build(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"index\.html: is not a directory$"):
        build(tmp_path / "mine" / "index.html")
    (tmp_path / "link").symlink_to(site)
    with pytest.raises(ConfigError, match=r"link: is not a directory$"):
        build(tmp_path / "link")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<a href="no.html">x</a>', r"^\d+ links lead nowhere or elsewhere: .*: no\.html"),
        ('<img src="https://cdn.example/x.png" alt="">', r"https://cdn\.example/x\.png"),
    ],
)
def test_with_a_dead_link_the_former_site_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    site = tmp_path / "site"
    build(site)
    before = (site / "index.html").read_bytes()
    monkeypatch.setattr(building, "render", lambda *_: Rendered("x", content, []))
    with pytest.raises(DataError, match=message):
        build(site)
    assert (site / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_every_page_that_is_listed_exists() -> None:
    for stem in (stem for group in GROUPS.values() for stem in group):
        assert any((ROOT / f"{stem}{suffix}").is_file() for suffix in (".md", ".ipynb")), stem


def test_without_pdoc_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pdoc", None)
    for name in ("website.build", "website.api"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ConfigError, match=r"^the site needs pdoc: pip install '\.\[docs\]'$"):
        build_site.main(["--output", str(tmp_path / "site")])


@pytest.mark.slow
def test_the_whole_site_has_the_walk_and_the_reference_with_its_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_blocks = (ROOT / "docs" / "WALKTHROUGH.md").read_text(encoding="utf-8").count("```python")

    def execute(_: Path, pictures: Path) -> Executed:  # test_walkthrough.py runs them
        for suffix in SUFFIXES.values():
            (pictures / f"1{suffix}").touch()
        return Executed([Output("", "1", "caption")] * num_blocks, {})

    monkeypatch.setattr(building, "execute", execute)
    site = tmp_path / "site"
    assert build(site) == []
    walk = (site / "docs" / "WALKTHROUGH.html").read_text(encoding="utf-8")
    assert walk.count("<picture>") == num_blocks
    assert walk.count("<math ") == 7
    assert "if kernels.prefers_fused(q, k):" in re.sub(r"<[^>]*>", "", walk)
    names = (site / "api" / "transformer.html").read_text(encoding="utf-8")
    assert [name for name in transformer.__all__ if f'id="{name}"' not in names] == []
    search = (site / "api" / "search.js").read_text(encoding="utf-8")
    assert all(word in search for word in ("DotProductAttention.scores", "from_torch", "beam_search"))
    assert len(search) < 3_000_000, "a browser loads it with the first search"
    modules = {path.relative_to(ROOT).with_suffix(".html") for path in (ROOT / "transformer").rglob("*.py")}
    skipped = {"__init__.html", "__main__.html", "loss_triton.html"}
    assert [str(path) for path in modules if path.name not in skipped and not (site / "api" / path).is_file()] == []

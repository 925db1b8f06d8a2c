"""One command builds the site, without a dead link or anything from elsewhere (test_whole_site.py: as it is)."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import build_site
import pytest
from website import build as building
from website.build import GROUPS, ROOT, build
from website.pages import Rendered

from transformer.errors import ConfigError, DataError


def write_pretended_api(directory: Path) -> list[str]:
    """A page for each module, of which every name that the module defines is an anchor."""
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
    """Of a page whose blocks are not run."""

    outputs: tuple[()] = ()


@pytest.fixture(scope="module", autouse=True)
def pretended() -> Iterator[None]:
    """No reference, and no blocks that are run: both take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "write_api", write_pretended_api)
        patch.setattr(building, "execute", lambda *_: NothingRun)
        yield


class Built(NamedTuple):
    """A site, and what the command that built it printed."""

    directory: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, pretended: None) -> Built:  # noqa: ARG001
    """Read it, do not change it."""
    directory = tmp_path_factory.mktemp("built") / "new" / "site"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert build_site.main(["--output", str(directory)]) == 0
    return Built(directory, out.getvalue(), err.getvalue())


@pytest.fixture
def site(built: Built, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(built.directory, tmp_path / "site"))


def test_every_page_of_the_documentation_is_a_page_of_the_site(built: Built) -> None:
    assert re.fullmatch(r".*site: \d+ pages; open .*index\.html\n", built.out)
    assert built.err == "warning: one warning\n"
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"first_steps"}
    assert {path.stem for path in (built.directory / "docs").glob("*.html")} == pages
    index = (built.directory / "index.html").read_text(encoding="utf-8")
    assert "<h1 id=" in index and 'href="docs/FAQ.html"' in index and 'href="files/LICENSE.html"' in index
    assert 'href="index.html" aria-current="page"' in index
    assert (built.directory / "docs" / "figures" / "architecture.svg").is_file()
    assert [path.name for path in built.directory.parent.iterdir()] == ["site"], "nothing else is left"


def test_the_search_knows_the_sections_of_all_pages(built: Built) -> None:
    script = (built.directory / "search_index.js").read_text(encoding="utf-8")
    index = json.loads(script.removeprefix("window.siteIndex = ").removesuffix(";\n"))
    pages = {address.partition("#")[0] for address, *_ in index}
    assert pages == {"index.html", "CONTRIBUTING.html", "CHANGELOG.html"} | {
        path.relative_to(built.directory).as_posix() for path in (built.directory / "docs").glob("*.html")
    }
    (section,) = [entry for entry in index if entry[0] == "docs/WALKTHROUGH.html#53-optimizer"]
    assert section[1:3] == ["The paper in code", "5.3 Optimizer"]
    assert "inverse square root" in section[3] and "def noam_lr(step: int" in section[3]
    assert len(script) < 2_000_000, "a browser loads it with the first search"


def test_a_site_is_replaced_and_nothing_else_is(site: Path, tmp_path: Path) -> None:
    (site / "old.html").write_text("x")
    build(site)
    assert (site / "index.html").is_file() and not (site / "old.html").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own page")
    with pytest.raises(ConfigError, match=r"mine: is neither empty nor a site that this command has built$"):
        build(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"index\.html: is not a directory$"):
        build(tmp_path / "mine" / "index.html")
    (tmp_path / "link").symlink_to(site)
    with pytest.raises(ConfigError, match=r"link: is not a directory$"):
        build(tmp_path / "link")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<a href="no.html">x</a>', r"^\d+ links lead nowhere or elsewhere: .*: no\.html"),
        ('<img src="https://cdn.example/x.png" alt="">', r"https://cdn\.example/x\.png"),
    ],
)
def test_with_a_dead_link_the_former_site_stays(
    site: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    before = (site / "index.html").read_bytes()
    monkeypatch.setattr(building, "render", lambda *_: Rendered("x", content, []))
    with pytest.raises(DataError, match=message):
        build(site)
    assert (site / "index.html").read_bytes() == before
    assert [path.name for path in site.parent.iterdir()] == ["site"]


def test_every_page_has_one_place_in_the_list_of_pages() -> None:
    listed = sorted(stem for group in GROUPS.values() for stem in group)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")]
    assert listed == sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in pages)


def test_without_pdoc_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pdoc", None)
    for name in ("website.build", "website.api"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ConfigError, match=r"^the site needs pdoc: pip install '\.\[docs\]'$"):
        build_site.main(["--output", str(tmp_path / "site")])

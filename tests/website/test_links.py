"""Links that lead nowhere are found, anchors too, and what would be loaded from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from website.links import dead_links, loaded_from_elsewhere, parse


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site" / "a").mkdir(parents=True)
    (tmp_path / "outside.html").write_text("")
    (tmp_path / "site" / "index.html").write_text('<h1 id="top">x</h1><a name="old"></a>')
    (tmp_path / "site" / "a" / "index.html").write_text("<p id='né'>x</p>")
    (tmp_path / "site" / "a b.svg").write_text("<svg/>")
    return tmp_path / "site"


ALIVE = ["#top", "#old", "#", "index.html#top", "a", "a/", "a/index.html#n%C3%A9", "a%20b.svg#layer", "?q=1"]
DEAD = ["#no", "no.html", "index.html#no", "a#top", "../outside.html", "a/no.svg", "/index.html"]


@pytest.mark.parametrize("link", [*ALIVE, "https://example.org/x", "mailto:a@b", "data:,x"])
def test_a_link_to_something_is_alive(site: Path, link: str) -> None:
    (site / "page.html").write_text(f'<a id="top"></a><a id="old"></a><a href="{link}">x</a>')
    assert dead_links(parse(site)) == []


@pytest.mark.parametrize("link", DEAD)
def test_a_link_to_nothing_is_dead(site: Path, link: str) -> None:
    (site / "page.html").write_text(f'<a href="{link}">x</a>')
    assert dead_links(parse(site)) == [f"page.html: {link}"]


@pytest.mark.parametrize(
    "element",
    [
        '<img src="no.png">',
        '<source srcset="no.png 2x">',
        '<link rel="stylesheet" href="no.png">',
        '<meta http-equiv="refresh" content="0; url=no.png">',
    ],
)
def test_pictures_styles_and_redirections_are_links(site: Path, element: str) -> None:
    (site / "page.html").write_text(element)
    assert dead_links(parse(site)) == ["page.html: no.png"]


@pytest.mark.parametrize("tag", ['<script src="{}"></script>', '<img srcset="{} 2x">', '<link href="{}">'])
@pytest.mark.parametrize("address", ["https://cdn.example/x", "//cdn.example/x"])
def test_what_is_loaded_from_elsewhere_is_found(site: Path, tag: str, address: str) -> None:
    (site / "page.html").write_text(tag.format(address))
    assert loaded_from_elsewhere(parse(site)) == [f"page.html: {address}"]


def test_links_to_elsewhere_and_data_are_not_loaded(site: Path) -> None:
    (site / "page.html").write_text('<a href="https://example.org">x</a><img src="data:image/png;base64,AA==">')
    assert loaded_from_elsewhere(parse(site)) == []

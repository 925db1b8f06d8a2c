"""The search finds what pages say by sections, without markup."""

from __future__ import annotations

import json
from pathlib import Path

from website.pages import Places, Rendered, render
from website.search import Section, sections, write_search

PLACES = Places(lambda link: link, "api/")


def test_a_page_is_cut_at_its_headings_down_to_the_third_level() -> None:
    text = "before\n\n# A `b`\n\none *two*\n\n#### no cut\n\n### C\n\n- x\n- y\n\n| p | q |\n|---|---|\n| r | s |\n"
    assert sections(render(text, PLACES).content) == [
        Section("", "", "before"),
        Section("a-b", "A b", "one two no cut"),
        Section("c", "C", "x y p q r s"),
    ]


def test_code_is_text_and_an_equation_is_not() -> None:
    text = "# A\n\n```python\ndef f(x): return '<b>'\n```\n\n```math\n\\frac{Q}{K}\n```\n\nend\n"
    assert sections(render(text, PLACES).content) == [Section("a", "A", "def f(x): return '<b>' end")]


def test_the_index_is_a_script_that_can_be_read_from_a_disk(tmp_path: Path) -> None:
    write_search(tmp_path, {"docs/x.html": Rendered("é", '<h1 id="a">é</h1><p>&lt;/script&gt;</p>', [])})
    index = (tmp_path / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("window.siteIndex = [") and index.endswith("];\n")
    assert json.loads(index[len("window.siteIndex = ") : -2]) == [["docs/x.html#a", "é", "é", "</script>"]]
    assert "siteIndex" in (tmp_path / "search.js").read_text(encoding="utf-8")

"""docs/WALKTHROUGH.md: each section has an equation, lines of the package, a program (test_whole_site.py runs it)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from website.pages import sources_of
from website.sources import code_of

TEXT = (Path(__file__).parents[2] / "docs" / "WALKTHROUGH.md").read_text(encoding="utf-8")
SECTIONS = {
    heading.split()[0]: body for heading, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
}
WITH_EQUATION = ["3.1", "3.2.1", "3.2.2", "3.3", "3.5", "5.3", "5.4"]


def test_the_sections_are_those_of_the_paper() -> None:
    numbers = ["3.1", "3.2.1", "3.2.2", "3.2.3", "3.3", "3.4", "3.5", "4", "5.1", "5.2", "5.3", "5.4"]
    assert [*SECTIONS][:-1] == numbers


@pytest.mark.parametrize("section", [number for number in SECTIONS if number not in ("5.2", "All")])
def test_a_section_has_lines_of_the_package_and_a_program(section: str) -> None:
    body = SECTIONS[section]
    assert sources_of(body)
    assert "```python" in body
    assert ("```math" in body) == (section in WITH_EQUATION)


@pytest.mark.parametrize("name", sources_of(TEXT))
def test_every_source_on_the_page_is_of_the_package_and_short(name: str) -> None:
    assert 2 <= code_of(name).count("\n") <= 30


def test_no_link_to_a_source_is_written_otherwise() -> None:
    assert TEXT.count('"source"') == len(sources_of(TEXT)) > 20

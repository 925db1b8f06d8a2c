"""docs/WALKTHROUGH.md: its program runs, and each section has its equation, its lines and its picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from website.executed import Executed, execute
from website.sources import code_of

PAGE = Path(__file__).parents[2] / "docs" / "WALKTHROUGH.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = {
    heading.split()[0]: body for heading, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
}
WITH_EQUATION = ["3.1", "3.2.1", "3.2.2", "3.3", "3.5", "5.3", "5.4"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Executed, Path]:
    pictures = tmp_path_factory.mktemp("pictures")
    return execute(PAGE, pictures), pictures


def test_the_sections_are_those_of_the_paper() -> None:
    numbers = ["3.1", "3.2.1", "3.2.2", "3.2.3", "3.3", "3.4", "3.5", "4", "5.1", "5.2", "5.3", "5.4"]
    assert [*SECTIONS][:-1] == numbers


@pytest.mark.parametrize("section", [number for number in SECTIONS if number not in ("5.2", "All")])
def test_a_section_has_lines_of_the_package_and_a_program(section: str) -> None:
    body = SECTIONS[section]
    assert "<!-- source: " in body
    assert "```python" in body
    assert ("```math" in body) == (section in WITH_EQUATION)


SHOWN = re.findall(r"transformer\.[\w.]+", " ".join(re.findall(r"<!-- source: (.*) -->", TEXT)))


@pytest.mark.parametrize("name", SHOWN)
def test_every_source_on_the_page_is_of_the_package_and_short(name: str) -> None:
    assert 2 <= code_of(name).count("\n") <= 30


@pytest.mark.slow
def test_the_program_runs_and_draws_a_picture_per_section(executed: tuple[Executed, Path]) -> None:
    (outputs, names), pictures = executed
    drawn = [output for output in outputs if output.picture is not None]
    assert len(drawn) == 14
    assert all(output.caption for output in drawn)
    assert {path.name for path in pictures.iterdir()} == {
        f"{output.picture}{suffix}" for output in drawn for suffix in (".svg", "-dark.svg")
    }
    blocks = [block for body in SECTIONS.values() for block in re.findall(r"^```python\n(.*?)^```", body, re.M | re.S)]
    assert len(outputs) == len(blocks) + 1, "the first block imports"
    assert "model" in names


@pytest.mark.slow
def test_what_the_text_says_of_its_pictures_is_so(executed: tuple[Executed, Path]) -> None:
    names = executed[0].names
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
    assert abs(names["probabilities"][names["smoothed"].index(min(names["smoothed"]))] - 0.9) < 0.01


@pytest.mark.slow
def test_the_printed_parameters_are_those_of_the_readme(executed: tuple[Executed, Path]) -> None:
    printed = "".join(output.text for output in executed[0].outputs)
    counts = {name: int(count.replace(",", "")) for name, count in re.findall(r"^([a-z-]+) +([\d,]+)$", printed, re.M)}
    assert counts.pop("all") == sum(counts.values()) == 63_045_632


@pytest.mark.slow
def test_the_trained_model_reverses_digits_and_looks_where_they_stand(executed: tuple[Executed, Path]) -> None:
    outputs, names = executed[0]
    assert "read:    0 1 2 3 4 5 6 7\nwritten: 7 6 5 4 3 2 1 0\n" in "".join(output.text for output in outputs)
    assert names["losses"][-1] < 0.65 < 2 < names["losses"][0]
    mean = sum(names["learned"].values()) / len(names["learned"])
    assert (mean.argmax(dim=1) == 7 - mean.new_tensor(range(8))).sum() >= 6

"""Sections of an inspection: data that JSON holds, tables with all of it, and figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError, DataError
from transformer.inference.ensemble import Ensemble
from transformer.inference.translator import Translator
from transformer.inspection.canvas import save, theme
from transformer.inspection.section_figures import FIGURES
from transformer.inspection.section_tables import TABLES, cell, table
from transformer.inspection.sections import CHEAP, SECTIONS, Subject, inspect_section

SOURCES, REFERENCES = (list(side) for side in zip(*builtin_pairs("test", 7), strict=True))
SENSES = [(sense, f"The {x} is eating {y}.") for sense, xs in (("a", "dog cat cow"), ("b", "man boy girl")) for x in
          xs.split() for y in ("an egg", "a cake")]  # fmt: skip


@pytest.fixture(scope="module")
def subject(babbler: Path) -> Subject:
    translator = Translator.load(babbler, device="cpu", precision="fp32", prepack=False)
    translator.search = translator.search.__class__(beam=1, max_length_offset=3)
    return Subject(translator, SOURCES, [REFERENCES], word="eating", senses=SENSES)


@pytest.fixture(scope="module")
def found(subject: Subject) -> dict[str, dict[str, Any]]:
    """The data of every section, as read back from JSON."""
    data = {name: inspect_section(name, subject) for name in SECTIONS}
    back: dict[str, dict[str, Any]] = json.loads(json.dumps(data, allow_nan=False))
    assert back == data
    return back


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = [*value.values()]
    return [x for one in value for x in numbers(one)] if isinstance(value, list) else [value] * isinstance(value, float)


def cells(line: str) -> int:
    return line.replace("\\|", "").count("|") - 1


def test_there_is_a_table_and_a_figure_for_every_section() -> None:
    assert [*TABLES] == [*FIGURES] == [*SECTIONS]
    assert {*SECTIONS} - {*CHEAP} == {"ablation", "probe"}


@pytest.mark.parametrize("name", SECTIONS)
def test_numbers_have_six_digits_and_tables_one_cell_per_column(found: dict[str, dict[str, Any]], name: str) -> None:
    assert all(x == float(f"{x:.6g}") for x in numbers(found[name]))
    text = TABLES[name](found[name])
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert tables
    for lines in tables:
        assert len(lines) >= 3
        assert {cells(line) for line in lines} == {cells(lines[0])}
        assert "|  |" not in "".join(lines)
    assert text.endswith("\n") and "None" not in text and "nan" not in text


def test_tables_have_a_row_for_every_layer_matrix_and_head(found: dict[str, dict[str, Any]]) -> None:
    num_rows = {name: sum(line.startswith("|") for line in TABLES[name](found[name]).splitlines()) for name in SECTIONS}
    assert num_rows["heads"] == num_rows["ablation"] == 2 + 12
    assert num_rows["spectra"] == 2 + len(found["spectra"]["rows"])
    assert num_rows["gradients"] == 2 + 6
    assert num_rows["jacobians"] == 2 + 4
    assert num_rows["stream"] == 2 + (1 + 4 + 1) + (1 + 6 + 1)
    assert num_rows["lens"] == 2 + 3 + 2 + len(found["lens"]["example"]["read"])
    assert num_rows["probe"] == 2 + 4


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_is_drawn(found: dict[str, dict[str, Any]], tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    with theme("dark" if name in ("lens", "ablation") else "light"):
        figure = FIGURES[name](found[name])
        save(figure, tmp_path / "x.svg")
    assert all(axes.has_data() or axes.texts for axes in figure.axes)
    assert (tmp_path / "x.svg").stat().st_size > 1000


def test_the_lens_shows_the_first_pair_with_text(subject: Subject) -> None:
    translator = subject.translator
    moved = Subject(translator, ["", "A man. " * 600, *SOURCES[:2]], [["", "x", *REFERENCES[:2]]])
    example = inspect_section("lens", moved)["example"]
    assert example["source"] == SOURCES[0]
    assert example["read"] == ["<s>", *example["reference"][:-1]]
    assert translator.tokenizer.decode_pieces([example["reference"][:-1]]) == [REFERENCES[0]]


def test_jacobians_are_of_the_first_pairs_with_text(subject: Subject) -> None:
    moved = Subject(subject.translator, ["", "x", "", "", *SOURCES], [["", "", "x", "", *REFERENCES]])
    assert inspect_section("jacobians", moved) == inspect_section("jacobians", subject)
    # More pieces than in a batch of other sections, but four pairs none the less.
    long = Subject(subject.translator, ["A man. " * 250] * 5, [["Ein Mann."] * 5])
    assert [len(batch.src) for batch in long.batches(4)] != [4]
    assert [len(batch.src) for batch in long.batches(4, batch_tokens=1_000_000)] == [4]


def test_the_gradient_is_of_the_loss_of_the_run(subject: Subject, found: dict[str, dict[str, Any]]) -> None:
    plain = inspect_section("gradients", Subject(subject.translator, SOURCES, [REFERENCES], label_smoothing=0.0))
    nll = found["lens"]["depths"][-1]["nll"]
    assert plain["loss"] == pytest.approx(nll, rel=1e-5)
    assert found["gradients"]["loss"] != pytest.approx(nll, rel=1e-5)
    assert math.hypot(*plain["parameters"].values()) == pytest.approx(plain["total"], rel=1e-4)


def test_a_model_without_position_vectors_is_told_so() -> None:
    row = {"name": "embedding", "rows": 5, "size": 3, "shares": [0.5, 0.5], "needed": [2, 2, 2], "participation": 2.0}
    data = {"rows": [{**row, "mean_norm": 0.1, "crossings": None}]}
    assert TABLES["components"](data).endswith("they enter in attention, or not at all.\n")


def test_pre_norm_is_told_from_post_norm(found: dict[str, dict[str, Any]]) -> None:
    assert "\nPost-norm: " in TABLES["stream"](found["stream"])
    assert "\nPre-norm: " in TABLES["stream"]({**found["stream"], "is_pre_norm": True})
    assert TABLES["lens"]({**found["lens"], "is_pre_norm": True}).startswith("The norm that ends the stack")


def test_numbers_in_cells_have_three_digits() -> None:
    values = (0.0, 1.0, 0.09, 12.345, 122.31, 12345.6, 1.2345e-7, -0.5, 7, 12000, None, "a|b")
    expected = ["0", "1.00", "0.0900", "12.3", "122", "12,346", "1.23e-07", "-0.500", "7", "12,000", "", "a\\|b"]
    assert [cell(value) for value in values] == expected
    assert table(["a", "b", "c"], [["x", None, None]]) == "| a | b | c |\n| --- | ---: | ---: |\n| x | | |\n"


def test_what_cannot_be_inspected_is_an_error(subject: Subject, babbler: Path) -> None:
    with pytest.raises(ConfigError, match=r"^'nonsense' is not one of the sections lens, stream, "):
        inspect_section("nonsense", subject)
    with pytest.raises(ConfigError, match=r"^the section probe needs a word: --probe WORD$"):
        inspect_section("probe", Subject(subject.translator))
    with pytest.raises(DataError, match=r"^there is no sentence pair to look at"):
        inspect_section("lens", Subject(subject.translator, [""], [[""]]))
    with pytest.raises(ConfigError, match=r"^an ensemble of 2 models has no attention"):
        inspect_section("spectra", Subject(Ensemble.load([babbler, babbler], device="cpu")))

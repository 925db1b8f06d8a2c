"""docs/CONCEPTS.md answers every question of two lists; symbols, tests, commands and pages that it names exist."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from ablation.rows import PUBLISHED
from documented import ROOT, broken_links, slug
from named import problems, table_rows

PATH = ROOT / "docs" / "CONCEPTS.md"
PAGE = PATH.read_text(encoding="utf-8")
NUMBERS = [*(f"C{number}" for number in range(1, 49)), *(f"Q{number}" for number in range(101, 151))]
# Where the usual answer is not quite right, so that the page has to say so.
CORRECTED = (
    *(f"C{n}" for n in (2, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 24, 25, 26, 31, 33, 34, 36)),
    *(f"C{n}" for n in (37, 38, 40, 44, 45, 48)),
    *(f"Q{n}" for n in (102, 103, 104, 105, 108, 109, 111, 112, 114, 116, 122, 123, 124, 125, 126, 127, 128, 129)),
    *(f"Q{n}" for n in (130, 132, 135, 137, 138, 139, 143, 144, 145, 147, 149, 150)),
)
MARK = "*Imprecise:*"
NUM_WORDS = range(10, 49)  # of an answer, and of a correction
TITLES = ("No.", "Question", "Answer", "Code", "Test", "Run, see")


def answers(page: str) -> list[dict[str, str]]:
    return [row for row in table_rows(page) if "Answer" in row]


def wrong_sentences(name: str, text: str) -> list[str]:
    """Why a text is no complete answer."""
    wrong = [] if len(text.split()) in NUM_WORDS else [f"{name} has {len(text.split())} words"]
    if not text.endswith(".") or text.endswith(("..", "….")) or re.search(r"\b(TODO|TBD|FIXME)\b", text):
        wrong.append(f"{name} is not complete")
    return wrong


def wrong_answer(row: dict[str, str]) -> list[str]:
    """Why a row is no answer with its evidence."""
    number = row["No."]
    answer, mark, correction = (part.strip() for part in row["Answer"].partition(MARK))
    wrong = wrong_sentences(f"the answer to {number}", answer)
    if mark:
        wrong += wrong_sentences(f"the correction of {number}", correction)
    elif number in CORRECTED:
        wrong.append(f"{number} has no correction")
    wrong += [f"{number} has no {title}" for title in ("Code", "Test") if not row[title]]
    wrong += [f"{number}: {name} is no test" for name in re.findall(r"`([^`]+)`", row["Test"]) if "::" not in name]
    wrong += [] if row["Question"].endswith("?") else [f"{number} is no question"]
    return wrong + [f"{number}: {row['Code']}" for title in ("Code", "Test") if re.sub(r"`[^`]+`|, ", "", row[title])]


def sections(page: str) -> dict[str, str]:
    """The anchor of the section of each answer, by number."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return {
        row["No."]: slug(heading)
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
        for row in answers(body)
    }


def index(page: str) -> list[tuple[str, str]]:
    """Numbers of the index, each with the anchor that it leads to."""
    return re.findall(r"([CQ]\d+) \| \[[^]]+\]\(#([\w-]+)\)", page.partition("\n## Index\n")[2])


def all_problems(page: str) -> list[str]:
    """Everything that is wrong with the page."""
    rows = answers(page)
    found = [f"{number} is unknown" for number in {row["No."] for row in rows} - set(NUMBERS)]
    counts = Counter(row["No."] for row in rows)
    found += [f"{number} is there {counts[number]} times" for number in NUMBERS if counts[number] != 1]
    found_in = sections(page)
    if sorted(index(page)) != sorted((number, found_in.get(number, "")) for number in NUMBERS):
        found.append("the index is not that of the sections")
    found += [
        f"{text[:40]} is there twice" for text, count in Counter(row["Answer"] for row in rows).items() if count > 1
    ]
    found += [wrong for row in rows for wrong in wrong_answer(row)]
    return found + problems(page, ("Code", "Test", "Run, see")) + broken_links(PATH, page)


def test_every_question_has_one_answer_and_every_name_exists() -> None:
    assert all_problems(PAGE) == []


def test_all_tables_but_the_index_have_the_same_columns() -> None:
    titles = {tuple(row) for row in table_rows(PAGE.partition("\n## Index\n")[0])}
    assert titles == {TITLES}


def test_the_number_of_answers_that_the_page_gives_is_that_of_its_rows() -> None:
    assert f"answers to {len(answers(PAGE))} questions" in PAGE


def test_the_ablations_of_heads_are_those_of_table_3() -> None:
    (answer,) = (row["Answer"] for row in answers(PAGE) if row["No."] == "C37")
    bleu = {name: published.bleu for name, published in PUBLISHED.items()}
    lost = {name: f"{bleu['base'] - bleu[name]:.1f}" for name in bleu}
    assert f"1 head loses {lost['a_h1']} BLEU against 8, and 32 heads lose {lost['a_h32']}" in answer
    assert f"keys of 16 or 32 instead of 64 lose {lost['b_dk16']} or {lost['b_dk32']}" in answer
    assert f"16 heads have the same BLEU of {bleu['base']}" in answer and bleu["a_h16"] == bleu["base"]
    assert "a lower perplexity" in answer and PUBLISHED["a_h16"].ppl < PUBLISHED["base"].ppl


# A row that all pages need, whatever else they have.
ROW = next(line for line in PAGE.splitlines() if line.startswith("| C14 |"))
CELLS = [cell.strip() for cell in ROW.split(" | ")]
ANSWER = CELLS[2].partition(MARK)[0].strip()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(f"{ROW}\n", "", id="a number is missing"),
        pytest.param(f"{ROW}\n", f"{ROW}\n{ROW}\n", id="a number is there twice"),
        pytest.param("| C14 |", "| C49 |", id="an unknown number"),
        pytest.param(ANSWER, "", id="an empty answer"),
        pytest.param(ANSWER, "See the paper.", id="a stub"),
        pytest.param(ANSWER, ANSWER.removesuffix("."), id="an answer without a full stop"),
        pytest.param(ANSWER, f"{ANSWER} {ANSWER} {ANSWER}", id="an answer too long to be one or two lines"),
        pytest.param(ANSWER, f"{ANSWER} TODO.", id="an unfinished answer"),
        pytest.param(MARK + CELLS[2].partition(MARK)[2], "", id="no correction"),
        pytest.param(f"| {CELLS[1]} |", "| |", id="no question"),
        pytest.param(f"| {CELLS[3]} |", "| |", id="no code"),
        pytest.param(f"| {CELLS[4]} |", "| |", id="no test"),
        pytest.param(f"| {CELLS[3]} |", "| in the model |", id="code without a name"),
        pytest.param("`model.attention.DotProductAttention`", "`model.attention.DotProduct`", id="no such class"),
        pytest.param("`examples.scaling", "`examples.no_such_example", id="no such example"),
        pytest.param(
            "tests/model/test_attention.py::test_equation_1_gives", "tests/no_such.py::test_", id="no such file"
        ),
        pytest.param("::test_scores_are_divided_by", "::test_scores_are_multiplied_by", id="no such test"),
        pytest.param("::test_scores_are_divided_by_the_root_of_d_k", "", id="a file of tests instead of a test"),
        pytest.param("::test_equation_1_gives_the_values_computed_by_hand", "::random_attention", id="a helper"),
        pytest.param("`transformer plot", "`transformer no_such", id="no such command"),
        pytest.param("`transformer attend --out`", "`transfomer attend --out`", id="a command misspelt"),
        pytest.param("`transformer translate --sample", "`transformer translate --no-such", id="no such option"),
        pytest.param("`transformer inspect RUN lens", "`transformer inspect RUN no_such", id="no such section"),
        pytest.param("`python examples/", "`python examples/no_such_", id="no such program"),
        pytest.param("`configs/alternatives/", "`configs/no_such/", id="no such configuration"),
        pytest.param("`model.norm=pre`", "`model.norm=between`", id="no such value"),
        pytest.param("WALKTHROUGH.md#34-embeddings", "WALKTHROUGH.md#35-embeddings", id="no such anchor"),
        pytest.param("(TABLE3.md#", "(TABLE4.md#", id="no such page"),
        pytest.param("| C14 | [Attention](#attention)", "| C14 | [Heads](#heads)", id="an index to another section"),
        pytest.param("| C14 | [Attention](#attention)", "| |", id="a number missing in the index"),
    ],
)
def test_a_broken_page_is_found(old: str, new: str) -> None:
    assert old in PAGE
    assert set(all_problems(PAGE.replace(old, new, 1))) - set(all_problems(PAGE))

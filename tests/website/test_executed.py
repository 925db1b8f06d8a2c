"""Blocks of a page run as one program with the page's line numbers; outputs and pictures are kept."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

import pytest
from website.executed import Output, execute, program

from transformer.inspection.canvas import THEMES

PAGE = """\
# Title

```python
import random
a = 1
print("é", a)
```

Text, and a block of another language:

```
not Python
```

```python
def twice(x):
    return 2 * x


twice(
    a
)  # not a picture
```

```python
from transformer.inspection.pictures import draw_lines

draw_lines({"é": ([1, 2], [a, 3])}, "x", "y")  # Two points: "é"
```

```python
None
```
"""


def run(tmp_path: Path, page: str) -> tuple[list[Output], dict[str, object]]:
    (tmp_path / "PAGE.md").write_text(page, encoding="utf-8")
    return execute(tmp_path / "PAGE.md", tmp_path)


def test_a_block_keeps_what_it_prints_and_the_value_of_its_last_line(tmp_path: Path) -> None:
    outputs, names = run(tmp_path, PAGE)
    assert outputs == [Output("é 1\n"), Output("2\n"), Output("", "3", 'Two points: "é"'), Output()]
    assert names["a"] == 1


def test_a_figure_is_drawn_in_both_themes(tmp_path: Path) -> None:
    run(tmp_path, PAGE)
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["3-dark.svg", "3.svg"]
    for name, theme in (("3.svg", "light"), ("3-dark.svg", "dark")):
        assert f"fill: {THEMES[theme].background}" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_program_has_the_line_numbers_of_its_page() -> None:
    lines, page = program(PAGE).split("\n"), PAGE.split("\n")
    assert len(lines) == len(page)
    assert lines[3:5] == page[3:5]
    assert [number for number, line in enumerate(lines) if line == "__end__()"] == [
        number for number, line in enumerate(page) if line == "```" and lines[number]
    ]


def test_an_error_names_its_line_on_the_page(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as error:
        run(tmp_path, "a\n\n```python\nx = 1\nx / 0  # é\n```\n")
    last = traceback.extract_tb(error.value.__traceback__)[-1]
    assert (Path(last.filename).name, last.lineno) == ("PAGE.py", 5)


def test_nothing_is_left_of_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, PAGE)
    assert capsys.readouterr().out == ""


def test_an_empty_block_has_no_output(tmp_path: Path) -> None:
    assert run(tmp_path, "```python\n```\n\n```python\n# only a comment\n```\n")[0] == [Output(), Output()]


def test_functions_of_a_page_have_a_source_while_it_runs(tmp_path: Path) -> None:
    page = "```python\nimport inspect\ndef f():\n    return 5\nprint(inspect.getsource(f), end='')\n```\n"
    assert run(tmp_path, page)[0] == [Output("def f():\n    return 5\n")]
    assert inspect.getsource(program).startswith("def program")

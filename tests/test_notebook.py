"""docs/first_steps.ipynb: its outputs are those of its cells, and all cells run in a fresh kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import execute_notebook
import nbformat
import pytest
from execute_notebook import NOTEBOOK, clean, execute, fingerprint, read, text_of
from nbformat.v4 import new_code_cell, new_notebook, new_output

from transformer.errors import DataError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def kept() -> Any:
    return read(NOTEBOOK)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def notebook_of(*sources: str) -> Any:
    return new_notebook(cells=[new_code_cell(source) for source in sources])


# The kept file


def test_the_notebook_has_ten_code_cells_that_were_executed_in_order(kept: Any) -> None:
    cells = code_cells(kept)
    assert [cell.execution_count for cell in cells] == list(range(1, 11))
    assert all(cell.outputs for cell in cells[1:]), "all but the imports show something"


def test_each_code_cell_has_text_before_it(kept: Any) -> None:
    kinds = [cell.cell_type for cell in kept.cells]
    assert kinds[:2] == ["markdown", "markdown"]
    assert kinds[1:-1] == ["markdown", "code"] * 10
    assert max(len(line) for cell in kept.cells for line in cell.source.splitlines()) <= 120


def test_the_outputs_are_of_the_code_that_is_there(kept: Any) -> None:
    assert kept.metadata.executed == fingerprint(kept), "run python scripts/execute_notebook.py"


def test_the_file_is_as_it_is_written() -> None:
    assert text_of(clean(read(NOTEBOOK))) == NOTEBOOK.read_text(encoding="utf-8")
    assert NOTEBOOK.stat().st_size < 500_000


def test_outputs_have_no_errors_no_paths_and_no_times(kept: Any) -> None:
    assert {output.output_type for output in outputs(kept)} == {"stream", "execute_result"}
    text = "".join(str(output.get("text", output.get("data", {}).get("text/plain"))) for output in outputs(kept))
    assert re.findall(r"(?<![\w.}])/\w+/|[A-Z]:\\|tmp|\d tokens/s|\d ?m?s\b", text) == []
    assert sum("image/png" in output.get("data", {}) for output in outputs(kept)) == 2


def test_the_kept_outputs_show_that_it_learns_and_forgets(kept: Any) -> None:
    train, table = code_cells(kept)[3], code_cells(kept)[9]
    losses = [float(found) for found in re.findall(r"validation nll (\d+\.\d+)", printed(train))]
    assert losses[-1] < 0.2 * losses[0]
    check_table(printed(table))


def check_table(text: str) -> None:
    """What the text around it says: the new words are learned, and old ones forgotten unless they are kept."""
    rows = dict(re.findall(r"^(general|tuned on both|tuned) +(\d+\.\d +\d+\.\d)$", text, re.MULTILINE))
    bleu = {run: tuple(map(float, row.split())) for run, row in rows.items()}
    assert bleu["general"][0] > 60 > bleu["general"][1]
    assert bleu["tuned"][1] > bleu["general"][1] + 20
    assert bleu["tuned"][0] < bleu["general"][0] - 20
    assert bleu["tuned on both"][0] > bleu["tuned"][0] + 20
    assert bleu["tuned on both"][1] > bleu["general"][1] + 20


def test_the_links_of_the_notebook_exist(kept: Any) -> None:
    text = "".join(cell.source for cell in kept.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https:")]
    assert len(links) > 4
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


# Executing


@pytest.mark.slow
@pytest.mark.longest
def test_all_cells_run_in_order_and_show_the_same_kinds_of_outputs(kept: Any, tmp_path: Path) -> None:
    notebook = read(NOTEBOOK)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
        # A quarter of the updates, with as many validations: the kept outputs have the scores of all.
        cell.source = re.sub(r"(?<=_steps=)\d+(?=\")", lambda steps: str(int(steps[0]) // 4), cell.source)
    notebook.cells.append(new_code_cell("print(Path.cwd(), sorted(path.name for path in Path().iterdir()), sep='\\n')"))
    execute(notebook, tmp_path)
    clean(notebook)
    *cells, files = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, 11))
    for now, before in zip(cells, code_cells(kept), strict=True):
        assert [sorted(output.get("data", {})) for output in now.outputs] == [
            sorted(output.get("data", {})) for output in before.outputs
        ]
        assert printed(now).count("\n") == pytest.approx(printed(before).count("\n"), abs=6)  # references of errors
    directory, names = printed(files).splitlines()
    assert names == "['figure.png', 'general', 'new_words', 'runs']"
    assert not Path(directory).exists()
    assert [*tmp_path.iterdir()] == [], "everything is written to a temporary directory"


def test_a_notebook_runs_in_this_interpreter_and_loses_what_differs_between_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A kernel of the user with the same name, which must not be taken.
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", "/dev/null/x")
    path = tmp_path / "n.ipynb"
    show = "import sys\nprint(sys.executable, end='')\nsys.stdout.flush()\nsys.stderr.write('7 tokens/s')\nprint('!')"
    temporary = "import tempfile\ntemporary = tempfile.TemporaryDirectory()\nprint(temporary.name)"
    where = "from pathlib import Path\nprint(Path().resolve())"
    path.write_text(nbformat.writes(notebook_of(show, "1 + 1", where, temporary)))
    assert execute_notebook.main([str(path)]) == 0
    notebook = read(path)
    first, second, third, fourth = code_cells(notebook)
    assert first.outputs == [new_output("stream", name="stdout", text=f"{sys.executable}!\n")]
    assert [output.data for output in second.outputs] == [{"text/plain": "2"}]
    assert printed(third) == f"{tmp_path}\n"
    assert not Path(printed(fourth).strip()).exists(), "the kernel ends regularly"
    assert all(not cell.metadata for cell in notebook.cells)
    assert notebook.metadata.keys() == {"executed", "kernelspec", "language_info"}
    assert notebook.metadata.executed == fingerprint(notebook)
    assert os.environ["IPYTHONDIR"] == "/dev/null/x"


def test_a_cell_that_raises_fails_and_leaves_the_file_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text(before := nbformat.writes(notebook_of("a = 7", "a / 0", "print('never')")))
    assert execute_notebook.main([str(path)]) == 1
    assert path.read_text() == before
    assert [*tmp_path.iterdir()] == [path]
    error = capsys.readouterr().err
    assert error.startswith(f"{path}: ")
    assert "ZeroDivisionError" in error


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/dev/null", "/proc"])
def test_a_notebook_runs_without_a_home_directory(home: str | None, tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text(nbformat.writes(notebook_of("print(6 * 7)")))
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    command = [sys.executable, ROOT / "scripts" / "execute_notebook.py", path]
    environment |= {"PYTHONPATH": str(ROOT), **({} if home is None else {"HOME": home})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert printed(read(path).cells[0]) == "42\n"


def test_a_changed_cell_is_noticed() -> None:
    assert fingerprint(notebook_of("a", "b")) != fingerprint(notebook_of("a", "c"))
    assert fingerprint(notebook_of("a", "b")) != fingerprint(notebook_of("ab"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": [], "nbformat": 4, "nbformat_minor": 5}', "\xff"])
def test_a_file_that_is_no_notebook_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"n\.ipynb: not a notebook"):
        read(path)

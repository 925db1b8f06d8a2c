"""scripts/table3.py from end to end at tiny sizes, and its error messages."""

from __future__ import annotations

import fcntl
import json
import runpy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ablation.figure import draw
from sacrebleu.metrics.bleu import BLEU

from transformer.cli import run
from transformer.data.batching import Batch
from transformer.inference import bleu_tokenizer
from transformer.training.trainer import Trainer

SCRIPT = Path(__file__).parents[2] / "scripts" / "table3.py"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def table3(script: dict[str, Any], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the script in this process, whose allocator stays as it is; gives status and output."""
    monkeypatch.setitem(script["main"].__globals__, "tune_process", lambda: None)

    def call(*argv: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run(lambda: script["main"]([str(argument) for argument in argv]))
        assert isinstance(end.value.code, int)
        return (end.value.code, *capfd.readouterr())

    return call


@pytest.fixture
def recipe(tmp_path: Path, small_corpus: str) -> list[str]:
    """Arguments for rows as small and short as can be, in this test's directory."""
    values = [f"data.corpus={small_corpus}", f"data.cache_dir={tmp_path / 'cache'}", "data.vocab_size=307"]
    values += ["train.tokens_per_update=211", "train.max_tokens=211", "train.device=cpu", "search.max_length_offset=3"]
    return [*values, "model.num_layers=1", "--steps", "2", "--divide-sizes", "16", "--out", str(tmp_path / "out")]


def rows_of(out: str) -> list[str]:
    return [line.split(" | ")[0].removeprefix("| ") for line in out.splitlines() if line.startswith("| ")][1:]


def test_rows_are_trained_once_and_printed_beside_the_papers(table3: Call, recipe: list[str], tmp_path: Path) -> None:
    extra = tmp_path / "rows" / "narrow.yaml"
    extra.parent.mkdir()
    extra.write_text(f"base: {SCRIPT.parents[1] / 'configs' / 'table3' / 'base.yaml'}\nmodel: {{d_ff: 1024}}")
    status, out, _ = table3("b_dk16", extra, "base:5,7", *recipe)
    assert status == 0
    names = ["b_dk16-seed1", "narrow-seed1", "base-seed5", "base-seed7"]
    assert [line for line in out.splitlines() if line.startswith(f"{tmp_path}")] == [
        f"{tmp_path / 'out' / n}" for n in names
    ]
    assert out.count("\nparameters: ") == out.count(" minutes\n") == 4
    assert rows_of(out) == ["base", "b_dk16", "narrow"]
    table = out[out.index("| row |") :]
    assert "| b_dk16 | d_k 1, d_v 4 |" in table
    assert "| narrow | d_ff 64 |" in table

    status, again, _ = table3("b_dk16", extra, "base:5,7", *recipe)
    assert (status, "parameters: " in again, again.endswith(table)) == (0, False, True)
    assert table3("--report", "--out", tmp_path / "out") == (0, table, "")


def test_the_tokenizer_is_that_of_the_data_and_what_is_missing_is_found_before_training(
    table3: Call, recipe: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table3("base", *recipe, "data.bleu_tokenizer=char")[0] == 0
    (path,) = (tmp_path / "out").glob("*/score.json")
    assert json.loads(path.read_text())["tokenize"] == "char"
    assert table3("base", *recipe, "data.bleu_tokenizer=char", "--tokenize", "auto")[0] == 0
    assert json.loads(path.read_text())["tokenize"] == "13a"

    def missing(*, tokenize: str, **_: object) -> BLEU:
        raise RuntimeError(f"{tokenize} is missing")

    monkeypatch.setattr(bleu_tokenizer, "BLEU", missing)
    status, out, err = table3("c_n2", "c_n4", *recipe, "--tokenize", "ko-mecab")
    assert (status, out) == (2, "")
    assert err == "error: the BLEU tokenizer 'ko-mecab' cannot be used: ko-mecab is missing\n"


def test_a_figure_that_cannot_be_written_is_an_error_before_training(
    table3: Call, recipe: list[str], tmp_path: Path
) -> None:
    (tmp_path / "figure.svg").mkdir()
    status, out, err = table3("base", *recipe, "--plot", tmp_path / "figure.svg")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {tmp_path}/figure.svg: is not a regular file")


def test_the_figure_is_drawn_from_what_is_finished(table3: Call, recipe: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "table.svg"
    assert table3("base", "c_n2", *recipe, "--plot", figure)[0] == 0
    assert figure.stat().st_size > 1000


def test_the_numbers_are_printed_as_json_from_which_the_figure_is_drawn(
    table3: Call, recipe: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert table3("base", "c_n2", *recipe)[0] == 0
    status, out, _ = table3("--report", "--json", "--out", tmp_path / "out")
    rows = json.loads(out)
    assert (status, [row["row"] for row in rows]) == (0, ["base", "c_n2"])
    assert len(draw(rows).axes) == 2


def test_a_row_that_diverges_does_not_stop_the_others(table3: Call, recipe: list[str], tmp_path: Path) -> None:
    extra = tmp_path / "hot.yaml"
    extra.write_text("train: {lr_factor: 1.0e+38}")
    status, out, err = table3(extra, "base", *recipe, "train.precision=fp32", "train.log_steps=1")
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {tmp_path / 'out' / 'hot-seed1'}: step ") and "non-finite gradient" in line
    assert rows_of(out) == ["base"]


def test_ctrl_c_saves_and_the_same_command_resumes(
    table3: Call, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Trainer.update

    def interrupted(trainer: Trainer) -> list[Batch]:
        signal.raise_signal(signal.SIGINT)
        return update(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        status, out, _ = table3("base", "c_n2", *recipe)
    assert (status, out.splitlines()[-1]) == (130, "stopped; the same command goes on from here")
    assert "c_n2" not in out
    status, out, _ = table3("base", "c_n2", *recipe)
    assert (status, rows_of(out)) == (0, ["base", "c_n2"])
    assert "\nresuming after step 1\n" in out


def test_a_run_of_another_process_is_left_to_it(table3: Call, recipe: list[str], tmp_path: Path) -> None:
    run = tmp_path / "out" / "base-seed1"
    run.mkdir(parents=True)
    # Locks belong to open files: this one is not the process's own, as far as the system can tell.
    with (run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, out, _ = table3("base", "c_n2", *recipe)
    assert status == 0
    assert out.startswith(f"{run}\nleft to the process that is training it\n")
    assert rows_of(out) == ["c_n2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["c_n3"], "c_n3 is not one of the rows all, base, a_h1, "),
        (["base:1,x"], "base:1,x: the seeds of a row are whole numbers, as in base:1,2,3"),
        ([f"base:{'9' * 5003}"], "9: the seeds of a row are whole numbers"),
        (["base:"], "base:: the seeds of a row are whole numbers"),
        (["--divide-sizes", "0"], "--divide-sizes 0 must be at least 1"),
        (["--divide-sizes", "32"], "row a_h32: model.d_model=16 is not a multiple of model.num_heads=32"),
        (["--steps", "0"], "row base: train.max_steps=0 must be at least 1"),
        (["base", "model.dropuot=0.2"], "row base: unknown key model.dropuot; did you mean model.dropout?"),
        (["absent.yaml"], "row absent: absent.yaml: no such configuration file"),
        (["--report"], "holds no finished run"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_trained(
    table3: Call, tmp_path: Path, arguments: list[str], message: str
) -> None:
    status, out, err = table3(*arguments, "--out", tmp_path / "out")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and message in err
    assert not (tmp_path / "out").exists()


def test_the_former_name_of_divide_sizes_is_accepted_and_says_the_current_one(table3: Call, tmp_path: Path) -> None:
    status, _, err = table3("base", "--divide-width", "3", "--out", tmp_path / "out")
    assert status == 2
    former, error = err.splitlines()
    assert former == "--divide-width is now --divide-sizes"
    assert error == "error: row base: model.d_model=512 is not a multiple of --divide-sizes 3"


def test_all_rows_are_run_unless_some_are_named_and_the_last_seeds_count(script: dict[str, Any]) -> None:
    choose = script["_choose"]
    chosen = {path.stem: seeds for path, seeds in choose(["big", "all", "base:3,1,3"]).items()}
    assert list(chosen)[:3] == ["big", "base", "a_h1"]
    assert len(chosen) == 20
    assert (chosen["base"], chosen["big"]) == ([3, 1], [1])
    assert choose(["rows/mine.yaml:2"]) == {Path("rows/mine.yaml"): [2]}

"""scripts/benchmark.py from end to end at tiny sizes, and its error messages."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transformer.cli import run

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def benchmark(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the script in this process, whose allocator and threads stay as they are; gives status and output."""
    module = runpy.run_path(str(SCRIPT))
    monkeypatch.setitem(module["main"].__globals__, "tune_process", lambda **_: None)

    def call(*argv: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run(lambda: module["main"]([str(argument) for argument in argv]))
        assert isinstance(end.value.code, int)
        return (end.value.code, *capfd.readouterr())

    return call


@pytest.fixture
def config(trained_run: Path) -> Path:
    return trained_run / "config.yaml"


def report(result: tuple[int, str, str]) -> dict[str, Any]:
    status, out, err = result
    assert (status, err) == (0, "")
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def test_train_measures_updates(benchmark: Call, config: Path) -> None:
    arguments = ("train", config, "train.max_tokens=113", "--updates", 2, "--warmup", 1, "--peak-seconds", 0.003)
    found = report(benchmark(*arguments, "--threads", 1, "--json"))
    assert found["benchmark"] == "train"
    assert (found["threads"], found["max_tokens"], found["vocab_size"]) == (1, 113, 307)
    status, out, err = benchmark(*arguments)
    assert (status, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    assert {"tokens_per_s", "sentences_per_s", "gflops", "padding.target", "phases.host", "fraction_of_peak"} < {*names}


@pytest.mark.slow
def test_overrides_may_stand_before_and_after_options(benchmark: Call, config: Path) -> None:
    quick = ("--updates", 1, "--warmup", 0, "--peak-seconds", 0, "--json")
    found = report(benchmark("train", config, "train.max_tokens=113", *quick, "train.precision=bf16", "model.d_ff=31"))
    assert (found["max_tokens"], found["precision"]) == (113, "bfloat16")
    assert " d_ff 31, " in found["model"]


def test_train_leaves_nothing_behind(
    benchmark: Call, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report(benchmark("train", config, "--updates", 1, "--warmup", 0, "--peak-seconds", 0, "--json"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_decode_measures_a_run_on_its_test_split_or_a_file(benchmark: Call, trained_run: Path, tmp_path: Path) -> None:
    quick = ("--repeat", 1, "--peak-seconds", 0, "--json")
    found = report(benchmark("decode", trained_run, "--sentences", 7, "--beam", 2, "--precision", "bf16", *quick))
    assert (found["sentences"], found["beam"], found["precision"]) == (7, 2, "bfloat16")
    file = tmp_path / "lines"
    file.write_text("A man is sleeping.\n\nTwo dogs.\nA cat.\n")
    found = report(benchmark("decode", trained_run, "--src", file, "--batch", 2, *quick))
    assert (found["sentences"], found["beam"]) == (3, 3)


@pytest.mark.slow
def test_decode_measures_an_untrained_model(benchmark: Call, config: Path) -> None:
    arguments = (
        "decode",
        config,
        "search.beam=2",
        "--length",
        5,
        "--sentences",
        11,
        "--batch-tokens",
        53,
        "--repeat",
        1,
    )
    found = report(benchmark(*arguments, "--repeat", 1, "--peak-seconds", 0.003, "--json"))
    assert (found["beam"], found["output_tokens_per_sentence"]) == (2, 5)


@pytest.mark.slow
def test_peak_flops_measures_every_shape_in_the_given_precisions(benchmark: Call, config: Path) -> None:
    arguments = ("peak-flops", config, "--seconds", 0.003, "--precision", "fp32", "--precision", "bf16", "--json")
    found = report(benchmark(*arguments))
    assert list(found["peak_tokens_per_s"]) == ["fp32", "bf16"]
    shapes = [(row["inputs"], row["outputs"]) for row in found["gflops"] if row["precision"] == "bf16"]
    assert shapes == [(22, 14), (22, 10), (10, 22), (22, 29), (29, 22), (22, 307)]
    assert {row["rows"] for row in found["gflops"]} == {211}


@pytest.mark.slow
def test_data_measures_every_stage(
    benchmark: Call, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "benchmarking.data.in_subprocess",
        lambda stage, *arguments: {**stage(*arguments), "peak_bytes": 3 << 20},
    )
    monkeypatch.setattr("benchmarking.data.tune_process", lambda: None)
    sizes = ("--pairs", 3000, "--distinct", 290, "--updates", 2)
    status, out, err = benchmark("data", config, "data.vocab_size=211", *sizes, "--directory", tmp_path, "--json")
    assert status == 0
    assert [row["pairs"] for row in json.loads(out)["stages"]] == [300] * 6 + [3000] * 6
    assert "3,000 pairs: encode " in err
    assert list(tmp_path.iterdir()) == []


def test_tables_measures_both_readers(benchmark: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarking.tables.in_subprocess", lambda read, *words: {**read(*words), "peak_bytes": 3 << 20}
    )
    status, out, err = benchmark("tables", "--rows", 70, "--repeat", 1, "--directory", tmp_path, "--json")
    assert status == 0
    assert set(json.loads(out)["cpu_seconds_ours_to_datasets"]) == {"csv", "jsonl"}
    assert "70 rows of jsonl by datasets: " in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("against", "sizes", "curves"),
    [
        ("length", (3, 5), ["equation 1", "attention layer", "training step"]),
        ("batch", (2, 3), ["training step"]),
        ("d_model", (64, 128), ["equation 1", "attention layer", "training step"]),
        ("beam", (1, 3), ["decoding"]),
        ("threads", (1, 2), ["training step"]),
    ],
)
def test_scaling_fits_an_exponent_to_every_curve(
    benchmark: Call, config: Path, against: str, sizes: tuple[int, int], curves: list[str]
) -> None:
    quick = ("--batch", 2, "--length", 3, "--seconds", 0.001)
    found = report(benchmark("scaling", against, config, *quick, "--sizes", *sizes, "--json"))
    assert (found["against"], [row["of"] for row in found["exponents"]]) == (against, curves)
    assert [row["size"] for row in found["points"]] == [*sizes] * len(curves)


@pytest.mark.slow
def test_scaling_draws_a_plot(benchmark: Call, config: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.svg"
    report(
        benchmark(
            "scaling", "batch", config, "--length", 3, "--sizes", 2, 3, "--seconds", 0.001, "--plot", path, "--json"
        )
    )
    assert path.is_file()


@pytest.mark.slow
def test_table1_times_and_counts_its_layers(benchmark: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sizes = ("--n", 5, "--d", 7, "--k", 29, "--lengths", 5, 3, "--widths", 3, 5, "--windows", 3, 5)
    path = tmp_path / "plot.svg"
    found = report(benchmark("table1", *sizes, "--seconds", 0.0001, "--plot", path, "--json"))
    assert (found["benchmark"], found["n"], found["d"], found["r"], found["k"]) == ("table1", 5, 7, 31, 29)
    assert {row["of"]: row["path"] for row in found["counted"] if row["n"] == 64} == {
        "self-attention": 1,
        "recurrent": 64,
        "convolutional": 2,
        "contiguous": 3,
        "separable": 2,
        "restricted": 5,
    }
    assert [row["size"] for row in found["against_n"]["points"][:2]] == [3, 5]
    assert {"against_d", "against_rk"} < {*found}
    assert path.is_file()


@pytest.mark.parametrize("source", [("--metric", "speed"), ("--regex", r"(\d+)")])
def test_compare_runs_both_commands(benchmark: Call, source: tuple[str, str]) -> None:
    arguments = ("compare", """echo '{"speed": 4}'""", """echo '{"speed": 6}'""", "--runs", 2, *source)
    status, out, err = benchmark(*arguments, "--json")
    assert (status, err) == (0, "pair 1 of 2: 4 6 ratio 1.5000\npair 2 of 2: 4 6 ratio 1.5000\n")
    assert json.loads(out)["ratio"] == {"median": 1.5, "lowest": 1.5, "highest": 1.5}
    status, out, err = benchmark(*arguments)
    assert out.endswith("\npairs\npair  a  b  ratio\n   1  4  6    1.5\n   2  4  6    1.5\n")


def test_compare_takes_the_wall_time(benchmark: Call) -> None:
    status, out, _ = benchmark("compare", "exit 0", "exit 0", "--runs", 1, "--json")
    assert status == 0
    assert json.loads(out)["ratio"]["median"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "former", "current"),
    [
        (["ceiling", "CONFIG", "--seconds", "0.001", "--precision", "fp32"], "ceiling", "peak-flops"),
        (["growth", "width", "CONFIG", "--sizes", "64", "128", "--seconds", "0.001"], "growth", "scaling"),
        (
            ["train", "CONFIG", "--updates=1", "--warmup=0", "--ceiling-seconds=0"],
            "--ceiling-seconds",
            "--peak-seconds",
        ),
    ],
)
def test_former_names_are_accepted_and_say_the_current_ones(
    benchmark: Call, config: Path, arguments: list[str], former: str, current: str
) -> None:
    status, out, err = benchmark(*(str(config) if word == "CONFIG" else word for word in arguments), "--json")
    assert (status, err) == (0, f"{former} is now {current}\n")
    found = json.loads(out)
    assert found["benchmark"] in ("peak-flops", "scaling", "train")
    assert found.get("against", "d_model") == "d_model"
    assert "fraction_of_peak" not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "absent.yaml"], "error: absent.yaml: no such configuration file\n"),
        (
            ["decode", "absent.yaml"],
            "error: absent.yaml: the outputs of an untrained model have random lengths; give --length, or a run\n",
        ),
        (["decode", "absent.yaml", "--length", "3"], "error: absent.yaml: no such configuration file\n"),
        (["scaling", "length", "absent.yaml"], "error: absent.yaml: no such configuration file\n"),
        (["peak-flops", "absent.yaml", "--jason"], "error: unrecognized arguments: --jason\n"),
        (["compare", "exit 0", "exit 3", "x=3"], "error: unrecognized arguments: x=3\n"),
        (["compare", "exit 0", "exit 3"], "error: exit 3: exit status 3: \n"),
        (["peak-flops", "absent.yaml"], "error: absent.yaml: no such configuration file\n"),
        (["train", "absent.yaml", "--updates", "0"], "argument --updates: 0 must be at least 1\n"),
        (["train", "absent.yaml", "--warmup", "-1"], "argument --warmup: -1 must be at least 0\n"),
        (
            ["train", "absent.yaml", "--peak-seconds", "nan"],
            "argument --peak-seconds: nan must be a finite number of at least 0\n",
        ),
        (["table1", "--seconds", "inf"], "argument --seconds: inf must be a finite number of at least 0\n"),
        (["peak-flops", "absent.yaml", "--seconds", "0"], "argument --seconds: 0 must be more than 0\n"),
        (["peak-flops", "absent.yaml", "--seconds", "x"], "argument --seconds: invalid number value: 'x'\n"),
        (["table1", "--r", "4"], "argument --r: 4 must be odd and at least 3\n"),
        (["table1", "--windows", "3", "1"], "argument --windows: 1 must be odd and at least 3\n"),
        (["table1", "--lengths", "7"], "error: n=7 alone: an exponent needs two sizes or more\n"),
    ],
)
def test_mistakes_are_one_line(benchmark: Call, arguments: list[str], message: str) -> None:
    status, out, err = benchmark(*arguments)
    assert (status, out) == (2, "")
    assert err.endswith(message)


def test_scaling_needs_two_sizes(benchmark: Call, config: Path) -> None:
    assert benchmark("scaling", "batch", config, "--sizes", 3) == (
        2,
        "",
        "error: --sizes 3: an exponent needs two sizes or more\n",
    )


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes through /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_its_other_processes_too_and_leaves_no_files(
    config: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    # Pairs enough that their stage would take minutes.
    arguments = ["data", config, "--pairs", 1 << 30, "--distinct", 1 << 30, "--directory", tmp_path]
    with subprocess.Popen([sys.executable, SCRIPT, *map(str, arguments)], stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: any(tmp_path.glob("*/*/train.en")) or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(number)
            _, printed = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, b"Traceback" in printed) == (status, False)
    assert children
    wait_until(lambda: not any(Path("/proc", child).exists() for child in children))
    assert list(tmp_path.iterdir()) == []


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_marian_measures_three_engines(benchmark: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarking.marian import Speed

    monkeypatch.setattr("benchmarking.commands.marian.write_models", lambda _: None)
    monkeypatch.setattr("benchmarking.marian.in_process", lambda task, sentences: Speed(sentences / task.beam, 0.5))
    options = ("--beam", 2, "--rounds", 1, "--sentences", 8, "--directory", tmp_path, "--json")
    status, out, err = benchmark("marian", *options)
    found = json.loads(out)
    assert (status, found["vocab_size"], found["batch"]) == (0, 58102, 64)
    assert [(row["engine"], row["median"]) for row in found["rows"]][2:4] == [("this", 4), ("transformers", 4)]
    assert "round 1 of 1: ctranslate2 int8 beam 2: 4 sentences/s" in err
    assert list(tmp_path.iterdir()) == []

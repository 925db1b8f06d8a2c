"""Peers run with their own defaults, and what they print is checked."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarking.peers.peer import PeerError, Task
from benchmarking.peers.processes import check_length, environment_of, last_json, run, run_program

PYTHON = Path(sys.executable)


def test_peers_do_not_get_the_settings_of_this_process() -> None:
    ours = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "16", "OMP_WAIT_POLICY": "PASSIVE"}
    found = environment_of(3, {**ours, "PYTHONPATH": "here", "HOME": "/home", "OMP_NUM_THREADS": "7"})
    assert not {*ours, "PYTHONPATH"} & found.keys()
    assert (found["HOME"], found["OMP_NUM_THREADS"]) == ("/home", "3")


def test_a_process_has_its_output_its_directory_and_its_own_peak_memory(tmp_path: Path) -> None:
    small, large = (
        run(
            [PYTHON, "-S", "-c", f"import os, sys; x = bytearray({size}); print(os.getcwd(), os.environ['A'], len(x))"],
            1,
            tmp_path / "new",
            A="b",
        )
        for size in (1, 257 << 20)
    )
    assert small.output == f"{tmp_path / 'new'} b 1\n"
    assert large.peak_memory_gib > 0.25
    assert small.peak_memory_gib < 0.05  # less than this process, which started it


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; print('first'); print('last', file=sys.stderr); sys.exit(3)", r"^exit status 3: last$"),
        ("import os; os.kill(os.getpid(), 9)", r"^exit status -9: nothing printed$"),
    ],
)
def test_a_process_that_fails_is_one_line(tmp_path: Path, program: str, message: str) -> None:
    with pytest.raises(PeerError, match=message):
        run([PYTHON, "-S", "-c", program], 1, tmp_path)


def test_an_interruption_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = subprocess.Popen.wait

    def interrupted(process: subprocess.Popen[bytes]) -> None:
        while not (tmp_path / "pid").is_file():
            time.sleep(0.01)
        monkeypatch.setattr("subprocess.Popen.wait", waited)
        assert process.poll() is None
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.Popen.wait", interrupted)
    program = "import os, time; open('new', 'w').write(str(os.getpid())); os.rename('new', 'pid'); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run([PYTHON, "-S", "-c", program], 1, tmp_path)
    pid = int((tmp_path / "pid").read_text())
    began = time.monotonic()
    while Path("/proc", str(pid)).exists():
        assert time.monotonic() < began + 20
        time.sleep(0.01)


@pytest.mark.parametrize("output", ["", "3\nnot json", "[3]"])
def test_output_without_an_object_is_an_error(output: str) -> None:
    with pytest.raises(PeerError, match="the last line printed is no JSON object"):
        last_json(output)


def test_the_last_line_counts() -> None:
    assert last_json('{"a": 1}\nnoise\n{"a": 2}\n') == {"a": 2}


@pytest.mark.parametrize(("tokens", "is_right"), [(7, True), (6.5, True), (6, True), (5.9, False), (7.1, False)])
def test_outputs_of_another_length_are_an_error(task: Task, tokens: float, is_right: bool) -> None:
    decoding = dataclasses.replace(task, what="decode")
    if is_right:
        check_length({"tokens_per_sentence": tokens}, decoding)
    else:
        with pytest.raises(PeerError, match=rf"^its outputs have {tokens} tokens, not 7$"):
            check_length({"tokens_per_sentence": tokens}, decoding)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_plain_loop_trains(task: Task, precision: str) -> None:
    speed = run_program(PYTHON, "plain", dataclasses.replace(task, precision=precision))
    assert speed.value > 0
    assert speed.peak_memory_gib > 0.05

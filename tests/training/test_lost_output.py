"""Training goes on when its output is lost: closed pipes, closed terminals, full disks."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from transformer.cli import print_aside
from transformer.config import Config
from transformer.training.lost_output import lasting_output

SCRIPTS = Path(__file__).parents[2] / "scripts"
RUN = Path("runs/x")


class Failing(io.StringIO):
    """A stream of a notebook, say, whose writes fail with each of these errors, and then succeed."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def write(self, text: str) -> int:
        if self.numbers:
            number = self.numbers.pop(0)
            raise OSError(number, os.strerror(number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EAGAIN, errno.EBADF])
def test_a_failing_write_is_dropped_and_reported_once_on_the_other_stream(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out, err = Failing(number, number), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with lasting_output(RUN):
        sys.stdout.write("one")
        sys.stdout.write("two")
        sys.stdout.write("three")
        assert not sys.stdout.isatty(), "it has all that a stream has"
    assert out.getvalue() == "three"
    expected = (
        f"standard output is lost ({os.strerror(number)}); training goes on, {RUN}/metrics.jsonl has its numbers\n"
    )
    assert err.getvalue() == expected
    assert (sys.stdout, sys.stderr) == (out, err)


def test_a_lost_standard_error_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), Failing(errno.EPIPE)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with lasting_output(RUN):
        print("bar", file=sys.stderr, end="")
        print("line")
    assert out.getvalue() == "line\n"


def test_without_either_stream_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(*[errno.EPIPE] * 9))
    monkeypatch.setattr(sys, "stderr", Failing(*[errno.EPIPE] * 9))
    with lasting_output(RUN):
        print("one", flush=True)
        print("two", file=sys.stderr)
        print_aside("three")


def test_errors_of_the_program_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    before = io.StringIO()
    monkeypatch.setattr(sys, "stdout", before)
    with pytest.raises(ZeroDivisionError), lasting_output(RUN):
        _ = 1 // 0
    assert sys.stdout is before


_LOSE = """
import sys
from pathlib import Path
from transformer.cli import print_aside, run
from transformer.training.lost_output import lasting_output
def main():
    with lasting_output(Path("runs/x")):
        sys.stdin.readline()
        for _ in range(9):
            print("line", flush=True)
            sys.stdout.write("buffered")
    print_aside("after")
    return 7
run(main)
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("loss", ["pipe", "full"])
def test_the_exit_status_is_that_of_the_program(stream: str, loss: str) -> None:
    reader, writer = os.pipe()
    if loss == "full":
        if not Path("/dev/full").exists():
            pytest.skip("no device that is always full")
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    kept = "stderr" if stream == "stdout" else "stdout"
    streams = {stream: writer, kept: subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _LOSE], stdin=subprocess.PIPE, text=True, **streams) as process:  # type: ignore[call-overload]
        os.close(writer)
        os.close(reader)  # nothing can be written from now on
        out, err = process.communicate("go\n")
    assert process.returncode == 7
    if stream == "stdout":
        reason = os.strerror(errno.EPIPE if loss == "pipe" else errno.ENOSPC)
        assert err == (
            f"standard output is lost ({reason}); training goes on, runs/x/metrics.jsonl has its numbers\nafter\n"
        )
    else:
        assert out.count("line") == 9


@pytest.mark.slow
def test_training_into_a_closed_pipe_goes_on_to_its_end(tiny_config: Config, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_config.to_yaml())
    command = f"{sys.executable} {SCRIPTS / 'train.py'} {path} 2>&1 | sed q; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert (tmp_path / "run" / "checkpoints" / "step-00000011" / "training.json").is_file()

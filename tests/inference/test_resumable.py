"""Interrupted output: what must be on disk after each way to stop."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from transformer.errors import DataError, InUseError
from transformer.inference.resumable import resumable_output

SETTINGS = {"beam": 3, "alpha": 0.6}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output interrupted after the lines a and b, which became A and B."""
    with resumable_output(tmp_path / "out", SETTINGS) as output:
        output.add(["a"], "A\n")
        output.add(["b"], "B\n")
    assert names(tmp_path) == ["out.part", "out.part.json"]
    return tmp_path / "out"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_output_appears_when_it_is_complete(out: Path) -> None:
    with resumable_output(out, SETTINGS) as output:
        assert output.num_done == 2
        assert list(output.remaining(iter("abcd"))) == ["c", "d"]
        output.add(["c", "d"], "C\nD\n")
        output.complete()
    assert out.read_text() == "A\nB\nC\nD\n"
    assert names(out.parent) == ["out"]


def test_the_lines_can_be_read_twice(out: Path) -> None:
    with resumable_output(out, SETTINGS) as output:
        assert list(output.remaining(iter("abc"))) == list(output.remaining(iter("abc"))) == ["c"]
        output.add(["c"], "C\n")
    with resumable_output(out, SETTINGS) as output:
        assert list(output.remaining(iter("abcd"))) == ["d"]


@pytest.mark.parametrize("rest", [b"", b"C", b"\xc3", b"C\nD"])
def test_what_was_written_after_the_last_record_is_truncated(out: Path, rest: bytes) -> None:
    part = out.with_name("out.part")
    part.write_bytes(part.read_bytes() + rest)
    with resumable_output(out, SETTINGS) as output:
        assert output.num_done == 2
        assert part.read_text() == "A\nB\n"


def test_without_the_part_it_starts_again(out: Path) -> None:
    """Also what a process killed between the last two steps of `complete` leaves."""
    out.with_name("out.part").rename(out)
    with resumable_output(out, SETTINGS | {"beam": 5}) as output:
        assert output.num_done == 0
        assert list(output.remaining(iter("xy"))) == ["x", "y"]
    assert out.read_text() == "A\nB\n"


def test_other_lines_or_fewer_are_refused(out: Path) -> None:
    with resumable_output(out, SETTINGS) as output:
        for lines in (["a", "x", "c"], ["ab", ""], ["b", "a"]):
            with pytest.raises(DataError, match=r"out\.part: was made from other lines than the first 2 of the input"):
                output.remaining(iter(lines))
        with pytest.raises(DataError, match=r"has the translations of 2 lines, more than the 1 of the input"):
            output.remaining(iter("a"))


@pytest.mark.parametrize(
    "record", [None, b"", b"{", b"[]", b"{}", b"\xff", b'{"settings": 1}', b'{"a":' + b"[" * 100_003]
)
def test_a_part_without_a_readable_record_is_refused(out: Path, record: bytes | None) -> None:
    path = out.with_name("out.part.json")
    path.unlink() if record is None else path.write_bytes(record)
    with (
        pytest.raises(
            DataError, match=r"out\.part: its record out\.part\.json cannot be read \(.+\); delete out\.part to start"
        ),
        resumable_output(out, SETTINGS),
    ):
        pass
    assert out.with_name("out.part").read_text() == "A\nB\n"


@pytest.mark.parametrize("name", ["num_lines", "num_bytes"])
@pytest.mark.parametrize("value", [-5, 2**70])
def test_a_record_with_impossible_counts_is_refused(out: Path, name: str, value: int) -> None:
    path = out.with_name("out.part.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(DataError, match="a count is out of range"), resumable_output(out, SETTINGS):
        pass


def test_other_settings_and_a_truncated_part_are_refused(out: Path) -> None:
    with (
        pytest.raises(DataError, match=r"was made with alpha=0\.6, and now it is 0\.7; set it back"),
        resumable_output(out, SETTINGS | {"alpha": 0.7}),
    ):
        pass
    out.with_name("out.part").write_text("A\n")
    with (
        pytest.raises(DataError, match=r"is shorter than out\.part\.json says; delete it to start again"),
        resumable_output(out, SETTINGS),
    ):
        pass


@pytest.mark.parametrize("syncs", [0, 1])
def test_a_full_disk_names_the_file_and_leaves_what_was_recorded(
    out: Path, monkeypatch: pytest.MonkeyPatch, syncs: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    where = ("os.fsync", "transformer.inference.resumable.write_atomic")[syncs]
    with resumable_output(out, SETTINGS) as output, monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(OSError, match="No space left") as error:
            output.add(["c"], "C\n")
    assert error.value.filename == str(out.with_name("out.part"))
    with resumable_output(out, SETTINGS) as output:
        assert output.num_done == 2
        assert list(output.remaining(iter("abc"))) == ["c"]
        output.add(["c"], "C\n")
        output.complete()
    assert out.read_text() == "A\nB\nC\n"


def test_a_second_process_is_refused_while_the_first_one_runs(out: Path) -> None:
    with out.with_name(".out.part.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one lock per opened file, as if another process held it
        with (
            pytest.raises(InUseError, match=f"--output {out}: in use by another process; wait"),
            resumable_output(out, SETTINGS),
        ):
            pass
    with resumable_output(out, SETTINGS) as output:
        assert output.num_done == 2

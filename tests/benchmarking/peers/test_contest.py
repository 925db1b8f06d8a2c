"""Peers take turns; one that fails is named and left out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from benchmarking.peers import contest
from benchmarking.peers.contest import Contest, LeftOut, built
from benchmarking.peers.environments import Environment, EnvironmentBuildError
from benchmarking.peers.peer import Peer, PeerError, Speed, Task

ORDER: list[str] = []


class Steady(Peer):
    """Gives its values one after another."""

    name = "steady"
    title = "Steady 1.0"
    training = ("bf16", "fp32")
    decoding = ("fp32",)
    values = (5.0, 3.0, 4.0)

    def __init__(self) -> None:
        self.asked: list[Task] = []
        self.prepared: list[Task] = []

    def prepare(self, python: Path, task: Task) -> None:
        assert python == Path("python")
        self.prepared.append(task)

    def measure(self, python: Path, task: Task) -> Speed:
        assert python == Path("python")
        ORDER.append(f"{self.name} {task.precision}")
        self.asked.append(task)
        number = sum(each == task for each in self.asked)
        return Speed(self.values[number - 1], number / 2)


class Failing(Steady):
    """Fails in its second run."""

    name = "failing"
    training = ("fp32",)

    def measure(self, python: Path, task: Task) -> Speed:
        if self.asked:
            raise PeerError("out of paper")
        return super().measure(python, task)


class Unprepared(Steady):
    """Cannot be prepared."""

    name = "unprepared"

    def prepare(self, python: Path, task: Task) -> None:  # noqa: ARG002
        raise PeerError("no ink")


class Unbuilt(Steady):
    """Has an environment."""

    name = "unbuilt"
    environment = Environment("unbuilt")


@pytest.fixture(autouse=True)
def new_order() -> None:
    ORDER.clear()


def quiet(_line: str) -> None: ...


def test_rounds_alternate_and_rows_have_median_and_range(task: Task) -> None:
    lines: list[str] = []
    peers = [Steady(), Steady()]
    peers[1].name = "other"  # type: ignore[misc]
    runs = Contest([(peer, Path("python")) for peer in peers], lines.append)
    runs.enter(task, (1, 4))
    rows = runs.run(3)
    assert ORDER == ["steady bf16", "steady fp32", "other bf16", "other fp32"] * 3
    assert [(row["peer"], row["precision"], row["beam"]) for row in rows] == [
        ("steady", "bf16", None),
        ("steady", "fp32", None),
        ("other", "bf16", None),
        ("other", "fp32", None),
    ]
    assert [rows[0][name] for name in ("median", "lowest", "highest", "peak_memory_gib")] == [4.0, 3.0, 5.0, 1.5]
    assert lines[0] == "round 1 of 3: train small steady bf16: 5 tokens/s, 0.50 GiB"


def test_decoding_is_measured_with_every_beam(task: Task) -> None:
    runs = Contest([(Steady(), Path("python"))], quiet)
    runs.enter(dataclasses.replace(task, what="decode"), (1, 4))
    assert [row["beam"] for row in runs.run(1)] == [1, 4]


def test_files_of_another_model_are_not_taken(task: Task) -> None:
    peer = Steady()
    runs = Contest([(peer, Path("python"))], quiet)
    larger = dataclasses.replace(task.sizes, d_ff=29)
    for each in (task, dataclasses.replace(task, sizes=larger), dataclasses.replace(task, seed=7)):
        runs.enter(each, (1,))
    assert len({each.work for each in peer.prepared}) == 3
    assert {each.work.parent for each in peer.prepared} == {task.work / "steady"}


def test_what_fails_is_left_out_with_its_reason_and_the_others_go_on(task: Task) -> None:
    lines: list[str] = []
    runs = Contest([(peer, Path("python")) for peer in (Failing(), Unprepared(), Steady())], lines.append)
    runs.enter(task, (1,))
    rows = runs.run(3)
    assert [row["peer"] for row in rows] == ["steady", "steady"]
    assert runs.left_out == [
        LeftOut("train small unprepared", "no ink"),
        LeftOut("train small failing fp32", "out of paper"),
    ]
    assert "left out: train small failing fp32: out of paper" in lines


def test_an_environment_that_cannot_be_built_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_words: object) -> Path:
        raise EnvironmentBuildError("no such version")

    monkeypatch.setattr(contest, "build", build)
    steady, unbuilt = Steady(), Unbuilt()
    assert built([steady, unbuilt], Path("python"), tmp_path, quiet) == (
        [(steady, Path("python"))],
        [LeftOut("unbuilt", "no such version")],
    )


def test_a_peer_runs_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "build", lambda environment, cache, _log: cache / environment.name / "python")
    unbuilt = Unbuilt()
    ready, _ = built([unbuilt], Path("python"), tmp_path, quiet)
    assert ready == [(unbuilt, tmp_path / "environments" / "unbuilt" / "python")]

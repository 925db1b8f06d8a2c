"""Checkpoints that are written while training goes on are those that the loop would have written."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.errors import CheckpointError, TrainingError
from transformer.training import saving
from transformer.training.checkpoint import load_checkpoint, save_checkpoint
from transformer.training.metrics import read_metrics
from transformer.training.run_directory import checkpoints, step_of
from transformer.training.saving import HostCopies, RunSaver, writes_in_background
from transformer.training.trainer import Trainer

WAIT_S = 20


def changed(config: Config, name: str, *values: str) -> Config:
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, [f"run_dir={Path(config.run_dir).with_name(name)}", *values])


@pytest.fixture
def in_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "writes_in_background", lambda _: True)


class Writes:
    """Lets checkpoints be written one by one, or fail."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun: list[str] = []
        self.threads: set[int] = set()
        self.error: OSError | None = None

    def __call__(self, directory: Path, *rest: Any) -> None:
        self.begun.append(f"{directory.parent.name}/{step_of(directory)}")
        self.threads.add(threading.get_ident())
        assert self.may_end.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        save_checkpoint(directory, *rest)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, in_background: None) -> Iterator[Writes]:  # noqa: ARG001
    held = Writes()
    monkeypatch.setattr(saving, "save_checkpoint", held)
    yield held
    held.may_end.set()


def steps(directory: Path) -> list[int]:
    return [step_of(path) for path in checkpoints(directory)]


def content(run: Path) -> dict[str, Any]:
    """The files of all checkpoints and the metrics, without times."""
    found: dict[str, Any] = {}
    for path in sorted((*run.glob("checkpoints/*/*"), *run.glob("best/*/*"))):
        name = str(path.relative_to(run))
        if path.name == "training.json":
            found[name] = {key: x for key, x in json.loads(path.read_text()).items() if not key.endswith("_s")}
        elif path.name not in ("config.yaml", "SHA256SUMS"):  # of another run directory, and of times
            found[name] = path.read_bytes()
    lines = [[(key, x) for key, x in line.items() if not key.endswith("_s")] for line in read_metrics(run)]
    return found | {"metrics": lines, "hidden": list(run.glob("*/.*"))}


def test_only_cuda_goes_on_while_checkpoints_are_written() -> None:
    found = [writes_in_background(torch.device(name)) for name in ("cpu", "mps", "cuda")]
    assert found == [False, False, True]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(["train.save_steps=2", "train.validate_steps=2"], marks=pytest.mark.slow),
        ["train.save_steps=3", "train.validate_steps=2", "train.ema_decay=0.9", "train.precision=bf16"],
    ],
    ids=str,
)
def test_a_run_whose_checkpoints_are_written_in_a_thread_has_the_same_files(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, values: list[str]
) -> None:
    for name in ("loop", "thread"):
        monkeypatch.setattr(saving, "writes_in_background", lambda _, name=name: name == "thread")
        Trainer.from_config(changed(tiny_config, name, "train.max_steps=3", *values)).fit()
        # Resumed from what was written.
        Trainer.from_config(changed(tiny_config, name, "train.max_steps=4", *values)).fit()
    loop, thread = (content(Path(tiny_config.run_dir).with_name(name)) for name in ("loop", "thread"))
    assert loop.keys() == thread.keys()
    assert [name for name, file in loop.items() if thread[name] != file] == []


def test_a_checkpoint_holds_the_state_of_its_step_although_training_goes_on(
    tiny_config: Config, writes: Writes
) -> None:
    values = "train.max_steps=5", "train.save_steps=3", "train.validate_steps=3", "train.log_steps=1"
    trainer = Trainer.from_config(changed(tiny_config, "run", *values))
    seen: dict[str, Any] = {}

    def look() -> None:
        if trainer.progress.step == 3:
            seen["weights"] = {name: x.clone() for name, x in trainer.weights.master.state_dict().items()}
        if trainer.progress.step == 4:
            assert writes.begun == ["best/3"], "the last one is written after it"
            assert not steps(trainer.run / "best") + steps(trainer.run / "checkpoints")
            writes.may_end.set()

    trainer.fit(look)
    assert writes.begun == ["best/3", "checkpoints/3", "best/5", "checkpoints/5"]
    assert threading.get_ident() not in writes.threads
    assert (steps(trainer.run / "checkpoints"), steps(trainer.run / "best")) == ([3, 5], [5])
    progress = json.loads((trainer.run / "checkpoints" / "step-00000003" / "training.json").read_text())
    assert (progress["step"], progress["validated_step"], progress["window_tokens"]) == (3, 3, 0)
    found = load_checkpoint(trainer.run / "checkpoints" / "step-00000003")[2].state_dict()
    assert_close(dict(found), seen["weights"], rtol=0, atol=0)


def test_checkpoints_of_one_step_at_a_time_are_being_written(tiny_config: Config, writes: Writes) -> None:
    values = "train.max_steps=4", "train.save_steps=2", "train.validate_steps=50"
    trainer = Trainer.from_config(changed(tiny_config, "run", *values))
    timer = threading.Timer(0.5, writes.may_end.set)
    begun: list[list[str]] = []

    def look() -> None:
        if trainer.progress.step == 3:
            timer.start()
        begun.append([*writes.begun, *(f"done {step}" for step in steps(trainer.run / "checkpoints"))])

    write = trainer._saver._write

    def spied(parent: Path, step: int, *rest: Any) -> None:
        assert step == 2 or steps(trainer.run / "checkpoints")[:1] == [2]
        write(parent, step, *rest)

    trainer._saver._write = spied  # type: ignore[method-assign]
    trainer.fit(look)
    assert begun[3] == ["checkpoints/2"]
    assert steps(trainer.run / "checkpoints") == [2, 4]


def test_the_copies_of_the_best_weights_are_those_of_the_last(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, writes: Writes
) -> None:
    trainer = Trainer.from_config(changed(tiny_config, "run"))
    copied: list[int] = []
    make = HostCopies.__init__

    def counted(self: HostCopies, tensors: dict[str, torch.Tensor]) -> None:
        copied.append(len(tensors))
        make(self, tensors)

    monkeypatch.setattr(HostCopies, "__init__", counted)
    trainer.update()
    trainer._write(trainer.run / "best")
    trainer._save()
    num_weights = len(trainer.weights.master.state_dict())
    assert copied == [num_weights, 2 * num_weights + 1], "two moments, and the random numbers"
    writes.may_end.set()
    trainer._saver.wait()
    trainer._write(trainer.run / "best")
    assert len(copied) == 3, "the others are gone"
    trainer._saver.wait()


def failing(config: Config, writes: Writes, step: int) -> tuple[Trainer, Callable[[], None]]:
    """A trainer that saves after step 2, and what lets that fail after another step."""
    values = "train.max_steps=7", "train.save_steps=2", "train.validate_steps=50"
    trainer = Trainer.from_config(changed(config, "run", *values))
    writes.error = OSError(28, "No space left on device")

    def act() -> None:
        if trainer.progress.step == step:
            writes.may_end.set()
            trainer._saver._background.drain()

    return trainer, act


def test_a_checkpoint_that_cannot_be_written_ends_training_in_one_line_at_the_next_update(
    tiny_config: Config, writes: Writes
) -> None:
    trainer, act = failing(tiny_config, writes, 2)
    expected = (
        r"^.*/run/checkpoints/step-00000002: cannot be written \(No space left on device\); earlier checkpoints are "
        "intact: rerun the same command to resume from the last one$"
    )
    with pytest.raises(CheckpointError, match=expected):
        trainer.fit(act)
    assert trainer.progress.step == 3
    assert list(trainer.run.glob("checkpoints/*")) == []
    # As after a failure in the loop, `fit` goes on, and saves what was not saved.
    writes.error = None
    assert trainer.fit(lambda: "enough") == "enough"
    assert steps(trainer.run / "checkpoints") == [3]


def test_a_last_checkpoint_that_cannot_be_written_ends_fit_with_its_error(tiny_config: Config, writes: Writes) -> None:
    trainer, _ = failing(tiny_config, writes, 0)
    writes.may_end.set()
    logged: list[str] = []
    with pytest.raises(CheckpointError, match="step-00000001: cannot be written"):
        trainer.fit(lambda: "SIGTERM" if trainer.progress.step else None, lambda kind, *_: logged.append(kind))
    assert "end" not in logged
    writes.error = None
    trainer.fit(lambda: "SIGTERM")
    assert steps(trainer.run / "checkpoints") == [1]


def test_a_failed_write_is_told_of_when_something_else_ends_training(
    tiny_config: Config, writes: Writes, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, _ = failing(tiny_config, writes, 0)

    def stop() -> None:
        if trainer.progress.step == 2:
            writes.may_end.set()
            raise TrainingError("something else")

    with pytest.raises(TrainingError, match="something else"):
        trainer.fit(stop)
    assert "warning: " in (told := capsys.readouterr().err) and "step-00000002: cannot be written (No space" in told
    assert trainer._saver.saved is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_fit_ends_only_when_what_was_begun_is_written(
    tiny_config: Config, writes: Writes, error: type[BaseException]
) -> None:
    values = "train.max_steps=7", "train.save_steps=2", "train.validate_steps=50"
    trainer = Trainer.from_config(changed(tiny_config, "run", *values))

    def interrupt() -> None:
        if trainer.progress.step == 3:
            threading.Timer(0.2, writes.may_end.set).start()
            raise error

    with pytest.raises(error):
        trainer.fit(interrupt)
    assert steps(trainer.run / "checkpoints") == [2]
    assert list(trainer.run.glob("checkpoints/.*")) == []
    assert trainer._saver.saved == (2, 0)
    trainer.fit(lambda: "enough")
    assert steps(trainer.run / "checkpoints") == [2, 3]


def test_copies_keep_the_values_and_the_layout_of_files(tiny_config: Config, tmp_path: Path) -> None:
    x = torch.randn(5, 7).T
    copies = HostCopies({"x": x, "step": torch.tensor(3)})
    expected = x.clone()
    x.zero_()
    assert_close(copies.wait(), {"x": expected, "step": torch.tensor(3)}, rtol=0, atol=0)
    saver = RunSaver(tiny_config, None, torch.device("cpu"), Trainer.from_config(tiny_config).progress)  # type: ignore[arg-type]
    assert saver.saved == (0, 0)
    assert not list(tmp_path.glob("step*"))

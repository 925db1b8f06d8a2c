"""A whole run on CUDA waits for the device where it logs, validates and saves, and nowhere else."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended import PretendedCuda
from safetensors.torch import load_file
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.training import saving
from transformer.training.trainer import Trainer

SMALL = ["model.d_model=48", "model.num_heads=3", "model.num_layers=1", "model.d_k=null", "model.d_v=null"]


def on_cuda(config: Config, name: str, *options: str) -> Config:
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    run = f"run_dir={Path(config.run_dir).with_name(name)}"
    return load_config(path, [run, "train.device=cuda", "train.precision=bf16", *SMALL, *options])


class Waits:
    """What the thread that trains waits for, and while doing what."""

    def __init__(self, trainer: Trainer, cuda: PretendedCuda) -> None:
        self.found: list[tuple[int, str, str]] = []  # step, part of the loop, wait
        self._part, self._trainer, self._main = "loop", trainer, threading.get_ident()
        self._wait, cuda.wait = cuda.wait, self._record  # type: ignore[method-assign]
        for part in ("update", "_log", "_validate", "_save", "_check_skipped"):
            setattr(trainer, part, self._within(part, getattr(trainer, part)))

    def _within(self, part: str, call: Any) -> Any:
        def called(*arguments: Any) -> Any:
            before, self._part = self._part, part
            try:
                return call(*arguments)
            finally:
                self._part = before

        return called

    def _record(self, operation: str, number: int | None = None) -> None:
        self._wait(operation, number)
        if threading.get_ident() == self._main:
            self.found.append((self._trainer.progress.step, self._part, operation))


@pytest.mark.parametrize(
    "options",
    [
        ["train.ema_decay=0.9", "train.clip_norm=0.5"],
        pytest.param(
            ["data.subword_dropout=0.1", "train.precision=fp16", "train.save_minutes=10"], marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_a_run_waits_at_lines_of_metrics_validations_and_saves_only(tiny_config: Config, options: list[str]) -> None:
    config = on_cuda(tiny_config, "run", "train.max_steps=9", *options)  # logs 3, validates 5, saves 4
    with PretendedCuda() as cuda:
        trainer = Trainer.from_config(config)
        trainer.update()  # Adam makes its state
        waits = Waits(trainer, cuda)
        trainer.fit()
    parts = {part for _, part, _ in waits.found}
    assert parts == {"_log", "_validate", "_save", "_check_skipped"}
    assert {step for step, part, _ in waits.found if part == "_log"} == {3, 6, 9}
    assert {step for step, part, _ in waits.found if part == "_validate"} == {5, 9}
    assert {step for step, part, _ in waits.found if part == "_save"} == {4, 8, 9}
    assert {step for step, part, _ in waits.found if part == "_check_skipped"} == {3, 4, 5, 6, 8, 9}
    # The sums of the line of metrics, whether the weights are finite, and the loss scale with its counters.
    of_a_save = [wait for step, part, wait in waits.found if (step, part) == (4, "_save")]
    assert len(of_a_save) == (3 if "train.precision=fp16" in options else 2), of_a_save


def test_checkpoints_that_are_written_while_training_goes_on_are_those_of_the_loop(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies to the host arrive late: until they are waited for, they hold other values."""
    options = "train.max_steps=3", "train.save_steps=2", "train.validate_steps=2", "train.ema_decay=0.9"
    found: dict[str, list[dict[str, Any]]] = {}
    for name in ("thread", "loop"):
        if name == "loop":
            monkeypatch.setattr(saving, "writes_in_background", lambda _: False)
        with PretendedCuda():
            trainer = Trainer.from_config(on_cuda(tiny_config, name, *options))
            trainer.fit()
        files = sorted(trainer.run.glob("*/step-*/*.safetensors"))
        assert len(files) == 5  # 2 checkpoints of two files, and the best one
        found[name] = [load_file(path) for path in files]
    assert_close(found["thread"], found["loop"], rtol=0, atol=0)


def test_copies_need_not_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    with PretendedCuda() as cuda:
        x = torch.ones(3, device="cuda") * 2
        empty = torch.empty

        def unpinned(*sizes: Any, **options: Any) -> torch.Tensor:
            if options.get("pin_memory"):
                raise RuntimeError("CUDA error: out of memory")
            return empty(*sizes, **options)

        monkeypatch.setattr(torch, "empty", unpinned)
        cuda.reset()
        copies = saving.HostCopies({"x": x})
        assert len(cuda.waits) == 1
        assert cuda.peak_bytes == cuda.live_bytes, "nothing is copied on the device"
        x.zero_()
        assert copies.wait()["x"].tolist() == [2.0] * 3

"""A user's own logger sees what is logged, and costs training nothing when it fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from transformer.commands.train import main
from transformer.config import Config, load_config
from transformer.training.callbacks import Notifier
from transformer.training.metrics import read_metrics
from transformer.training.trainer import Trainer

Call = tuple[str, int, dict[str, float]]


def changed(config: Config, *overrides: str) -> Config:
    path = Path(config.run_dir).with_name("changed.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, overrides)


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return changed(tiny_config, "train.max_steps=5")


def numbers(record: Mapping[str, Any]) -> Call:
    values = {name: x for name, x in record.items() if name not in ("kind", "step") and not isinstance(x, str)}
    return record["kind"], record["step"], values


def test_it_gets_every_record_between_a_start_and_an_end(config: Config) -> None:
    calls: list[Call] = []
    trainer = Trainer.from_config(config)
    trainer.fit(on_log=lambda kind, step, values: calls.append((kind, step, dict(values))))
    assert [call[:2] for call in (calls[0], calls[-1])] == [("start", 0), ("end", 5)]
    assert calls[1:-1] == [numbers(record) for record in read_metrics(trainer.run)]
    assert {kind for kind, *_ in calls} == {"start", "train", "validation", "end"}
    assert all(type(x) is float for _, _, values in calls for x in values.values())


def test_it_is_called_once_the_record_is_on_disk(config: Config) -> None:
    trainer, found = Trainer.from_config(config), []

    def look(kind: str, step: int, _values: Mapping[str, float]) -> None:
        path = trainer.run / "metrics.jsonl"
        lines = path.read_text().splitlines()
        if kind in ("train", "validation"):
            last = json.loads(lines[-1])
            found.append((last["kind"], last["step"]) == (kind, step))
        if kind == "end":
            assert (trainer.run / "checkpoints" / "step-00000005").is_dir()

    trainer.fit(on_log=look)
    assert found == [True] * 3


def test_a_resumed_run_starts_where_it_goes_on_and_a_signal_ends_it(config: Config) -> None:
    calls: list[tuple[str, int]] = []
    for until in (2, None):
        trainer = Trainer.from_config(config)
        trainer.fit(
            lambda until=until, now=trainer: "SIGTERM" if now.progress.step == until else None,
            lambda kind, step, _: calls.append((kind, step)),
        )
    assert [call for call in calls if call[0] in ("start", "end")] == [
        ("start", 0),
        ("end", 2),
        ("start", 2),
        ("end", 5),
    ]


def test_text_and_truth_are_no_numbers_and_others_are_floats() -> None:
    calls: list[Call] = []
    notify = Notifier(lambda kind, step, values: calls.append((kind, step, dict(values))))
    notify("validation", 3, {"bleu": 3, "nll": 0.5, "bleu_tokenizer": "13a"})
    assert calls == [("validation", 3, {"bleu": 3.0, "nll": 0.5})]
    assert type(calls[0][2]["bleu"]) is float


def test_a_failing_logger_is_reported_once_and_training_goes_on(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Trainer.from_config(changed(config, f"run_dir={config.run_dir}-plain"))
    plain.fit()
    kinds: list[str] = []

    def offline(kind: str, _step: int, _values: Mapping[str, float]) -> None:
        kinds.append(kind)
        raise ConnectionError("no\nnetwork")

    capsys.readouterr()
    trainer = Trainer.from_config(config)
    assert trainer.fit(on_log=offline) == "train.max_steps=5 reached"
    assert kinds == ["start", "train", "train", "validation", "end"], "it is asked again: the network may be back"
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: on_log failed at start of step 0 (ConnectionError: no")
    ours, theirs = (one.weights.master.state_dict() for one in (trainer, plain))
    assert_close(dict(ours), dict(theirs), rtol=0, atol=0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_in_a_logger_passes_and_the_run_resumes(config: Config, error: type[BaseException]) -> None:
    def stop(kind: str, step: int, _values: Mapping[str, float]) -> None:
        if (kind, step) == ("validation", 5):
            raise error

    trainer = Trainer.from_config(config)
    with pytest.raises(error):
        trainer.fit(on_log=stop)
    again = Trainer.from_config(config)
    assert again.progress.step == 4
    assert again.fit() == "train.max_steps=5 reached"


def test_a_logger_that_draws_random_numbers_or_changes_its_values_changes_nothing(config: Config) -> None:
    plain = Trainer.from_config(changed(config, f"run_dir={config.run_dir}-plain"))
    plain.fit()

    def careless(_kind: str, _step: int, values: dict[str, float]) -> None:
        torch.manual_seed(1)
        torch.rand(7)
        values.clear()

    trainer = Trainer.from_config(config)
    trainer.fit(on_log=careless)  # type: ignore[arg-type]
    ours, theirs = (one.weights.master.state_dict() for one in (trainer, plain))
    assert_close(dict(ours), dict(theirs), rtol=0, atol=0)
    assert [numbers(x)[:2] for x in read_metrics(trainer.run)] == [numbers(x)[:2] for x in read_metrics(plain.run)]
    assert all("nll" in record for record in read_metrics(trainer.run))


def test_skipped_updates_are_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, calls = Trainer.from_config(changed(config, "train.skip_nonfinite=1")), []

    def spoil() -> None:
        if trainer.progress.step == 1:
            for parameter in trainer.weights.master.parameters():
                parameter.grad.fill_(float("inf"))  # type: ignore[union-attr]

    monkeypatch.setattr(trainer._reducer, "all_reduce_gradients", spoil)
    trainer.fit(on_log=lambda kind, step, values: calls.append((kind, step, values)))
    (skipped,) = [call for call in calls if call[0] == "nonfinite"]
    assert (skipped[1], skipped[2]["count"]) == (2, 1.0)


def test_the_command_takes_it_too(config: Config) -> None:
    calls: list[str] = []
    path = Path(config.run_dir).with_name("mine.yaml")
    path.write_text(config.to_yaml())
    assert main([str(path)], on_log=lambda kind, _step, _values: calls.append(kind)) == 0
    assert calls == ["start", "train", "train", "validation", "end"]

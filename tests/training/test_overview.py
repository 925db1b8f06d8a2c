"""What runs have reached, read from directories that may be half-written, damaged or of others."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest

from transformer.config import Config
from transformer.errors import CheckpointError
from transformer.files import try_lock
from transformer.training import overview as module
from transformer.training.metrics import read_metrics
from transformer.training.overview import Overview, find_runs, overview
from transformer.training.trainer import Trainer


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the run of 11 updates, which validated after 5 and 10, to change."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def set_value(run: Path, key: str, value: str) -> None:
    path = run / "config.yaml"
    lines = [f"  {key}: {value}" if line.startswith(f"  {key}: ") else line for line in path.read_text().splitlines()]
    path.write_text("".join(f"{line}\n" for line in lines))


def test_a_finished_run_is_what_its_directory_says(trained_run: Path) -> None:
    found = overview(trained_run)
    validations = [record for record in read_metrics(trained_run) if record["kind"] == "validation"]
    best = min(validations, key=lambda record: record["nll"])
    assert (found.run, found.state, found.fault) == (str(trained_run), "finished", None)
    assert (found.step, found.max_steps, found.pairs) == (11, 11, 397)
    assert (found.best_step, found.best_nll, found.best_ppl) == (best["step"], best["nll"], best["ppl"])
    assert (found.best_bleu, found.highest_bleu, found.highest_bleu_step) == (None, None, None)
    progress = json.loads((trained_run / "checkpoints" / "step-00000011" / "training.json").read_text())
    assert found.elapsed_s == progress["elapsed_s"]
    written = [(trained_run / name).stat().st_mtime for name in ("metrics.jsonl", "starts.jsonl", "config.yaml")]
    assert found.active_at == max(written)


def test_the_parameters_are_those_of_the_model(tiny_config: Config) -> None:
    trainer = Trainer.from_config(tiny_config)
    trainer.fit(lambda: "enough")
    number = sum(parameter.numel() for parameter in trainer.weights.master.parameters())
    assert overview(trainer.run).parameters is None, "there is no checkpoint yet"
    trainer.fit(lambda: "enough" if trainer.progress.step else None)
    assert overview(trainer.run).parameters == number


def test_a_run_in_use_is_running_and_shows_its_last_metrics(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 17, "loss": 1.5, "elapsed_s": 99.5}\n{"kind": "tr')
    assert (overview(run).step, overview(run).state) == (11, "finished"), "what follows the checkpoint is repeated"
    lock = try_lock(run / ".lock", "the run")
    found = overview(run)
    assert (found.state, found.step, found.elapsed_s) == ("running", 17, 99.5)
    del lock
    assert overview(run).state == "finished"


@pytest.mark.parametrize(
    ("key", "value", "state"),
    [
        *(("max_steps", "12", "stopped"), ("max_steps", "11", "finished"), ("max_steps", "7", "finished")),
        *(("max_hours", "1.0e-09", "finished"), ("max_hours", "1000.0", "stopped")),
        *(("patience", "1", "finished"), ("patience", "2", "stopped")),
    ],
)
def test_a_run_is_finished_if_a_limit_is_reached(run: Path, key: str, value: str, state: str) -> None:
    if key != "max_steps":
        set_value(run, "max_steps", "100")
    path = run / "checkpoints" / "step-00000011" / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_worse": 1}))
    set_value(run, key, value)
    assert overview(run).state == state


def test_scores_are_of_the_best_checkpoint_and_the_highest_bleu_of_all(run: Path) -> None:
    lines = [
        {"kind": "validation", "step": step, "nll": nll, "ppl": 2.0, "bleu": bleu}
        for step, nll, bleu in ((3, 1.5, 11.0), (5, 1.25, 7.0), (7, 1.75, 13.0), (9, 2.0, 13.0))
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for path in (run / "best").iterdir():
        path.rename(run / "best" / "step-00000003")
    found = overview(run)
    assert (found.best_step, found.best_nll, found.best_bleu) == (3, 1.5, 11.0)
    assert (found.highest_bleu, found.highest_bleu_step) == (13.0, 9)
    shutil.rmtree(run / "best")
    assert (overview(run).best_step, overview(run).best_nll) == (5, 1.25), "without that checkpoint, by the loss"


def test_the_highest_bleu_is_among_those_by_the_tokenizer_of_the_last(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for step, bleu, name in ((3, 29.0, '"char"'), (5, 7.0, '"13a"'), (7, 5.0, '"13a"'), (9, "NaN", '"char"')):
            line = f'{{"kind": "validation", "step": {step}, "bleu": {bleu}, "bleu_tokenizer": {name}}}'
            file.write(f"{line}\n")
    assert (overview(run).highest_bleu, overview(run).highest_bleu_step) == (7.0, 5)


def test_chrf_is_shown_like_bleu_and_other_sets_are_not(run: Path) -> None:
    lines = [
        {"kind": kind, "step": step, "nll": 1.5, "ppl": 2.0, "bleu": 7.0, "chrf": chrf}
        for step, chrf in ((3, 41.0), (5, 43.0), (7, 43.0), (9, math.nan))
        for kind in ("validation", "validation/test")
    ]
    for line in lines:
        if line["kind"] == "validation/test":
            line.update(bleu=99.0, chrf=99.0, nll=0.1)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for path in (run / "best").iterdir():
        path.rename(run / "best" / "step-00000003")
    found = overview(run)
    assert (found.best_chrf, found.highest_chrf, found.highest_chrf_step) == (41.0, 43.0, 7)
    assert (found.best_nll, found.highest_bleu) == (1.5, 7.0)


def test_a_run_without_metrics_has_its_checkpoints(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    found = overview(run)
    assert (found.state, found.step, found.best_nll) == ("finished", 11, None)


def test_kept_results_without_checkpoints_have_their_metrics(run: Path) -> None:
    for name in ("checkpoints", "best"):
        shutil.rmtree(run / name)
    found = overview(run)
    assert (found.state, found.step, found.parameters) == ("no checkpoint", 11, None)


@pytest.mark.parametrize("held", [False, True])
def test_a_start_that_has_written_nothing_yet_is_no_fault(tmp_path: Path, held: bool) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    assert [*find_runs(tmp_path)] == [tmp_path / "run"]
    lock = try_lock(tmp_path / "run" / ".lock", "the run") if held else None
    found = overview(tmp_path / "run")
    assert (found.state, found.step, found.fault) == ("running" if held else "no checkpoint", None, None)
    del lock


def test_starts_of_earlier_versions_and_half_a_line_leave_the_number_of_pairs_unknown(run: Path) -> None:
    path = run / "starts.jsonl"
    path.write_text('{"pairs": 7}\n{"step": 3}\n[]\n{"pairs": "x"}\n{"pairs"')
    assert overview(run).pairs == 7
    path.write_text('{"step": 3}\n')
    assert overview(run).pairs is None
    path.unlink()
    assert overview(run).pairs is None


LAST = "checkpoints/step-00000011"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("config.yaml", None, r"^config\.yaml: no such configuration file"),
        ("config.yaml", b"\xff", r"^config\.yaml: cannot be read"),
        ("config.yaml", b"model: {d_model: x}", r"^config\.yaml: model\.d_model"),
        ("config.yaml", b"other: 1", r"^config\.yaml: unknown key other"),
        (f"{LAST}/training.json", b"{", rf"^{LAST}/training\.json: cannot be read"),
        (f"{LAST}/training.json", None, rf"^{LAST}/training\.json: cannot be read"),
        (f"{LAST}/model.safetensors", b"x", rf"^{LAST}/model\.safetensors: cannot be read"),
        (f"{LAST}/model.safetensors", None, rf"^{LAST}/model\.safetensors: "),
    ],
)
def test_what_is_damaged_is_named_in_a_line(run: Path, name: str, content: bytes | None, fault: str) -> None:
    path = run / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert [*find_runs(run.parent)] == [run]
    found = overview(run)
    assert found.state == "damaged"
    assert found.fault is not None and "\n" not in found.fault
    assert re.search(fault, found.fault)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_no_damage(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_checkpoints = module.checkpoints
    pruned = [run / "checkpoints" / "step-00000007"]
    monkeypatch.setattr(module, "checkpoints", lambda path: [pruned.pop()] if pruned else list_checkpoints(path))
    assert overview(run).state == "finished"
    assert pruned == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_cannot_be_read_is_a_line(run: Path) -> None:
    run.chmod(0)
    try:
        assert [*find_runs(run.parent)] == [run]
        assert overview(run).fault == f"{run}: Permission denied"
    finally:
        run.chmod(0o700)


def test_a_directory_that_fails_is_a_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", fail)
    assert [*find_runs(run)] == [run]
    assert (overview(run).state, overview(run).fault) == ("damaged", f"{run}: Permission denied")


# Finding them.


def make_run(path: Path) -> Path:
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").touch()
    return path


def test_runs_are_found_below_each_other_and_nothing_else(tmp_path: Path) -> None:
    names = ("a", "a/checkpoints-of-another", "b/c", "b/d")
    runs = [make_run(tmp_path / name) for name in names]
    (tmp_path / "a" / "best" / "step-00000003").mkdir(parents=True)
    for place in ("a/best/step-00000003", "model", "hydra"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "config.yaml").touch()
    (tmp_path / "model" / "model.safetensors").touch()
    make_run(tmp_path / ".hidden")
    assert [*find_runs(tmp_path)] == runs
    assert [*find_runs(tmp_path / "b" / "c")] == [tmp_path / "b" / "c"]
    assert [*find_runs(tmp_path / "hydra")] == []


def test_links_are_followed_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "elsewhere" / "run")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(run)
    (tmp_path / "runs" / "self").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "broken").symlink_to(tmp_path / "absent")
    assert [*find_runs(tmp_path / "runs")] == [tmp_path / "runs" / "link"]


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_directory_that_does_not_exist_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=rf"^{tmp_path / name}: (no such|not a) directory$"):
        next(find_runs(tmp_path / name))


def test_the_overview_of_a_resumed_run_counts_all_its_starts(tiny_config: Config) -> None:
    def train_until(step: int) -> Path:
        trainer = Trainer.from_config(tiny_config)
        trainer.fit(lambda: "enough" if trainer.progress.step == step else None)
        assert overview(trainer.run).state == "running"
        return trainer.run

    def ended(run: Path) -> Overview:
        gc.collect()  # the trainer, and with it the lock
        return overview(run)

    first, second = (ended(train_until(step)) for step in (7, 11))
    assert (first.state, first.step) == ("stopped", 7)
    assert (second.state, second.step) == ("finished", 11)
    assert first.elapsed_s is not None and second.elapsed_s is not None
    assert second.elapsed_s > first.elapsed_s > 0


def test_scores_that_are_not_finite_hide_no_others(run: Path) -> None:
    """An earlier version took any number of a scorer."""
    shutil.rmtree(run / "best")
    values = [(3, math.nan, math.nan), (5, 2.5, 7.5), (7, math.inf, math.nan), (9, 3.5, 6.5)]
    records = [{"kind": "validation", "step": step, "nll": nll, "bleu": bleu} for step, nll, bleu in values]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    found = overview(run)
    assert (found.highest_bleu, found.highest_bleu_step) == (7.5, 5)
    assert (found.best_step, found.best_nll, found.best_bleu) == (5, 2.5, 7.5)

"""What training prints at its end: scores and speed of all starts, and commands that work."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from transformer.commands import __main__ as entry
from transformer.commands.end_summary import next_commands, results
from transformer.config import Config
from transformer.data.builtin import builtin_trees
from transformer.training.checkpoint import average_checkpoints, save_checkpoint
from transformer.training.run_directory import checkpoints
from transformer.training.trainer import Trainer


def with_data(config: Config, **values: str) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **values))


def write_metrics(run: Path, *scores: tuple[int, float, float | None]) -> None:
    """Validations with step, loss and BLEU."""
    records = [
        {"kind": "validation", "step": step, "nll": nll, "ppl": 9.04, **({} if bleu is None else {"bleu": bleu})}
        for step, nll, bleu in scores
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))


def test_the_best_checkpoint_and_the_highest_bleu_are_named(tiny_config: Config) -> None:
    trainer = Trainer.from_config(tiny_config)
    trainer.fit()
    (best,) = (trainer.run / "best").iterdir()
    assert best.name == "step-00000010"
    write_metrics(trainer.run, (5, 2.5, 17.125), (10, 2.2, 13.5))
    lines = results(trainer).splitlines()
    assert lines[:2] == ["best checkpoint: step 10, nll 2.200, ppl 9.04, BLEU 13.50", "highest BLEU: 17.12 at step 5"]
    write_metrics(trainer.run, (5, 2.5, 13.5), (10, 2.2, 13.5))
    assert results(trainer).splitlines()[0] == "best checkpoint: step 10, nll 2.200, ppl 9.04, BLEU 13.50"
    assert results(trainer).splitlines()[1].startswith("time: ")
    with (trainer.run / "metrics.jsonl").open("a") as file:
        for step, chrf in ((5, 44.0), (10, 41.25)):
            file.write(f'{{"kind": "validation", "step": {step}, "nll": 2.2, "ppl": 9.04, "chrf": {chrf}}}\n')
    assert results(trainer).splitlines()[:3] == [
        "best checkpoint: step 10, nll 2.200, ppl 9.04, chrF 41.25",
        "highest BLEU: 13.50 at step 10",
        "highest chrF: 44.00 at step 5",
    ]
    write_metrics(trainer.run, (5, 2.5, None), (10, 2.2, None))
    assert results(trainer).splitlines()[0] == "best checkpoint: step 10, nll 2.200, ppl 9.04"
    write_metrics(trainer.run)
    assert results(trainer).splitlines()[0] == "best checkpoint: step 10", "its metrics are lost"


def test_time_and_speed_are_of_all_starts(tiny_config: Config) -> None:
    first = Trainer.from_config(tiny_config)
    first.fit(lambda: "enough" if first.progress.step == 7 else None)
    trainer = Trainer.from_config(tiny_config)
    assert trainer.progress.step == 7
    trainer.fit()
    trainer.progress.elapsed_s = 3723.0
    src, tgt = trainer.num_tokens()
    assert tgt == pytest.approx(11 * tiny_config.train.tokens_per_update, rel=0.1)
    assert results(trainer).splitlines()[-1] == (
        f"time: 1h02m with validations, {src / 3723:.2f} source and {tgt / 3723:.2f} target tokens/s"
    )


def test_the_first_update_has_no_results_yet(tiny_config: Config) -> None:
    assert results(Trainer.from_config(tiny_config)) == ""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are printed as the console script, on the path, would print them."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "/some/bin/transformer", "train"])
    monkeypatch.setattr("shutil.which", lambda name: f"/some/bin/{name}")


@pytest.mark.usefixtures("commands")
def test_the_commands_name_run_and_checkpoint_and_fit_into_80_columns(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = Trainer.from_config(dataclasses.replace(tiny_config, run_dir="runs/my run"))
    trainer.fit()
    lines = next_commands(trainer).splitlines()
    assert lines == [
        "checkpoint to translate and score with: runs/my run/best/step-00000010",
        "next:",
        "  transformer translate 'runs/my run'",
        "  transformer evaluate 'runs/my run'",
        "  transformer average 'runs/my run' --last 3",
    ]
    assert max(map(len, [*lines, *results(trainer).splitlines()])) <= 80
    saved = checkpoints(trainer.run / "checkpoints")
    save_checkpoint(trainer.run / "averaged", trainer.config, trainer.data.tokenizer, average_checkpoints(saved))
    again = next_commands(trainer).splitlines()
    assert again[0] == "checkpoint to translate and score with: runs/my run/averaged"
    assert again[2:] == lines[2:4], "it is averaged already"


@pytest.mark.usefixtures("commands")
def test_one_checkpoint_is_not_averaged(tiny_config: Config) -> None:
    settings = dataclasses.replace(tiny_config.train, max_steps=1)
    trainer = Trainer.from_config(dataclasses.replace(tiny_config, train=settings))
    trainer.fit()
    assert "average" not in next_commands(trainer)


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("form", ["{split}.trees", "{split}.trees.gz", "treebank"])
def test_a_model_of_trees_parses(tiny_config: Config, tmp_path: Path, form: str) -> None:
    trainer = Trainer.from_config(tiny_config)
    trainer.fit(lambda: "enough" if trainer.progress.step else None)
    trees = builtin_trees("test", 1)
    (tmp_path / form.format(split="test")).write_text(next(trees))
    corpus = form if form == "treebank" else f"{tmp_path}/{form}"
    trainer.config = with_data(trainer.config, corpus=corpus)
    assert next_commands(trainer).splitlines()[2:] == [
        f"  transformer parse {trainer.run}",
        f"  transformer parse {trainer.run} --evaluate",
    ]


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("files", ["{split}.{lang}", "{split}.csv"])
def test_without_test_data_the_validation_data_are_scored(tiny_config: Config, tmp_path: Path, files: str) -> None:
    trainer = Trainer.from_config(tiny_config)
    trainer.fit(lambda: "enough" if trainer.progress.step else None)
    trainer.config = with_data(trainer.config, corpus=f"{tmp_path}/{files}", validation_split="dev")
    evaluate = f"  transformer evaluate {trainer.run}"
    assert next_commands(trainer).splitlines()[3] == f"{evaluate} --split dev"
    for lang in ("en", "de"):
        (tmp_path / files.format(split="test", lang=lang)).touch()
    assert next_commands(trainer).splitlines()[3] == evaluate


def test_the_printed_commands_run(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer.from_config(tiny_config)
    trainer.fit()
    printed = [shlex.split(line) for line in next_commands(trainer).splitlines()[2:]]
    run, config = trainer.run, trainer.config
    del trainer  # and with it the lock of the run
    assert config.run_dir == str(run)
    for words in printed:
        start = words.index("transformer.commands")
        assert words[:start] == [sys.executable, "-m"]
        monkeypatch.setattr(sys, "argv", words[start:])
        monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115, PTH123
        assert entry._main() == 0, words
    out = capfd.readouterr().out
    assert "BLEU = " in out and re.search(r"^averaged step-\d+", out, re.MULTILINE)

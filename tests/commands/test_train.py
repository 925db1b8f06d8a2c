"""What training scores with is made and said before training starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sacrebleu.metrics.bleu import BLEU

from transformer.cli import run
from transformer.commands import train
from transformer.config import Config
from transformer.inference import bleu_tokenizer
from transformer.training.metrics import read_metrics

Train = Callable[..., tuple[object, str, str]]


@pytest.fixture
def call(tiny_config: Config, capfd: pytest.CaptureFixture[str]) -> Train:
    """Run the command on the tiny configuration, for two updates with validation BLEU."""
    path = Path(tiny_config.run_dir).with_name("mine.yaml")
    path.write_text(tiny_config.to_yaml())
    fixed = ("train.validation_bleu=true", "train.max_steps=2", "train.validate_steps=2")

    def call(*arguments: str) -> tuple[object, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(lambda: train.main([str(path), *fixed, *arguments]))
        return ended.value.code, *capfd.readouterr()

    return call


def chinese(corpus: str, directory: Path) -> list[str]:
    """Overrides for a corpus whose target side is Chinese in a language called xx."""
    directory.mkdir()
    for split in ("train", "validation", "test"):
        lines = Path(corpus.format(split=split, lang="en")).read_text().splitlines()
        (directory / f"{split}.en").write_text("".join(f"{line}\n" for line in lines))
        characters = "一二三四五六七八九十男女看书公园狗猫"
        target = ["".join(characters[ord(c) % len(characters)] for c in line if c.isalpha()) for line in lines]
        (directory / f"{split}.xx").write_text("".join(f"{line}。\n" for line in target))
    return [f"data.corpus={directory}/{{split}}.{{lang}}", "data.tgt_lang=xx"]


def test_the_tokenizer_of_validation_bleu_is_said_and_recorded(call: Train, tiny_config: Config) -> None:
    status, out, err = call("data.bleu_tokenizer=char")
    assert status == 0
    assert "\nvalidation BLEU: tokenizer char\n" in out
    assert "warning" not in err
    (line,) = [line for line in read_metrics(tiny_config.run_dir) if line["kind"] == "validation"]
    assert line["bleu_tokenizer"] == "char"

    status, out, err = call("data.bleu_tokenizer=auto", "train.max_steps=3")
    assert status == 0, "a run may go on with another one"
    assert "warning: validation BLEU is computed with 13a from now on; up to now it was char\n" in err


def test_without_validation_bleu_nothing_is_said(call: Train) -> None:
    status, out, err = call("train.validation_bleu=false", "data.tgt_lang=de", "train.max_steps=1")
    assert (status, "validation BLEU" in out + err) == (0, False)


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_tokenizer_that_is_missing_is_found_before_there_is_a_run(
    call: Train, tiny_config: Config, monkeypatch: pytest.MonkeyPatch, check: tuple[str, ...]
) -> None:
    def missing(*, tokenize: str, **_: object) -> BLEU:
        raise RuntimeError(f"{tokenize} is missing")

    monkeypatch.setattr(bleu_tokenizer, "BLEU", missing)
    status, _, err = call("data.bleu_tokenizer=ko-mecab", *check)
    assert (status, err) == (2, "error: the BLEU tokenizer 'ko-mecab' cannot be used: ko-mecab is missing\n")
    assert not Path(tiny_config.run_dir).exists()


def test_references_that_the_tokenizer_does_not_split_are_said(call: Train, tiny_corpus: str, tmp_path: Path) -> None:
    overrides = chinese(tiny_corpus, tmp_path / "zh")
    status, _, err = call(*overrides)
    assert status == 0
    assert "warning: the references are written without spaces, and 13a does not split them: " in err
    status, _, err = call(*overrides, "data.bleu_tokenizer=zh", f"run_dir={tmp_path}/other")
    assert (status, "warning" in err) == (0, False)

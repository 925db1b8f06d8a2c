"""The translate command with word alignments in its JSON lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.commands import score, translate
from transformer.errors import ConfigError, DataError
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import load_checkpoint, save_checkpoint

LINES = ["A man is sleeping.", "Two small dogs are playing.", "The women are singing."]
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def babbler(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint with a tag, whose translations are not empty."""
    config, tokenizer, _ = load_checkpoint(trained_run / "best" / "step-00000010")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, tag="<2de>"))
    torch.manual_seed(5)
    checkpoint = tmp_path_factory.mktemp("babbler") / "step-00000010"
    weights = build_model(len(tokenizer), config.model).state_dict()
    # Large, so that each layer has its own attention.
    weights = {name: weight * (7 if "cross_attention" in name else 1) for name, weight in weights.items()}
    save_checkpoint(checkpoint, config, tokenizer, weights)
    return checkpoint


@pytest.fixture
def run(babbler: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command; returns the objects that it prints."""

    def call(*options: object, lines: list[str] = LINES) -> list[dict[str, Any]]:
        capsys.readouterr()
        texts = [f"--text={line}" for line in lines]
        assert translate.main([str(babbler), *texts, "--json", "--alignment", *map(str, options)]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def pharaoh(links: list[list[int]]) -> str:
    return " ".join(f"{j}-{i}" for j, i in links)


@pytest.mark.parametrize(
    ("options", "score_options"),
    [
        ((), ()),
        (("--nbest", 3), ()),
        (("--alignment-layer", 1), ("--layer", 1)),
        (("--sample", "--nbest", 2, "--max-length", 17), ()),
        (("--tag", ""), ("--tag", "")),
    ],
    ids=str,
)
def test_alignments_are_those_of_the_score_command(
    run: Run,
    babbler: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    score_options: tuple[object, ...],
) -> None:
    pairs = [(x["source"], one) for x in run(*options) for one in x["translations"]]
    for name, side in (("src", [source for source, _ in pairs]), ("tgt", [one["text"] for _, one in pairs])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in side))
    arguments = [babbler, "--src", tmp_path / "src", "--tgt", tmp_path / "tgt", "--align", *score_options]
    score.main([*map(str, arguments)])
    found = [pharaoh(one["alignment"]) for _, one in pairs]
    assert found == capsys.readouterr().out.split("\n")[:-1]
    assert any(found)
    for source, one in pairs:
        assert all(j < len(source.split()) and i < len(one["text"].split()) for j, i in one["alignment"])


def test_the_layer_counts(run: Run) -> None:
    first, last, default = (
        [x["translations"][0]["alignment"] for x in run(*options)]
        for options in (("--alignment-layer", 1), ("--alignment-layer", 2), ())
    )
    assert first != last == default


def test_empty_copied_and_split_lines_have_no_links(run: Run, babbler: Path) -> None:
    lines = ["", "здесь.", LINES[0], " ".join(LINES)]
    sizes = [len(ids) for ids in Translator.load(babbler).encode(LINES)]
    found = run("--max-source-length", max(sizes) + 2, "--too-long", "split", lines=lines)
    links = [x["translations"][0]["alignment"] for x in found]
    assert [bool(x) for x in links] == [False, False, True, False]
    assert all(x["translations"][0]["text"] for x in found[1:])


def test_without_the_option_there_are_none(babbler: Path, capsys: pytest.CaptureFixture[str]) -> None:
    translate.main([str(babbler), f"--text={LINES[0]}", "--json"])
    assert "alignment" not in json.loads(capsys.readouterr().out)["translations"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--alignment",), "^--alignment is for --json$"),
        (("--json", "--alignment-layer", "1"), "^--alignment-layer needs --alignment$"),
        (
            ("--json", "--alignment", "--alignment-layer", "3"),
            "^--alignment-layer=3 must be a whole number between 1 and num_decoder_layers=2$",
        ),
        (("--json", "--alignment", "--ensemble", "RUN"), "^an ensemble of 2 models has no attention: "),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_an_error(babbler: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        translate.main([str(babbler), "--text=A.", *(str(babbler) if x == "RUN" else x for x in options)])


def test_an_output_is_not_resumed_with_other_alignments(
    babbler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in LINES))
    options = [*map(str, (babbler, tmp_path / "in", "--json", "--output", tmp_path / "out"))]
    monkeypatch.setattr(translate, "_LINES_AT_A_TIME", 1)
    align, calls = translate.align_translations, []

    def stop(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return align(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(translate, "align_translations", stop)
        with pytest.raises(KeyboardInterrupt):
            translate.main([*options, "--alignment"])
    for others in ([], ["--alignment", "--alignment-layer", "1"]):
        with pytest.raises(DataError, match="was made with alignment_layer="):
            translate.main([*options, *others])
    translate.main([*options, "--alignment", "--alignment-layer", "2"])  # the default
    found = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [x["line"] for x in found] == [1, 2, 3]
    assert all("alignment" in one for x in found for one in x["translations"])

"""scripts/parse.py, end to end."""

from __future__ import annotations

import io
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from transformer.cli import run
from transformer.config import Config, load_config
from transformer.data.builtin import builtin_trees
from transformer.inference.translator import Translator
from transformer.parsing.trees import linearise, read_tree, words
from transformer.training.trainer import Trainer

SCRIPT = Path(__file__).parents[2] / "scripts" / "parse.py"
CONFIGS = Path(__file__).parents[2] / "configs"
YAML = """
seed: 7
model: {d_model: 22, num_layers: 1, num_heads: 2, d_ff: 29}
data: {vocab_size: 211}
train: {tokens_per_update: 509, max_tokens: 509, warmup_steps: 5, max_steps: 3, log_steps: 3, validate_steps: 3,
        validation_bleu: false, save_minutes: null, precision: fp32, device: cpu}
search: {beam: 2, alpha: 0.3, max_length_offset: 23}
"""


class Result(NamedTuple):
    """Exit status and output of the script."""

    status: int
    out: str
    err: str


Parse = Callable[..., Result]


@pytest.fixture(scope="module")
def treebank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of builtin trees: 199 for training, 11 for validation, 13 for test."""
    directory = tmp_path_factory.mktemp("treebank")
    trees = builtin_trees("train", 223)
    for split, size in (("train", 199), ("validation", 11), ("test", 13)):
        (directory / f"{split}.trees").write_text("".join(f"{next(trees)}\n" for _ in range(size)))
    return directory


@pytest.fixture(scope="module")
def parser(treebank: Path) -> Path:
    """A run after three updates, whose output is malformed."""
    (treebank / "tiny.yaml").write_text(YAML)
    places = [f"run_dir={treebank / 'run'}", f"data.cache_dir={treebank / 'cache'}"]
    config = load_config(treebank / "tiny.yaml", [*places, f"data.corpus={treebank}/{{split}}.trees"])
    Trainer.from_config(config).fit()
    return Path(config.run_dir)


@pytest.fixture
def parse(capfd: pytest.CaptureFixture[str]) -> Parse:
    """Run the script in this process, because importing torch again takes seconds."""

    def call(*argv: object) -> Result:
        main = runpy.run_path(str(SCRIPT))["main"]
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run(lambda: main([str(argument) for argument in argv]))
        assert isinstance(end.value.code, int)
        out, err = capfd.readouterr()
        return Result(end.value.code, out, re.sub(r"^checkpoint: .*\n", "", err, flags=re.MULTILINE))

    return call


def test_each_line_becomes_a_tree_over_its_words(
    parser: Path, parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["A dog is sleeping .", "", "Zoë ( 1 ) sleeps", "  ", "The  dogs , too ."]
    (tmp_path / "in.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    status, out, err = parse(parser, tmp_path / "in.txt", "--beam", 1)
    assert (status, err) == (0, "")
    trees = out.split("\n")
    assert (trees[1], trees[3], trees[5]) == ("", "", "")
    sentences = [" ".join(words(read_tree(trees[i]))) for i in (0, 2, 4)]
    assert sentences == ["A dog is sleeping .", "Zoë -LRB- 1 -RRB- sleeps", "The dogs , too ."]

    stdin = io.TextIOWrapper(io.BytesIO("".join(f"{line}\n" for line in lines).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert parse(parser, "--beam", 1).out == out


def test_evaluation_prints_f1_of_the_test_split_another_split_and_a_file(
    parser: Path, treebank: Path, parse: Parse
) -> None:
    ends = []
    for which in ([], ["--split", "test"], [treebank / "test.trees"]):
        status, out, err = parse(parser, "--evaluate", *which)
        assert (status, err) == (0, "")
        head, speed, *rest = out.splitlines()
        assert head.endswith(f" on {treebank / 'test.trees'}: 13 sentences, beam 2, alpha 0.3")
        assert re.search(r"malformed: \d+$", speed)
        assert re.fullmatch(r"F1 = \d+\.\d\d", rest[-1])
        ends.append([speed.partition(";")[2], *rest])
    assert ends[0] == ends[1] == ends[2]
    assert "(sentences skipped: 0)" in ends[0][2], "whatever the model writes, no sentence is lost"
    assert (
        ": 11 sentences, beam 3, alpha 0.7\n"
        in parse(parser, "--evaluate", "--split", "validation", "--beam", 3, "--alpha", 0.7).out
    )


def test_a_perfect_parser_scores_100_whatever_it_calls_the_punctuation(
    parser: Path, treebank: Path, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = [read_tree(line) for line in (treebank / "test.trees").read_text().splitlines()]
    known = {" ".join(words(tree)): linearise(tree).replace(" . ", " XX ") for tree in trees}
    monkeypatch.setattr(Translator, "translate", lambda _, texts: [known[text] for text in texts])
    out = parse(parser, "--evaluate").out
    assert "; malformed: 0\n" in out
    assert "complete match = 100.00 (sentences skipped: 0)\nprecision = 100.00, recall = 100.00\nF1 = 100.00\n" in out


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--split", "test"], "--split goes with --evaluate, and without FILE"),
        (["x.trees", "--evaluate", "--split", "test"], "--split goes with --evaluate, and without FILE"),
        (["--evaluate", "--beam", "0"], "search.beam=0 must be at least 1"),
        (["nowhere.txt"], "nowhere.txt: cannot be read: No such file or directory"),
        (["nowhere.trees", "--evaluate"], "nowhere.trees: cannot be read: No such file or directory"),
        (["--evaluate", "--split", "dev"], "no such file: "),
        ([str(SCRIPT), "--evaluate"], f"{SCRIPT}, line 1: not a bracketed tree: "),
    ],
)
def test_a_users_mistake_is_one_line(parser: Path, parse: Parse, argv: list[str], complaint: str) -> None:
    status, out, err = parse(parser, *argv)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert complaint in err


def test_a_file_without_trees_and_a_directory_without_a_run_are_refused(
    parser: Path, parse: Parse, tmp_path: Path
) -> None:
    (tmp_path / "empty.trees").touch()
    assert parse(parser, tmp_path / "empty.trees", "--evaluate").err == (
        f"error: {tmp_path / 'empty.trees'}: holds no trees\n"
    )
    assert parse(tmp_path / "none").err == f"error: {tmp_path / 'none'}: no such run or checkpoint directory\n"


@pytest.mark.parametrize("name", ["wsj", "semi"])
def test_the_papers_settings_are_those_of_section_6_3(name: str) -> None:
    config = load_config(CONFIGS / f"parsing_{name}.yaml")
    base = Config()
    assert (config.model.num_layers, config.model.d_model) == (4, 1024)
    assert config.data.vocab_size == {"wsj": 16_000, "semi": 32_000}[name]
    assert (config.search.beam, config.search.alpha, config.search.max_length_offset) == (21, 0.3, 300)
    assert config.model.dropout and config.model.attention_dropout
    same = ("model.num_heads", "model.d_ff", "model.norm", "model.tie", "train.label_smoothing", "train.adam_beta2")
    assert all(config.flat()[key] == base.flat()[key] for key in same)


def test_the_quickstart_reads_the_grammars_treebank() -> None:
    assert load_config(CONFIGS / "parsing_quickstart.yaml").data.corpus == "treebank"

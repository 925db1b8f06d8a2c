"""scripts/alignment.py: the error rates of each layer, by the grammar's alignments or those of files."""

from __future__ import annotations

import json
from pathlib import Path

import alignment
import pytest

from transformer.data.builtin import builtin_pairs
from transformer.data.builtin_alignment import alignment_error_rate, gold_alignment
from transformer.errors import ConfigError, DataError
from transformer.inference.alignment import STEPS, word_alignment
from transformer.inference.translator import Translator

PAIRS = list(builtin_pairs("test", 7))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options that name the pairs and their alignments."""
    gold = [gold_alignment(*pair) for pair in PAIRS]
    texts = {
        "src": [pair[0] for pair in PAIRS],
        "tgt": [pair[1] for pair in PAIRS],
        "gold": [" ".join(f"{i}{'-' if (i, j) in x.sure else '?'}{j}" for i, j in sorted(x.possible)) for x in gold],
    }
    for name, lines in texts.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [word for name in texts for word in (f"--{name}", str(tmp_path / name))]


def test_rates_are_those_of_the_grammar_and_of_files_alike(
    trained_run: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for options in (["--pairs", "7"], files):
        capsys.readouterr()
        assert alignment.main([str(trained_run), "--json", *options]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1]
    sides = [[pair[i] for pair in PAIRS] for i in (0, 1)]
    gold = [gold_alignment(*pair) for pair in PAIRS]
    translator = Translator.load(trained_run, precision="fp32")
    for step in STEPS:
        found = [word_alignment(translator, *sides, layer=layer, step=step) for layer in (1, 2)]
        assert reports[0]["aer"][step] == [alignment_error_rate(links, gold) for links in found]
    assert alignment.main([str(trained_run), *files]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header == "| layer | predicting | reading |"
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 2"]


def test_wrong_files_and_options_are_named(trained_run: Path, files: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^--src, --tgt and --gold belong together: give all three$"):
        alignment.main([str(trained_run), *files[:4]])
    with pytest.raises(ConfigError, match=r"^--pairs 0 must be at least 1$"):
        alignment.main([str(trained_run), "--pairs", "0"])
    gold = Path(files[-1])
    gold.write_text("0-0\n" * 6)
    with pytest.raises(DataError, match=r"gold has 6 lines, and .*src 7$"):
        alignment.main([str(trained_run), *files])
    gold.write_text("0-0 1:1\n")
    with pytest.raises(DataError, match=r"gold, line 1: '1:1' is no link such as 0-0 \(sure\) or 0\?1 \(possible\)$"):
        alignment.main([str(trained_run), *files])

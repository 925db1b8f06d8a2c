"""scripts/engines.py: a run beside its exports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import engines
import pytest
from interop_models import Make, Save

from transformer.errors import ConfigError


@pytest.mark.slow
def test_all_engines_translate_as_the_run_does(
    make: Make, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("transformers", "ctranslate2", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    run = save(make(search={"beam": 3, "alpha": 0.6}, norm_eps=1e-5))
    lines = ["A cat is sleeping.", "Two dogs run.", "Ich!", "A man and a woman are reading a book in the garden."]
    for name in ("src", "ref"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = ["--src", str(tmp_path / "src"), "--ref", str(tmp_path / "ref")]
    assert engines.main([str(run), *files, "--max-length", "13", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sentences"] == 4 and report["same_weights"]
    greedy = [row for row in report["searches"] if row["beam"] == 1]
    assert [(row["engine"], row["same"]) for row in greedy] == [("Hugging Face Marian", 4), ("CTranslate2", 4)]
    assert {(row["beam"], row["alpha"]) for row in report["searches"]} == {(1, 0.0), (3, 0.0), (3, 0.6)}
    assert all(difference < 1e-4 for difference in report["logits"].values()), report["logits"]


def test_the_table_has_a_row_for_each_engine_and_search() -> None:
    row = {"engine": "CTranslate2", "beam": 4, "alpha": 0.6, "same": 1234, "cut": 5, "bleu": 95.941, "our_bleu": 95.9}
    logits = {"ONNX Runtime": 1.23e-6}
    report = {"run": "mine", "sentences": 1500, "searches": [row], "same_weights": False, "logits": logits}
    *table, _, last = engines.markdown(report).splitlines()
    assert table[0].startswith("| mine, 1,500 sentences | ") and table[2:] == [
        "| CTranslate2 | 4 | 0.6 | 1,234 | 5 | 95.94 | 95.90 |"
    ]
    assert re.search(r"other bits\. Largest difference of a logit: ONNX Runtime 1\.2e-06\.$", last)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--src", "x"], "--src and --ref belong together: give both"),
        (["--sentences", "0"], "--sentences and --max-length must be at least 1"),
        (["--max-length", "0"], "--sentences and --max-length must be at least 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        engines.main(["x", *arguments])
